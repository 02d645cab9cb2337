package durable

import (
	"context"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// Stater tells where logs stand; see broker.Log.
type Stater interface {
	State(ctx context.Context, channel string) (broker.State, error)
}

// Located returns what a client's position means in the logs as they are now.
// Cursors of logs that are gone are left out; those beyond the head, and those
// of other channels, are errors for the client.
func (s *State) Located(ctx context.Context, logs Stater, p event.Position) (event.Position, error) {
	var to event.Position
	for _, c := range p {
		if _, ok := s.Position.Of(c.Channel); !ok {
			return nil, wire.BadRequest("cursor %q is of channel %q, which is not of subscription %q", c, c.Channel, s.Name)
		}
		state, err := logs.State(ctx, c.Channel)
		if err != nil {
			return nil, err
		}
		offset, place := state.Locate(c.Epoch, c.Offset)
		switch place {
		case broker.Beyond:
			return nil, wire.BadRequest("cursor %s was not delivered yet: the head is %s@%s-%d", c, c.Channel, state.Epoch, state.Head)
		case broker.Here:
			to = append(to, event.Cursor{Channel: c.Channel, Epoch: state.Epoch, Offset: offset})
		}
	}
	return to, nil
}
