package simulation

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// ttl is how long a node's lease lasts.
const ttl = 10 * time.Second

// node is a gateway: what a Manager does, with the real rules.
type node struct {
	s           *sim
	number, inc int
	up, cut     bool
	id          string // "" while it has no lease
	renewed     time.Duration
	quiet       time.Duration
	known       map[string]bool
	held        map[string]*holding
	members     []*member
	joining     int
}

// holding is the ownership of a subscription or partition on a node.
type holding struct {
	n      *node
	name   string
	gen    uint64
	owner  durable.Owner
	pos    event.Position // acknowledged when it began
	handed event.Position
	doubt  bool
	reach  int
	lane   *lane
	next   *event.Cursor // to be committed
	gone   bool
	left   bool
}

// later does something on a node unless this incarnation of it has ended by then.
func (n *node) later(d time.Duration, f func()) {
	id := n.id
	n.s.after(d, func() {
		if n.id == id && n.up {
			f()
		}
	})
}

// ask has the broker do something. It may do it and its answer be lost.
func (n *node) ask(f func() error, done func(error)) {
	s := n.s
	n.later(s.time(0, 20), func() {
		if n.cut {
			if s.below(10) == 0 {
				_ = f()
			}
			n.later(2500*time.Millisecond, func() { done(broker.ErrUnavailable) })
			return
		}
		err := f()
		if s.below(200) == 0 && s.trouble {
			err = broker.ErrUnavailable
		}
		n.later(s.time(0, 20), func() { done(err) })
	})
}

func (n *node) env() durable.Env {
	return durable.Env{Now: n.s.clock(), Next: n.s.generation, Alive: func(id string) bool {
		if _, known := n.known[id]; !known {
			n.known[id] = n.s.b.alive(id)
		}
		return id == n.id || n.known[id]
	}}
}

type rule func(s durable.State, force bool, env durable.Env) (durable.Change, error)

// change loads, asks a rule and stores, as often as it takes. stored is called as
// it is stored, done once it is known.
func (n *node) change(name string, r rule, stored func(durable.State, durable.Change), done func(error)) {
	n.changeBy(name, r, -1, stored, done)
}

func (n *node) changeBy(name string, r rule, deadline time.Duration, stored func(durable.State, durable.Change), done func(error)) {
	var s durable.State
	var c durable.Change
	n.ask(func() (err error) {
		s, err = n.s.b.load(name)
		return err
	}, func(err error) {
		if errors.Is(err, broker.ErrConflict) {
			n.changeBy(name, r, deadline, stored, done)
			return
		}
		if err == nil {
			c, err = r(s, deadline >= 0 && n.s.now > deadline, n.env())
		}
		if errors.Is(err, durable.ErrYield) {
			if deadline < 0 {
				deadline = n.s.now + durable.YieldTime
				n.send(s.Owner.Node, durable.Message{Op: durable.OpYield, Name: name, Generation: s.Generation})
			}
			n.later(100*time.Millisecond, func() { n.changeBy(name, r, deadline, stored, done) })
			return
		}
		if err != nil {
			done(err)
			return
		}
		n.store(s, c, stored, func(err error) {
			if errors.Is(err, broker.ErrConflict) {
				n.changeBy(name, r, deadline, stored, done)
				return
			}
			done(err)
		})
	})
}

func (n *node) store(s durable.State, c durable.Change, stored func(durable.State, durable.Change), done func(error)) {
	n.ask(func() error {
		err := n.s.b.store(s, c)
		if err == nil && stored != nil {
			stored(s, c)
		}
		return err
	}, func(err error) {
		if err == nil {
			if c.Tell.Op != "" {
				c.Tell.Name, c.Tell.Generation = s.Name, s.Generation
				n.send(c.To, c.Tell)
			}
			for _, m := range slices.Concat(s.Members, c.Record.Members) {
				n.send(m.Node, durable.Message{Op: durable.OpChanged, Name: s.Name})
			}
		}
		done(err)
	})
}

// send sends a message, which may be lost or come late, after later ones.
func (n *node) send(to string, m durable.Message) {
	if n.cut || n.s.trouble && n.s.below(12) == 0 {
		return
	}
	late := n.s.time(1, 60)
	if n.s.below(8) == 0 {
		late = n.s.time(100, 3000)
	}
	n.s.after(late, func() {
		for _, other := range n.s.nodes {
			if other.id == to && other.up && !other.cut {
				other.heard(m)
			}
		}
	})
}

