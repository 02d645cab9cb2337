package wire

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// AppendTextHeader appends the header of a server's text frame of size bytes:
// final, unmasked (RFC 6455 §5.2).
func AppendTextHeader(dst []byte, size int) []byte { return appendHeader(dst, 0x81, size) }

func appendHeader(dst []byte, first byte, size int) []byte {
	switch {
	case size < 126:
		return append(dst, first, byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(size))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(size))
	}
}

// PingFrame is a WebSocket ping without payload.
var PingFrame = []byte{0x89, 0}

// AppendCloseFrame appends a WebSocket close frame. A reason that is too long
// for a control frame is cut.
func AppendCloseFrame(dst []byte, code CloseCode, reason string) []byte {
	const most = 125 - 2
	if len(reason) > most {
		// Not inside a character: a reason is UTF-8 (RFC 6455 §5.5.1).
		end := most
		for end > 0 && !utf8.RuneStart(reason[end]) {
			end--
		}
		reason = reason[:end]
	}
	dst = append(dst, 0x88, byte(2+len(reason)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// Control is a control message from gateway to client. Over WebSocket it is a
// text frame with Op; over SSE an event named longline.<Op> with the rest as
// data. What is not set is left out.
type Control struct {
	Op string `json:"op,omitempty"`

	// ok, error
	Ref     *int64          `json:"ref,omitempty"`
	Events  json.RawMessage `json:"events,omitempty"`
	Code    any             `json:"code,omitempty"` // error: a Code; bye: a CloseCode
	Detail  string          `json:"detail,omitempty"`
	RetryMS *int64          `json:"retry_ms,omitempty"`

	// hello
	Connection   string `json:"connection,omitempty"`
	Node         string `json:"node,omitempty"`
	Session      string `json:"session,omitempty"` // ephemeral, durable
	Subscription string `json:"subscription,omitempty"`
	Replay       bool   `json:"replay,omitempty"` // events come again that somebody asked for once more
	Recovered    *bool  `json:"recovered,omitempty"`
	Window       int    `json:"window,omitempty"`
	Partitions   *[]int `json:"partitions,omitempty"` // of a group: this connection's; in partitions too
	Of           int    `json:"of,omitempty"`         // out of so many; likewise
	Members      int    `json:"members,omitempty"`    // of partitions: consumers that share
	HeartbeatMS  int64  `json:"heartbeat_ms,omitempty"`
	Expires      string `json:"expires,omitempty"` // RFC 3339
	Placed       string `json:"placed,omitempty"`  // likewise: when somebody put the position where he liked

	// hello, ok of subscribe, position, redelivery
	Cursor string `json:"cursor,omitempty"`

	// gap: events after From up to and including To won't come
	Channel string `json:"channel,omitempty"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`

	// standby: who is attached
	Consumer  string `json:"consumer,omitempty"`
	Transport string `json:"transport,omitempty"`

	// gap, bye
	Reason    string `json:"reason,omitempty"`
	Reconnect *bool  `json:"reconnect,omitempty"`
}

// The ops of a Control.
const (
	OpHello      = "hello"
	OpOK         = "ok"
	OpError      = "error"
	OpGap        = "gap"
	OpPosition   = "position"
	OpRedelivery = "redelivery"
	OpStandby    = "standby"
	OpPartitions = "partitions"
	OpBye        = "bye"
)

// The reasons of a gap.
const (
	GapRetention = "retention"
	GapReset     = "reset"
	GapConflated = "conflated"
	GapLag       = "lag"
	GapCorrupt   = "corrupt" // it is stored, but can't be read
)

// The kinds of session that a hello names.
const (
	SessionEphemeral = "ephemeral"
	SessionDurable   = "durable"
)

// Bye is the control message that ends a session.
func Bye(code CloseCode, reason string, retryMS int64) Control {
	again := !code.Final()
	return Control{Op: OpBye, Code: code, Reason: reason, RetryMS: &retryMS, Reconnect: &again}
}

// AppendTextFrame appends c as a WebSocket text frame.
func (c Control) AppendTextFrame(dst []byte) []byte {
	text := c.encode()
	return append(AppendTextHeader(dst, len(text)), text...)
}

// AppendSSE appends c as an event of an event stream, with id: position unless
// that is empty.
func (c Control) AppendSSE(dst []byte, position string) []byte {
	if position != "" {
		dst = append(append(append(dst, "id: "...), position...), '\n')
	}
	dst = append(append(append(dst, "event: longline."...), c.Op...), '\n')
	c.Op = ""
	dst = append(append(dst, "data: "...), c.encode()...)
	return append(dst, "\n\n"...)
}

func (c Control) encode() []byte {
	if c.Op == OpOK && c.Ref != nil && len(c.Events) > 0 && c.Cursor == "" {
		// What answers a publish: thousands a second.
		b := append(make([]byte, 0, len(c.Events)+48), `{"op":"ok","ref":`...)
		b = append(strconv.AppendInt(b, *c.Ref, 10), `,"events":`...)
		return append(append(b, c.Events...), '}')
	}
	text, err := json.Marshal(c)
	if err != nil { // nothing in a Control can fail to encode
		panic(err)
	}
	return text
}
