package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// handed notes that an event was delivered.
func (d *held) handed(i int, offset uint64) {
	l := &d.lanes[i]
	l.sent = offset
	l.out = append(l.out, offset)
	d.unacked++
}

// Ack acknowledges everything up to a cursor, in each channel named.
func (s *Session) Ack(p event.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.held
	if d == nil {
		return wire.BadRequest("ack is for durable sessions; this one is ephemeral")
	}
	if len(p) == 0 {
		return wire.BadRequest("ack needs cursor")
	}
	for _, c := range p {
		i := d.lane(c.Channel)
		if i < 0 {
			return wire.BadRequest("ack: channel %q is not of this subscription", c.Channel)
		}
		if l := &d.lanes[i]; c.Epoch == l.epoch && c.Offset > l.sent {
			return wire.BadRequest("ack: %s was not delivered yet", c)
		}
	}
	full := d.unacked >= d.window
	for _, c := range p {
		s.ackLocked(c)
	}
	if full || len(d.again) > 0 {
		s.push()
	}
	return nil
}

func (d *held) lane(channel string) int {
	for i := range d.lanes {
		if d.lanes[i].channel == channel {
			return i
		}
	}
	return -1
}

// ackLocked takes an acknowledgement in and has it committed.
func (s *Session) ackLocked(c event.Cursor) {
	d := s.held
	d.ackAgain(s.hub, c)
	n := s.ackedLocked(c)
	l := &d.lanes[d.lane(c.Channel)]
	if done := l.done(); done > l.acked && d.ownership != nil {
		l.acked = done
		d.ownership.Advance(event.Cursor{Channel: l.channel, Epoch: l.epoch, Offset: done}, max(n, 1))
	}
}

// ackedLocked forgets what is acknowledged and returns how many events.
func (s *Session) ackedLocked(c event.Cursor) (n int) {
	d := s.held
	i := d.lane(c.Channel)
	if i < 0 {
		return 0
	}
	l := &d.lanes[i]
	if c.Epoch != l.epoch {
		if i >= len(s.tracks) {
			return 0
		}
		// It may mean the same offset after a fork.
		offset, kind := s.tracks[i].feed.State().Locate(c.Epoch, c.Offset)
		if kind != broker.Here {
			return 0
		}
		c.Offset = offset
	}
	for n < len(l.out) && l.out[n] <= c.Offset {
		n++
	}
	if l.out = l.out[n:]; len(l.out) == 0 {
		l.out = nil
	}
	d.unacked -= n
	if c.Offset > l.sent && i < len(s.tracks) { // by somebody else, elsewhere
		l.sent = c.Offset
		s.tracks[i].offset, s.tracks[i].page = max(s.tracks[i].offset, c.Offset), nil
	}
	return n
}

// ackAgain forgets dead letters that are acknowledged: by their own cursor, or
// by that of an event that was delivered after them.
func (d *held) ackAgain(h *Hub, c event.Cursor) {
	if len(d.twice) == 0 || d.ownership == nil {
		return
	}
	var ids []string
	d.twice = slices.DeleteFunc(d.twice, func(a *again) bool {
		done := a.cursor == c || a.cursor.Channel == c.Channel && c.Offset > a.after
		if done {
			ids = append(ids, a.id)
			d.unacked--
		}
		return done
	})
	if ownership := d.ownership; len(ids) > 0 {
		h.spawn(func(ctx context.Context) {
			if err := ownership.Remove(ctx, ids); err != nil {
				h.opts.Logger.Warn("remove dead letters that were delivered again", "subscription", ownership.Name, "error", err)
			}
		})
	}
}

