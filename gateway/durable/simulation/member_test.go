package simulation

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/durable"
)

// partitions is how many a group has.
const partitions = 4

// member is a consumer's place in a group.
type member struct {
	n        *node
	sub      string
	owner    durable.Owner
	division uint64
	gen      uint64
	joined   time.Duration
	lanes    [partitions]*lane
	asking   [partitions]bool
	wanted   []int
	gone     bool
}

// join makes a consumer a member, settling and dividing the group where it isn't.
func (n *node) join(sub string, o durable.Owner, done func(*member)) {
	n.joining++
	finish := func(m *member) {
		if n.joining--; m != nil {
			n.members = append(n.members, m)
			n.readGroup(sub)
		}
		done(m)
	}
	var settled uint64
	var try func(deadline time.Duration)
	try = func(deadline time.Duration) {
		var s durable.State
		n.ask(func() (err error) { s, err = n.s.b.load(sub); return err }, func(err error) {
			again := func() { n.later(n.s.time(20, 200), func() { try(deadline) }) }
			if errors.Is(err, broker.ErrConflict) {
				again()
				return
			}
			if err != nil {
				finish(nil)
				return
			}
			c, err := durable.Join(s, o, n.env())
			if err != nil {
				finish(nil)
				return
			}
			m := &member{n: n, sub: sub, owner: o, division: c.Record.Division, gen: c.Generation, joined: n.s.now}
			store := func() {
				n.store(s, c, nil, func(err error) {
					switch {
					case errors.Is(err, broker.ErrConflict):
						again()
					case err != nil:
						finish(nil)
					default:
						m.joined = n.s.now
						finish(m)
					}
				})
			}
			if c.Record.Division == s.Division {
				store()
				return
			}
			if s.Generation != settled {
				c, err := durable.Settle(s, deadline >= 0 && n.s.now > deadline, n.env())
				if errors.Is(err, durable.ErrYield) {
					if deadline < 0 {
						deadline = n.s.now + durable.YieldTime
						n.send(s.Owner.Node, durable.Message{Op: durable.OpYield, Name: sub, Generation: s.Generation})
					}
					again()
					return
				}
				n.store(s, c, nil, func(err error) {
					if err == nil {
						settled = c.Generation
					}
					if errors.Is(err, broker.ErrUnavailable) {
						finish(nil)
						return
					}
					again()
				})
				return
			}
			n.divide(s, 0, func(err error) {
				if err != nil {
					finish(nil)
					return
				}
				store()
			})
		})
	}
	try(-1)
}

// divide makes the partitions of a group, from p on.
func (n *node) divide(group durable.State, p int, done func(error)) {
	if p == partitions {
		done(nil)
		return
	}
	name := durable.PartitionName(group.Name, p)
	var s durable.State
	n.ask(func() (err error) { s, err = n.s.b.load(name); return err }, func(err error) {
		if err != nil && !errors.Is(err, broker.ErrNotFound) {
			done(err)
			return
		}
		c, there := durable.Part(group, s, n.env())
		if there {
			n.divide(group, p+1, done)
			return
		}
		n.store(s, c, nil, func(err error) {
			switch {
			case errors.Is(err, broker.ErrConflict):
				n.divide(group, p, done)
			case err != nil:
				done(err)
			default:
				n.divide(group, p+1, done)
			}
		})
	})
}

// acquirePart makes o the owner of a partition, for a lane.
func (n *node) acquirePart(group string, division uint64, o durable.Owner, l *lane, force bool, done func(error)) {
	name := durable.PartitionName(group, l.part)
	var s durable.State
	n.ask(func() (err error) { s, err = n.s.b.load(name); return err }, func(err error) {
		if errors.Is(err, broker.ErrNotFound) || err == nil && s.Division != division {
			err = durable.ErrNoGroup
			n.change(group, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
				return durable.Mend(s, division, env)
			}, func(durable.State, durable.Change) { n.s.book(group).mended() }, func(error) {})
		}
		if err != nil {
			done(err)
			return
		}
		c, err := durable.Acquire(s, o, force, n.env())
		if err != nil {
			done(err)
			return
		}
		n.take(s, c, l, func() {}, func(err error) {
			if errors.Is(err, broker.ErrConflict) {
				n.acquirePart(group, division, o, l, force, done)
				return
			}
			done(err)
		})
	})
}

