package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// Reject dead-letters one event that was delivered and goes on. attempts is how
// often the consumer tried; 0: it doesn't say, which is once.
func (s *Session) Reject(ctx context.Context, c event.Cursor, reason string, attempts int) error {
	s.mu.Lock()
	d := s.durable
	if d == nil {
		s.mu.Unlock()
		return wire.BadRequest("reject is for durable sessions; this one is ephemeral")
	}
	ownership, letter := d.ownership, d.redriven(c)
	lost := d.group != nil && d.group.lost(c)
	var at event.Cursor
	var reader *cursor.Reader
	if i := d.trackOf(c); i >= 0 && i < len(s.readers) {
		if located, kept, _ := d.channels[i].Locate(c); kept && slices.Contains(d.channels[i].unacked, located.Offset) {
			at = located
		}
		alone := s.readers[i].Alone()
		reader = &alone
	}
	s.mu.Unlock()
	switch {
	case lost:
		return wire.Conflict("reject: %s is of a partition that moved to another consumer", c)
	case ownership == nil || reader == nil:
		if letter != nil || at.Offset > 0 {
			s.keepRefused(d, c, at) // else it would count as done on attaching again
		}
		return wire.Unavailable(time.Second, "the subscription is not attached at present")
	case letter == nil && at.Offset == 0:
		return wire.BadRequest("reject: %s is not an event that was delivered and is unacknowledged", c)
	}
	var item *feed.Item
	if letter != nil {
		item = letter.item
	} else {
		var err error
		if item, err = reader.At(ctx, at); err != nil && !errors.Is(err, broker.ErrNotFound) {
			s.keepRefused(d, c, at)
			return err
		}
	}
	if reason == "" {
		reason = "rejected by the consumer"
	}
	// The commit follows: once it is buried, the event is done.
	if item != nil {
		if err := ownership.BuryEvent(ctx, durable.DeadLetter{Event: item.JSON(), Reason: reason, Attempts: max(attempts, 1), Time: time.Now().UTC()}); err != nil {
			s.keepRefused(d, c, at)
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

// keepRefused has an event come again that was refused and could not be set
// aside: the consumer is done with it and acknowledges what is behind it, which
// moves nothing past it. at is where it is, unless it was redriven.
func (s *Session) keepRefused(d *durableState, c, at event.Cursor) {
	s.mu.Lock()
	before := len(d.redriveInFlight)
	d.redriveInFlight = slices.DeleteFunc(d.redriveInFlight, func(r *redriven) bool { return r.cursor == c })
	d.outstanding -= before - len(d.redriveInFlight)
	if i := d.trackOf(c); i >= 0 && at.Offset > 0 {
		state := &d.channels[i]
		if located, _, ok := state.Locate(at); ok && (state.refused == 0 || located.Offset < state.refused) {
			state.refused = located.Offset
		}
	}
	s.mu.Unlock()
	s.End(wire.CloseUnavailable, "an event that was refused can't be set aside now; it comes again", time.Second)
}

// rejectedLocked goes on without an event that is a dead letter now, be it one
// that was delivered again.
func (s *Session) rejectedLocked(c event.Cursor) {
	d := s.durable
	before := len(d.redriveInFlight)
	d.redriveInFlight = slices.DeleteFunc(d.redriveInFlight, func(r *redriven) bool { return r.cursor == c })
	d.outstanding -= before - len(d.redriveInFlight)
	i := d.trackOf(c)
	if i < 0 {
		return
	}
	state := &d.channels[i]
	if at := state.at(c); at >= 0 {
		if at > 0 {
			state.aside = append(state.aside, state.unacked[at])
		}
		d.forget(state, at, 1)
	}
	s.advanceLocked(i, 1)
	s.settleLeavingLocked(state.part)
}
