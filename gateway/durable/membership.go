package durable

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/wire"
)

// Member delivers the events of those partitions of a group that it is assigned
// and has acquired. Its methods are called by the manager, one at a time, and
// must not block nor call the manager back, except from a goroutine of their
// own.
type Member interface {
	// Assigned gives the group as it is now: whose each partition is to be, its
	// definition, whether dead letters wait to be delivered again. Called first
	// soon after Join, and at each change.
	Assigned(s State)
	// Ended: the membership is over, as Holder.Ended.
	Ended(code wire.CloseCode, reason string)
	// Suspended: the node lost its broker, as Holder.Suspended.
	Suspended()
}

// Membership is a consumer's place in a group. Its methods may be called by any
// goroutine.
type Membership struct {
	// Group stands for what is the group's own and no partition's: its dead
	// letters, what is told of it. It has no position.
	Group *Ownership

	k        *Manager
	name     string
	division uint64
	owner    Owner
	member   Member
	joined   time.Time // a callback has YieldTime from then on
}

// Join makes a client a member of a group. ErrNoGroup if the subscription is
// not shared, ErrFull, ErrSuspended, broker errors. A callback that has the
// group gives its partitions up within YieldTime.
func (k *Manager) Join(ctx context.Context, name string, c Claim, member Member) (*Membership, error) {
	_, node, err := k.env(ctx)
	if err != nil {
		return nil, err
	}
	o := Owner{Node: node, Connection: c.Connection, Consumer: c.Consumer, Kind: c.Kind, Transport: c.Transport}
	type joined struct {
		s   State
		err error
	}
	answer := make(chan joined, 1)
	k.mu.Lock()
	k.groupLocked(name).joining++ // known before it is stored
	k.mu.Unlock()
	k.regroup(name, groupOp{
		node: node,
		rule: func(s State, env Env) (Change, error) {
			if err := ctx.Err(); err != nil {
				return Change{}, err
			}
			if s.Version == 0 {
				return Change{}, broker.ErrNotFound
			}
			return Join(s, o, env)
		},
		done: func(s State, err error) { answer <- joined{s, err} },
	})
	j := <-answer
	if j.err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		g := k.groupLocked(name)
		g.joining--
		k.tidyLocked(name, g)
		return nil, j.err
	}
	m := &Membership{
		k: k, name: name, division: j.s.Division, owner: o, member: member, joined: time.Now(),
		Group: &Ownership{Name: name, Generation: j.s.Generation, State: j.s, k: k, node: node},
	}
	k.mu.Lock()
	g := k.groupLocked(name)
	g.joining--
	if k.node != node {
		k.tidyLocked(name, g)
		k.mu.Unlock()
		return nil, ErrSuspended
	}
	g.members = append(g.members, m)
	k.mu.Unlock()
	if ctx.Err() != nil {
		m.Leave()
		return nil, ctx.Err()
	}
	k.o.Publish("attached", name, map[string]string{"consumer": c.Consumer, "transport": c.Transport, "connection": c.Connection})
	k.readGroup(name)
	return m, nil
}

// Leave ends the membership. Its partitions are released by themselves.
func (m *Membership) Leave() {
	if !m.drop() {
		return
	}
	k := m.k
	k.regroup(m.name, groupOp{
		node: m.owner.Node, again: true,
		rule: func(s State, env Env) (Change, error) {
			return Leave(s, func(o Owner) bool { return o.Connection == m.owner.Connection && o.Node == m.owner.Node }, env)
		},
		done: func(_ State, err error) {
			if err == nil {
				k.o.Publish("detached", m.name, map[string]string{"consumer": m.owner.Consumer})
			}
		},
	})
}

// drop forgets the membership and tells whether it was there.
func (m *Membership) drop() bool {
	k := m.k
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[m.name]
	if g == nil {
		return false
	}
	i := slices.Index(g.members, m)
	if i < 0 {
		return false
	}
	m.Group.gone = true
	g.members = slices.Delete(g.members, i, i+1)
	k.tidyLocked(m.name, g)
	return true
}

