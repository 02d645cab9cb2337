package pull

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// ack takes the acknowledgement that came with a pull.
func (p *Puller) ack(ctx context.Context, g *auth.Grant, s durable.State, q request) error {
	for {
		to, err := s.Located(ctx, p.o.Log, q.ack)
		if err != nil {
			return err
		}
		if s.Definition.Group != nil {
			err = p.ackGroup(ctx, s, to, q)
		} else {
			err = p.o.Manager.Ack(ctx, s, q.ack, to, "")
		}
		if errors.Is(err, durable.ErrLate) {
			return nil // it comes again
		}
		if !errors.Is(err, broker.ErrFenced) && !errors.Is(err, durable.ErrGroup) {
			if err != nil {
				return err
			}
			break
		}
		if s, err = p.o.Hub.Subscription(ctx, g, q.name); err != nil {
			return err
		}
	}
	if l := p.held(q.name, q.consumer); l != nil {
		return l.ackedAgain(ctx, q.ack)
	}
	return nil
}

// ackGroup acknowledges what a member of a group was given, on whatever node.
func (p *Puller) ackGroup(ctx context.Context, s durable.State, to event.Position, q request) error {
	m := s.MemberOf(q.consumer)
	if m == nil || m.Kind != durable.Pull {
		return wire.Conflict("consumer %q does not pull of group %q any longer, and what it was given comes again, here or elsewhere; pull without ack, and with a longer hold", q.consumer, q.name)
	}
	return p.o.Manager.AckGroup(ctx, s, to, q.partition, m.Connection)
}

// AckAside implements durable.Acker: of each partition it acknowledges what was
// given, up to the cursor.
func (m *member) AckAside(p event.Position, partition int) (moves []broker.Move, err error) {
	l := (*lease)(m)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followLocked()
	for i, c := range p {
		if err := l.checkAckLocked(c, partition); err != nil {
			return nil, err
		}
		if p[i] = l.hereLocked(c); p[i].Epoch == "" { // it is of the log's present epoch
			return nil, notHeard(c)
		}
	}
	for _, s := range slices.Clone(l.shares) { // settling takes some off
		if partition != durable.AllPartitions && s.partition != partition {
			continue
		}
		for _, c := range p {
			s.ackedLocked(c)
		}
		if len(s.at) > 0 {
			moves = append(moves, broker.Move{Name: s.ownership.Name, Generation: s.ownership.Generation, Position: slices.Clone(s.at)})
		}
		s.settleLocked()
	}
	l.renewLocked()
	return moves, nil
}

// AckAside implements durable.Acker, for who owns a subscription alone.
func (s *share) AckAside(p event.Position, _ int) (moves []broker.Move, err error) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.shares) == 0 || l.member() {
		return nil, broker.ErrFenced
	}
	var to event.Position
	for _, c := range p {
		here := l.hereLocked(c)
		at, ok := l.answered.Of(c.Channel)
		if at = l.hereLocked(at); !ok || at.Epoch != here.Epoch || here.Offset > at.Offset {
			return nil, wire.BadRequest("ack: %s was not given yet", c)
		}
		if here.Epoch == "" {
			return nil, notHeard(c)
		}
		to = append(to, here)
	}
	s.movedLocked(to)
	return []broker.Move{{Name: s.ownership.Name, Generation: s.ownership.Generation, Position: to}}, nil
}

// notHeard is the error for a cursor of an epoch that the node has yet to hear of.
func notHeard(c event.Cursor) error {
	return wire.Unavailable(time.Second, "ack: this node has yet to hear of the epoch of %s", c)
}

// followLocked names where the shares are by the epochs that the logs have now.
// What is of a log that is gone stays as it is: that is to be told.
func (l *lease) followLocked() {
	follow := func(p event.Position) event.Position {
		if !slices.ContainsFunc(p, func(c event.Cursor) bool { at := l.hereLocked(c); return at.Epoch != "" && at != c }) {
			return p
		}
		p = slices.Clone(p)
		for i, c := range p {
			if at := l.hereLocked(c); at.Epoch != "" {
				p[i] = at
			}
		}
		return p
	}
	for _, s := range l.shares {
		s.at, s.given, s.read, s.out = follow(s.at), follow(s.given), follow(s.read), follow(s.out)
	}
}

// checkAckLocked refuses an acknowledgement of what was not given, or is
// somebody else's by now.
func (l *lease) checkAckLocked(c event.Cursor, partition int) error {
	covers := slices.ContainsFunc(l.shares, func(s *share) bool {
		_, given := s.read.Of(c.Channel)
		return given && (partition == durable.AllPartitions || s.partition == partition)
	})
	here := l.hereLocked(c)
	if slices.ContainsFunc(l.moved, func(e movedAway) bool { return l.hereLocked(e.at) == here }) || !covers {
		return wire.Conflict("ack: %s is of a partition that moved to another consumer; nothing was acknowledged", c)
	}
	if at, ok := l.answered.Of(c.Channel); !ok || l.hereLocked(at).Epoch == here.Epoch && here.Offset > at.Offset {
		return wire.BadRequest("ack: %s was not given yet", c)
	}
	return nil
}

// ackedLocked acknowledges what was given of a partition up to a cursor.
func (s *share) ackedLocked(c event.Cursor) {
	read, ok := s.read.Of(c.Channel)
	if !ok {
		return
	}
	if read.Epoch == c.Epoch && read.Offset < c.Offset {
		c = read
	}
	if at, had := s.at.Of(c.Channel); had && at.Epoch == c.Epoch && at.Offset >= c.Offset {
		return
	}
	before := len(s.out)
	s.out = slices.DeleteFunc(s.out, func(o event.Cursor) bool {
		return o.Channel == c.Channel && o.Epoch == c.Epoch && o.Offset <= c.Offset
	})
	s.at = put(slices.Clone(s.at), c)
	s.ownership.Advance(c, max(before-len(s.out), 1))
}

// hereLocked is a cursor in the log as the node knows it; of no epoch where that
// doesn't know it.
func (l *lease) hereLocked(c event.Cursor) event.Cursor {
	for i := range l.readers {
		if l.readers[i].Channel() == c.Channel {
			at, _, ok := l.readers[i].Present().Locate(c)
			if !ok {
				return event.Cursor{Channel: c.Channel}
			}
			return at
		}
	}
	return c
}
