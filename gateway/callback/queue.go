package callback

import (
	"slices"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/expr"
	"github.com/longline-push/longline/gateway/webhook"
)

// maxBatchBytes bounds a batch's body; an event larger than that goes alone.
const maxBatchBytes = 1 << 20

// Poison: an event that has failed so often is suspected, and buried after so
// many rounds in which another one passed and it failed again.
const (
	suspectAfter = 8
	poisonRounds = 3
)

// queue holds the events that were read and are not done yet, at most window
// of them past the contiguous prefix, and says which are to be sent next. It
// knows order, lanes and batches, but no endpoint and no clock. Called under
// the worker's lock.
type queue struct {
	byKey     bool // else all events are one lane
	maxEvents int  // of a unit
	maxWait   time.Duration
	window    int

	read  event.Position      // read on after this
	items []*item             // in reading order; the first is not done
	retry []*unit             // failed units waiting for their time; their lanes are taken
	taken map[lane]bool       // lanes with a unit in flight or in retry
	held  map[placement]*item // kept while asleep, to be met again when read again
	tries []tries             // of those let go while asleep
	sent  event.Position      // what was let go up to here may have been sent
	idle  int                 // items that wait to be sent
	bytes int                 // of all that is kept

	starved bool // all that wait do so for their lanes: read on
	tight   bool // no more may be kept for now
}

// item is an event on its way.
type item struct {
	ev    Event
	seen  time.Time // when it was read
	state itemState
	in    bool  // in queue.items; else it is held
	tried bool  // it was sent
	alone *unit // it goes by itself, with this history
}

type itemState int8

const (
	waiting itemState = iota
	sending           // in a unit in flight or in retry
	done
)

// lane is what is kept in order.
type lane struct{ channel, key string }

// placement is where an event is.
type placement struct {
	channel, epoch string
	offset         uint64
}

// unit is what one call carries, with the history of its attempts.
type unit struct {
	items     []*item
	msg       webhook.Message
	made      bool          // msg is
	events    []*expr.Event // as the shape sees them, if there is one
	batch     bool          // an array
	probe     bool          // out of turn: it holds no lane
	attempts  int
	fails     int       // trouble, in a row
	since     time.Time // of the first of them
	refusals  int
	notBefore time.Time

	wantProbe bool   // suspected of poison; another one is to be tried
	passed    bool   // another one passed since it failed last
	rounds    int    // … and then it failed again
	condemned string // why it is to be buried instead of sent
	opened    int    // health.opened when the call began
}

func newQueue(at event.Position, window, maxEvents int, maxWait time.Duration, byKey bool) *queue {
	window = max(window, 1)
	return &queue{
		byKey: byKey, maxEvents: min(max(maxEvents, 1), window), maxWait: maxWait, window: window,
		read: slices.Clone(at), taken: map[lane]bool{},
	}
}

// room says how many more events may be read. A few places are kept for
// trying others while an event is suspected of poison, or suspicion could
// never be settled behind a full window.
func (q *queue) room() int {
	most := q.window
	if q.window >= 4*poisonRounds {
		most -= poisonRounds
	}
	if u := q.suspect(); u != nil && q.idle == 0 {
		most += u.rounds + 1
	}
	return most - len(q.items)
}

// suspect returns the first failed unit for which another one is to be tried.
func (q *queue) suspect() *unit {
	for _, u := range q.retry {
		if u.wantProbe {
			return u
		}
	}
	return nil
}

// hungry says how many events to read now, if any: pages rather than single
// events where there are many, and none in vain behind a failed one.
func (q *queue) hungry(outage bool) int {
	room := q.room()
	stuck := len(q.retry) > 0 && (outage || !q.byKey)
	switch {
	case room <= 0:
		return 0
	case stuck && (q.idle > 0 || q.suspect() == nil):
		return 0
	case stuck:
		return min(room, 64)
	case q.idle < q.maxEvents, q.starved, room >= q.window/2:
		return room
	}
	return 0
}

