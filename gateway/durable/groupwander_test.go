package durable_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/durable"
)

// groupStep is one thing that can happen to a group.
type groupStep struct {
	name string
	to   groupWorld
	bad  string // what it violates
}

// next returns everything that can happen in w. Each is given a copy to change,
// and tells what it violates, or that it changes nothing.
func (w *groupWorld) next(most limits) (all []groupStep) {
	const nothing = "-"
	add := func(f func(w *groupWorld) string, name string, args ...any) {
		s := groupStep{name: fmt.Sprintf(name, args...), to: *w}
		if s.bad = f(&s.to); s.bad == nothing {
			return
		}
		s.bad = s.to.judge(w, s.name, s.bad)
		all = append(all, s)
	}
	does := func(f func(w *groupWorld)) func(*groupWorld) string {
		return func(w *groupWorld) string { f(w); return "" }
	}
	may := func(f func(w *groupWorld) bool) func(*groupWorld) string {
		return func(w *groupWorld) string {
			if !f(w) {
				return nothing
			}
			return ""
		}
	}
	if w.head < uint64(most.events) {
		add(does(func(w *groupWorld) { w.head++ }), "append")
	}
	if w.forgets < most.forgets {
		for k := range w.before {
			add(does(func(w *groupWorld) { w.forget(k); w.forgets++ }), "forget %d", k+1)
		}
	}
	for i, m := range w.mail {
		if !w.nodes[m.to].crashed && !w.nodes[m.to].cut {
			add(does(func(w *groupWorld) { w.told(i) }), "tell n%d", m.to)
		}
		if w.losses < most.losses {
			add(does(func(w *groupWorld) { w.mail = append(w.mail[:i:i], w.mail[i+1:]...); w.losses++ }), "lose message")
		}
	}
	for n := range int8(2) {
		node := w.nodes[n]
		if !node.crashed && !node.cut && w.cuts < most.cuts {
			add(does(func(w *groupWorld) { w.nodes[n].cut = true; w.cuts++ }), "cut n%d", n)
		}
		if node.cut && !node.crashed && !node.fenced {
			add(does(func(w *groupWorld) { w.fence(n) }), "fence n%d", n)
		}
		if node.cut || node.crashed {
			add(does(func(w *groupWorld) { w.heal(n) }), "heal n%d", n)
		}
		if !node.crashed && w.crashes < most.crashes {
			add(does(func(w *groupWorld) {
				w.nodes[n].crashed = true
				for c := range w.seats {
					w.seats[c][n] = seat{}
				}
				w.crashes++
			}), "crash n%d", n)
		}
		if (node.fenced || node.crashed) && !node.dead {
			add(does(func(w *groupWorld) { w.nodes[n].dead = true }), "expire n%d", n)
		}
		usable := node.able() && !node.dead
		if usable {
			add(may(func(w *groupWorld) bool { return w.look(n) }), "look n%d", n)
			for p := range w.parts {
				add(may(func(w *groupWorld) bool { return w.reap(n, p) }), "reap n%d p%d", n, p)
			}
			if w.seeks < most.seeks {
				add(does(func(w *groupWorld) { w.seek(); w.seeks++ }), "seek")
			}
		}
		for c := range int8(consumers) {
			w.nextOfSeat(c, n, usable, most, func(f func(*groupWorld) string, name string, p int) {
				add(f, "%s c%d n%d p%d", name, c, n, p)
			}, does, may)
		}
	}
	return all
}

