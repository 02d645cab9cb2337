package ws

import (
	"context"
	"strings"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// message is what a client sends.
type message struct {
	Op        string
	Ref       *int64
	Channels  []string
	Types     []string
	Filter    string
	Since     string
	Lag       string
	Channel   string
	Events    []byte // JSON, in the frame
	Token     string
	Cursor    string
	Reason    string
	Partition *int // of what is acknowledged
	Attempts  int  // of the consumer's handler, before it refused
}

// do carries out one message. Errors are answered; the connection stays.
func (c *peer) do(ctx context.Context, text []byte) {
	var m message
	var reply wire.Control
	err := decode(text, &m)
	if err == nil {
		reply, err = c.carryOut(ctx, &m)
	}
	if err != nil {
		e := wire.From(err)
		reply = wire.Control{Op: wire.OpError, Code: e.Code, Detail: e.Detail}
		if e.RetryAfter > 0 {
			ms := e.RetryAfter.Milliseconds()
			reply.RetryMS = &ms
		}
	}
	if reply.Op != "" {
		reply.Ref = m.Ref
		c.Say(reply)
	}
}

const opsTaken = "want subscribe, unsubscribe, ack, reject, publish, auth or ping"

func (c *peer) carryOut(ctx context.Context, m *message) (wire.Control, error) {
	ok := wire.Control{Op: wire.OpOK}
	switch m.Op {
	case "":
		return ok, wire.BadRequest("frame has no op: %s", opsTaken)
	case "ping":
		return ok, nil
	case "subscribe":
		return c.subscribe(ctx, m)
	case "unsubscribe":
		if len(m.Channels) == 0 {
			return ok, wire.BadRequest("unsubscribe needs channels, a list of names")
		}
		return ok, c.Unsubscribe(m.Channels)
	case "publish":
		if c.handler.Publisher == nil || m.Channel == "" || len(m.Events) == 0 {
			return ok, wire.BadRequest("publish needs channel and events, a list of events")
		}
		var err error
		ok.Events, err = c.handler.Publisher.PublishJSON(ctx, c.Grant(), m.Channel, m.Events)
		return ok, err
	case "auth":
		if m.Token == "" {
			return ok, wire.BadRequest("auth needs token")
		}
		g, err := c.handler.Verifier.Verify(ctx, m.Token)
		if err != nil {
			return ok, err
		}
		if err := c.Renew(g); err != nil {
			return ok, err
		}
		c.ws.SetReadLimit(c.handler.readLimit(g))
		return ok, nil
	case "ack":
		p, err := event.ParsePosition(m.Cursor)
		if err != nil {
			return ok, wire.BadRequest("ack: %v", err)
		}
		partition := session.AllPartitions
		if m.Partition != nil {
			partition = *m.Partition
		}
		return wire.Control{}, c.Ack(p, partition)
	case "reject":
		at, err := event.ParseCursor(m.Cursor)
		if err != nil {
			return ok, wire.BadRequest("reject: %v", err)
		}
		return wire.Control{}, c.Reject(ctx, at, m.Reason, m.Attempts)
	}
	return ok, wire.BadRequest("unknown op %.40q: %s", m.Op, opsTaken)
}

func (c *peer) subscribe(ctx context.Context, m *message) (wire.Control, error) {
	if len(m.Channels) == 0 {
		return wire.Control{}, wire.BadRequest("subscribe needs channels, a list of names")
	}
	since, err := cursor.ParseSince("since", m.Since)
	if err != nil {
		return wire.Control{}, err
	}
	var lag *session.Lag // as it is
	if m.Lag != "" {
		asked, err := session.ParseLag(m.Lag)
		if err != nil {
			return wire.Control{}, err
		}
		lag = &asked
	}
	position, err := c.Subscribe(ctx, m.Channels, cursor.Selection{Types: strings.Join(m.Types, ","), Filter: m.Filter}, since, lag)
	return wire.Control{Op: wire.OpOK, Cursor: position.String()}, err
}
