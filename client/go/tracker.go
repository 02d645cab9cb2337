package longline

import (
	"slices"
	"strings"
	"sync"
)

// tracker keeps what was received and what of it is done, per channel in the
// order of the log. What may be acknowledged is each channel's contiguous
// prefix of what is done. Safe for concurrent use.
//
// An ephemeral subscription has one for its life; a durable one has one for each
// connection, since an acknowledgement of what this connection did not
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
	byName  map[string]*track
	open    int           // entries not yet in a prefix
	room    chan struct{} // closed when an entry leaves; nil while nobody waits
	rejects []reject
	singles []string // cursors to be acknowledged on their own
	unsaid  int      // entries that left since due was last asked
}

// manyDone is how many entries are worth an acknowledgement at once.
const manyDone = 100

// track is one channel's part.
type track struct {
	channel  string
	received string // cursor up to which we have it all
	done     string // cursor up to which all is done; at most received
	ack      string // cursor of the last event of the prefix
	dirty    bool   // ack is to be sent
	entries  []*entry
}

// entry is an event received (or a step over events that won't come).
type entry struct {
	tracker *ackTracker
	track   *track
	cursor  string
	done    bool
	silent  bool   // a step: the position moves, nothing is acknowledged
	single  bool   // a dead letter delivered again, from behind the position
	twin    *entry // of the same event, appended once more; settled together
}

type reject struct{ cursor, reason string }

func newAckTracker() *ackTracker {
	return &ackTracker{changed: make(chan struct{}, 1), many: make(chan struct{}, 1), byName: make(map[string]*track)}
}

func (l *ackTracker) trackLocked(channel string) *track {
	t := l.byName[channel]
	if t == nil {
		t = &track{channel: channel}
		l.byName[channel] = t
		l.tracks = append(l.tracks, t)
	}
	return t
}

// add notes an event as received.
func (l *ackTracker) add(channel, cursor string) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trackLocked(channel)
	e := &entry{tracker: l, track: t, cursor: cursor}
	l.open++
	if e.single = behind(cursor, t.received); e.single {
		return e
	}
	t.received = cursor
	t.entries = append(t.entries, e)
	return e
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
	t := l.trackLocked(channel)
	t.received = cursor
	if len(t.entries) == 0 {
		t.done = cursor
		return
	}
	t.entries = append(t.entries, &entry{tracker: l, track: t, cursor: cursor, done: true, silent: true})
	l.open++
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

// finish marks the event done.
func (e *entry) finish() {
	for ; e != nil; e = e.twin {
		e.tracker.finish(e, nil)
	}
}

// reject marks the event done, once told to the gateway that it was refused.
func (e *entry) reject(reason string) {
	for ; e != nil; e = e.twin {
		e.tracker.finish(e, &reject{cursor: e.cursor, reason: reason})
	}
}

func (l *ackTracker) finish(e *entry, r *reject) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.done {
		return
	}
	e.done = true
	if r != nil && !l.mute {
		l.rejects = append(l.rejects, *r)
	}
	t, n := e.track, 0
	if e.single {
		l.singles = append(l.singles, e.cursor)
		l.open--
		l.tellLocked(true)
		return
	}
	for n < len(t.entries) && t.entries[n].done {
		head := t.entries[n]
		t.done = head.cursor
		if !head.silent {
			t.ack, t.dirty = head.cursor, true
		}
		t.entries[n] = nil
		n++
	}
	t.entries = t.entries[n:]
	l.open -= n
	if l.unsaid += n; l.unsaid >= manyDone {
		select {
		case l.many <- struct{}{}:
		default:
		}
	}
	if n > 0 || r != nil {
		l.tellLocked(n > 0)
	}
}

// tellLocked tells that there is something to do, and maybe room.
func (l *ackTracker) tellLocked(room bool) {
	if room && l.room != nil {
		close(l.room)
		l.room = nil
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// due returns what is to be told to the gateway and forgets it: the refusals,
// which go first, the events to acknowledge on their own, and the position to
// acknowledge, or "".
func (l *ackTracker) due() (rejects []reject, singles []string, position string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rejects, l.rejects = l.rejects, nil
	singles, l.singles = l.singles, nil
	l.unsaid = 0
	var b strings.Builder
	for _, t := range l.tracks {
		if !t.dirty {
			continue
		}
		t.dirty = false
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(t.ack)
	}
	return rejects, singles, b.String()
}

// full returns nil if fewer than most events are open, else a channel that is
// closed when one of them has left.
func (l *ackTracker) full(most int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open < most {
		return nil
	}
	if l.room == nil {
		l.room = make(chan struct{})
	}
	return l.room
}

// received and done return the positions up to which everything was received
// and done.
func (l *ackTracker) received() string {
	return l.position(func(t *track) string { return t.received })
}
func (l *ackTracker) done() string { return l.position(func(t *track) string { return t.done }) }

func (l *ackTracker) position(of func(*track) string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var cursors []string
	for _, t := range l.tracks {
		if c := of(t); c != "" {
			cursors = append(cursors, c)
		}
	}
	slices.Sort(cursors)
	return strings.Join(cursors, ",")
}
