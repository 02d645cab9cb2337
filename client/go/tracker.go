package longline

import (
	"slices"
	"strings"
	"sync"
)

// ackTracker keeps what was received and what of it is done, per channel (in
// a group: per channel and partition) in the order of the log. What may be
// acknowledged is each track's contiguous prefix of what is done. Safe for
// concurrent use.
//
// It holds what is not done, and no more than one entry beside each such: what
// is done behind it is one stretch, however long it grows.
//
// An ephemeral subscription has one for its life; a durable one has one for
// each connection, since an acknowledgement of what this connection did not
// deliver is an error.
type ackTracker struct {
	// changed gets a token whenever there is something to acknowledge or
	// reject.
	changed chan struct{}
	// many gets a token when so much is done that an acknowledgement should
	// not wait: the window may be waiting for it.
	many chan struct{}
	// mute says that nobody asks what is due.
	mute bool

	mu      sync.Mutex
	tracks  []*track // in order of appearance
	byName  map[trackName]*track
	open    int           // events that are not done
	behind  int           // events that are done, behind some that are not
	room    chan struct{} // closed when one is done; nil while nobody waits
	rejects []reject
	singles []ack // to be acknowledged on their own
	unsaid  int   // events that joined a prefix since due was last asked
}

// manyDone is how many events are worth an acknowledgement at once.
const manyDone = 100

// noPartition is the partition of what belongs to no group.
const noPartition = -1

type trackName struct {
	channel   string
	partition int // or noPartition
}

// track is one channel's part, or what a partition has of it.
type track struct {
	trackName
	received   string // cursor up to which we have it all
	done       string // cursor up to which all is done; at most received
	ack        string // cursor of the last event of the prefix
	dirty      bool   // ack is to be sent
	gone       bool   // the partition is another's: nothing is to be said
	head, tail *entry // what stands behind the prefix
}

// entry is an event received, or a stretch of what is done.
type entry struct {
	tracker    *ackTracker
	track      *track
	prev, next *entry
	cursor     string // where it ends
	ack        string // of its last event; "" for a step over what won't come
	events     int    // in a stretch
	done       bool
	single     bool   // a dead letter delivered again, from behind the position
	twin       *entry // of the same event, appended once more; settled together
}

// ack is a position to acknowledge, of one partition if there are any.
type ack struct {
	position  string
	partition int
	single    bool // one event alone
}

type reject struct {
	cursor, reason string
	attempts       int
	partition      int
}

func newAckTracker() *ackTracker {
	return &ackTracker{changed: make(chan struct{}, 1), many: make(chan struct{}, 1), byName: make(map[trackName]*track)}
}

func (l *ackTracker) trackLocked(channel string, partition int) *track {
	name := trackName{channel, partition}
	t := l.byName[name]
	if t == nil {
		t = &track{trackName: name}
		l.byName[name] = t
		l.tracks = append(l.tracks, t)
	}
	return t
}

// add notes an event as received.
func (l *ackTracker) add(channel string, partition int, cursor string) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trackLocked(channel, partition)
	e := &entry{tracker: l, track: t, cursor: cursor, ack: cursor, events: 1}
	l.open++
	if e.single = behind(cursor, t.received); e.single {
		return e
	}
	t.received = cursor
	t.push(e)
	return e
}

func (t *track) push(e *entry) {
	if t.tail == nil {
		t.head = e
	} else {
		e.prev, t.tail.next = t.tail, e
	}
	t.tail = e
}

