package durable_test

import (
	"fmt"
	"strings"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// transition is one thing that can happen.
type transition struct {
	name string
	to   world
	bad  string // what it violates
	ops  []op   // where they are traced
}

// op is what a transition asks of a broker. Tracing keeps the generations'
// names, so that a walk can be replayed against a real one.
type op struct {
	store   *broker.Update
	advance *broker.Move
	refused bool // the move is of an older generation
	append  bool
	served  bool // a ticket was for nothing
}

var (
	tracing bool
	traced  []op
	// How many of its last writes a world's broker may forget, and how many
	// messages may be under way to a node at once.
	forgetful = 0
	underWay  = 1
)

func trace(o op) {
	if tracing {
		traced = append(traced, o)
	}
}

// limits bounds how often the rarer things happen on one path, and the world.
type limits struct {
	happened
	events, consumers, window int8 // 0: two events, two consumers, a window of one
}

func (l limits) withDefaults() limits {
	or := func(n *int8, v int8) {
		if *n == 0 {
			*n = v
		}
	}
	or(&l.events, 2)
	or(&l.consumers, 2)
	or(&l.window, 1)
	return l
}

// next returns everything that can happen in w.
func (w *world) next(most limits) []transition {
	most = most.withDefaults()
	var all []transition
	add := func(name string, f func(w *world) string) {
		to := *w
		traced = nil
		bad := f(&to)
		if bad == "" && to.acked < w.acked && !strings.HasPrefix(name, "seek") && !strings.HasPrefix(name, "forget") && to.sub.born == w.sub.born {
			bad = "I4: the position moved back"
		}
		for e := int8(1); e <= to.acked && bad == ""; e++ {
			if !to.handled[e] {
				bad = fmt.Sprintf("I2: event %d lies before the position and was not handled", e)
			}
		}
		if !tracing {
			to.canonical()
		}
		if bad != "" || to != *w {
			all = append(all, transition{name, to, bad, traced})
		}
	}
	if w.head < most.events {
		add("append", func(w *world) string {
			trace(op{append: true})
			w.head++
			if w.sub.parked {
				w.due = dueNow
			}
			return ""
		})
	}
	for k := range forgetful {
		if w.before[k].known && w.forgets < most.forgets {
			// A failover to a replica that lacks the last writes. Whatever came until
			// then may come again.
			add(fmt.Sprint("forget ", k+1), func(w *world) string { w.forget(k); return "" })
		}
	}
	for n := range int8(2) {
		w.nextOfNode(n, most, add)
		for c := range most.consumers {
			w.nextOfConn(c, n, most, add)
		}
	}
	return all
}

// forget takes back the last write and k more.
func (w *world) forget(k int) {
	to := w.before[k]
	copy(w.before[:], w.before[k+1:])
	clear(w.before[memory-k-1:])
	w.stale = w.delivered
	for e := range w.handled {
		// What lay before that position was handled, whatever was moved since. Of
		// one that was deleted nothing else is known here.
		other := to.sub.born != w.sub.born
		w.handled[e] = w.handled[e] || other || to.handled[e] || e <= int(to.acked)
		w.delivered[e], w.stale[e] = w.delivered[e] || other, w.stale[e] || other
	}
	w.sub, w.acked, w.due = to.sub, to.acked, to.due
	if w.sub.parked && w.acked < w.head {
		w.due = dueNow
	}
	w.forgets++
}

func (w *world) nextOfNode(n int8, most limits, add func(string, func(*world) string)) {
	node, at := w.nodes[n], fmt.Sprint(" n", n)
	if !node.crashed && !node.cut && w.cuts < most.cuts {
		add("cut"+at, func(w *world) string { w.nodes[n].cut = true; w.cuts++; return "" })
	}
	if node.cut && !node.crashed {
		if !node.fenced {
			add("fence"+at, func(w *world) string { w.fence(n); return "" })
		}
		add("heal"+at, func(w *world) string { w.heal(n); return "" })
	}
	if node.crashed {
		add("restart"+at, func(w *world) string { w.heal(n); return "" })
	} else if w.crashes < most.crashes {
		add("crash"+at, func(w *world) string {
			w.nodes[n].crashed, w.worker[n], w.mail[n] = true, worker{}, [mails]mail{}
			for c := range w.conns {
				w.conns[c][n] = conn{}
			}
			w.crashes++
			return ""
		})
	}
	// A lease outlasts the time after which a node fences itself.
	if (node.fenced || node.crashed) && !node.dead {
		add("expire"+at, func(w *world) string { w.nodes[n].dead = true; return "" })
	}
	for i, m := range w.mail[n][:underWay] {
		if m.op == 0 || node.crashed {
			continue
		}
		if !node.cut {
			add(fmt.Sprintf("tell%s %d", at, i), func(w *world) string { w.told(n, i); return "" })
		}
		if w.losses < most.losses {
			add(fmt.Sprintf("lose message%s %d", at, i), func(w *world) string { w.mail[n][i] = mail{}; w.losses++; return "" })
		}
	}
	if !node.able() || node.dead {
		return
	}
	add("look"+at, func(w *world) string { w.look(n); return "" })
	w.nextOfWorker(n, most, add)
	if w.sub.gen == 0 {
		add("create"+at, func(w *world) string { w.make(); return "" })
		return
	}
	if w.deletes < most.deletes {
		add("delete"+at, func(w *world) string { w.remove(); w.deletes++; return "" })
	}
	if w.sub.kind > 0 && w.sub.node == n && w.sub.inc == node.inc && !w.served(n) {
		add("give up"+at, func(w *world) string { w.giveUp(n); return "" })
	}
	if w.due == dueNow || w.due == dueInGrace {
		add("due"+at, func(w *world) string { w.takeDue(n); return "" })
	}
	add("reap"+at, func(w *world) string {
		if c, err := durable.Died(w.state(), w.env(start)); err == nil {
			w.store(c)
		}
		return ""
	})
	if w.seeks < most.seeks {
		add("seek"+at, func(w *world) string {
			w.seeks++
			w.change(func(s durable.State, force bool) (durable.Change, error) {
				return durable.Seek(s, modelAt(0), force, w.env(start))
			})
			w.handled, w.stale = [events + 1]bool{}, w.delivered
			return ""
		})
	}
	if w.pauses < most.pauses {
		add("pause"+at, func(w *world) string {
			w.change(func(s durable.State, force bool) (durable.Change, error) {
				return durable.Pause(s, force, w.env(start))
			})
			w.pauses++
			return ""
		})
	}
	if w.sub.paused {
		add("resume"+at, func(w *world) string { w.store(durable.Resume(w.state(), w.env(start))); return "" })
	}
}

func modelAt(offset int8) event.Position { return at(offset) }

func (w *world) nextOfWorker(n int8, most limits, add func(string, func(*world) string)) {
	at := fmt.Sprint(" n", n)
	k := w.worker[n]
	if k.gen == 0 {
		return
	}
	if !k.flight && !k.yielding && k.pos < w.head && k.pos-k.acked < most.window {
		add("post"+at, func(w *world) string {
			w.worker[n].flight = true
			return w.deliver(k.pos+1, k.gen, k.announce, n, "worker")
		})
	}
	if k.flight {
		add("answer 200"+at, func(w *world) string {
			w.worker[n].flight = false
			w.worker[n].pos++
			w.handle(w.worker[n].pos, k.gen)
			return ""
		})
		add("answer 500"+at, func(w *world) string { w.worker[n].flight = false; return "" })
		return
	}
	if k.pos > k.acked {
		add("commit call"+at, func(w *world) string {
			if w.advance(k.gen, k.pos) {
				w.worker[n].acked = k.pos
			} else {
				w.worker[n] = worker{}
			}
			return ""
		})
		return
	}
	if k.yielding {
		add("yielded"+at, func(w *world) string {
			// What was announced to it is still so for the next.
			var handed event.Position
			if k.announce > w.acked {
				handed = modelAt(k.announce)
			}
			if c, err := durable.Release(w.state(), w.right(k.gen, n), handed, false, grace, w.env(start)); err == nil {
				w.store(c)
			}
			w.worker[n] = worker{}
			return ""
		})
	} else if k.pos == w.head {
		add("park"+at, func(w *world) string {
			if c, err := durable.Park(w.state(), w.right(k.gen, n), w.env(start)); err == nil {
				w.store(c)
			}
			w.worker[n] = worker{}
			return ""
		})
	}
}

func (w *world) nextOfConn(c, n int8, most limits, add func(string, func(*world) string)) {
	k, node := w.conns[c][n], w.nodes[n]
	at := fmt.Sprintf(" c%d n%d", c, n)
	usable := node.able() && !node.dead
	switch k.state {
	case absent:
		// The consumers are alike: the first to come is the first.
		if usable && w.connects < most.connects && (w.connects > 0 || c == 0) {
			add("connect"+at, func(w *world) string {
				w.connects++
				w.conns[c][n].state = wanting
				w.acquire(c, n, false)
				return ""
			})
		}
	case wanting:
		if usable {
			add("acquire"+at, func(w *world) string { w.acquire(c, n, false); return "" })
			if k.asked {
				add("force"+at, func(w *world) string { w.acquire(c, n, true); return "" })
			}
		}
	case attached:
		// It may not have heard of a pause.
		if (!w.sub.paused || underWay > 1) && k.sent < w.head && k.sent-k.acked < most.window {
			add("deliver"+at, func(w *world) string {
				w.conns[c][n].sent++
				return w.deliver(k.sent+1, k.gen, k.announce, n, "connection")
			})
		}
		if k.done < k.sent {
			add("process"+at, func(w *world) string {
				w.conns[c][n].done++
				w.handle(k.done+1, k.gen)
				return ""
			})
		}
		if k.done > k.acked && usable {
			add("ack"+at, func(w *world) string { w.ack(c, n); return "" })
		}
		if k.done > k.acked && w.posts < most.posts && w.nodes[1-n].able() && k.gen == w.sub.gen {
			// With the connection's name it counts for its generation only.
			add("post ack"+at, func(w *world) string { w.advance(k.gen, k.done); w.posts++; return "" })
		}
	case leaving:
		if usable {
			add("release"+at, func(w *world) string {
				var handed event.Position
				if k.sent > w.acked || k.announce > w.acked {
					handed = modelAt(max(k.sent, k.announce))
				}
				if c, err := durable.Release(w.state(), w.right(k.gen, n), handed, false, 0, w.env(start)); err == nil {
					w.store(c)
				}
				w.conns[c][n] = conn{}
				return ""
			})
		}
	}
	if k.state == wanting || k.state == attached || k.state == suspended {
		add("leave"+at, func(w *world) string { w.leave(c, n); return "" })
	}
}
