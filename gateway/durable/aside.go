package durable

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// AllPartitions is the partition of an acknowledgement that names none.
const AllPartitions = -1

// Acker is a Member, or a Holder, whose client may acknowledge by a request of its
// own.
type Acker interface {
	// AckAside acknowledges as the client does on its connection, and returns
	// what is to be committed by it. partition may be AllPartitions.
	AckAside(p event.Position, partition int) ([]broker.Move, error)
}

// answerWait is how long another node may take to answer.
const answerWait = 2 * time.Second

// AckGroup acknowledges for a member's connection, on whatever node that is: what
// was delivered of which partition only that one knows. It returns once that is
// as durable as a publish is. broker.ErrFenced if the connection is no member.
func (k *Manager) AckGroup(ctx context.Context, s State, to event.Position, partition int, connection string) error {
	m := s.member(connection)
	if m == nil {
		return broker.ErrFenced
	}
	return k.ask(ctx, m.Node, Message{Op: OpAck, Name: s.Name, Connection: connection, Position: to.String(), Partition: partition})
}

// ask has a member's node acknowledge, this one or another, and returns what came
// of it.
func (k *Manager) ask(ctx context.Context, node string, question Message) error {
	if question.From = k.Node(); node == question.From {
		return k.ackHere(ctx, question)
	}
	question.Ref = rand.Text()
	answer := make(chan Message, 1)
	k.mu.Lock()
	k.asked[question.Ref] = answer
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.asked, question.Ref)
		k.mu.Unlock()
	}()
	k.send(ctx, node, question)
	timer := time.NewTimer(answerWait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return wire.Unavailable(time.Second, "the node of connection %.80q doesn't answer", question.Connection)
	case a := <-answer:
		if a.Reason == "" {
			return nil
		}
		return &wire.Error{Code: a.Failed, Detail: a.Reason}
	}
}

// ackHere acknowledges for a connection of this node.
func (k *Manager) ackHere(ctx context.Context, m Message) error {
	p, err := event.ParsePosition(m.Position)
	if err != nil {
		return err
	}
	a, ok := k.deliverer(m).(Acker)
	if !ok {
		return broker.ErrFenced
	}
	moves, err := a.AckAside(p, m.Partition)
	if err != nil || len(moves) == 0 {
		return err
	}
	for i := range moves {
		moves[i].Durable = true
	}
	fenced, err := k.o.Broker.Advance(ctx, moves)
	if err == nil && len(fenced) > 0 {
		return wire.Conflict("a partition moved to another consumer meanwhile; of that nothing was acknowledged")
	}
	return err
}

// deliverer is who delivers here to whom a message is about: a member of a group by
// its connection, or the owner of that generation.
func (k *Manager) deliverer(m Message) any {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.ownerships[m.Name]; h != nil && h.Generation == m.Generation {
		return h.holder
	}
	if g := k.groups[m.Name]; g != nil && m.Connection != "" {
		for _, one := range g.members {
			if one.owner.Connection == m.Connection {
				return one.member
			}
		}
	}
	return nil
}

// answer acknowledges for a connection of this node and tells who asked.
func (k *Manager) answer(m Message) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWait)
	defer cancel()
	answer := Message{Op: OpAnswer, Ref: m.Ref}
	if err := k.ackHere(ctx, m); err != nil {
		e := wire.From(err)
		if errors.Is(err, broker.ErrFenced) {
			e = wire.From(wire.Conflict("connection %.80q is no member of subscription %q any longer", m.Connection, m.Name))
		}
		answer.Failed, answer.Reason = e.Code, e.Detail
	}
	k.send(ctx, m.From, answer)
}

// answered takes the answer to a question of this node.
func (k *Manager) answered(m Message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case k.asked[m.Ref] <- m:
	default:
	}
}
