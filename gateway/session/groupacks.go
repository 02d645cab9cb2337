package session

import (
	"slices"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// AllPartitions is the partition of an acknowledgement that names none.
const AllPartitions = durable.AllPartitions

// movedAway is an event whose partition is somebody else's now.
type movedAway struct {
	at        event.Cursor
	partition int
}

// lost tells whether an event was out when its partition moved away.
func (g *group) lost(c event.Cursor) bool {
	return slices.ContainsFunc(g.moved, func(e movedAway) bool { return e.at == c })
}

// AckAside implements durable.Acker.
func (m *member) AckAside(p event.Position, partition int) ([]broker.Move, error) {
	return (*holder)(m).AckAside(p, partition)
}

// AckAside implements durable.Acker.
func (h *holder) AckAside(p event.Position, partition int) (moves []broker.Move, err error) {
	s := (*Session)(h)
	if err := s.Ack(p, partition); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.durable.channels {
		c := &s.durable.channels[i]
		owner := s.durable.owner(c)
		if _, named := p.Of(c.channel); !named || owner == nil || c.elsewhere {
			continue
		}
		moves = append(moves, broker.Move{
			Name: owner.Name, Generation: owner.Generation,
			Position: event.Position{{Channel: c.channel, Epoch: c.Epoch, Offset: c.acked}},
		})
	}
	return moves, nil
}

// ackGroupLocked acknowledges what was sent on this connection in each channel
// named before and including the event at its cursor, with offsets up to its
// own; with a partition only what belongs to that.
func (s *Session) ackGroupLocked(p event.Position, partition int) error {
	d := s.durable
	if of := d.group.state.Definition.Group; partition != AllPartitions && (of == nil || partition < 0 || partition >= of.Partitions) {
		return wire.BadRequest("ack: partition is %d; want one of hello's", partition)
	}
	for _, c := range p {
		if !slices.Contains(d.group.state.Definition.Channels, c.Channel) {
			return wire.BadRequest("ack: channel %q is not of this subscription", c.Channel)
		}
		if err := s.checkAckLocked(c, partition); err != nil {
			return err
		}
	}
	full := d.ahead() >= d.window
	for _, c := range p {
		d.ackRedriven(s.hub, c)
		upTo := d.group.sent
		if partition == AllPartitions {
			i := d.trackOf(c)
			if i < 0 {
				continue
			}
			at := d.channels[i].at(c)
			if at < 0 {
				continue // it is acknowledged
			}
			upTo = d.channels[i].sent[at]
		}
		var touched []*part
		for i := range d.channels {
			state := &d.channels[i]
			if state.channel != c.Channel || partition != AllPartitions && state.part.partition != partition {
				continue
			}
			located, _, ok := state.Locate(c)
			n := 0
			for ok && n < len(state.unacked) && state.unacked[n] <= located.Offset && state.sent[n] <= upTo {
				n++
			}
			full = full || state.part.outstanding >= d.share()
			d.forget(state, 0, n)
			s.advanceLocked(i, n)
			if state.part.leaving {
				touched = append(touched, state.part)
			}
		}
		for _, p := range touched {
			s.settleLeavingLocked(p)
		}
	}
	if full || len(d.redrivePending) > 0 {
		s.push()
	}
	return nil
}

// checkAckLocked refuses an acknowledgement of what was not delivered, or is
// somebody else's by now.
func (s *Session) checkAckLocked(c event.Cursor, partition int) error {
	d := s.durable
	if d.group.lost(c) || partition != AllPartitions && d.group.parts[partition] == nil {
		return wire.Conflict("ack: %s is of a partition that moved to another consumer; nothing was acknowledged", c)
	}
	for i := range d.channels {
		state := &d.channels[i]
		if state.channel == c.Channel && (partition == AllPartitions || state.part.partition == partition) &&
			(state.Epoch != c.Epoch || c.Offset <= state.deliveredUpTo) {
			return nil
		}
	}
	if d.redriven(c) != nil {
		return nil
	}
	return wire.BadRequest("ack: %s was not delivered yet", c)
}