func (w *groupWorld) nextOfSeat(c, n int8, usable bool, most limits, add func(f func(*groupWorld) string, name string, p int),
	does func(func(*groupWorld)) func(*groupWorld) string, may func(func(*groupWorld) bool) func(*groupWorld) string) {
	k := w.seats[c][n]
	if k.state == absent {
		if usable && w.connects < most.connects {
			add(does(func(w *groupWorld) { w.come(c, n); w.connects++ }), "connect", 0)
		}
		return
	}
	if k.state == wanting && usable {
		add(does(func(w *groupWorld) { w.join(c, n) }), "join", 0)
	}
	if (k.state == wanting || k.state == attached) && most.connects > 0 {
		add(does(func(w *groupWorld) { w.seats[c][n].state = leaving }), "hang up", 0)
	}
	if k.state == leaving && usable {
		if !k.left {
			add(does(func(w *groupWorld) {
				w.seats[c][n].left = true
				o := w.owner(c, n)
				gone := func(m durable.Owner) bool { return m.Connection == o.Connection && m.Node == o.Node }
				if change, err := durable.Leave(w.state(), gone, w.env()); err == nil {
					w.storeGroup(change)
				}
			}), "leave", 0)
		} else if k.own == [groupParts]share{} {
			add(does(func(w *groupWorld) { w.seats[c][n] = seat{} }), "gone", 0)
		}
	}
	for p, o := range k.own {
		mine := k.state == attached && k.assigned[p]
		switch {
		case o.gen == 0:
			if mine && usable {
				add(may(func(w *groupWorld) bool { return w.acquire(c, n, p) }), "acquire", p)
			}
			continue
		case !mine && usable:
			add(does(func(w *groupWorld) { w.release(c, n, p) }), "release", p)
		}
		if e := next(o.sent, p); mine && e <= w.head && o.sent-o.acked < groupParts*uint64(most.window) {
			add(func(w *groupWorld) string { return w.deliver(c, n, p) }, "deliver", p)
		}
		if o.done < o.sent {
			add(does(func(w *groupWorld) {
				e := next(o.done, p)
				w.seats[c][n].own[p].done, w.handled[e] = e, true
			}), "process", p)
		}
		if o.acked < o.done && usable {
			add(does(func(w *groupWorld) { w.ack(c, n, p) }), "ack", p)
		}
	}
}

// judge tells what a step from before violates, if it is not bad already.
func (w *groupWorld) judge(before *groupWorld, name, bad string) string {
	if bad != "" || strings.HasPrefix(name, "forget") {
		return bad
	}
	for p := range uint64(groupParts) {
		at := w.position(p)
		if at < before.position(p) && name != "seek" {
			return fmt.Sprintf("I4: the position of partition %d moved back", p)
		}
		for e := uint64(1); e <= at; e++ {
			if e%groupParts == p && !w.handled[e] {
				return fmt.Sprintf("I2: event %d lies before the position and was not handled", e)
			}
		}
	}
	return ""
}

// settle lets everything go well from now on, all members leave and one come,
// and tells whether all events come to be handled.
func (w groupWorld) settle() bool {
	for n := range int8(2) {
		w.heal(n)
		for c := range w.seats {
			if k := &w.seats[c][n]; k.state != absent {
				k.state = leaving
			}
		}
	}
	w.before, w.happened = nil, happened{}
	for came := false; ; {
		s, rank := w, len(usefully)
		for _, can := range w.next(limits{window: 1}) {
			for r, prefix := range usefully[:rank] {
				if strings.HasPrefix(can.name, prefix) && can.bad == "" {
					s, rank = can.to, r
				}
			}
		}
		switch {
		case rank < len(usefully):
			w = s
		case came:
			return w.position(w.head%groupParts) == w.head && (w.head == 0 || w.position((w.head-1)%groupParts) == w.head-1)
		default:
			came = true
			w.come(0, 0)
		}
	}
}

// usefully is in which order what can happen helps most.
var usefully = []string{"tell", "look", "leave", "release", "gone", "join", "reap", "acquire", "process", "ack", "deliver"}

// TestWanderGroup goes at random through a group's world, which is too large to
// be visited: members join, hang up and come back elsewhere, nodes die or are cut
// off, somebody seeks, messages come late or never, the broker forgets its last
// writes, up to three at once. From every few worlds on the way all events come
// to be handled.
func TestWanderGroup(t *testing.T) {
	most := limits{events: groupEvents, window: 2, happened: happened{
		cuts: 2, crashes: 2, connects: 9, seeks: 2, losses: 3, forgets: 3}}
	random, walks := newWalks(t, 30)
	for range walks {
		w := newGroupWorld()
		var way []string
		for step := range 150 {
			all := w.next(most)
			if len(all) == 0 {
				break // everything has happened
			}
			next := pick(random, all, func(s groupStep) bool {
				return s.to.happened != w.happened || strings.HasPrefix(s.name, "hang up")
			})
			way = append(way, next.name)
			if next.bad != "" {
				t.Fatalf("%s\nafter: %q\n%+v", next.bad, way, next.to.short())
			}
			if w = next.to; step%16 == 0 && !w.settle() {
				t.Fatalf("I2: an event is never handled after %q, and all goes well\n%+v", way, w.short())
			}
		}
	}
}