// add takes a page that was read after q.read.
func (q *queue) add(p Page, now time.Time) {
	for _, f := range p.Forked {
		q.relocate(f)
	}
	for _, g := range p.Gaps {
		for at := range q.held {
			if at.channel == g.To.Channel && (at.epoch != g.To.Epoch || at.offset <= g.To.Offset) {
				delete(q.held, at)
			}
		}
	}
	for i := range p.Events {
		// Each by itself: one that is kept for long must not keep its page.
		it := &item{ev: p.Events[i], seen: now}
		q.bytes += len(it.ev.JSON)
		if len(q.held) > 0 && !it.ev.Redriven {
			at := it.place()
			if kept := q.held[at]; kept != nil {
				delete(q.held, at)
				q.bytes -= len(it.ev.JSON)
				it = kept
			}
		}
		if i := slices.IndexFunc(q.tries, func(t tries) bool { return t.at == it.place() }); i >= 0 && !it.ev.Redriven {
			u, t := q.single(it), q.tries[i]
			u.attempts, u.fails, u.refusals, u.since = t.attempts, t.fails, t.refusals, now
			q.tries = slices.Delete(q.tries, i, i+1)
		}
		if c, ok := q.sent.Of(it.ev.Cursor.Channel); ok && !it.ev.Redriven && c.Epoch == it.ev.Cursor.Epoch && it.ev.Cursor.Offset <= c.Offset {
			it.tried, it.ev.Redelivery = true, true
		}
		it.in = true
		q.items = append(q.items, it)
		if it.state == waiting {
			q.idle++
		}
	}
	q.read, q.starved = p.Position, false
	q.trim()
}

func (it *item) place() placement {
	c := it.ev.Cursor
	return placement{channel: c.Channel, epoch: c.Epoch, offset: c.Offset}
}

// setState keeps count of those that wait.
func (q *queue) setState(it *item, to itemState) {
	if it.in && it.state == waiting {
		q.idle--
	}
	if it.in && to == waiting {
		q.idle++
	}
	it.state = to
}

func (q *queue) free(u *unit) {
	if u.probe {
		u.probe = false
		return
	}
	for _, it := range u.items {
		if l, keyed := q.lane(it); keyed {
			delete(q.taken, l)
		}
	}
}

// lane returns an item's lane; where order is by key, an event without one is
// in no order with any other.
func (q *queue) lane(it *item) (lane, bool) {
	if !q.byKey {
		return lane{}, true
	}
	return lane{it.ev.Cursor.Channel, it.ev.Key}, it.ev.Key != ""
}

// finish ends a unit that was in flight: its events are done.
func (q *queue) finish(u *unit) {
	q.free(u)
	for _, it := range u.items {
		q.setState(it, done)
		q.drop(it)
	}
	q.trim()
}

// drop lets go of an item's event.
func (q *queue) drop(it *item) {
	q.bytes -= len(it.ev.JSON)
	it.alone, it.ev.JSON = nil, nil
}

func (q *queue) trim() {
	n := 0
	for n < len(q.items) && q.items[n].state == done {
		q.items[n] = nil
		n++
	}
	q.items = q.items[n:]
}

// again keeps a unit that was in flight for another attempt, ahead of what
// comes behind it. A probe gives up its turn.
func (q *queue) again(u *unit, notBefore time.Time) {
	u.notBefore = notBefore
	if u.probe {
		q.requeue(u)
		return
	}
	at := slices.IndexFunc(q.retry, func(o *unit) bool { return u.items[0].before(o.items[0]) })
	if at < 0 {
		at = len(q.retry)
	}
	q.retry = slices.Insert(q.retry, at, u)
}

func (it *item) before(o *item) bool {
	a, b := it.ev.Cursor, o.ev.Cursor
	return a.Channel == b.Channel && a.Offset < b.Offset
}

// requeue puts a unit of one event back among those that wait.
func (q *queue) requeue(u *unit) {
	q.free(u)
	for _, it := range u.items {
		q.setState(it, waiting)
		it.alone = u
	}
}

// split takes a batch that was in flight apart: each event goes by itself
// from now on, tried as often as the batch was. The first one, of which we
// don't know better, has failed that often already.
func (q *queue) split(u *unit, fails int) {
	q.free(u)
	for _, it := range u.items {
		q.setState(it, waiting)
		it.alone = &unit{items: []*item{it}, batch: true, attempts: u.attempts, fails: fails, since: u.since}
		fails = 0
	}
}

