package sse

import (
	"fmt"
	"strings"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// codec makes an event stream: an event is what precedes its JSON and the rest.
type codec struct {
	types bool // each event has an event: line with its type
}

var _ session.Codec = codec{}

func (codec) Traits() session.Traits {
	return session.Traits{Name: "sse", Stride: 2, Positions: true}
}

func (c codec) AppendEvent(bufs [][]byte, scratch []byte, item *feed.Item, position []byte) ([][]byte, []byte) {
	if position == nil && !c.types {
		return append(bufs, item.Prefix(), item.Rest()), scratch
	}
	from := len(scratch)
	if position != nil {
		scratch = append(append(scratch, "id: "...), position...)
		scratch = append(scratch, '\n')
	} else {
		id := item.Prefix() // "id: …\ndata: "
		scratch = append(scratch, id[:len(id)-len("data: ")]...)
	}
	if typ := item.Type(); c.types && oneLine(typ) && !forged(item, typ) {
		scratch = append(append(append(scratch, "event: "...), typ...), '\n')
	}
	scratch = append(scratch, "data: "...)
	return append(bufs, scratch[from:len(scratch):len(scratch)], item.Rest()), scratch
}

// forged tells whether an event's line would pass for one of the gateway's own
// events: publishers can't use such types, but a log may hold some from before.
func forged(item *feed.Item, typ string) bool {
	return strings.HasPrefix(typ, access.OwnTypes) && !event.Reserved(item.Channel())
}

// oneLine tells whether a publisher's text can stand in a line of the stream.
func oneLine(s string) bool {
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '\r' || s[i] == 0 {
			return false
		}
	}
	return true
}

// staysAway stands in the block of a final bye: EventSource knows no other way to stay away.
const staysAway = "retry: 86400000\n"

func (codec) Control(m wire.Control, position string) []byte {
	var b []byte
	if m.Op == wire.OpOK || m.Op == wire.OpError || m.Op == wire.OpPosition {
		return nil // answers to ops, of which there are none here
	}
	if m.Op == wire.OpBye && m.Reconnect != nil && !*m.Reconnect {
		b = append(b, staysAway...)
	} else if m.Op == wire.OpBye && m.RetryMS != nil && *m.RetryMS > 0 {
		// What a native EventSource goes by; the next stream says its own.
		b = fmt.Appendf(b, "retry: %d\n", *m.RetryMS)
	}
	return m.AppendSSE(b, position)
}

func (codec) Heartbeat(position string) []byte {
	if position == "" {
		return []byte(":\n\n")
	}
	return append(append([]byte("id: "), position...), "\n\n"...)
}

func (codec) Close(wire.CloseCode, string) []byte { return nil }
