package durable_test

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// A model of the whole protocol: two nodes, two consumers, one subscription
// with a callback, a few events. The rules are the real ones; the rest of a
// node (sessions, callback workers, heartbeats, signals) is abstracted to what
// can happen in which order. TestModel visits every state that any
// interleaving reaches and checks the invariants of the design in each:
//
//	I2  what lies before the position was handled, or skipped by a seek; and
//	    from every state all events come to be handled
//	I3  first deliveries are in order
//	I4  the position moves back only by a seek; who is fenced moves nothing
//	I5  who was told or has fenced itself delivers nothing; a node whose lease
//	    ended calls nothing; what comes twice was announced, but for what an
//	    owner delivered between losing its right and hearing of it

const events = 2 // offsets 1 to events

const window = 1

var deep = flag.Bool("deep", false, "explore the model with more connections (minutes, gigabytes)")

// world is comparable, so that a map remembers the worlds seen.
type world struct {
	sub    sub
	head   int8
	acked  int8
	due    dueState
	nodes  [2]node
	conns  [2][2]conn // by consumer and node
	worker [2]worker
	mail   [2]mail // the latest message to a node that is under way

	delivered, handled, stale [events + 1]bool

	before kept // what the broker's last write replaced, while it may be forgotten

	cuts, crashes, connects, seeks, posts, losses, pauses, forgets int8 // how often yet
}

// kept is what a broker keeps of the subscription.
type kept struct {
	sub   sub
	acked int8
	due   dueState
}

type sub struct {
	gen                      uint8
	kind                     int8 // 0 nobody, 1 live, 2 callback
	node, consumer           int8
	inc                      int8 // incarnation of the node
	handed                   int8 // 0 none
	unclear, parked, inGrace bool
	paused                   bool
}

type dueState int8

const (
	notDue dueState = iota
	dueInGrace
	dueNow
)

type node struct {
	crashed, cut, fenced, dead bool
	inc                        int8
}

type conn struct {
	state    connState
	asked    bool // the callback to yield
	gen      uint8
	sent     int8
	done     int8 // by the consumer
	acked    int8 // committed
	announce int8 // redelivery up to here
}

type connState int8

const (
	absent connState = iota
	wanting
	attached
	suspended
	leaving // the line is gone, to be released
)

type worker struct {
	gen      uint8 // 0: none
	pos      int8  // committed or to be committed
	acked    int8
	flight   bool
	yielding bool
	announce int8
}

