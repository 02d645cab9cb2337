package durable

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/wire"
)

// groupOp is a change of a group's members that waits to be stored.
type groupOp struct {
	node string // the incarnation that asks
	rule func(s State, env Env) (Change, error)
	done func(s State, err error) // called once
	// again: it is tried again until it is stored or the incarnation is over.
	again bool
}

// groupState is what this node does about a group. Guarded by k.mu.
type groupState struct {
	members []*Membership
	joining int // joins that are asked for and not among members yet
	ops     []groupOp
	storing bool // a goroutine stores ops
	reading bool // a goroutine reads the group
	stale   bool // and is to read it again
	remind  bool // and to have the other members' nodes do so
}

func (k *Manager) groupLocked(name string) *groupState {
	g := k.groups[name]
	if g == nil {
		g = &groupState{}
		k.groups[name] = g
	}
	return g
}

func (k *Manager) tidyLocked(name string, g *groupState) {
	if len(g.members) == 0 && g.joining == 0 && len(g.ops) == 0 && !g.storing && !g.reading && k.groups[name] == g {
		delete(k.groups, name)
	}
}

// regroup has a change of a group's members stored, together with others that
// come meanwhile: however many join here at once, it takes a few stores.
func (k *Manager) regroup(name string, op groupOp) {
	k.mu.Lock()
	g := k.groupLocked(name)
	g.ops = append(g.ops, op)
	begin := !g.storing
	g.storing = true
	k.mu.Unlock()
	if begin {
		k.running.Go(func() { k.storeGroup(name, g) })
	}
}

