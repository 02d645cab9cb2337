package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// How waiting works. A channel in memory knows that somebody may wait for it
// (channel.waited). The append or drop that changes it takes that mark off and
// looks through rowWaits, once; who waits becomes due, who doesn't yet puts
// the mark back. Rows stay until a Store takes them out: handing out a due
// subscription puts the mark back as well, so that what is appended meanwhile
// makes it due once more. The mark is made by reading when a channel is
// loaded; whatever a crash came between is found by looking at all rows once
// after a start.

// dueRow is a row of rowDue.
type dueRow struct {
	at  int64  // milliseconds
	ref uint64 // of the last time that it became due
}

func (d *dueRow) append(dst []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(d.at)), d.ref)
}

func (d *dueRow) parse(b []byte) error {
	dec := decoder{b: b}
	d.at, d.ref = int64(dec.uvarint()), dec.uvarint()
	return dec.end()
}

// scheduleLocked makes a subscription due in a while, anew.
func (b *Broker) scheduleLocked(batch *pebble.Batch, name string, in time.Duration) error {
	if err := b.unscheduleLocked(batch, name); err != nil {
		return err
	}
	// References count on over restarts, so that an old ticket means nothing.
	b.subs.lastRef = max(b.subs.lastRef+1, uint64(time.Now().UnixNano()))
	b.setDueLocked(batch, name, dueRow{at: b.opt.Now().Add(in).UnixMilli(), ref: b.subs.lastRef})
	return nil
}

func (b *Broker) unscheduleLocked(batch *pebble.Batch, name string) error {
	var old dueRow
	found, err := b.get(rowKey(rowDue, name), old.parse)
	if found {
		_ = batch.Delete(rowKey(rowDue, name), nil)
		_ = batch.Delete(byTimeKey(old.at, name), nil)
	}
	return err
}

func (b *Broker) setDueLocked(batch *pebble.Batch, name string, d dueRow) {
	_ = batch.Set(rowKey(rowDue, name), d.append(nil), nil)
	_ = batch.Set(byTimeKey(d.at, name), nil, nil)
	b.subs.earliest = min(b.subs.earliest, d.at)
}

// Due implements broker.Schedule.
func (b *Broker) Due(ctx context.Context, limit int, hide time.Duration) ([]broker.Ticket, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	if err := b.trouble.now().err; err != nil {
		return nil, fmt.Errorf("look for due subscriptions: %w", err)
	}
	batch := b.db.NewBatch()
	defer batch.Close()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	names, err := b.takeDueLocked(batch, limit)
	if err != nil || len(names) == 0 {
		return nil, unavailable(err)
	}
	until := b.opt.Now().Add(hide).UnixMilli()
	tickets := make([]broker.Ticket, 0, len(names))
	for _, name := range names {
		var d dueRow
		if _, err := b.get(rowKey(rowDue, name), d.parse); err != nil {
			return nil, unavailable(fmt.Errorf("hand out subscription %s: %w", name, err))
		}
		d.at = until
		b.setDueLocked(batch, name, d)
		tickets = append(tickets, broker.Ticket{Name: name, Ref: strconv.FormatUint(d.ref, 36)})
		if err := b.watchLocked(name); err != nil {
			return nil, unavailable(fmt.Errorf("hand out subscription %s: %w", name, err))
		}
	}
	if err := b.applySoon(batch); err != nil {
		return nil, unavailable(fmt.Errorf("hand out subscriptions: %w", err))
	}
	return tickets, nil
}

// takeDueLocked removes the longest due from the index by time.
func (b *Broker) takeDueLocked(batch *pebble.Batch, limit int) (names []string, err error) {
	now := b.opt.Now().UnixMilli()
	// What was handed out before leaves nothing but tombstones: skip them.
	from := byTimeKey(b.subs.earliest, "")
	next := now
	err = b.scanFrom(rowKey(rowByTime), from, func(key, _ []byte) (bool, error) {
		at := int64(binary.BigEndian.Uint64(key[2:]))
		if at > now || len(names) == limit {
			next = min(next, at)
			return false, nil
		}
		_ = batch.Delete(append([]byte(nil), key...), nil)
		names = append(names, string(key[10:]))
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for due subscriptions: %w", err)
	}
	b.subs.earliest = next
	return names, nil
}

// watchLocked puts the marks back on the channels that a subscription waits
// for.
func (b *Broker) watchLocked(name string) error {
	var row subscription
	if _, err := b.get(rowKey(rowRecord, name), row.parse); err != nil {
		return err
	}
	for _, channel := range row.waits {
		b.mark(channel)
	}
	return nil
}

// Done implements broker.Schedule.
func (b *Broker) Done(ctx context.Context, tickets []broker.Ticket) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	batch := b.db.NewBatch()
	defer batch.Close()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	for _, t := range tickets {
		var d dueRow
		found, err := b.get(rowKey(rowDue, t.Name), d.parse)
		if err != nil {
			return unavailable(fmt.Errorf("drop the ticket of %s: %w", t.Name, err))
		}
		if found && strconv.FormatUint(d.ref, 36) == t.Ref {
			_ = batch.Delete(rowKey(rowDue, t.Name), nil)
			_ = batch.Delete(byTimeKey(d.at, t.Name), nil)
		}
	}
	return unavailable(b.applySoon(batch))
}

