package durable_test

import (
	"fmt"
	"slices"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// A model of a group: two nodes, three consumers, two partitions of two keys
// each. As in the model of a subscription the rules are the real ones; the
// invariants hold for each key, and for each partition's position.

const (
	groupEvents = 8 // offset o has key o mod 4 and is of partition o mod 2
	groupParts  = 2
)

// groupWorld is copied to go on from it: what its slices hold is never changed.
type groupWorld struct {
	group durable.State
	parts [groupParts]durable.State // Version 0: there is none
	last  uint64                    // no version, generation or connection is given twice
	head  uint64
	nodes [2]node
	seats [consumers][2]seat // by consumer and node
	mail  []groupMail        // in whatever order

	delivered, handled, stale [groupEvents + 1]bool

	before []groupKept // what the broker's last writes replaced, the newest first

	happened
}

type groupKept struct {
	group durable.State
	parts [groupParts]durable.State

	handled [groupEvents + 1]bool // since the position was last moved by hand
}

// groupMail says to a node that the group has changed or, with a generation,
// that the right to a partition is gone.
type groupMail struct {
	to  int8
	gen uint64
}

// seat is a consumer's connection and its membership.
type seat struct {
	state         connState
	id            string
	settled       uint64 // the generation that a join made, before it divides the group
	division, gen uint64 // that it is a member of
	assigned      [groupParts]bool
	own           [groupParts]share
	left          bool
}

// share is the right to a partition.
type share struct{ gen, sent, done, acked, announce uint64 }

var groupDefinition = func() durable.Definition {
	d, err := durable.ParseDefinition([]byte(`{"channels":["a"],"group":{"partitions":2}}`))
	if err != nil {
		panic(err)
	}
	return d
}()

func newGroupWorld() groupWorld {
	var w groupWorld
	_, c := durable.Create("g", durable.Record{Definition: groupDefinition}, at64(0), w.env())
	w.group.Name = "g"
	w.storeGroup(c)
	w.mail, w.before = nil, nil
	return w
}

func at64(offset uint64) event.Position {
	return event.Position{{Channel: "a", Epoch: "e", Offset: offset}}
}

func offsetOf(s durable.State) uint64 {
	c, _ := s.Position.Of("a")
	return c.Offset
}

func (w *groupWorld) fresh() uint64 { w.last++; return w.last }

func (w *groupWorld) alive(id string) bool {
	n, inc := nodeOf(id)
	return w.nodes[n].inc == inc && !w.nodes[n].dead
}

func (w *groupWorld) env() durable.Env {
	return durable.Env{Now: start, Alive: w.alive, Next: func(uint64) uint64 { return w.fresh() }}
}

// state is the group as it is loaded.
func (w *groupWorld) state() durable.State {
	s := w.group
	if s.Division == 0 {
		return s
	}
	for _, p := range w.parts {
		s.Parts = append(s.Parts, p.Progress)
	}
	s.Position = at64(min(offsetOf(w.parts[0]), offsetOf(w.parts[1])))
	return s
}

// position is up to where a partition's events are acknowledged.
func (w *groupWorld) position(p uint64) uint64 {
	if w.group.Division == 0 {
		return offsetOf(w.group)
	}
	return offsetOf(w.parts[p])
}

func (w *groupWorld) note() {
	w.before = append([]groupKept{{w.group, w.parts, w.handled}}, w.before[:min(len(w.before), memory-1)]...)
}

func (w *groupWorld) send(m groupMail) { w.mail = append(slices.Clip(w.mail), m) }

// stored is s with a change stored in its place.
func (w *groupWorld) stored(s durable.State, c durable.Change) durable.State {
	s.Version, s.Record, s.Generation = w.fresh(), c.Record, c.Generation
	if len(c.Set) > 0 {
		s.Position = c.Set
	}
	return s
}

func (w *groupWorld) storeGroup(c durable.Change) {
	w.note()
	members := append(slices.Clone(w.group.Members), c.Record.Members...)
	w.group = w.stored(w.group, c)
	if c.Undivided {
		w.parts = [groupParts]durable.State{}
	}
	for n := range int8(2) {
		if slices.ContainsFunc(members, func(m durable.Owner) bool { to, _ := nodeOf(m.Node); return to == n }) {
			w.send(groupMail{to: n})
		}
	}
}

func (w *groupWorld) storePart(p int, c durable.Change) {
	w.note()
	gen := w.parts[p].Generation
	w.parts[p] = w.stored(w.parts[p], c)
	w.parts[p].Name = durable.PartitionName("g", p)
	if c.Tell.Op != "" {
		to, _ := nodeOf(c.To)
		w.send(groupMail{to, gen})
	}
}

func (w *groupWorld) owner(c, n int8) durable.Owner {
	return durable.Owner{Node: nodeID(n, w.nodes[n].inc), Connection: w.seats[c][n].id, Consumer: consumerNames[c], Kind: durable.Live}
}

// come has a consumer connect, or come back.
func (w *groupWorld) come(c, n int8) {
	w.seats[c][n] = seat{state: wanting, id: fmt.Sprint(w.fresh())}
}

// join is the next store of a join: what fences whoever had the group undivided,
// then a partition after the other, then the member.
func (w *groupWorld) join(c, n int8) {
	k, s := &w.seats[c][n], w.state()
	change, err := durable.Join(s, w.owner(c, n), w.env())
	if err != nil {
		return
	}
	if change.Record.Division != s.Division {
		if s.Generation != k.settled {
			settle, err := durable.Settle(s, true, w.env())
			if err == nil {
				k.settled = settle.Generation
				w.storeGroup(settle)
			}
			return
		}
		for p := range w.parts {
			if part, done := durable.Part(s, w.parts[p], w.env()); !done {
				w.storePart(p, part)
				return
			}
		}
	}
	w.storeGroup(change)
	k.state, k.division, k.gen = attached, w.group.Division, w.group.Generation
}

// look is what a node does about the group after a message, or now and then. It
// tells whether there was anything to do.
func (w *groupWorld) look(n int8) (news bool) {
	seats := w.seats
	for c := range int8(consumers) {
		k := &w.seats[c][n]
		for p := range k.own {
			if k.own[p].gen != 0 && (w.parts[p].Version == 0 || k.own[p].gen != w.parts[p].Generation) {
				k.own[p] = share{}
			}
		}
		switch m := w.group.MemberOf(consumerNames[c]); {
		case k.state != attached:
		case k.division != w.group.Division || k.gen != w.group.Generation || m == nil:
			w.come(c, n)
		case m.Connection != k.id:
			*k = seat{}
		default:
			for p := range k.assigned {
				k.assigned[p] = w.group.Assigned[p] == consumerNames[c]
			}
		}
	}
	if news = seats != w.seats; !w.nodes[n].able() || w.nodes[n].dead {
		return news
	}
	lost := func(o durable.Owner) bool {
		to, inc := nodeOf(o.Node)
		k := w.seats[o.Consumer[0]-'0'][n]
		return !w.alive(o.Node) || to == n && inc == w.nodes[n].inc && k.id != o.Connection
	}
	if c, err := durable.Leave(w.state(), lost, w.env()); err == nil {
		w.storeGroup(c)
		return true
	}
	return news
}

// told is what a message leads to.
func (w *groupWorld) told(i int) {
	m := w.mail[i]
	w.mail = slices.Delete(slices.Clone(w.mail), i, i+1)
	if m.gen == 0 {
		w.look(m.to)
		return
	}
	for c := range w.seats {
		for p := range w.seats[c][m.to].own {
			if w.seats[c][m.to].own[p].gen == m.gen {
				w.seats[c][m.to].own[p] = share{}
			}
		}
	}
}

func (w *groupWorld) acquire(c, n int8, p int) bool {
	k, s := &w.seats[c][n], w.parts[p]
	if s.Version == 0 || s.Division != k.division {
		return false
	}
	change, err := durable.Acquire(s, w.owner(c, n), true, w.env())
	if err != nil {
		return false
	}
	announce := uint64(0)
	if at, err := event.ParsePosition(s.DeliveredUpTo); err == nil && len(at) > 0 {
		announce = at[0].Offset
	}
	if s.Doubt() {
		announce = w.head
	}
	w.storePart(p, change)
	pos := offsetOf(s)
	k.own[p] = share{gen: w.parts[p].Generation, sent: pos, done: pos, acked: pos, announce: announce}
	return true
}

func (w *groupWorld) release(c, n int8, p int) {
	k := w.seats[c][n].own[p]
	var handed event.Position
	if far := max(k.sent, k.announce); far > k.acked {
		handed = at64(far)
	}
	right := durable.Right{Generation: k.gen, Node: nodeID(n, w.nodes[n].inc), Connection: w.seats[c][n].id}
	if change, err := durable.Release(w.parts[p], right, handed, false, 0, w.env()); err == nil {
		w.storePart(p, change)
	}
	w.seats[c][n].own[p] = share{}
}

func (w *groupWorld) ack(c, n int8, p int) {
	k := &w.seats[c][n].own[p]
	if w.parts[p].Version == 0 || w.parts[p].Generation != k.gen {
		*k = share{}
		return
	}
	w.note()
	w.parts[p].Position = at64(max(offsetOf(w.parts[p]), k.done))
	k.acked = k.done
}

// deliver checks the next delivery of a partition.
func (w *groupWorld) deliver(c, n int8, p int) string {
	k := &w.seats[c][n].own[p]
	e := next(k.sent, p)
	k.sent = e
	present := k.gen == w.parts[p].Generation && w.parts[p].Version != 0
	stale := w.stale[e]
	w.stale[e] = stale || !present
	switch {
	case w.nodes[n].fenced:
		return fmt.Sprintf("I5: a node that had fenced itself delivered event %d", e)
	case w.delivered[e] && e > k.announce && !stale && present && w.handled[e]:
		return fmt.Sprintf("I5: event %d came twice, announced was %d", e, k.announce)
	}
	for before := e % 4; before < e && !w.delivered[e]; before += 4 {
		if before > 0 && !w.delivered[before] {
			return fmt.Sprintf("I3: event %d came before event %d of its key", e, before)
		}
	}
	w.delivered[e] = true
	return ""
}

// next is a partition's first event after an offset.
func next(offset uint64, p int) uint64 {
	for offset++; offset%groupParts != uint64(p); offset++ {
	}
	return offset
}

// forget takes back the last write and k more.
func (w *groupWorld) forget(k int) {
	to := w.before[k]
	w.group, w.parts, w.before = to.group, to.parts, w.before[k+1:]
	w.stale = w.delivered
	for e := range w.handled {
		w.handled[e] = w.handled[e] || to.handled[e]
	}
}

func (w *groupWorld) fence(n int8) {
	w.nodes[n].fenced = true
	for c := range int8(consumers) {
		k := &w.seats[c][n]
		if was := k.state; was != absent {
			*k = seat{}
			if was != leaving {
				k.state = suspended
			}
		}
	}
}

func (w *groupWorld) heal(n int8) {
	was := w.nodes[n]
	if w.nodes[n].cut = false; !was.fenced && !was.crashed {
		return
	}
	w.nodes[n] = node{inc: was.inc + 1}
	for c := range int8(consumers) {
		if w.seats[c][n].state == suspended {
			w.come(c, n)
		}
	}
}

// served tells whether somebody on a node has a generation.
func (w *groupWorld) served(n int8, p int, gen uint64) bool {
	for c := range w.seats {
		if w.seats[c][n].own[p].gen == gen {
			return true
		}
	}
	return false
}

// reap gives up what a dead node owned, or this one without serving it.
func (w *groupWorld) reap(n int8, p int) bool {
	s, env := w.parts[p], w.env()
	if s.Owner == nil {
		return false
	}
	if owner, inc := nodeOf(s.Owner.Node); owner == n && inc == w.nodes[n].inc && !w.served(n, p, s.Generation) {
		env.Alive = func(string) bool { return false }
	}
	c, err := durable.Died(s, env)
	if err == nil {
		w.storePart(p, c)
	}
	return err == nil
}

func (w *groupWorld) seek() {
	c, err := durable.Seek(w.state(), at64(0), true, w.env())
	if err != nil {
		return
	}
	w.storeGroup(c)
	w.handled, w.stale = [groupEvents + 1]bool{}, w.delivered
}

// short is what people need to see of it.
func (w groupWorld) short() string {
	text := fmt.Sprintf("group: division %d generation %d position %v members %v assigned %q\n",
		w.group.Division, w.group.Generation, w.group.Position, w.group.Members, w.group.Assigned)
	for p, s := range w.parts {
		text += fmt.Sprintf("partition %d: version %d division %d generation %d position %v owner %+v handed %q doubt %v\n",
			p, s.Version, s.Division, s.Generation, s.Position, s.Owner, s.DeliveredUpTo, s.Doubt())
	}
	return text + fmt.Sprintf("nodes %+v\nseats %+v\nhead %d mail %v delivered %v handled %v", w.nodes, w.seats, w.head, w.mail, w.delivered, w.handled)
}
