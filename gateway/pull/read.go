package pull

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// answer is a page of events as JSON.
type answer struct {
	bytes []byte
	count int
	at    event.Position
}

// pull reads what follows the acknowledged position, waiting for something if
// there is nothing.
func (l *pullLease) pull(ctx context.Context, q request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, q.wait+readTime)
	defer cancel()
	enough := time.NewTimer(q.wait)
	defer enough.Stop()
	for {
		a, err := l.read(ctx, q.max)
		if err != nil {
			return a, err
		}
		if a.count == 0 && q.wait > 0 {
			select {
			case <-l.wake:
				continue
			case <-l.over:
			case <-l.p.draining:
			case <-enough.C:
			case <-ctx.Done():
			}
		}
		a.bytes = append(a.bytes, `],"cursor":"`...)
		a.bytes = append(a.at.Append(a.bytes), "\"}\n"...)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ended {
			return a, wire.Conflict("subscription %q was taken over by another connection of this consumer, or changed; pull again", l.name)
		}
		if a.count > 0 {
			l.given = a.at
		}
		return a, nil
	}
}

// readTime bounds what reading takes, beside the wait for an event.
const readTime = 5 * time.Second

// read reads one page, dead letters that were put back first.
func (l *pullLease) read(ctx context.Context, limit int) (answer, error) {
	l.mu.Lock()
	a := answer{bytes: []byte(`{"events":[`), at: slices.Clone(l.at)}
	paused := l.state.Paused
	l.told = 0
	if !paused {
		for _, letter := range l.again[:min(limit, len(l.again))] {
			a.add(letter.Event)
			l.told++
		}
	}
	l.mu.Unlock()
	if paused {
		return a, nil
	}
	for _, f := range l.feeds {
		i := slices.IndexFunc(a.at, func(c event.Cursor) bool { return c.Channel == f.Channel() })
		if i < 0 {
			s := f.State()
			a.at, i = append(a.at, event.Cursor{Channel: f.Channel(), Epoch: s.Epoch, Offset: s.Head}), len(a.at)
		}
		before := a.count
		if err := l.readChannel(ctx, f, &a, i, limit); err != nil {
			return a, err
		}
		if a.count == before && a.at[i].Offset > 0 {
			l.moved(a.at[i]) // over what the types left out
		}
	}
	return a, nil
}

func (a *answer) add(text []byte) {
	if a.count++; a.count > 1 {
		a.bytes = append(a.bytes, ',')
	}
	a.bytes = append(a.bytes, text...)
}

// readChannel appends a channel's events and moves its cursor over them.
func (l *pullLease) readChannel(ctx context.Context, f *feed.Feed, a *answer, i, limit int) error {
	var items []*feed.Item
	for a.count < limit && len(a.bytes) < maxBytes {
		var view feed.View
		c := &a.at[i]
		items, view = f.Take(items[:0], c.Epoch, c.Offset, limit, maxBytes)
		if view.State.Epoch != c.Epoch {
			l.relocate(c, view.State)
			continue
		}
		if view.Behind {
			page, err := f.Page(ctx, c.Offset)
			switch {
			case errors.Is(err, broker.ErrNotFound):
				return nil
			case err != nil:
				return err
			case page.State.Epoch != c.Epoch:
				l.relocate(c, page.State)
				continue
			}
			items = append(items[:0], page.After(c.Offset)...)
			first := view.Oldest
			if len(items) > 0 {
				first = items[0].Offset
			}
			if first > c.Offset+1 {
				l.gap(*c, first-1, wire.GapRetention)
				c.Offset = first - 1
			}
		}
		if len(items) == 0 && !view.Behind {
			return nil
		}
		for _, item := range items {
			if a.count == limit || len(a.bytes) >= maxBytes {
				return nil
			}
			c.Offset = item.Offset
			if l.filter.Match(item.Type()) {
				a.add(item.JSON())
			}
		}
	}
	return nil
}

// relocate moves a cursor of another epoch to where that is now.
func (l *pullLease) relocate(c *event.Cursor, state broker.State) {
	offset, kind := state.Locate(c.Epoch, c.Offset)
	to := event.Cursor{Channel: c.Channel, Epoch: state.Epoch, Offset: offset}
	if kind != broker.Here {
		l.ownership.Tell("gap", map[string]string{"channel": c.Channel, "from": c.String(), "to": to.String(), "reason": wire.GapReset})
	}
	*c = to
}

func (l *pullLease) gap(c event.Cursor, to uint64, reason string) {
	end := c
	end.Offset = to
	l.ownership.Tell("gap", map[string]string{"channel": c.Channel, "from": c.String(), "to": end.String(), "reason": reason})
}

// moved commits a cursor that no given event stands before.
func (l *pullLease) moved(c event.Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.at, func(at event.Cursor) bool { return at.Channel == c.Channel })
	if i >= 0 && l.at[i] != c {
		l.at[i] = c
		l.ownership.Advance(c, 0)
	}
}