// OnDue implements broker.Schedule.
func (b *Broker) OnDue(f func()) (stop func()) {
	s := &b.subs
	s.listening.Lock()
	defer s.listening.Unlock()
	s.nextStop++
	n := s.nextStop
	s.onDue[n] = f
	return func() {
		s.listening.Lock()
		defer s.listening.Unlock()
		delete(s.onDue, n)
	}
}

func (b *Broker) tellDue() {
	b.subs.listening.Lock()
	fs := make([]func(), 0, len(b.subs.onDue))
	for _, f := range b.subs.onDue {
		fs = append(fs, f)
	}
	b.subs.listening.Unlock()
	for _, f := range fs {
		f()
	}
}

// Owned implements broker.Schedule.
func (b *Broker) Owned(ctx context.Context, node, after string, limit int) ([]string, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	prefix := rowKey(rowOwner, node, "")
	from := prefix
	if after != "" {
		from = append(rowKey(rowOwner, node, after), 0)
	}
	var names []string
	err := b.scanFrom(prefix, from, func(key, _ []byte) (bool, error) {
		if len(names) == limit {
			return false, nil
		}
		names = append(names, string(key[len(prefix):]))
		return true, nil
	})
	if err != nil {
		return nil, unavailable(fmt.Errorf("list what %s owns: %w", node, err))
	}
	return names, nil
}

// mark makes the next append or drop of a channel look for who waits.
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

// fire makes due who waits for a channel that changed.
func (b *Broker) fire(channel string) {
	fired, err := b.fireOnce(channel)
	if err != nil {
		b.mark(channel) // the next append tries again
		b.opt.Logger.Warn("could not wake who waits for a channel", "channel", channel, "err", err.Error())
	}
	if fired {
		b.tellDue()
	}
}

func (b *Broker) fireOnce(channel string) (fired bool, err error) {
	batch := b.db.NewBatch()
	defer batch.Close()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	now := b.opt.Now().UnixMilli()
	prefix := rowKey(rowWaits, channel, "")
	still := false
	err = b.scan(prefix, func(key, value []byte) (bool, error) {
		name, at := string(key[len(prefix):]), event.Cursor{Channel: channel}
		if err := parseCursor(value, &at); err != nil {
			return false, fmt.Errorf("read %q: %w", key, err)
		}
		gone, err := b.differs(at)
		if err != nil {
			return false, err
		}
		if !gone {
			still = true
			return true, nil
		}
		var d dueRow
		found, err := b.get(rowKey(rowDue, name), d.parse)
		if err != nil || found && d.at <= now {
			return err == nil, err
		}
		fired = true
		return true, b.scheduleLocked(batch, name, 0)
	})
	if err != nil {
		return false, err
	}
	if still {
		b.mark(channel)
	}
	if batch.Empty() {
		return false, nil
	}
	return fired, b.applySoon(batch)
}

// recheck looks at some of those who waited before the start: a crash may have
// come between an append and them.
func (b *Broker) recheck(most int) error {
	var channels []string
	b.subs.mu.Lock()
	from := b.subs.recheck
	b.subs.mu.Unlock()
	if from == nil {
		return nil
	}
	prefix := rowKey(rowWaits)
	var next []byte
	for len(channels) < most {
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
			next = nil
			break
		}
		channels = append(channels, channel)
		next = afterPrefix(rowKey(rowWaits, channel, ""))
		from = next
	}
	for _, channel := range channels {
		b.fire(channel)
	}
	b.subs.mu.Lock()
	b.subs.recheck = next
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

// needed returns up to where durable subscriptions have acknowledged a log;
// false if none with a cursor follows it.
func (b *Broker) needed(channel string, s broker.State) (acked uint64, needed bool, err error) {
	prefix := rowKey(rowFollows, channel, "")
	err = b.scan(prefix, func(key, _ []byte) (bool, error) {
		at, _, err := b.standing(string(key[len(prefix):]))
		if err != nil {
			return false, err
		}
		i, found := at.find(channel)
		if !found {
			return true, nil
		}
		offset, _ := s.Locate(at.Position[i].Epoch, at.Position[i].Offset)
		if !needed || offset < acked {
			acked, needed = offset, true
		}
		return acked >= s.First, nil // all of it is needed: no need to look on
	})
	return acked, needed, err
}
