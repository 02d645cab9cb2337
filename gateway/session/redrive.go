package session

import (
	"context"
	"slices"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
)

// redriven is a dead letter that was put back, to be delivered again.
type redriven struct {
	item   *feed.Item
	cursor event.Cursor
	after  uint64 // what was delivered of its channel when it was
}

// fetchRedrives reads the dead letters that were put back and has them sent.
func (s *Session) fetchRedrives(ctx context.Context) {
	defer s.Contain("fetchRedrives")
	s.mu.Lock()
	ownership := s.durable.ownership
	s.mu.Unlock()
	if ownership == nil {
		return
	}
	letters := s.hub.redrives(ctx, ownership)
	s.mu.Lock()
	if d := s.durable; d.ownership == ownership {
		for _, r := range letters {
			if access.Read(s.grant, r.cursor.Channel) != nil {
				continue // it may be another grant than the one that attached
			}
			if d.group != nil && !d.group.owns(r.item) {
				continue // another member's
			}
			same := func(o *redriven) bool { return r.cursor == o.cursor }
			if !slices.ContainsFunc(d.redrivePending, same) && !slices.ContainsFunc(d.redriveInFlight, same) {
				d.redrivePending = append(d.redrivePending, r)
			}
		}
	}
	s.mu.Unlock()
	s.push()
}

// redrives are the dead letters that were put back.
func (h *Hub) redrives(ctx context.Context, ownership *durable.Ownership) (all []*redriven) {
	letters, err := ownership.LettersAgain(ctx)
	if err != nil {
		h.opts.Logger.Warn("read dead letters that were put back", "subscription", ownership.Name, "error", err)
		return nil
	}
	for _, l := range letters {
		c, err := event.ParseCursor(l.Cursor)
		if err != nil {
			continue
		}
		all = append(all, &redriven{item: feed.Remade(c, l.Event, l.Type, l.Key), cursor: c})
	}
	return all
}

// fillRedrives appends dead letters that are to be delivered again.
func (s *Session) fillRedrives(b *batch) (size int) {
	stride := s.codec.Traits().Stride
	for _, r := range s.durable.redrivePending {
		b.full = b.full || b.room <= 0
		if b.room <= 0 || size >= batchBytes || len(b.bufs)+stride > batchBuffers {
			break
		}
		b.bufs, b.scratch = s.codec.AppendEvent(b.bufs, b.scratch, r.item, nil)
		b.marks = append(b.marks, mark{reader: ofRedrive})
		b.room--
		size += len(r.item.JSON())
	}
	return size
}

// handedRedrive notes that the first of the dead letters was delivered.
func (d *durableState) handedRedrive() {
	r := d.redrivePending[0]
	if i := d.indexOf(r.cursor.Channel); i >= 0 {
		r.after = d.channels[i].deliveredUpTo
	}
	d.redrivePending = d.redrivePending[1:]
	d.redriveInFlight = append(d.redriveInFlight, r)
	d.outstanding++
}

// redriven returns the dead letter at c that was delivered again, or nil.
func (d *durableState) redriven(c event.Cursor) *redriven {
	for _, r := range d.redriveInFlight {
		if r.cursor == c {
			return r
		}
	}
	return nil
}

// ackRedriven forgets dead letters that are acknowledged: by their own cursor,
// or by that of an event that was delivered after them.
func (d *durableState) ackRedriven(h *Hub, c event.Cursor) {
	if len(d.redriveInFlight) == 0 || d.ownership == nil {
		return
	}
	var cursors []string
	d.redriveInFlight = slices.DeleteFunc(d.redriveInFlight, func(r *redriven) bool {
		done := r.cursor == c || d.group == nil && r.cursor.Channel == c.Channel && c.Offset > r.after
		if done {
			cursors = append(cursors, r.cursor.String())
			d.outstanding--
		}
		return done
	})
	if ownership := d.ownership; len(cursors) > 0 {
		h.spawn(func(ctx context.Context) {
			if err := ownership.Remove(ctx, cursors); err != nil {
				h.opts.Logger.Warn("remove dead letters that were delivered again", "subscription", ownership.Name, "error", err)
			}
		})
	}
}
