package durable_test

import (
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

// The most that a world may have.
const (
	events    = 3 // offsets 1 to events
	consumers = 3
	mails     = 2 // messages under way to one node
	memory    = 3 // writes that the broker may forget
)

// world is comparable, so that a map remembers the worlds seen.
type world struct {
	sub    sub
	head   int8
	acked  int8
	due    dueState
	nodes  [2]node
	conns  [consumers][2]conn // by consumer and node
	worker [2]worker
	mail   [2][mails]mail // the latest messages to a node that are under way, the newest first

	delivered, handled, stale [events + 1]bool

	before [memory]kept // what the broker's last writes replaced, while they may be forgotten; the newest first

	happened // how often yet
}

// happened is how often the rarer things happened.
type happened struct{ cuts, crashes, connects, seeks, posts, losses, pauses, forgets, deletes int8 }

// kept is what a broker keeps of the subscription.
type kept struct {
	sub   sub
	acked int8
	due   dueState
	known bool
	// handled is as it was before a seek may have taken it back.
	handled [events + 1]bool
}

type sub struct {
	gen                      uint8 // 0: there is no such subscription
	born                     uint8 // the generation that it was made with
	kind                     int8  // 0 nobody, 1 live, 2 callback
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

var consumerNames = [consumers]string{"0", "1", "2"}

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
		s.Owner = &durable.Owner{Node: nodeID(w.sub.node, w.sub.inc), Consumer: consumerNames[w.sub.consumer], Kind: kind}
	}
	return s
}

// store takes over a change, as a broker's Store would.
func (w *world) store(c durable.Change) {
	before := w.state()
	w.note()
	r := c.Record
	w.sub = sub{gen: uint8(c.Generation), born: w.sub.born, unclear: r.Unclear, parked: r.Parked, inGrace: !r.Grace.IsZero(), paused: r.Paused}
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
			w.send(to, mail{1, uint8(before.Generation)})
		}
	}
}

// make makes the subscription.
func (w *world) make() {
	_, change := durable.Create("s", durable.Record{Definition: modelDefinition}, at(0), w.env(start))
	w.store(change)
	w.sub.born = w.sub.gen
	w.delivered, w.handled, w.stale = [events + 1]bool{}, [events + 1]bool{}, [events + 1]bool{}
}

// remove deletes it.
func (w *world) remove() {
	w.note()
	c := durable.Delete(w.state())
	if c.Tell.Op != "" {
		w.send(w.sub.node, mail{1, w.sub.gen})
	}
	w.sub, w.acked, w.due = sub{}, 0, notDue
}

// send has a message be under way to a node. It takes the place of the oldest.
func (w *world) send(to int8, m mail) {
	copy(w.mail[to][1:underWay], w.mail[to][:])
	w.mail[to][0] = m
}

func (w *world) env(now time.Time) durable.Env {
	return durable.Env{Now: now, Alive: func(id string) bool {
		n, inc := nodeOf(id)
		return w.nodes[n].inc == inc && !w.nodes[n].dead
	}, Next: func(uint64) uint64 { return w.fresh() }}
}

// fresh is a generation that nobody in the world knows.
func (w *world) fresh() uint64 {
	last := uint8(0)
	for _, g := range w.generations() {
		last = max(last, *g)
	}
	return uint64(last) + 1
}

// generations are all that somebody knows.
func (w *world) generations() []*uint8 {
	all := append(make([]*uint8, 0, 2+2*memory+2*(1+mails+consumers)), &w.sub.gen, &w.sub.born)
	for i := range w.before {
		all = append(all, &w.before[i].sub.gen, &w.before[i].sub.born)
	}
	for n := range w.nodes {
		all = append(all, &w.worker[n].gen)
		for i := range w.mail[n] {
			all = append(all, &w.mail[n][i].gen)
		}
		for c := range w.conns {
			all = append(all, &w.conns[c][n].gen)
		}
	}
	return all
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
	for n := range w.nodes {
		for i := range w.before {
			w.before[i].sub.rename(int8(n), w.nodes[n].inc)
		}
		w.sub.rename(int8(n), w.nodes[n].inc)
		w.nodes[n].inc = 3
		for i, m := range w.mail[n] {
			known := w.worker[n].gen == m.gen
			for c := range w.conns {
				known = known || w.conns[c][n].gen == m.gen
			}
			if !known {
				w.mail[n][i] = mail{}
			}
		}
	}
	var used [256]bool
	all := w.generations()
	for _, g := range all {
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
	for _, g := range all {
		*g = names[*g]
	}
}

// rename makes a node's present incarnation 3, and any that was before 2.
func (s *sub) rename(n, present int8) {
	if s.kind > 0 && s.node == n {
		s.inc = max(2, s.inc-present+3)
	}
}
