package ws

import (
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// codec makes WebSocket frames: one buffer each.
type codec struct {
	plain bool // cloudevents.json: events only
}

var _ session.Codec = codec{}

func (codec) Traits() session.Traits {
	return session.Traits{Name: "websocket", Stride: 1, Pings: true}
}

func (codec) AppendEvent(bufs [][]byte, scratch []byte, item *feed.Item, _ []byte) ([][]byte, []byte) {
	return append(bufs, item.Frame()), scratch
}

func (c codec) Control(m wire.Control, _ string) []byte {
	if c.plain {
		return nil
	}
	return m.AppendTextFrame(nil)
}

func (c codec) Heartbeat(position string) []byte {
	if c.plain || position == "" {
		return wire.PingFrame
	}
	return append(wire.Control{Op: wire.OpPosition, Cursor: position}.AppendTextFrame(nil), wire.PingFrame...)
}

func (codec) Close(code wire.CloseCode, reason string) []byte {
	return wire.AppendCloseFrame(nil, code, reason)
}
