package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

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

// Due implements broker.Schedule. There is one part, 0.
func (b *Broker) Due(ctx context.Context, parts []int, limit int, hide time.Duration) (tickets []broker.Ticket, left []int, err error) {
	if err := b.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer b.calls.leave()
	if err := b.trouble.now().err; err != nil {
		return nil, nil, fmt.Errorf("look for due subscriptions: %w", err)
	}
	if parts != nil && len(parts) == 0 {
		return nil, nil, nil
	}
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	for looked := 0; ; {
		some, err := b.handOutLocked(limit-len(tickets), hide)
		if err != nil {
			return nil, nil, unavailable(fmt.Errorf("hand out subscriptions: %w", err))
		}
		tickets = append(tickets, some...)
		if len(tickets) >= limit || looked >= wakePiece {
			break
		}
		n, err := b.wakeSomeLocked(wakePiece - looked)
		if err != nil {
			b.opt.Logger.Warn("could not wake who waits for a channel, will try again", "error", err)
			return tickets, nil, nil
		}
		if n == 0 {
			break
		}
		looked += n
	}
	if len(tickets) >= limit || b.wakes.len() > 0 {
		left = []int{0}
	}
	return tickets, left, nil
}

// handOutLocked hands out and hides what is due.
func (b *Broker) handOutLocked(limit int, hide time.Duration) ([]broker.Ticket, error) {
	batch := b.db.NewBatch()
	defer batch.Close()
	names, err := b.takeDueLocked(batch, limit)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	until := b.opt.Now().Add(hide).UnixMilli()
	tickets := make([]broker.Ticket, 0, len(names))
	for _, name := range names {
		var d dueRow
		if _, err := b.get(rowKey(rowDue, name), d.parse); err != nil {
			return nil, err
		}
		d.at = until
		b.setDueLocked(batch, name, d)
		tickets = append(tickets, broker.Ticket{Name: name, Ref: strconv.FormatUint(d.ref, 36)})
	}
	return tickets, b.applySoonLocked(batch)
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
	return unavailable(b.applySoonLocked(batch))
}

// OnDue implements broker.Schedule.
func (b *Broker) OnDue(f func(part int)) (stop func()) {
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
	fs := make([]func(int), 0, len(b.subs.onDue))
	for _, f := range b.subs.onDue {
		fs = append(fs, f)
	}
	b.subs.listening.Unlock()
	for _, f := range fs {
		f(0)
	}
}

// Owned implements broker.Schedule.
func (b *Broker) Owned(ctx context.Context, node, after string, limit int) ([]string, error) {
	return b.namesOf(ctx, rowOwner, node, after, limit)
}

// Created implements broker.Subscriptions.
func (b *Broker) Created(ctx context.Context, creator, after string, limit int) ([]string, error) {
	return b.namesOf(ctx, rowCreator, creator, after, limit)
}

// namesOf lists the names that an index has for somebody.
func (b *Broker) namesOf(ctx context.Context, row byte, who, after string, limit int) ([]string, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	prefix := rowKey(row, who, "")
	from := prefix
	if after != "" {
		from = append(rowKey(row, who, after), 0)
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
		return nil, unavailable(fmt.Errorf("list what is of %s: %w", who, err))
	}
	return names, nil
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