type mail struct {
	op  int8 // 0 nothing, 1 end, 2 yield
	gen uint8
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var consumers = [2]string{"0", "1"}

const grace = 10 * time.Second

func definition() durable.Definition {
	d, err := durable.ParseDefinition([]byte(`{"channels":["a"],"callback":{"url":"https://example.com/"}}`))
	if err != nil {
		panic(err)
	}
	return d
}

var modelDefinition = definition()

func nodeID(n, inc int8) string { return string([]byte{'n', byte('0' + n), '.', byte('0' + inc)}) }

func nodeOf(id string) (n, inc int8) { return int8(id[1] - '0'), int8(id[3] - '0') }

// state is the subscription as the rules see it.
func (w *world) state() durable.State {
	s := durable.State{Name: "s", Progress: broker.Progress{Generation: uint64(w.sub.gen), Position: at(w.acked)}}
	s.Definition = modelDefinition
	s.Unclear, s.Parked, s.Paused = w.sub.unclear, w.sub.parked, w.sub.paused
	if w.sub.handed > 0 {
		s.DeliveredUpTo = at(w.sub.handed).String()
	}
	if w.sub.inGrace {
		s.Grace = start.Add(grace)
	}
	if w.sub.kind > 0 {
		kind := durable.Live
		if w.sub.kind == 2 {
			kind = durable.Call
		}
		s.Owner = &durable.Owner{Node: nodeID(w.sub.node, w.sub.inc), Consumer: consumers[w.sub.consumer], Kind: kind}
	}
	return s
}

// store takes over a change, as a broker's Store would.
func (w *world) store(c durable.Change) {
	before := w.state()
	w.note()
	r := c.Record
	w.sub = sub{gen: uint8(c.Generation), unclear: r.Unclear, parked: r.Parked, inGrace: !r.Grace.IsZero(), paused: r.Paused}
	if r.DeliveredUpTo != "" {
		p, err := event.ParsePosition(r.DeliveredUpTo)
		if err != nil {
			panic(err)
		}
		w.sub.handed = int8(p[0].Offset)
	}
	if o := r.Owner; o != nil {
		w.sub.kind = 1
		if o.Kind == durable.Call {
			w.sub.kind = 2
		}
		w.sub.node, w.sub.inc = nodeOf(o.Node)
		w.sub.consumer = int8(o.Consumer[0] - '0')
	}
	if len(c.Set) > 0 {
		w.acked = int8(c.Set[0].Offset)
	}
	u := c.Update(before, nil, start)
	trace(op{store: &u})
	switch {
	case u.Due <= 0 || u.Wait != nil && int8(u.Wait[0].Offset) < w.head:
		w.due = dueNow
	case u.Due < broker.Never:
		w.due = dueInGrace
	default:
		w.due = notDue
	}
	if c.Tell.Op != "" {
		to, _ := nodeOf(c.To)
		if c.Tell.Op == durable.OpEnd {
			w.mail[to] = mail{1, uint8(before.Generation)}
		}
	}
}

func (w *world) env(now time.Time) durable.Env {
	return durable.Env{Now: now, Alive: func(id string) bool {
		n, inc := nodeOf(id)
		return w.nodes[n].inc == inc && !w.nodes[n].dead
	}, Next: func(uint64) uint64 { return w.fresh() }}
}

// fresh is a generation that nobody in the world knows.
func (w *world) fresh() uint64 {
	last := max(w.sub.gen, w.before.sub.gen)
	for n := range w.nodes {
		last = max(last, w.worker[n].gen, w.mail[n].gen)
		for c := range w.conns {
			last = max(last, w.conns[c][n].gen)
		}
	}
	return uint64(last) + 1
}

// right is what somebody on a node knows his right to be.
func (w *world) right(gen uint8, n int8) durable.Right {
	return durable.Right{Generation: uint64(gen), Node: nodeID(n, w.nodes[n].inc)}
}

func at(offset int8) event.Position {
	return event.Position{{Channel: "a", Epoch: "e", Offset: uint64(offset)}}
}

// able tells whether a node can talk to the broker.
func (n node) able() bool { return !n.crashed && !n.cut && !n.fenced }

// canonical makes worlds equal that differ only in names: generations are
// numbered by their order, incarnations by whether they are the present one.
func (w *world) canonical() {
	var used [256]bool
	used[w.sub.gen], used[w.before.sub.gen] = true, true
	gens := make([]*uint8, 0, 9)
	for n := range w.nodes {
		if w.before.sub.kind > 0 && int(w.before.sub.node) == n {
			w.before.sub.inc = max(2, w.before.sub.inc-w.nodes[n].inc+3)
		}
		if w.sub.kind > 0 && int(w.sub.node) == n {
			w.sub.inc = w.sub.inc - w.nodes[n].inc + 3
		}
		w.nodes[n].inc = 3
		known := w.worker[n].gen == w.mail[n].gen
		gens = append(gens, &w.worker[n].gen, &w.mail[n].gen)
		for c := range w.conns {
			gens = append(gens, &w.conns[c][n].gen)
			known = known || w.conns[c][n].gen == w.mail[n].gen
		}
		if !known {
			w.mail[n] = mail{}
		}
	}
	if w.sub.kind > 0 && w.sub.inc < 3 {
		w.sub.inc = 2
	}
	for _, g := range gens {
		used[*g] = true
	}
	used[0] = false
	var names [256]uint8
	next := uint8(0)
	for g := 1; g < 256; g++ {
		if used[g] {
			next++
			names[g] = next
		}
	}
	for _, g := range append(gens, &w.sub.gen, &w.before.sub.gen) {
		*g = names[*g]
	}
}

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
	// forgetful worlds remember what their broker may forget.
	forgetful bool
	traced    []op
)

