package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// State implements broker.Log.
func (b *Broker) State(ctx context.Context, channel string) (broker.State, error) {
	if err := b.enter(ctx); err != nil {
		return broker.State{}, err
	}
	defer b.calls.leave()
	c, err := b.peek(channel)
	if err != nil {
		return broker.State{}, unavailable(err)
	}
	return c.stateLocked(), nil // of our own copy
}

// Read implements broker.Log.
func (b *Broker) Read(ctx context.Context, channel string, offset uint64, limit broker.Limit) (broker.Page, error) {
	if err := b.enter(ctx); err != nil {
		return broker.Page{}, err
	}
	defer b.calls.leave()
	limit = limit.WithDefaults()
	for {
		c, err := b.peek(channel)
		if err != nil {
			return broker.Page{}, unavailable(err)
		}
		s := c.stateLocked() // of our own copy
		page := broker.Page{State: s}
		from := max(offset, s.First-1) // after which to read
		if from >= s.Head {
			return page, nil
		}
		page.Items, err = b.readItems(c.log, from+1, s.Head, limit)
		if err != nil {
			return broker.Page{}, unavailable(fmt.Errorf("read %s: %w", channel, err))
		}
		// Trimmed or dropped since the state was taken: once more.
		if len(page.Items) > 0 && page.Items[0].Offset == from+1 {
			return page, nil
		}
		if err := ctx.Err(); err != nil {
			return broker.Page{}, err
		}
	}
}

// readItems reads events from first to last as far as they go without a hole.
func (b *Broker) readItems(log, first, last uint64, limit broker.Limit) ([]broker.Item, error) {
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: eventKey(log, first), UpperBound: eventKey(log, last+1)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	items := make([]broker.Item, 0, min(uint64(limit.Events), last-first+1, 1024))
	// Events share pieces of memory, so that a page is a few allocations.
	var piece []byte
	size := 0
	for ok := it.First(); ok && len(items) < limit.Events; ok = it.Next() {
		ms, _, data, err := eventOf(it.Value())
		if err != nil {
			return nil, err
		}
		if len(items) > 0 && (size+len(data) > limit.Bytes || offsetOf(it.Key()) != first+uint64(len(items))) {
			break
		}
		size += len(data)
		if len(data) > cap(piece)-len(piece) {
			left := int(min(last-first+1, uint64(limit.Events))) - len(items)
			piece = make([]byte, 0, max(len(data), min(left*len(data), 64<<10)))
		}
		at := len(piece)
		piece = append(piece, data...)
		items = append(items, broker.Item{
			Offset: offsetOf(it.Key()), Time: time.UnixMilli(ms), Data: piece[at:len(piece):len(piece)],
		})
	}
	return items, it.Error()
}

// OffsetAt implements broker.Log.
func (b *Broker) OffsetAt(ctx context.Context, channel string, t time.Time) (uint64, error) {
	if err := b.enter(ctx); err != nil {
		return 0, err
	}
	defer b.calls.leave()
	c, err := b.peek(channel)
	if err != nil {
		return 0, unavailable(err)
	}
	// Times are kept in whole milliseconds, cut off: an event of the present
	// one may have come before t.
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	offset, err := b.offsetBefore(c.log, c.stateLocked(), ms)
	if err != nil {
		return 0, unavailable(fmt.Errorf("search %s: %w", channel, err))
	}
	return offset, nil
}

// offsetBefore returns the offset of the last event of before ms, or First-1.
func (b *Broker) offsetBefore(log uint64, s broker.State, ms int64) (uint64, error) {
	return b.search(log, s, func(at int64, _ uint64) bool { return at >= ms })
}

// search returns the last offset, or First-1, before the first event for which
// found holds; found must hold for all that follow as well. It is given the
// time and the sum of an event.
func (b *Broker) search(log uint64, s broker.State, found func(ms int64, sum uint64) bool) (uint64, error) {
	if s.First > s.Head {
		return s.First - 1, nil
	}
	var failed error
	n := sort.Search(int(s.Head-s.First+1), func(i int) bool {
		value, closer, err := b.db.Get(eventKey(log, s.First+uint64(i)))
		if errors.Is(err, pebble.ErrNotFound) {
			return false // trimmed meanwhile
		}
		if err != nil {
			failed = err
			return true
		}
		defer closer.Close()
		ms, sum, _, err := eventOf(value)
		if err != nil {
			failed = err
			return true
		}
		return found(ms, sum)
	})
	return s.First + uint64(n) - 1, failed
}

// Channels implements broker.Log.
func (b *Broker) Channels(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	names, err := b.storedChannels(ctx, prefix, after, limit)
	if err != nil {
		return nil, unavailable(fmt.Errorf("list channels: %w", err))
	}
	if more := b.transientChannels(prefix, after); len(more) > 0 {
		names = append(names, more...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	return names[:min(len(names), limit)], nil
}

func (b *Broker) storedChannels(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	lower := channelKey(prefix)
	upper := slices.Clone(lower)
	upper[len(upper)-1]++ // no name holds a byte 0xff, nor does the kind of key
	if after != "" && after >= prefix {
		lower = append(channelKey(after), 0)
	}
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var names []string
	for ok := it.First(); ok && len(names) < limit; ok = it.Next() {
		names = append(names, string(it.Key()[1:]))
		if len(names)%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return names, it.Error()
}

// transientChannels are those of which nothing is on the disk.
func (b *Broker) transientChannels(prefix, after string) []string {
	var names []string
	for i := range b.channels.shards {
		s := &b.channels.shards[i]
		s.mu.Lock()
		for name, c := range s.byName {
			if c.transientLocked() && name > after && strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
		s.mu.Unlock()
	}
	return names
}

// unavailable marks an error of the store as such.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	for _, known := range []error{
		broker.ErrNotFound, broker.ErrConflict, broker.ErrFenced, broker.ErrUnavailable, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}
