package ws

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// peer is a WebSocket connection: a session, the library's Conn that reads for
// it, and one of two lines.
type peer struct {
	*session.Session
	handler *Handler
	ws      *websocket.Conn
	buffer  *bufio.Reader
	socket  *conn.Socket // read when something came in
	stream  *conn.Stream // or read by a goroutine of its own
	plain   *streamConn  // what that goroutine reads from

	inMessage bool // owned by the reader
}

var _ conn.Owner = (*peer)(nil)

// between begins the time for a message anew, and lets the library's reader go
// away, be it before a message or after a control frame: it would wait for the
// next message with a goroutine. It may not go away inside a message, nor with
// part of a frame in its buffer.
func (c *peer) between() {
	switch begun := c.buffer.Buffered() > 0; {
	case c.inMessage:
	case c.socket != nil:
		c.socket.Begin(begun)
	default:
		c.plain.begin(begun)
	}
}

// Read implements conn.Owner.
func (c *peer) Read() {
	defer c.Contain("reader")
	for {
		c.between()
		err := c.readMessage()
		if errors.Is(err, conn.ErrWouldBlock) {
			c.Heard()
			return
		}
		if err != nil {
			c.failed(err, c.socket.Gone(), c.socket.SaidClose())
			// What else the peer sends is read and ignored, so that the close
			// frame reaches it before a reset does.
			if c.socket.Discard() != nil {
				c.socket.Close()
				c.Gone()
			}
			return
		}
	}
}

// readAll reads where no poller watches, until the connection ends.
func (c *peer) readAll() {
	defer c.Contain("reader")
	for {
		c.between()
		err := c.readMessage()
		c.Heard()
		if err != nil {
			c.failed(err, c.plain.gone, c.stream.SaidClose())
			io.Copy(io.Discard, c.plain.Conn) // until Finish has had its time
			c.stream.Close()
			c.Gone()
			return
		}
	}
}

// failed ends the session after a failed read.
func (c *peer) failed(err error, gone, saidClose bool) {
	switch {
	case websocket.CloseStatus(err) != -1:
		c.Left()
	case gone:
		c.Gone()
	case saidClose:
		c.Break(0, "") // by the library: 1002, 1009
	default:
		c.Break(wire.CloseProtocol, "breach of RFC 6455")
	}
}

var messages = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// keptBuffer is the largest buffer that is used again.
const keptBuffer = 64 << 10

// readMessage reads one message and does what it says. Its context never ends:
// a read ends with the connection.
func (c *peer) readMessage() error {
	typ, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return err
	}
	c.inMessage = true
	defer func() { c.inMessage = false }()
	b := messages.Get().(*bytes.Buffer)
	defer func() {
		if b.Cap() <= keptBuffer {
			b.Reset()
			messages.Put(b)
		}
	}()
	if _, err := b.ReadFrom(r); err != nil {
		return err
	}
	c.Heard()
	switch {
	case typ != websocket.MessageText:
		c.End(wire.CloseBadRequest, "bad_request: frames are text, one JSON object each", 0)
	case !utf8.Valid(b.Bytes()):
		c.Break(wire.CloseInvalidUTF8, "text is not valid UTF-8")
	default:
		ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
		defer cancel()
		c.do(ctx, b.Bytes())
	}
	return nil
}

// opTimeout bounds what one message may make the gateway do.
const opTimeout = 15 * time.Second