// readGroup tells the members here how their group is.
func (n *node) readGroup(name string) {
	if !slices.ContainsFunc(n.members, func(m *member) bool { return m.sub == name }) {
		return
	}
	var s durable.State
	n.ask(func() (err error) { s, err = n.s.b.load(name); return err }, func(err error) {
		if err != nil {
			return
		}
		gone := false
		for _, o := range s.Members {
			gone = gone || !n.env().Alive(o.Node)
		}
		for _, m := range slices.Clone(n.members) {
			switch {
			case m.sub != name:
			case s.Division != m.division || s.Generation != m.gen || !s.Has(m.owner.Connection):
				m.end()
			default:
				m.wanted = s.PartitionsOf(m.owner.Consumer)
			}
		}
		if gone {
			n.change(name, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) { return durable.Died(s, env) }, nil, func(error) {})
		}
	})
}

// follow has a member acquire what it is assigned, and give up what it isn't.
func (m *member) follow() {
	if m.gone {
		return
	}
	for p := range partitions {
		l := m.lanes[p]
		if l != nil && (l.ended || l.h != nil && l.h.gone) {
			m.lanes[p], l = nil, nil
		}
		wants := slices.Contains(m.wanted, p)
		switch {
		case l != nil && !wants:
			l.leave(0)
		case l == nil && wants && !m.asking[p]:
			m.asking[p] = true
			l = &lane{s: m.n.s, n: m.n, sub: m.sub, part: p}
			m.n.acquirePart(m.sub, m.division, m.owner, l, m.n.s.now-m.joined >= durable.YieldTime, func(err error) {
				if m.asking[p] = false; err != nil {
					return
				}
				if m.lanes[p] = l; m.gone {
					l.leave(0)
				}
			})
		}
	}
	m.n.later(m.n.s.time(50, 700), m.follow)
}

// leave ends the membership.
func (m *member) leave() {
	n := m.n
	if m.gone || !n.up {
		return
	}
	m.end()
	var try func()
	try = func() {
		n.change(m.sub, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
			return durable.Leave(s, func(o durable.Owner) bool { return o.Connection == m.owner.Connection && o.Node == m.owner.Node }, env)
		}, nil, func(err error) {
			if errors.Is(err, broker.ErrUnavailable) {
				n.later(100*time.Millisecond, try)
			}
		})
	}
	try()
}

// end has the member do no more.
func (m *member) end() {
	if m.gone {
		return
	}
	m.gone = true
	m.n.members = slices.DeleteFunc(m.n.members, func(o *member) bool { return o == m })
	for _, l := range m.lanes {
		if l != nil {
			l.leave(0)
		}
	}
}

// come has a consumer attach to a subscription, again and again.
func (s *sim) come(sub, consumer string) {
	s.after(s.time(100, 15_000), func() {
		again := func() { s.come(sub, consumer) }
		n := s.nodes[s.below(len(s.nodes))]
		if !n.up || n.cut || s.over || n.id == "" {
			again()
			return
		}
		s.comings++
		o := durable.Owner{Node: n.id, Connection: fmt.Sprint("c", s.comings), Consumer: consumer, Kind: durable.Live}
		stay := s.time(100, 20_000)
		if s.grouped(sub) {
			n.join(sub, o, func(m *member) {
				if m != nil {
					m.follow()
					n.later(stay, m.leave)
				}
			})
		} else {
			l := &lane{s: s, n: n, sub: sub, part: -1}
			n.attach(sub, o, l, -1)
			n.later(stay, func() { l.leave(0) })
		}
		again()
	})
}

// attach acquires a subscription for a line, standing by where it is held.
func (n *node) attach(sub string, o durable.Owner, l *lane, deadline time.Duration) {
	if l.leaving {
		return
	}
	var s durable.State
	n.ask(func() (err error) { s, err = n.s.b.load(sub); return err }, func(err error) {
		again := func(d time.Duration) { n.later(d, func() { n.attach(sub, o, l, deadline) }) }
		if err != nil {
			again(time.Second)
			return
		}
		c, err := durable.Acquire(s, o, deadline >= 0 && n.s.now > deadline, n.env())
		switch {
		case errors.Is(err, durable.ErrYield):
			if deadline < 0 {
				deadline = n.s.now + durable.YieldTime
				n.send(s.Owner.Node, durable.Message{Op: durable.OpYield, Name: sub, Generation: s.Generation})
			}
			again(100 * time.Millisecond)
		case err != nil:
			again(time.Second)
		default:
			n.take(s, c, l, func() {}, func(err error) {
				if errors.Is(err, broker.ErrConflict) {
					again(0)
				}
			})
		}
	})
}
