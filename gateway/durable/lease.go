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

// errPanicked: a mistake in this gateway ended the call, not the node.
var errPanicked = errors.New("the call panicked")

// Run keeps the node's lease and commits what was acknowledged, until ctx
// ends; then it releases what the node owns, within a few seconds, and leaves.
func (k *Manager) Run(ctx context.Context) {
	defer k.endLife()
	k.running.Go(func() { k.commit(k.life) })
	for ctx.Err() == nil {
		k.incarnation(ctx)
	}
	k.endLife()
	k.running.Wait()
}

// incarnation joins, keeps the lease, and returns once it is lost or ctx ends.
func (k *Manager) incarnation(ctx context.Context) {
	n := broker.Node{ID: newNodeID(), Name: k.o.Node, Started: time.Now().UTC()}
	stop, sent := k.join(ctx, n)
	if stop == nil {
		return
	}
	defer stop()
	k.o.Publish("node.joined", "", map[string]string{"node": n.Name, "incarnation": n.ID})
	lost := k.keep(ctx, n.ID, sent)
	if lost {
		k.o.Logger.Warn("the node lost its lease: durable sessions are suspended", "node", n.Name)
		k.suspend()
		return
	}
	k.bow(n)
}

// join joins as often as it takes. It returns when the last try was sent.
func (k *Manager) join(ctx context.Context, n broker.Node) (stop func(), sent time.Time) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		sent = time.Now()
		err := k.within(ctx, func(ctx context.Context) error { return k.o.Broker.Join(ctx, n, k.o.TTL) })
		if err == nil {
			if stop, err = k.o.Broker.Listen(ctx, n.ID, k.listen); err == nil {
				break
			}
		}
		k.o.Logger.Debug("join the nodes", "error", err)
		select {
		case <-ctx.Done():
			return nil, sent
		case <-time.After(wait):
		}
	}
	k.mu.Lock()
	k.node = n.ID
	close(k.ready)
	k.mu.Unlock()
	return stop, sent
}

// keep renews the lease. It returns true when the lease may be lost: two
// thirds of its time have passed since the sending of the last renewal that
// succeeded, on the monotonic clock, or the broker says so.
func (k *Manager) keep(ctx context.Context, id string, sent time.Time) (lost bool) {
	tick := time.NewTicker(k.o.TTL / 4)
	defer tick.Stop()
	fence := time.NewTimer(time.Until(sent.Add(k.o.TTL * 2 / 3)))
	defer fence.Stop()
	type renewal struct {
		sent time.Time
		err  error
	}
	renewed := make(chan renewal, 1)
	pending := false
	renew := func() {
		pending = true
		k.running.Go(func() {
			r := renewal{sent: time.Now(), err: errPanicked}
			defer func() { renewed <- r }()
			defer k.o.Guard.Contain("renew", nil)
			r.err = k.within(ctx, func(ctx context.Context) error { return k.o.Broker.Renew(ctx, id, k.o.TTL) })
		})
	}
	renew()
	for {
		select {
		case <-ctx.Done():
			if pending {
				<-renewed
			}
			return false
		case <-fence.C:
			return true // a renewal under way doesn't count any more
		case r := <-renewed:
			pending = false
			switch {
			case errors.Is(r.err, broker.ErrNotFound):
				return true
			case r.err != nil:
				k.o.Logger.Debug("renew the node's lease", "error", r.err)
				continue
			}
			fence.Reset(time.Until(r.sent.Add(k.o.TTL * 2 / 3)))
			k.running.Go(func() { k.o.Guard.Do("look", func() { k.look(ctx) }) })
		case <-tick.C:
			if !pending {
				renew()
			}
		}
	}
}

// within bounds a call to the broker, so that a hanging one is noticed.
func (k *Manager) within(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, k.o.TTL/4)
	defer cancel()
	return call(ctx)
}

// suspend takes everything from everybody: this incarnation is over.
func (k *Manager) suspend() {
	k.mu.Lock()
	held, members := k.ownerships, k.suspendGroupsLocked()
	k.ownerships = make(map[string]*Ownership)
	k.node, k.ready = "", make(chan struct{})
	k.dirty, k.open, k.leaving = nil, 0, nil
	// Live clients come first after an outage: whoever lost its connection
	// gets the time to come back before any callback starts.
	k.quiet = time.Now().Add(k.o.TTL + 10*time.Second)
	for _, h := range held {
		h.gone = true
	}
	k.mu.Unlock()
	for _, h := range held {
		k.o.Guard.Do("suspend", h.holder.Suspended)
	}
	for _, m := range members {
		k.o.Guard.Do("suspend", m.member.Suspended)
	}
}