func (n *node) heard(m durable.Message) {
	if m.Op == durable.OpChanged {
		n.readGroup(m.Name)
	}
	h := n.held[m.Name]
	if h == nil || h.gen != m.Generation {
		return
	}
	switch m.Op {
	case durable.OpEnd:
		h.end()
	case durable.OpYield:
		h.lane.leave(0)
	}
}

// take makes this node the owner by a change, for a lane.
func (n *node) take(s durable.State, c durable.Change, l *lane, stored func(), done func(error)) {
	h := &holding{n: n, name: s.Name, gen: c.Generation, owner: *c.Record.Owner, doubt: s.Doubt(), pos: slices.Clone(s.Position), lane: l, reach: 2 * window}
	if s.Scattered {
		h.reach = 1 << 20
	}
	if p, err := event.ParsePosition(s.DeliveredUpTo); err == nil {
		h.handed = p
	}
	before := n.held[s.Name]
	n.held[s.Name] = h
	n.store(s, c, func(durable.State, durable.Change) { stored() }, func(err error) {
		if err != nil {
			if n.held[s.Name] == h {
				if delete(n.held, s.Name); before != nil && !before.gone {
					n.held[s.Name] = before
				}
			}
			if !errors.Is(err, broker.ErrConflict) {
				n.release(h, func(now durable.State, _ bool, env durable.Env) (durable.Change, error) {
					return durable.Withdraw(now, h.right(), s.Version, h.handedBeyond(nil), h.doubt, env)
				})
			}
			done(err)
			return
		}
		if before != nil && !before.gone {
			before.end()
			if before.gen == s.Generation && s.Owner != nil {
				h.doubt, h.handed = before.doubt, before.handedBeyond(before.lane.delivered())
			}
		}
		l.begin(h)
		done(nil)
	})
}

func (h *holding) right() durable.Right {
	return durable.Right{Generation: h.gen, Node: h.owner.Node, Connection: h.owner.Connection}
}

// end tells the lane that the ownership is somebody else's.
func (h *holding) end() {
	if h.drop() {
		h.lane.ended = true
	}
}

func (h *holding) drop() bool {
	if h.gone {
		return false
	}
	h.gone, h.next = true, nil
	if h.n.held[h.name] == h {
		delete(h.n.held, h.name)
	}
	return true
}

// handedBeyond is what the next owner is told: what this one delivered, and what it
// was told itself.
func (h *holding) handedBeyond(delivered event.Position) event.Position {
	all := slices.Clone(delivered)
	for _, c := range h.handed {
		if d, ok := delivered.Of(c.Channel); ok && (d.Epoch != c.Epoch || d.Offset >= c.Offset) {
			continue
		}
		if at, ok := h.pos.Of(c.Channel); !ok || at.Epoch != c.Epoch || at.Offset < c.Offset {
			all = event.Position{c}
		}
	}
	return all
}

// release has a right given up, as often as it takes, once what was acknowledged
// is committed.
func (n *node) release(h *holding, r rule) {
	if h.left {
		return
	}
	h.left = true
	var try func()
	try = func() {
		if h.next != nil && !h.gone || slices.ContainsFunc(h.lane.parts, func(p *lane) bool { return p.h != nil && !p.h.gone }) {
			n.later(50*time.Millisecond, try)
			return
		}
		n.change(h.name, r, nil, func(err error) {
			if errors.Is(err, broker.ErrUnavailable) {
				n.later(100*time.Millisecond, try)
				return
			}
			h.drop()
		})
	}
	try()
}

// commit commits what was acknowledged, twenty times a second.
func (n *node) commit() {
	n.later(50*time.Millisecond, func() {
		for _, h := range n.holdings() {
			if h.next == nil || h.gone || h.lane.committing {
				continue
			}
			to, owed := *h.next, h.lane.owing
			h.lane.committing = true
			n.ask(func() error { return n.s.b.advance(h.name, h.gen, to) }, func(err error) {
				switch h.lane.committing = false; {
				case errors.Is(err, broker.ErrFenced):
					h.end()
				case err == nil && h.next != nil:
					if h.lane.committed(to, owed); *h.next == to {
						h.next = nil
					}
				}
			})
		}
		n.commit()
	})
}

func (n *node) holdings() (all []*holding) {
	for _, h := range n.held {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *holding) int { return strings.Compare(a.name, b.name) })
	return all
}

// start joins the nodes as a new incarnation.
func (n *node) start() {
	n.inc++
	n.id, n.renewed, n.known, n.held = fmt.Sprintf("n%d.%d", n.number, n.inc), n.s.now, map[string]bool{}, map[string]*holding{}
	n.s.b.leases[n.id] = n.s.now + ttl
	n.commit()
	n.beat()
	n.claim()
}