// part takes a batch apart of which an answer acknowledged some: the others go
// by themselves, those that it refused with one try less, those that are to be
// tried again after a backoff. It returns how many are done.
func (q *queue) part(u *unit, said []string, now time.Time) (acknowledged int) {
	q.free(u)
	for i, it := range u.items {
		if said[i] == expr.Ack {
			q.setState(it, done)
			q.drop(it)
			acknowledged++
			continue
		}
		alone := &unit{items: []*item{it}, batch: u.batch, attempts: u.attempts}
		if said[i] == expr.Refuse {
			alone.refusals, alone.notBefore = 1, now.Add(refusedPause)
		} else {
			alone.fails, alone.since, alone.notBefore = 1, now, now.Add(backoff(u.fails+1, now, now))
		}
		q.setState(it, waiting)
		it.alone = alone
	}
	q.trim()
	return acknowledged
}

// compared ends the trial of another one: suspects know now whether it passed.
// One that failed as well means an outage, and suspicion starts anew.
func (q *queue) compared(v verdict) {
	for _, s := range q.retry {
		if !s.wantProbe {
			continue
		}
		s.wantProbe = false
		switch v {
		case accepted:
			s.passed = true
		case trouble:
			s.rounds = 0
		}
	}
}

// acknowledged takes note that everything up to p is done by somebody else's
// word, but for what is in flight.
func (q *queue) acknowledged(p event.Position) {
	within := func(it *item) bool {
		c := it.ev.Cursor
		at, ok := p.Of(c.Channel)
		return ok && at.Epoch == c.Epoch && c.Offset <= at.Offset && !it.ev.Redriven
	}
	var over []*unit
	for _, u := range q.retry {
		if !slices.ContainsFunc(u.items, func(it *item) bool { return !within(it) }) {
			over = append(over, u)
		}
	}
	for _, u := range over {
		q.retry = slices.DeleteFunc(q.retry, func(o *unit) bool { return o == u })
		q.finish(u)
	}
	for _, it := range q.items {
		if it.state == waiting && within(it) {
			q.setState(it, done)
			q.drop(it)
		}
	}
	for i, c := range q.read {
		if at, ok := p.Of(c.Channel); ok && at.Epoch == c.Epoch && at.Offset > c.Offset {
			q.read[i] = at
		}
	}
	q.trim()
}

// handed returns how far events were handed over beyond what is acknowledged,
// per channel, if at all.
func (q *queue) handed() event.Position {
	var p event.Position
	note := func(it *item) {
		if c := it.ev.Cursor; it.tried && !it.ev.Redriven {
			p = further(p, c)
		}
	}
	for _, it := range q.items {
		note(it)
	}
	for _, it := range q.held {
		note(it)
	}
	return p
}

// further puts a cursor into a position if it lies further in its channel.
func further(p event.Position, c event.Cursor) event.Position {
	for i := range p {
		if p[i].Channel == c.Channel {
			if p[i].Epoch != c.Epoch || p[i].Offset < c.Offset {
				p[i] = c
			}
			return p
		}
	}
	return append(p, c)
}

// position returns what may be acknowledged: per channel, everything before
// the first event that is not done.
func (q *queue) position() event.Position {
	p := slices.Clone(q.read)
	var first []string // channels whose first undone event was met
	for _, it := range q.items {
		c := it.ev.Cursor
		if it.state == done || it.ev.Redriven || slices.Contains(first, c.Channel) {
			continue
		}
		first = append(first, c.Channel)
		c.Offset--
		if i := slices.IndexFunc(p, func(o event.Cursor) bool { return o.Channel == c.Channel }); i >= 0 {
			p[i] = c
		}
		if len(first) == len(p) {
			break
		}
	}
	return p
}

// release lets every failed unit be tried again, but for suspects: the endpoint
// is well again.
func (q *queue) release(now time.Time) {
	for _, u := range q.retry {
		if u.refusals == 0 && u.fails < suspectAfter && u.notBefore.After(now) {
			u.notBefore = now
		}
	}
}

// blocked tells whether no event that may yet be read could be sent before
// what is in retry.
func (q *queue) blocked() bool { return !q.byKey && q.taken[lane{}] || q.room() <= 0 }

// empty tells whether nothing is left to do; what is in flight has an item.
func (q *queue) empty() bool { return len(q.items) == 0 && len(q.retry) == 0 }
