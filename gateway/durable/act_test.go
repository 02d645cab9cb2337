package durable_test

import (
	"errors"
	"fmt"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/durable"
)

func (w *world) leave(c, n int8) {
	if w.conns[c][n].state == attached {
		w.conns[c][n].state = leaving
	} else {
		w.conns[c][n] = conn{}
	}
}

// deliver checks a delivery of e by an owner of generation gen on node n.
func (w *world) deliver(e int8, gen uint8, announced, n int8, who string) string {
	switch {
	case w.nodes[n].fenced:
		return fmt.Sprintf("I5: a %s of a node that had fenced itself delivered event %d", who, e)
	case gen != w.sub.gen && who == "worker" && w.nodes[n].dead:
		return fmt.Sprintf("I5: event %d was called by a node whose lease had ended", e)
	}
	if gen < w.sub.born || w.sub.gen == 0 {
		return "" // of a subscription that was deleted
	}
	stale := w.stale[e]
	w.stale[e] = stale || gen != w.sub.gen
	if w.delivered[e] {
		if e > announced && !stale && gen == w.sub.gen && w.handled[e] {
			// Retries within one worker are no handover: they come before
			// they are handled.
			return fmt.Sprintf("I5: event %d came twice, announced was %d", e, announced)
		}
		return ""
	}
	for before := int8(1); before < e; before++ {
		if !w.delivered[before] {
			return fmt.Sprintf("I3: event %d came before event %d", e, before)
		}
	}
	w.delivered[e] = true
	return ""
}

// handle notes that a consumer has handled an event of generation gen.
func (w *world) handle(e int8, gen uint8) {
	if gen >= w.sub.born {
		w.handled[e] = true
	}
}

func (w *world) advance(gen uint8, to int8) bool {
	trace(op{advance: &broker.Move{Generation: uint64(gen), Position: at(to)}, refused: gen != w.sub.gen})
	if gen != w.sub.gen {
		return false
	}
	w.note()
	w.acked = max(w.acked, to)
	return true
}

// note remembers what a write is about to replace, where a failover may come.
func (w *world) note() {
	if forgetful > 0 && (w.sub.gen > 0 || w.deletes > 0) {
		copy(w.before[1:forgetful], w.before[:])
		w.before[0] = kept{sub: w.sub, acked: w.acked, due: w.due, known: true}
		if w.seeks > 0 {
			w.before[0].handled = w.handled
		}
	}
}

func (w *world) ack(c, n int8) {
	k := &w.conns[c][n]
	if w.advance(k.gen, k.done) {
		k.acked = k.done
	} else {
		*k = conn{}
	}
}

func (w *world) acquire(c, n int8, force bool) {
	if w.sub.gen == 0 {
		w.conns[c][n] = conn{}
		return
	}
	s := w.state()
	o := durable.Owner{Node: nodeID(n, w.nodes[n].inc), Consumer: consumerNames[c], Kind: durable.Live}
	change, err := durable.Acquire(s, o, force, w.env(start))
	switch {
	case errors.Is(err, durable.ErrYield):
		w.conns[c][n].asked = true
		w.send(w.sub.node, mail{2, w.sub.gen})
		return
	case err != nil:
		return
	}
	announce := w.announcement(s)
	w.store(change)
	w.conns[c][n] = conn{state: attached, gen: w.sub.gen, sent: w.acked, done: w.acked, acked: w.acked, announce: announce}
}

// announcement is how far what comes may have come before.
func (w *world) announcement(s durable.State) int8 {
	if s.Doubt() {
		return w.head
	}
	return w.sub.handed
}

// change applies a rule that may ask for a yield; the model takes the worst
// case, in which it is forced.
func (w *world) change(rule func(durable.State, bool) (durable.Change, error)) {
	c, err := rule(w.state(), false)
	if errors.Is(err, durable.ErrYield) {
		c, err = rule(w.state(), true)
	}
	if err == nil {
		w.store(c)
	}
}

func (w *world) takeDue(n int8) {
	if w.worker[n].gen != 0 {
		return // no room
	}
	s := w.state()
	o := durable.Owner{Node: nodeID(n, w.nodes[n].inc), Consumer: consumerNames[0], Kind: durable.Call}
	c, err := durable.Due(s, o, w.env(start.Add(grace)))
	if errors.Is(err, durable.ErrNotDue) {
		w.due = notDue
		trace(op{served: true})
	}
	if err != nil {
		return
	}
	announce := w.announcement(s)
	w.store(c)
	if c.Record.Owner != nil {
		w.worker[n] = worker{gen: w.sub.gen, pos: w.acked, acked: w.acked, announce: announce}
	}
}

func (w *world) fence(n int8) {
	w.nodes[n].fenced = true
	w.worker[n] = worker{}
	for c := range w.conns {
		switch k := &w.conns[c][n]; k.state {
		case attached:
			k.state = suspended
		case leaving:
			*k = conn{}
		}
	}
}

// heal brings a node back, as another incarnation if it had to stop.
func (w *world) heal(n int8) {
	was := w.nodes[n]
	w.nodes[n].cut = false
	if !was.fenced && !was.crashed {
		return
	}
	w.nodes[n] = node{inc: was.inc + 1}
	for c := range w.conns {
		if w.conns[c][n].state == suspended {
			w.conns[c][n] = conn{state: wanting}
		}
	}
}

func (w *world) told(n int8, i int) {
	m := w.mail[n][i]
	w.mail[n][i] = mail{}
	if w.worker[n].gen == m.gen {
		if m.op == 2 {
			w.worker[n].yielding = true
		} else {
			w.worker[n] = worker{}
		}
	}
	for c := range w.conns {
		if k := &w.conns[c][n]; k.gen == m.gen && m.op == 1 {
			*k = conn{}
		}
	}
}

// served tells whether somebody on a node has the present generation.
func (w *world) served(n int8) bool {
	known := w.worker[n].gen == w.sub.gen
	for c := range w.conns {
		known = known || w.conns[c][n].gen == w.sub.gen
	}
	return known
}

// giveUp is what becomes of what the broker has in a node's name and nobody
// there serves.
func (w *world) giveUp(n int8) {
	env := w.env(start)
	env.Alive = func(string) bool { return false }
	if c, err := durable.Died(w.state(), env); err == nil {
		w.store(c)
	}
}

// look is the heartbeat's look at what the node owns.
func (w *world) look(n int8) {
	if w.worker[n].gen != w.sub.gen {
		w.worker[n] = worker{}
	}
	for c := range w.conns {
		k := &w.conns[c][n]
		if k.state != attached {
			continue
		}
		if k.gen != w.sub.gen {
			*k = conn{}
		} else if w.acked > k.acked {
			k.acked, k.done, k.sent = w.acked, max(k.done, w.acked), max(k.sent, w.acked)
		}
	}
}