func (m *Membership) end(code wire.CloseCode, reason string) {
	if m.drop() {
		m.member.Ended(code, reason)
	}
}

// Acquire makes the member the owner of a partition that it is assigned. ErrHeld
// while somebody else has yet to release it: see Manager.Await. Any other error
// means that it is not to be had; Check finds out why.
func (m *Membership) Acquire(ctx context.Context, p int, holder Holder) (*Ownership, error) {
	h, err := m.k.acquirePart(ctx, m.name, m.division, m.owner, p, holder, time.Since(m.joined) >= YieldTime)
	if errors.Is(err, ErrYield) {
		err = ErrHeld // it was asked when this one joined
	}
	return h, err
}

// acquirePart makes o the owner of a partition. force: a callback had its time.
func (k *Manager) acquirePart(ctx context.Context, group string, division uint64, o Owner, p int, holder Holder, force bool) (*Ownership, error) {
	name := PartitionName(group, p)
	for {
		env, node, err := k.env(ctx)
		if err != nil {
			return nil, err
		}
		if node != o.Node {
			return nil, ErrSuspended
		}
		s, err := k.Load(ctx, name)
		if errors.Is(err, broker.ErrNotFound) || err == nil && s.Division != division {
			return nil, errors.Join(ErrNoGroup, k.mend(ctx, group, division))
		}
		if err != nil {
			return nil, err
		}
		if s.Owner != nil {
			k.refresh(ctx, s.Owner.Node)
		}
		change, err := Acquire(s, o, force, env)
		if err != nil {
			return nil, err
		}
		h, err := k.take(ctx, s, change, holder, node)
		if !errors.Is(err, broker.ErrConflict) {
			return h, err
		}
	}
}

// mend sees to a group of which a partition is not of its division, unless the
// group is divided in another way by now.
func (k *Manager) mend(ctx context.Context, group string, division uint64) error {
	err := k.Change(ctx, group, func(s State, _ bool, env Env) (Change, error) { return Mend(s, division, env) })
	if err == nil {
		k.o.Logger.Warn("the broker forgot how a group was divided: it is divided anew", "subscription", group)
	}
	if errors.Is(err, ErrNotDue) {
		return nil
	}
	return err
}

// Pursue acquires what the member is assigned and lacks, however long others
// take to release it: missing says what that is, acquire acquires one of it. It
// returns nil once nothing is missing, or the error of an acquire that waiting
// won't cure. wake says that something else may be missing now.
func (m *Membership) Pursue(ctx context.Context, wake <-chan struct{}, missing func() []int, acquire func(p int) error) error {
	for {
		list := missing()
		if len(list) == 0 {
			return nil
		}
		names := make([]string, len(list))
		for i, p := range list {
			names[i] = PartitionName(m.name, p)
		}
		freed, stop := m.k.Watch(names...)
		held := false
		for _, p := range list {
			err := acquire(p)
			switch e := wire.From(err); {
			case err == nil:
			case ctx.Err() != nil:
				stop()
				return nil
			case errors.Is(err, ErrHeld):
				held = true
			case errors.Is(err, ErrNoGroup), errors.Is(err, broker.ErrNotFound), errors.Is(err, broker.ErrFenced),
				e.Code == wire.CodeUnavailable, e.Code == wire.CodeRateLimited, e.Code == wire.CodeInternal:
				held = true
				m.Check()
			default:
				stop()
				return err
			}
		}
		if held {
			timer := time.NewTimer(time.Second + rand.N(time.Second)) // whoever freed it may not be heard
			select {
			case <-freed:
			case <-wake:
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
		stop()
	}
}

// Check has the group read again, and Assigned or Ended called.
func (m *Membership) Check() { m.k.readGroup(m.name) }