// Quiet tells whether nothing may be claimed for a callback yet.
func (k *Manager) Quiet() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.node == "" || time.Now().Before(k.quiet)
}

// look compares what this node owns with the broker's mind, and sees to what
// dead nodes owned.
func (k *Manager) look(ctx context.Context) {
	if !k.looking.CompareAndSwap(false, true) {
		return // the one before is still busy, with a dead node's many
	}
	defer k.looking.Store(false)
	k.lookAfterOwn(ctx)
	k.lookForLost(ctx)
	nodes, err := k.o.Broker.Nodes(ctx)
	if err != nil {
		return
	}
	k.mu.Lock()
	k.learnLocked(nodes)
	k.mu.Unlock()
	if slices.ContainsFunc(nodes, func(n broker.Node) bool { return !n.Alive }) {
		k.readGroups(0, 1) // some may have members there
	}
	for _, n := range nodes {
		if !n.Alive && k.giveUp(ctx, n) {
			k.o.Publish("node.left", "", map[string]string{"node": n.Name, "incarnation": n.ID})
		}
	}
}

// lookParts is in how many renewals all that the node owns is looked at: it
// finds what a lost message should have told.
const lookParts = 4

func (k *Manager) lookAfterOwn(ctx context.Context) {
	const page = 500
	k.mu.Lock()
	k.looks++
	looks := k.looks
	all := make([]*Ownership, 0, len(k.ownerships)/lookParts+1)
	for _, h := range k.ownerships {
		if h.stored && h.Generation%lookParts == k.looks%lookParts {
			all = append(all, h)
		}
	}
	k.mu.Unlock()
	k.readGroups(looks%lookParts, lookParts)
	for len(all) > 0 {
		some := all[:min(page, len(all))]
		all = all[len(some):]
		names := make([]string, len(some))
		for i, h := range some {
			names[i] = h.Name
		}
		progresses, err := k.o.Broker.Look(ctx, names)
		if err != nil || len(progresses) != len(some) {
			return
		}
		for i, h := range some {
			switch at := progresses[i]; {
			case at.Generation == 0:
				h.deleted()
			case at.Generation != h.Generation:
				h.reload()
			default:
				h.holder.Acked(at.Position)
			}
		}
	}
}

// lookForLost gives up what the broker has in this node's name and nobody here
// serves: where it forgot that it was released. It looks at a page in as many
// renewals as all that the node owns is looked at.
func (k *Manager) lookForLost(ctx context.Context) {
	const page = 2000
	k.mu.Lock()
	node, after, turn := k.node, k.lostAfter, k.looks%lookParts == 0
	k.mu.Unlock()
	if node == "" || !turn {
		return
	}
	names, err := k.o.Broker.Owned(ctx, node, after, page)
	if err != nil {
		return
	}
	k.mu.Lock()
	if k.lostAfter = ""; len(names) == page {
		k.lostAfter = names[page-1]
	}
	k.mu.Unlock()
	served := func(name string) bool { // from before it is stored until after it is released
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.ownerships[name] != nil
	}
	for _, name := range names {
		if served(name) {
			continue
		}
		err := k.Change(ctx, name, func(s State, _ bool, env Env) (Change, error) {
			if len(s.Members) > 0 {
				return Leave(s, func(o Owner) bool { return o.Node == node && !k.hasMember(name, o.Connection) }, env)
			}
			if served(name) || s.Version == 0 || s.Owner == nil || s.Owner.Node != node {
				return Change{}, ErrNotDue
			}
			env.Alive = func(string) bool { return false }
			return Died(s, env)
		})
		if err != nil && !errors.Is(err, ErrNotDue) {
			return
		}
	}
}

// giveUp gives up what a dead node owned and forgets it. It tells whether it
// was this node that did.
func (k *Manager) giveUp(ctx context.Context, n broker.Node) bool {
	for after := ""; ; {
		names, err := k.o.Broker.Owned(ctx, n.ID, after, 100)
		if err != nil {
			return false
		}
		var some errgroup.Group
		some.SetLimit(16)
		for _, name := range names {
			after = name
			some.Go(func() (err error) {
				defer k.o.Guard.Contain("giveUp", func() { err = errPanicked })
				err = k.Change(ctx, name, func(s State, _ bool, env Env) (Change, error) {
					if s.Version == 0 || !s.on(n.ID) {
						return Change{}, ErrNotDue
					}
					return Died(s, env)
				})
				if errors.Is(err, ErrNotDue) {
					return nil
				}
				return err
			})
		}
		if some.Wait() != nil {
			return false
		}
		if len(names) == 0 {
			break
		}
	}
	return k.o.Broker.Leave(ctx, n.ID) == nil
}