func trace(o op) {
	if tracing {
		traced = append(traced, o)
	}
}

// limits bounds how often the rarer things happen on one path.
type limits struct{ cuts, crashes, connects, seeks, posts, losses, pauses, forgets int8 }

// next returns everything that can happen in w.
func (w *world) next(most limits) []transition {
	var all []transition
	add := func(name string, f func(w *world) string) {
		to := *w
		traced = nil
		bad := f(&to)
		if bad == "" && to.acked < w.acked && !strings.HasPrefix(name, "seek") && name != "forget" {
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
	if w.head < events {
		add("append", func(w *world) string {
			trace(op{append: true})
			w.head++
			if w.sub.parked {
				w.due = dueNow
			}
			return ""
		})
	}
	if w.before.sub.gen > 0 && w.forgets < most.forgets {
		// A failover to a replica that lacks the last write. Whatever came until
		// then may come again.
		add("forget", func(w *world) string {
			w.sub, w.acked, w.due = w.before.sub, w.before.acked, w.before.due
			w.before, w.stale = kept{}, w.delivered
			if w.sub.parked && w.acked < w.head {
				w.due = dueNow
			}
			w.forgets++
			return ""
		})
	}
	for n := range int8(2) {
		w.nextOfNode(n, most, add)
		for c := range int8(2) {
			w.nextOfConn(c, n, most, add)
		}
	}
	return all
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
			w.nodes[n].crashed, w.worker[n], w.mail[n] = true, worker{}, mail{}
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
	if w.mail[n].op != 0 && !node.crashed {
		if !node.cut {
			add("tell"+at, func(w *world) string { w.told(n); return "" })
		}
		if w.losses < most.losses {
			add("lose message"+at, func(w *world) string { w.mail[n] = mail{}; w.losses++; return "" })
		}
	}
	if !node.able() || node.dead {
		return
	}
	add("look"+at, func(w *world) string { w.look(n); return "" })
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
			w.change(func(s durable.State, force bool) (durable.Change, error) {
				return durable.Seek(s, modelAt(0), force, w.env(start))
			})
			w.seeks++
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
	w.nextOfWorker(n, add)
}

func modelAt(offset int8) event.Position { return at(offset) }

func (w *world) nextOfWorker(n int8, add func(string, func(*world) string)) {
	at := fmt.Sprint(" n", n)
	k := w.worker[n]
	if k.gen == 0 {
		return
	}
	if !k.flight && !k.yielding && k.pos < w.head && k.pos-k.acked < window {
		add("post"+at, func(w *world) string {
			w.worker[n].flight = true
			return w.deliver(k.pos+1, k.gen, k.announce, n, "worker")
		})
	}
	if k.flight {
		add("answer 200"+at, func(w *world) string {
			w.worker[n].flight = false
			w.worker[n].pos++
			w.handled[w.worker[n].pos] = true
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
		if !w.sub.paused && k.sent < w.head && k.sent-k.acked < window {
			add("deliver"+at, func(w *world) string {
				w.conns[c][n].sent++
				return w.deliver(k.sent+1, k.gen, k.announce, n, "connection")
			})
		}
		if k.done < k.sent {
			add("process"+at, func(w *world) string {
				w.conns[c][n].done++
				w.handled[k.done+1] = true
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
	if forgetful && w.sub.gen > 0 {
		w.before = kept{w.sub, w.acked, w.due}
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
	s := w.state()
	o := durable.Owner{Node: nodeID(n, w.nodes[n].inc), Consumer: consumers[c], Kind: durable.Live}
	change, err := durable.Acquire(s, o, force, w.env(start))
	switch {
	case errors.Is(err, durable.ErrYield):
		w.conns[c][n].asked = true
		w.mail[w.sub.node] = mail{2, w.sub.gen}
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
	o := durable.Owner{Node: nodeID(n, w.nodes[n].inc), Consumer: consumers[0], Kind: durable.Call}
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

func (w *world) told(n int8) {
	m := w.mail[n]
	w.mail[n] = mail{}
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

// settle lets everything go well from now on, nobody attached, and tells
// whether all events come to be handled. settled remembers worlds that do.
func (w world) settle(settled map[world]bool) bool {
	var way []world
	for range 40 {
		w.calm()
		if settled[w] || w.acked == w.head && w.sub.parked && w.due == notDue {
			for _, passed := range way {
				settled[passed] = true
			}
			return true
		}
		w.canonical()
		way = append(way, w)
		if !w.proceed() {
			return false
		}
	}
	return false
}

// calm ends all trouble and lets all consumers go.
func (w *world) calm() {
	if w.sub.paused {
		w.store(durable.Resume(w.state(), w.env(start)))
	}
	for n := range int8(2) {
		w.heal(n)
		w.told(n)
		w.look(n)
		for c := range int8(2) {
			if k := &w.conns[c][n]; k.state == attached {
				k.state = leaving
			} else if k.state == wanting {
				*k = conn{}
			}
		}
	}
	w.before = kept{}
	w.cuts, w.crashes, w.connects, w.seeks, w.posts, w.losses, w.pauses, w.forgets = 0, 0, 0, 0, 0, 0, 0, 0
}

// proceed takes the most useful step of settling.
func (w *world) proceed() bool {
	all := w.next(limits{})
	for _, prefix := range []string{"release", "reap", "give up", "answer 200", "commit call", "yielded", "post n", "park", "due"} {
		for _, t := range all {
			if strings.HasPrefix(t.name, prefix) && t.bad == "" {
				*w = t.to
				return true
			}
		}
	}
	return false
}

func TestModel(t *testing.T) {
	connects := int8(1)
	if *deep {
		connects = 2
	}
	for _, test := range []struct {
		story string
		most  limits
	}{
		{"two consumers come and go", limits{connects: 2}},
		{"a node loses the broker and comes back", limits{connects: connects, cuts: 1}},
		{"a node dies", limits{connects: connects, crashes: 1}},
		{"messages get lost", limits{connects: connects, losses: 1}},
		{"somebody moves the position", limits{connects: connects, seeks: 1}},
		{"acks come by another node", limits{connects: connects, posts: 1}},
		{"delivery is held for a while", limits{connects: connects, pauses: 1}},
		{"a failover forgets the last write", limits{connects: connects, forgets: 1}},
	} {
		t.Run(test.story, func(t *testing.T) {
			forgetful = test.most.forgets > 0
			defer func() { forgetful = false }()
			explore(t, test.most)
		})
	}
}

// explore visits every reachable world, breadth first, so that what it reports
// is a shortest way to it.
func explore(t *testing.T, most limits) {
	var first world
	_, change := durable.Create("s", durable.Record{Definition: modelDefinition}, at(0), first.env(start))
	first.store(change)
	type step struct {
		from world
		name string
	}
	came := map[world]step{first: {}}
	queue, settled := []world{first}, map[world]bool{}
	way := func(w world, last string) string {
		names := []string{last}
		for w != first {
			names = append(names, came[w].name)
			w = came[w].from
		}
		slices.Reverse(names)
		return strings.Join(names, ", ")
	}
	for len(queue) > 0 {
		if len(came) > 30_000_000 {
			t.Fatalf("more than %d worlds", len(came))
		}
		w := queue[0]
		queue = queue[1:]
		if !w.settle(settled) {
			t.Fatalf("I2: an event is never handled after: %s\n%+v", way(w, "and all goes well"), w)
		}
		for _, next := range w.next(most) {
			if next.bad != "" {
				t.Fatalf("%s\nafter: %s\n%+v", next.bad, way(w, next.name), next.to)
			}
			if _, seen := came[next.to]; !seen {
				came[next.to] = step{w, next.name}
				queue = append(queue, next.to)
			}
		}
	}
	t.Logf("%d worlds", len(came))
}