// beat renews the lease and looks around, four times a lease's time.
func (n *node) beat() {
	if n.s.now-n.renewed >= ttl*2/3 {
		n.suspend()
		return
	}
	sent := n.s.now
	n.ask(func() error {
		if !n.s.b.alive(n.id) {
			return broker.ErrNotFound
		}
		n.s.b.leases[n.id] = n.s.now + ttl
		return nil
	}, func(err error) {
		if errors.Is(err, broker.ErrNotFound) {
			n.suspend()
			return
		}
		if err == nil {
			n.renewed = sent
			n.look()
		}
	})
	n.later(min(ttl/4, n.renewed+ttl*2/3-n.s.now), n.beat)
}

// suspend ends this incarnation. It joins anew as soon as it can.
func (n *node) suspend() {
	for _, h := range n.holdings() {
		h.end()
	}
	for _, m := range slices.Clone(n.members) {
		m.end()
	}
	n.members, n.joining, n.id = nil, 0, fmt.Sprintf("n%d.%d-", n.number, n.inc)
	n.quiet = n.s.now + ttl + 10*time.Second
	var again func()
	again = func() {
		if n.cut {
			n.later(500*time.Millisecond, again)
			return
		}
		n.start()
	}
	n.later(100*time.Millisecond, again)
}

// crash ends the process.
func (n *node) crash(away time.Duration) {
	for _, h := range n.holdings() {
		h.end()
	}
	for _, m := range slices.Clone(n.members) {
		m.end()
	}
	n.members, n.joining, n.up, n.quiet = nil, 0, false, 0
	n.s.after(away, func() {
		n.up, n.id = true, ""
		n.start()
	})
}

// look compares what this node owns with the broker's mind, and sees to what dead
// nodes owned.
func (n *node) look() {
	b := n.s.b
	for _, h := range n.holdings() {
		switch r := b.rows[h.name]; {
		case h.lane.h != h: // not stored yet
		case r == nil || r.gen != h.gen:
			h.end()
		}
	}
	for _, name := range n.s.names {
		n.readGroup(name)
	}
	clear(n.known)
	for id := range b.leases {
		n.known[id] = b.alive(id)
	}
	for _, name := range slices.Sorted(maps.Keys(b.rows)) {
		owner := b.rows[name].node
		if owner == "" || owner == n.id && n.held[name] != nil {
			continue
		}
		n.later(n.s.time(0, 50), func() { n.giveUp(name, owner) })
	}
}

// giveUp gives up what a dead node owned, or this one without knowing.
func (n *node) giveUp(name, owner string) {
	if owner != n.id && n.env().Alive(owner) {
		return
	}
	n.change(name, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		switch {
		case len(s.Members) > 0 && owner == n.id:
			return durable.Leave(s, func(o durable.Owner) bool {
				return o.Node == n.id && n.joining == 0 && !slices.ContainsFunc(n.members, func(m *member) bool { return m.owner.Connection == o.Connection })
			}, env)
		case len(s.Members) > 0:
			return durable.Died(s, env)
		case s.Owner == nil || s.Owner.Node != owner || n.held[name] != nil && owner == n.id:
			return durable.Change{}, durable.ErrNotDue
		}
		if owner == n.id {
			env.Alive = func(string) bool { return false }
		}
		return durable.Died(s, env)
	}, nil, func(error) {})
}

// claim takes what is due, for callbacks.
func (n *node) claim() {
	n.later(n.s.time(300, 1000), func() {
		defer n.claim()
		if n.s.now < n.quiet || n.cut {
			return
		}
		name, ticket := n.s.b.takeDue(2 * time.Second)
		if name == "" {
			return
		}
		l := &lane{s: n.s, n: n, sub: name, part: -1, call: true}
		served := func() { n.ask(func() error { n.s.b.served(name, ticket); return nil }, func(error) {}) }
		var s durable.State
		n.ask(func() (err error) { s, err = n.s.b.load(name); return err }, func(err error) {
			if err != nil {
				return
			}
			c, err := durable.Due(s, durable.Owner{Node: n.id, Kind: durable.Call, Connection: fmt.Sprint("w", n.s.steps)}, n.env())
			switch {
			case errors.Is(err, durable.ErrHeld):
			case err != nil:
				served()
			case c.Record.Owner == nil:
				n.store(s, c, nil, func(err error) {
					if err == nil {
						served()
					}
				})
			default:
				n.take(s, c, l, func() {}, func(err error) {
					if err == nil {
						served()
					}
				})
			}
		})
	})
}
