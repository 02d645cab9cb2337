package durable

import (
	"context"
	"errors"
	"slices"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// Whoever acknowledges by a request of his own and names no connection may speak of
// what he was given before somebody moved the position back, or changed what is
// delivered. That must not undo it. So of what was in the logs by then only that
// counts which was delivered since: its present owner knows, or an earlier one said.

// ErrLate: what is acknowledged was delivered before the position was moved, and
// not since.
var ErrLate = errors.New("it was delivered before the position was moved or the subscription changed, and not since")

// Outdate makes of a change one by which acknowledgements of what was delivered
// before it count no longer; heads are where the logs end.
func (c Change) Outdate(heads event.Position) Change {
	c.Record.Moved, c.Record.Reached = heads.String(), ""
	return c
}

// reached notes how far an owner delivered, until that is acknowledged as far as
// anything may be late.
func (c *Change) reached(p, acknowledged event.Position) {
	moved, err := event.ParsePosition(c.Record.Moved)
	behind := func(m event.Cursor) bool {
		at, ok := acknowledged.Of(m.Channel)
		return !ok || at.Epoch != m.Epoch || at.Offset < m.Offset
	}
	if err != nil || !slices.ContainsFunc(moved, behind) {
		c.Record.Moved, c.Record.Reached = "", ""
		return
	}
	all, err := event.ParsePosition(c.Record.Reached)
	if err != nil {
		all = nil
	}
	for _, cursor := range p {
		all = merge(all, cursor)
	}
	c.Record.Reached = all.String()
}

// late is what of an acknowledgement that names no connection may be of what was
// delivered before the position was moved.
func (k *Manager) late(ctx context.Context, s *State, to event.Position) (late event.Position, err error) {
	for _, c := range to {
		if at, ok := s.Position.Of(c.Channel); ok && at.Epoch == c.Epoch && at.Offset >= c.Offset {
			continue // it does nothing
		}
		within, err := k.lies(ctx, s.Moved, c)
		if err != nil {
			return nil, err
		}
		if within {
			late = append(late, c)
		}
	}
	return late, nil
}

// lies tells whether a cursor, of its log's present epoch, lies within a position
// that was noted.
func (k *Manager) lies(ctx context.Context, noted string, c event.Cursor) (bool, error) {
	upTo, ok := cursorOf(noted, c.Channel)
	if !ok {
		return false, nil
	}
	if upTo.Epoch != c.Epoch {
		state, err := k.o.Logs.State(ctx, c.Channel)
		if err != nil {
			return false, err
		}
		upTo.Offset, _ = state.Locate(upTo.Epoch, upTo.Offset)
	}
	return c.Offset <= upTo.Offset, nil
}

// ackByOwner has the client that owns the subscription acknowledge what it was
// delivered.
func (k *Manager) ackByOwner(ctx context.Context, s *State, said event.Position) error {
	err := k.ask(ctx, s.Owner.Node, Message{Op: OpAck, Name: s.Name, Generation: s.Generation, Position: said.String(), Partition: AllPartitions})
	switch e := wire.From(err); {
	case err == nil, errors.Is(err, broker.ErrFenced):
		return err
	case e.Code == wire.CodeBadRequest:
		return ErrLate
	case e.Code == wire.CodeConflict: // likewise, on another node
		return broker.ErrFenced
	}
	return err
}