// commit flushes acks and stores releases until ctx ends.
func (k *Manager) commit(ctx context.Context) {
	tick := time.NewTicker(commitWait)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-k.flushNow:
		}
		k.o.Guard.Do("settle", func() { k.settle(ctx) })
	}
}

// settle commits what was acknowledged, then what was given up.
func (k *Manager) settle(ctx context.Context) {
	k.mu.Lock()
	busy := len(k.dirty) > 0 || len(k.leaving) > 0
	leaving := k.leaving
	k.leaving = nil
	k.mu.Unlock()
	if !busy {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, k.o.TTL/2)
	defer cancel()
	k.flush(ctx)
	var some errgroup.Group
	some.SetLimit(16)
	for _, d := range leaving {
		if k.owes(d.h) || k.holdsParts(d.h) {
			k.postpone(d) // what was acknowledged is committed first, or it came again unannounced
			continue
		}
		some.Go(func() error {
			err := errPanicked
			k.o.Guard.Do("settle", func() { err = k.store(ctx, d) })
			if err != nil && !errors.Is(err, broker.ErrFenced) {
				k.o.Logger.Debug("release a subscription", "subscription", d.h.Name, "error", err)
				k.postpone(d)
			}
			return nil
		})
	}
	some.Wait()
}

// owes tells whether acks of an ownership are still to be committed.
func (k *Manager) owes(h *Ownership) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(h.next) > 0
}

// postpone leaves a release to the next time, unless this incarnation is over,
// and with it what it owned.
func (k *Manager) postpone(d releaseRequest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.node == d.h.node {
		k.leaving = append(k.leaving, d)
	}
}

// queueRelease has a release stored soon.
func (k *Manager) queueRelease(d releaseRequest) {
	k.postpone(d)
	k.hurry()
}

// store stores a release.
func (k *Manager) store(ctx context.Context, d releaseRequest) error {
	err := k.Change(ctx, d.h.Name, func(s State, _ bool, env Env) (Change, error) {
		if d.how != nil {
			return d.how(s, env)
		}
		c, err := Release(s, d.h.right(), d.handed, d.doubt, d.after, env)
		c.reached(d.reached, s.Position)
		return c, err
	})
	if err == nil || errors.Is(err, broker.ErrFenced) {
		if d.h.drop(); err == nil && d.h.State.Owner.Kind != Call && !d.quiet && !broker.IsPartition(d.h.Name) {
			k.o.Publish("detached", d.h.Name, map[string]string{"consumer": d.h.State.Owner.Consumer})
		}
		k.freed(d.h.Name)
		if d.h.State.Replay != nil {
			k.replayMoved(d.h.Name)
		}
	}
	return err
}

// bow releases what is left and leaves the nodes.
func (k *Manager) bow(n broker.Node) {
	ctx, cancel := context.WithTimeout(context.Background(), k.o.TTL/2)
	defer cancel()
	k.mu.Lock()
	var rest []*Ownership
	for _, h := range k.ownerships {
		rest = append(rest, h)
	}
	k.mu.Unlock()
	k.settle(ctx)
	for _, h := range rest {
		h.end(wire.CloseGoingAway, "the node is shutting down")
	}
	k.giveUpOwn(ctx, n)
	k.mu.Lock()
	k.node, k.ready = "", make(chan struct{})
	k.mu.Unlock()
	if err := k.o.Broker.Leave(ctx, n.ID); err != nil {
		k.o.Logger.Debug("leave the nodes", "error", err)
	}
	k.o.Publish("node.left", "", map[string]string{"node": n.Name, "incarnation": n.ID})
}

// giveUpOwn releases whatever the broker still has in this node's name.
func (k *Manager) giveUpOwn(ctx context.Context, n broker.Node) {
	for after := ""; ; {
		names, err := k.o.Broker.Owned(ctx, n.ID, after, 100)
		if err != nil || len(names) == 0 {
			return
		}
		for _, name := range names {
			after = name
			err := k.Change(ctx, name, func(s State, _ bool, env Env) (Change, error) {
				if s.Version == 0 || !s.on(n.ID) {
					return Change{}, ErrNotDue
				}
				env.Alive = func(node string) bool { return node != n.ID }
				return Died(s, env)
			})
			if err != nil && !errors.Is(err, ErrNotDue) {
				return
			}
		}
	}
}