func (t *track) remove(e *entry) {
	if e.prev == nil {
		t.head = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		t.tail = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}

// behind tells whether cursor is of the same log as received, and not after
// it.
func behind(cursor, received string) bool {
	epoch := strings.LastIndexByte(received, '-') + 1
	if epoch == 0 || len(cursor) < epoch || cursor[:epoch] != received[:epoch] {
		return false
	}
	if len(cursor) != len(received) {
		return len(cursor) < len(received)
	}
	return cursor <= received
}

// step notes that the position moved to cursor without events.
func (l *ackTracker) step(channel, cursor string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trackLocked(channel, noPartition)
	t.received = cursor
	e := &entry{tracker: l, track: t, cursor: cursor, done: true}
	t.push(e)
	l.settleLocked(e)
}

// stepAll is step for each cursor of a position.
func (l *ackTracker) stepAll(position string) {
	if position == "" {
		return
	}
	for cursor := range strings.SplitSeq(position, ",") {
		if channel, _, ok := strings.Cut(cursor, "@"); ok {
			l.step(channel, cursor)
		}
	}
}

// gain begins a partition anew, which this connection has from now on: what it
// had of it before counts no more.
func (l *ackTracker) gain(partition int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tracks = slices.DeleteFunc(l.tracks, func(t *track) bool {
		if t.partition != partition {
			return false
		}
		t.gone = true
		for e := t.head; e != nil; e = e.next {
			if e.done {
				l.behind -= e.events
			}
		}
		delete(l.byName, t.trackName)
		return true
	})
}

// finish marks the event done.
func (e *entry) finish() {
	for ; e != nil; e = e.twin {
		e.tracker.finish(e, nil)
	}
}

// reject marks the event done, once told to the gateway that it was refused.
func (e *entry) reject(reason string, attempts int) {
	for ; e != nil; e = e.twin {
		e.tracker.finish(e, &reject{cursor: e.cursor, reason: reason, attempts: attempts, partition: e.track.partition})
	}
}

func (l *ackTracker) finish(e *entry, r *reject) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.done {
		return
	}
	e.done = true
	l.open--
	if !e.single && !e.track.gone {
		l.behind++
	}
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
	if e.track.gone {
		return
	}
	say := false
	if r != nil && !l.mute {
		l.rejects = append(l.rejects, *r)
		say = true
	}
	if e.single {
		l.singles = append(l.singles, ack{e.cursor, e.track.partition, true})
		say = true
	} else if l.settleLocked(e) {
		say = true
	}
	if say {
		signal(l.changed)
	}
}

// settleLocked joins what is done: with the stretches beside it or, where
// nothing open is before it, with the prefix. It tells whether there is
// something to acknowledge.
func (l *ackTracker) settleLocked(e *entry) bool {
	t := e.track
	if p := e.prev; p != nil && p.done {
		t.remove(p)
		e.absorb(p)
	}
	if n := e.next; n != nil && n.done {
		t.remove(e)
		n.absorb(e)
		e = n
	}
	if e.prev != nil {
		return false
	}
	t.remove(e)
	t.done = e.cursor
	l.behind -= e.events
	if e.ack == "" {
		return false
	}
	t.ack, t.dirty = e.ack, true
	if l.unsaid += e.events; l.unsaid >= manyDone {
		signal(l.many)
	}
	return true
}

// absorb makes one stretch of p, which ends where e begins, and e.
func (e *entry) absorb(p *entry) {
	e.events += p.events
	if e.ack == "" {
		e.ack = p.ack
	}
}

// signal leaves a token for whoever waits, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// due returns what is to be told to the gateway and forgets it: the refusals,
// which go first, then what to acknowledge.
func (l *ackTracker) due() (rejects []reject, acks []ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rejects, l.rejects = l.rejects, nil
	acks, l.singles = l.singles, nil
	l.unsaid = 0
	first := len(acks)
	for _, t := range l.tracks {
		if !t.dirty {
			continue
		}
		t.dirty = false
		i := slices.IndexFunc(acks[first:], func(a ack) bool { return a.partition == t.partition })
		if i < 0 {
			acks = append(acks, ack{t.ack, t.partition, false})
		} else {
			acks[first+i].position += "," + t.ack
		}
	}
	return rejects, acks
}

// full returns nil if fewer than limit events are open, else a channel that is
// closed when one of them is done.
func (l *ackTracker) full(limit int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open < limit {
		return nil
	}
	if l.room == nil {
		l.room = make(chan struct{})
	}
	return l.room
}

// unacknowledged is how many events were received that no acknowledgement
// covers: what a gateway counts for its window.
func (l *ackTracker) unacknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open + l.behind
}

// received and done return the positions up to which everything was received
// and done; they know nothing of partitions.
func (l *ackTracker) received() string {
	return l.position(func(t *track) string { return t.received })
}
func (l *ackTracker) done() string { return l.position(func(t *track) string { return t.done }) }

func (l *ackTracker) position(of func(*track) string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var cursors []string
	for _, t := range l.tracks {
		if c := of(t); c != "" && t.partition == noPartition {
			cursors = append(cursors, c)
		}
	}
	slices.Sort(cursors)
	return strings.Join(cursors, ",")
}