// storeGroup stores what is asked for of a group's members, as long as there
// is something.
func (k *Manager) storeGroup(name string, g *groupState) {
	for wait := 50 * time.Millisecond; ; {
		k.mu.Lock()
		ops := g.ops
		g.ops = nil
		node := k.node
		if len(ops) == 0 {
			g.storing = false
			k.tidyLocked(name, g)
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
		errs := make([]error, len(ops))
		var state State
		err := errPanicked
		k.o.Guard.Do("group", func() { state, err = k.changeGroup(name, node, ops, errs) })
		var again []groupOp
		for i, op := range ops {
			switch e := errors.Join(errs[i], err); {
			case e == nil:
				op.done(state, nil)
			case op.again && op.node == node && errs[i] == nil && k.life.Err() == nil:
				again = append(again, op)
			case errs[i] != nil:
				op.done(state, errs[i])
			default:
				op.done(state, err)
			}
		}
		if len(again) == 0 {
			continue
		}
		select {
		case <-k.life.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 2*time.Second)
		k.mu.Lock()
		g.ops = append(again, g.ops...)
		k.mu.Unlock()
	}
}

// changeGroup stores ops in one change. errs are the answers of single ones.
func (k *Manager) changeGroup(name, node string, ops []groupOp, errs []error) (after State, err error) {
	ctx, cancel := context.WithTimeout(k.life, k.o.TTL)
	defer cancel()
	for settled, again := uint64(0), true; again && err == nil; {
		err = k.Change(ctx, name, func(s State, force bool, env Env) (Change, error) {
			again = false
			for _, m := range s.Members {
				k.refresh(ctx, m.Node)
			}
			var all Change
			after, all = s, s.change()
			changed := false
			for i, op := range ops {
				if errs[i] = nil; op.node != node {
					errs[i] = ErrSuspended
					continue
				}
				c, err := op.rule(after, env)
				if errs[i] = err; err != nil {
					continue
				}
				if c.Tell.Op == "" {
					c.Tell, c.To = all.Tell, all.To
				}
				all, changed = c, true
				after.Record, after.Generation = c.Record, c.Generation
			}
			switch {
			case !changed:
				return Change{}, ErrNotDue
			case after.Division == s.Division:
				return all, nil
			case s.Generation != settled: // nor any other than this one stored
				c, err := Settle(s, force, env)
				settled, again = c.Generation, err == nil
				return c, err
			}
			return all, k.divide(ctx, s, env)
		})
	}
	if errors.Is(err, ErrNotDue) {
		err = nil // each has its own answer
	}
	return after, err
}

// divide makes the partitions of a group that is about to be divided.
func (k *Manager) divide(ctx context.Context, group State, env Env) error {
	var some errgroup.Group
	some.SetLimit(16)
	for p := range group.Definition.Group.Partitions {
		name := PartitionName(group.Name, p)
		some.Go(func() (err error) {
			defer k.o.Guard.Contain("group", func() { err = errPanicked })
			for {
				s, err := k.Load(ctx, name)
				if errors.Is(err, broker.ErrNotFound) {
					s, err = State{Name: name}, nil
				}
				if err != nil {
					return err
				}
				c, done := Part(group, s, env)
				if done {
					return nil
				}
				if err := k.Store(ctx, s, c); !errors.Is(err, broker.ErrConflict) {
					return err
				}
			}
		})
	}
	return some.Wait()
}

// readGroup reads a group and tells its members here. Reads of one group don't
// overtake each other.
func (k *Manager) readGroup(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[name]
	if g == nil || len(g.members) == 0 {
		return
	}
	if g.stale = true; g.reading {
		return
	}
	g.reading = true
	k.running.Go(func() {
		for {
			k.mu.Lock()
			if !g.stale {
				g.reading = false
				k.tidyLocked(name, g)
				k.mu.Unlock()
				return
			}
			remind := g.remind
			g.stale, g.remind = false, false
			members := slices.Clone(g.members)
			k.mu.Unlock()
			k.o.Guard.Do("group", func() { k.tellMembers(name, members, remind) })
		}
	})
}

func (k *Manager) tellMembers(name string, members []*Membership, remind bool) {
	ctx, cancel := context.WithTimeout(k.life, k.o.TTL/2)
	defer cancel()
	s, err := k.Load(ctx, name)
	if err != nil && !errors.Is(err, broker.ErrNotFound) {
		k.o.Logger.Debug("read a group", "subscription", name, "error", err)
		return // a look finds out later
	}
	gone, lost := false, false
	for _, m := range s.Members {
		k.refresh(ctx, m.Node)
		gone = gone || !k.alive(m.Node)
		lost = lost || m.Node == k.Node() && !k.hasMember(name, m.Connection)
	}
	for _, m := range members {
		switch {
		case err != nil:
			m.end(wire.CloseNotFound, "the subscription was deleted")
		case s.Division != m.division || s.Generation != m.Group.Generation:
			m.end(wire.CloseRestart, "the subscription was changed or its position moved")
		case s.Has(m.owner.Connection):
			m.member.Assigned(s)
		case slices.ContainsFunc(s.Members, func(o Owner) bool { return o.Consumer == m.owner.Consumer }):
			m.end(wire.CloseTakenOver, "another connection of this consumer attached")
		default:
			m.end(wire.CloseRestart, "the node was taken for dead")
		}
	}
	if remind {
		k.remindOthers(ctx, s)
	}
	if lost {
		k.running.Go(func() { k.o.Guard.Do("group", func() { k.lookAt(name) }) })
	}
	if gone {
		k.regroup(name, groupOp{
			node: k.Node(), done: func(State, error) {},
			rule: func(s State, env Env) (Change, error) { return Died(s, env) },
		})
	}
}

// dropLost takes off the members that the broker has in this node's name and
// that are not here: it forgot that they left.
func (k *Manager) dropLost(ctx context.Context, name string) error {
	node := k.Node()
	err := k.Change(ctx, name, func(s State, _ bool, env Env) (Change, error) {
		return Leave(s, func(o Owner) bool { return o.Node == node && !k.hasMember(name, o.Connection) }, env)
	})
	if errors.Is(err, ErrNotDue) {
		return nil
	}
	return err
}

func (k *Manager) hasMember(name, connection string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[name]
	return g != nil && (g.joining > 0 || slices.ContainsFunc(g.members, func(m *Membership) bool { return m.owner.Connection == connection }))
}

// lookAt sees to members that are lost, after a message about a group that has
// none here.
func (k *Manager) lookAt(name string) {
	ctx, cancel := context.WithTimeout(k.life, k.o.TTL/2)
	defer cancel()
	if err := k.dropLost(ctx, name); err != nil && !errors.Is(err, broker.ErrNotFound) {
		k.o.Logger.Debug("take lost members off a group", "subscription", name, "error", err)
	}
}

// readGroups reads all groups that have members here, or those of one of so
// many parts, and has the other members' nodes do so: messages may be lost.
func (k *Manager) readGroups(part, parts uint64) {
	k.mu.Lock()
	var names []string
	for name, g := range k.groups {
		if k.hash(name)%parts == part {
			g.remind = true
			names = append(names, name)
		}
	}
	k.mu.Unlock()
	for _, name := range names {
		k.readGroup(name)
	}
}

// remindOthers has the nodes of a group's members look at it.
func (k *Manager) remindOthers(ctx context.Context, s State) {
	own := k.Node()
	for _, node := range s.nodes() {
		if node != own {
			k.send(ctx, node, Message{Op: OpChanged, Name: s.Name})
		}
	}
}

// suspendGroupsLocked takes all memberships and returns them.
func (k *Manager) suspendGroupsLocked() (all []*Membership) {
	for name, g := range k.groups {
		for _, m := range g.members {
			m.Group.gone = true
			all = append(all, m)
		}
		g.members = nil
		k.tidyLocked(name, g)
	}
	return all
}

// rests tells whether no partition of a group has an owner, or something to tell
// the next one.
func (k *Manager) rests(ctx context.Context, group State) bool {
	for p := range group.Parts {
		s, err := k.Load(ctx, PartitionName(group.Name, p))
		if err != nil || !s.rests() {
			return false
		}
	}
	return true
}
