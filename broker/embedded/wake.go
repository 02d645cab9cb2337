package embedded

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/longline-push/longline/event"
)

// How waiting works. A channel in memory knows that somebody may wait for it
// (channel.waited). An append or drop that changes it puts it on a list, once,
// however many wait: that is all it costs whoever appends. Due passes over
// rowWaits of the listed channels, some at a time, and makes due who waits for
// a cursor that is left behind. Rows stay until a Store takes them out; a pass
// that finds none takes the mark off. The mark is made by reading when a
// channel is loaded; what a crash forgot of the list is found by listing every
// channel that is waited for once after a start.

// wakes are the channels that changed while somebody waited for them.
type wakes struct {
	mu     sync.Mutex
	order  []string // the longest changed first
	passes map[string]*pass
}

// pass is where the looking at those who wait for a channel stands.
type pass struct {
	next    []byte // rowWaits to look at; nil: it has not begun
	changed bool   // the channel, since it began: another one must follow
}

// wakePiece is how many of those that wait are looked at in one call of Due.
const wakePiece = 256

// add notes that a channel changed; true if that was not known.
func (w *wakes) add(channel string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.passes[channel]; p != nil {
		p.changed = p.next != nil
		return false
	}
	if w.passes == nil {
		w.passes = make(map[string]*pass)
	}
	w.passes[channel] = &pass{}
	w.order = append(w.order, channel)
	return true
}

func (w *wakes) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.order)
}

// begin returns the channel to look at and from where on.
func (w *wakes) begin() (channel string, from []byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) == 0 {
		return "", nil, false
	}
	channel = w.order[0]
	p := w.passes[channel]
	if p.next == nil {
		p.next = rowKey(rowWaits, channel, "")
	}
	return channel, p.next, true
}

// end notes how far that came; nil is to the end.
func (w *wakes) end(channel string, next []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.passes[channel]
	switch {
	case next != nil:
		p.next = next
		return
	case p.changed:
		*p = pass{}
		w.order = append(w.order[1:], channel)
	default:
		delete(w.passes, channel)
		w.order = w.order[1:]
	}
}

// wake has those who wait for a channel that changed looked at.
func (b *Broker) wake(channel string) {
	if b.wakes.add(channel) {
		b.tellDue()
	}
}

// wakeSomeLocked looks at some who wait for the channel that changed first, at
// most room, and makes due for whom it is time. It returns how much that was, 0
// if there is nothing to do.
func (b *Broker) wakeSomeLocked(room int) (looked int, err error) {
	channel, from, ok := b.wakes.begin()
	if !ok {
		return 0, nil
	}
	here, err := b.peek(channel)
	if err != nil && !isNotFound(err) {
		return 0, err
	}
	state := here.stateLocked() // of our own copy
	batch := b.db.NewBatch()
	defer batch.Close()
	now := b.opt.Now().UnixMilli()
	prefix := rowKey(rowWaits, channel, "")
	var next []byte
	err = b.scanFrom(prefix, from, func(key, value []byte) (bool, error) {
		if looked == room {
			next = bytes.Clone(key)
			return false, nil
		}
		looked++
		at := event.Cursor{Channel: channel}
		if err := parseCursor(value, &at); err != nil {
			return false, fmt.Errorf("read %q: %w", key, err)
		}
		if state.Epoch == at.Epoch && state.Head <= at.Offset {
			return true, nil
		}
		name := string(key[len(prefix):])
		var d dueRow
		found, err := b.get(rowKey(rowDue, name), d.parse)
		if err != nil || found && d.at <= now {
			return err == nil, err
		}
		return true, b.scheduleLocked(batch, name, 0)
	})
	if err == nil && !batch.Empty() {
		err = b.applySoonLocked(batch)
	}
	if err != nil {
		return looked, fmt.Errorf("look who waits for %s: %w", channel, err)
	}
	if looked == 0 && bytes.Equal(from, prefix) {
		b.unmark(channel)
	}
	b.wakes.end(channel, next)
	return max(1, looked), nil
}

// mark makes appends to a channel, and its drop, wake who waits for it.
func (b *Broker) mark(channel string) {
	b.subs.waiting.Store(true)
	s := b.channels.of(channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.byName[channel]; c != nil {
		c.waited = true
	} else {
		s.removed++ // who loads it just now looks again
	}
}

// awaitLocked marks the channels; gone tells that one of them differs from its
// cursor already.
func (b *Broker) awaitLocked(p event.Position) (gone bool, err error) {
	for _, c := range p {
		b.mark(c.Channel)
		differs, err := b.differs(c)
		if err != nil {
			return false, err
		}
		gone = gone || differs
	}
	return gone, nil
}

func (b *Broker) differs(c event.Cursor) (bool, error) {
	ch, err := b.peek(c.Channel)
	if isNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	s := ch.stateLocked() // of our own copy
	return s.Epoch != c.Epoch || s.Head > c.Offset, nil
}

// unmark takes the mark off, now that nobody waits.
func (b *Broker) unmark(channel string) {
	s := b.channels.of(channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.byName[channel]; c != nil {
		c.waited = false
	}
}

// recheck lists some of the channels that were waited for before the start: a
// crash may have come between an append and those who waited.
func (b *Broker) recheck(most int) error {
	b.subs.mu.Lock()
	from := b.subs.recheck
	b.subs.mu.Unlock()
	prefix := rowKey(rowWaits)
	for n := b.wakes.len(); from != nil && n < most; n++ {
		channel := ""
		err := b.scanFrom(prefix, from, func(key, _ []byte) (bool, error) {
			name, _, _ := bytes.Cut(key[len(prefix):], []byte{0})
			channel = string(name)
			return false, nil
		})
		if err != nil {
			return fmt.Errorf("look who waits: %w", err)
		}
		if channel == "" {
			from = nil
			break
		}
		b.wake(channel)
		from = afterPrefix(rowKey(rowWaits, channel, ""))
	}
	b.subs.mu.Lock()
	b.subs.recheck = from
	b.subs.mu.Unlock()
	return nil
}

// anyoneWaits tells whether a channel that is being loaded is to be marked.
func (b *Broker) anyoneWaits(channel string) (bool, error) {
	if !b.subs.waiting.Load() {
		return false, nil
	}
	found := false
	err := b.scan(rowKey(rowWaits, channel, ""), func(_, _ []byte) (bool, error) {
		found = true
		return false, nil
	})
	return found, err
}