// Reject dead-letters one event that was delivered and goes on.
func (s *Session) Reject(ctx context.Context, c event.Cursor, reason string) error {
	s.mu.Lock()
	d := s.held
	if d == nil {
		s.mu.Unlock()
		return wire.BadRequest("reject is for durable sessions; this one is ephemeral")
	}
	ownership, i := d.ownership, d.lane(c.Channel)
	var f *feed.Feed
	var letter *again
	if i >= 0 && i < len(s.tracks) {
		f = s.tracks[i].feed
	}
	for _, a := range d.twice {
		if a.cursor == c {
			letter = a
		}
	}
	delivered := i >= 0 && d.lanes[i].epoch == c.Epoch && slices.Contains(d.lanes[i].out, c.Offset)
	s.mu.Unlock()
	switch {
	case ownership == nil || f == nil:
		return wire.Unavailable(time.Second, "the subscription is not attached at present")
	case letter == nil && !delivered:
		return wire.BadRequest("reject: %s is not an event that was delivered and is unacknowledged", c)
	}
	item := (*feed.Item)(nil)
	if letter != nil {
		item = letter.item
	} else {
		page, err := f.Page(ctx, c.Offset-1)
		if err != nil && !errors.Is(err, broker.ErrNotFound) {
			return err
		}
		if err == nil && page.State.Epoch == c.Epoch {
			if items := page.After(c.Offset - 1); len(items) > 0 && items[0].Offset == c.Offset {
				item = items[0]
			}
		}
	}
	if reason == "" {
		reason = "rejected by the consumer"
	}
	// The commit follows: once it is buried, the event is done.
	if item != nil {
		if err := ownership.BuryEvent(ctx, durable.DeadLetter{Event: item.JSON(), Reason: reason, Attempts: 1, Time: time.Now().UTC()}); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.ownership != ownership {
		return nil
	}
	s.rejectedLocked(c)
	s.push()
	return nil
}

// rejectedLocked goes on without an event that is a dead letter now, be it one
// that was delivered again.
func (s *Session) rejectedLocked(c event.Cursor) {
	d := s.held
	before := len(d.twice)
	d.twice = slices.DeleteFunc(d.twice, func(a *again) bool { return a.cursor == c })
	d.unacked -= before - len(d.twice)
	i := d.lane(c.Channel)
	if i < 0 || d.lanes[i].epoch != c.Epoch {
		return
	}
	l := &d.lanes[i]
	if at := slices.Index(l.out, c.Offset); at >= 0 {
		l.out = slices.Delete(l.out, at, at+1)
		d.unacked--
	}
	if done := l.done(); done > l.acked && d.ownership != nil {
		l.acked = done
		d.ownership.Advance(event.Cursor{Channel: l.channel, Epoch: l.epoch, Offset: done}, 1)
	}
}

// movedLocked commits where the position moved over events that were left out.
func (s *Session) movedLocked() {
	d := s.held
	if d == nil || d.ownership == nil {
		return
	}
	for i := range s.tracks {
		l := &d.lanes[i]
		if l.sent = max(l.sent, s.tracks[i].offset); l.done() > l.acked {
			l.acked = l.done()
			d.ownership.Advance(event.Cursor{Channel: l.channel, Epoch: l.epoch, Offset: l.acked}, 0)
		}
	}
}

// placedLocked follows a track that is placed anew: in another epoch, or
// behind a gap, which is told of.
func (s *Session) placedLocked(tr *track, p place, epoch string) {
	d := s.held
	l := &d.lanes[d.lane(tr.feed.Channel())]
	if l.epoch != epoch {
		if p.gap != nil { // what was delivered is not in the log as it is now
			d.unacked -= len(l.out)
			l.out = nil
		}
		l.epoch, l.acked = epoch, 0
	}
	l.sent = p.offset
	if d.ownership == nil {
		return
	}
	if p.gap != nil {
		d.ownership.Tell("gap", gapNotice(p.gap))
	}
	if done := l.done(); done > l.acked || l.acked == 0 {
		l.acked = done
		d.ownership.Advance(event.Cursor{Channel: l.channel, Epoch: epoch, Offset: done}, 0)
	}
}

func gapNotice(g *wire.Control) map[string]string {
	return map[string]string{"channel": g.Channel, "from": g.From, "to": g.To, "reason": g.Reason}
}

// roundPause is when a peer comes back whose way to acknowledge that is.
const roundPause = 50 * time.Millisecond

// fillAgain appends dead letters that are to be delivered again.
func (s *Session) fillAgain(t *Turn) (size int) {
	stride := s.codec.Traits().Stride
	for _, a := range s.held.again {
		if t.room <= 0 || size >= turnBytes || len(t.bufs)+stride > turnBuffers {
			break
		}
		t.bufs, t.scratch = s.codec.AppendEvent(t.bufs, t.scratch, a.item, nil)
		t.marks = append(t.marks, mark{track: redrive})
		t.room--
		size += len(a.item.JSON())
	}
	return size
}

// handedAgain notes that the first of the dead letters was delivered.
func (d *held) handedAgain() {
	a := d.again[0]
	if i := d.lane(a.cursor.Channel); i >= 0 {
		a.after = d.lanes[i].sent
	}
	d.again = d.again[1:]
	d.twice = append(d.twice, a)
	d.unacked++
}

// unheldLocked gives the subscription up.
func (s *Session) unheldLocked() {
	d := s.held
	d.cancel()
	h := d.ownership
	if h == nil {
		return
	}
	var delivered event.Position
	s.movedLocked()
	d.ownership = nil
	for _, l := range d.lanes {
		if len(l.out) > 0 {
			delivered = append(delivered, event.Cursor{Channel: l.channel, Epoch: l.epoch, Offset: l.out[len(l.out)-1]})
		}
	}
	h.Release(delivered, 0)
}
