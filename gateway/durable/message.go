package durable

import (
	"context"
	"encoding/json"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// Message is what nodes tell each other by broker.Signals. Each is a hint that
// may be lost: the heartbeat's look at what a node owns finds out the same.
type Message struct {
	Op         Op     `json:"op"`
	Name       string `json:"name,omitempty"`
	Generation uint64 `json:"generation,omitempty"` // that the message is about
	Position   string `json:"position,omitempty"`
	// Code and Reason are how a connection is closed.
	Code   wire.CloseCode `json:"code,omitempty"`
	Reason string         `json:"reason,omitempty"`

	// Of ack and answer: whose acknowledgement it is, who wants to know what came
	// of it, and by which word. Failed is the code of Reason, if it is refused.
	Connection string    `json:"connection,omitempty"`
	Partition  int       `json:"partition,omitempty"`
	From       string    `json:"from,omitempty"`
	Ref        string    `json:"ref,omitempty"`
	Failed     wire.Code `json:"failed,omitempty"`
}

// Op says what a Message is about.
type Op string

// The messages there are.
const (
	OpEnd      Op = "end"      // the generation's ownership was taken
	OpYield    Op = "yield"    // end and release: somebody attaches
	OpChanged  Op = "changed"  // read the definition again
	OpAcked    Op = "acked"    // Position was acknowledged elsewhere
	OpFree     Op = "free"     // to all: nobody owns it any longer
	OpRedrive  Op = "redrive"  // dead letters are to be delivered again
	OpAck      Op = "ack"      // a member of a group acknowledges elsewhere
	OpAnswer   Op = "answer"   // to an ack
	OpRejected Op = "rejected" // the event at Position was made a dead letter elsewhere
)

// The ways in which ownership ends by somebody else's doing.
const (
	codeRestart   = wire.CloseRestart
	codeTakenOver = wire.CloseTakenOver
	codeNotFound  = wire.CloseNotFound
)

func (m Message) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic("durable: a message of plain fields has no JSON: " + err.Error())
	}
	return b
}

// send sends a message to a node; to this one it goes directly.
func (k *Manager) send(ctx context.Context, to string, m Message) {
	if to == k.Node() {
		k.receive(m)
		return
	}
	if err := k.o.Broker.Send(ctx, to, m.encode()); err != nil {
		k.o.Logger.Debug("message to another node", "op", m.Op, "subscription", m.Name, "error", err)
	}
}

// listen takes what other nodes send.
func (k *Manager) listen(b []byte) {
	var m Message
	if json.Unmarshal(b, &m) == nil {
		k.o.Guard.Do("message", func() { k.receive(m) })
	}
}

func (k *Manager) receive(m Message) {
	switch m.Op {
	case OpFree:
		k.freed(m.Name)
		return
	case OpAck:
		k.running.Go(func() { k.o.Guard.Do("aside", func() { k.answer(m) }) })
		return
	case OpAnswer:
		k.answered(m)
		return
	case OpRejected:
		k.rejected(m)
		return
	}
	k.mu.Lock()
	h := k.ownerships[m.Name]
	g := k.groups[m.Name]
	member := g != nil && (len(g.members) > 0 || g.joining > 0)
	k.mu.Unlock()
	if m.Op == OpChanged && member {
		k.readGroup(m.Name)
	} else if m.Op == OpChanged && h == nil {
		k.running.Go(func() { k.o.Guard.Do("group", func() { k.lookAt(m.Name) }) })
	}
	if h == nil || h.Generation != m.Generation {
		return
	}
	switch m.Op {
	case OpEnd:
		h.end(m.Code, m.Reason)
	case OpYield:
		h.holder.Yield()
	case OpRedrive:
		h.holder.Redrive()
	case OpAcked:
		if p, err := event.ParsePosition(m.Position); err == nil {
			if s, ok := h.holder.(Settler); ok {
				s.Settled(p)
			}
			h.holder.Acked(p)
		}
	case OpChanged:
		k.running.Go(func() { k.o.Guard.Do("reload", h.reload) })
	}
}
