package durable

import (
	"cmp"
	"context"
	"errors"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Ack acknowledges for whoever owns the subscription, on whatever node. With a
// connection it counts only while that one does: broker.ErrFenced if not. Without,
// ErrLate where it may be of what was delivered before the position was moved. It
// returns once that is as durable as a publish is. ErrGroup where it is shared. said
// is the client's position, to what that is in the logs as they are now. The
// owner is told what the client said: it may not have come to a fork yet, and
// with its window full it never would, if it didn't know the cursor.
func (k *Manager) Ack(ctx context.Context, s State, said, to event.Position, connection string) error {
	if s.Definition.Group != nil {
		return ErrGroup
	}
	if connection != "" && (s.Owner == nil || s.Owner.Connection != connection) {
		return broker.ErrFenced
	}
	if connection == "" && s.Moved != "" {
		late, err := k.late(ctx, &s, to)
		if err != nil {
			return err
		}
		if o := s.Owner; len(late) > 0 && o != nil && o.Kind != Call && k.alive(o.Node) {
			return k.ackByOwner(ctx, &s, said)
		}
		for _, c := range late {
			if since, err := k.lies(ctx, s.Reached, c); err != nil || !since {
				return cmp.Or(err, ErrLate)
			}
		}
	}
	fenced, err := k.o.Broker.Advance(ctx, []broker.Move{{Name: s.Name, Generation: s.Generation, Position: to, Durable: true}})
	if err != nil {
		return err
	}
	if len(fenced) > 0 {
		return broker.ErrFenced
	}
	if s.Owner != nil {
		k.send(ctx, s.Owner.Node, Message{Op: OpAcked, Name: s.Name, Generation: s.Generation, Position: said.String()})
	}
	if s.reaches(to) {
		if err := k.endReplay(ctx, s.Name); err != nil && !errors.Is(err, ErrNotDue) && !errors.Is(err, broker.ErrNotFound) {
			k.o.Logger.Debug("end a replay", "subscription", s.Name, "error", err)
		}
	}
	return nil
}

// ErrUnattached: no connection is attached, so nothing is being delivered.
var ErrUnattached = errors.New("no connection is attached")

// Reject makes a dead letter of an event, at c, for the consumer that owns the
// subscription on whatever node, which goes on without it: ErrUnattached if
// none does. connection is as for Ack; of a group it says which member is
// meant. Who pulls is given the event until it is acknowledged.
func (k *Manager) Reject(ctx context.Context, s State, c event.Cursor, dead DeadLetter, connection string) error {
	owner := s.Owner
	if s.Definition.Group != nil {
		owner = s.member(connection)
	}
	switch {
	case connection != "" && (owner == nil || owner.Connection != connection):
		return broker.ErrFenced
	case owner == nil || owner.Kind != Live && owner.Kind != Pull:
		return ErrUnattached
	}
	// A letter that is there already takes its place: rejecting twice is once.
	if err := k.bury(ctx, s.Name, s.Generation, []DeadLetter{dead}); err != nil {
		return err
	}
	k.send(ctx, owner.Node, Message{Op: OpRejected, Name: s.Name, Generation: s.Generation, Connection: owner.Connection, Position: c.String()})
	return nil
}

// rejected tells whoever holds the subscription that an event is a dead letter
// now: of a group the member by that connection.
func (k *Manager) rejected(m Message) {
	c, err := event.ParseCursor(m.Position)
	if err != nil {
		return
	}
	if s, ok := k.deliverer(m).(Settler); ok {
		s.Rejected(c)
	}
}

// Redriven tells a subscription's owner that dead letters were put back. Where
// nobody owns it, a callback that is parked is woken.
func (k *Manager) Redriven(ctx context.Context, name string) error {
	return k.Change(ctx, name, func(s State, _ bool, env Env) (Change, error) {
		if s.Version == 0 {
			return Change{}, broker.ErrNotFound
		}
		c := s.change()
		if c.tell(s.Owner, Message{Op: OpRedrive}); s.Owner == nil && s.Parked {
			c.Record.Parked, c.Record.Grace = false, env.Now
		}
		return c, nil
	})
}
