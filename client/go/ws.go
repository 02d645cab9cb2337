package longline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// wsConn is a connection by WebSocket, subprotocol longline.v1.
type wsConn struct {
	ws     *websocket.Conn
	cancel context.CancelCauseFunc
	limit  int64
	heard  atomic.Int64 // Unix nanoseconds
	buf    bytes.Buffer // owned by read
}

var _ conn = (*wsConn)(nil)

const subprotocol = "longline.v1"

func openWS(ctx context.Context, cancel context.CancelCauseFunc, s *Subscription, q url.Values, h http.Header) (conn, error) {
	c := &wsConn{cancel: cancel, limit: s.client.options.MaxFrame}
	c.hear()
	ws, res, err := websocket.Dial(ctx, s.client.address("/v1/ws", q), &websocket.DialOptions{
		HTTPClient:     s.client.options.HTTPClient,
		HTTPHeader:     h,
		Subprotocols:   []string{subprotocol},
		OnPingReceived: func(context.Context, []byte) bool { c.hear(); return true },
	})
	if err != nil {
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols {
			e, fromGateway := answerError(res)
			e.gateway = fromGateway
			e.final = fromGateway && !e.Temporary()
			return nil, e
		}
		return nil, unreachable(err, h.Get(requestIDHeader))
	}
	ws.SetReadLimit(c.limit)
	c.ws = ws
	if ws.Subprotocol() != subprotocol {
		c.close(false)
		return nil, malformed("the other side does not speak %s", subprotocol)
	}
	return c, nil
}

func (c *wsConn) hear() { c.heard.Store(time.Now().UnixNano()) }

func (c *wsConn) transport() Transport { return WebSocket }
func (c *wsConn) readEnded()           {}
func (c *wsConn) alive() time.Time     { return time.Unix(0, c.heard.Load()) }

func (c *wsConn) read() (frame, error) {
	// Not bound by a context, which would cost with every frame: close ends it.
	kind, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return frame{}, c.explain(err)
	}
	c.buf.Reset()
	if _, err := c.buf.ReadFrom(r); err != nil {
		return frame{}, c.explain(err)
	}
	c.hear()
	if kind != websocket.MessageText {
		return frame{}, malformed("binary frame, want text")
	}
	f, err := decodeFrame(c.buf.Bytes())
	if c.buf.Cap() > 1<<20 {
		c.buf = bytes.Buffer{} // one large frame is no reason to keep so much
	}
	return f, err
}

// explain makes a typed error of what ended the connection.
func (c *wsConn) explain(err error) error {
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return &Error{Code: ErrTooLarge.Code, Detail: "frame is larger than MaxFrame", cause: err, final: true}
	}
	var closed websocket.CloseError
	if !errors.As(err, &closed) {
		return unreachable(err, "")
	}
	e := &Error{Code: codeOfClose(int(closed.Code)), Status: int(closed.Code), Detail: closed.Reason}
	switch closed.Code {
	case 4400, 4401, 4403, 4404, 4409:
		e.final = true // as a bye would have said
	}
	return e
}

func (c *wsConn) write(ctx context.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// The library closes the connection when a write's context ends, so the
	// limit is generous.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, b)
}

func (c *wsConn) ack(ctx context.Context, a ack) error {
	return c.write(ctx, struct {
		Op string `json:"op"`
		ackFields
	}{"ack", a.fields()})
}

func (c *wsConn) reject(ctx context.Context, r reject) error {
	return c.write(ctx, struct {
		Op string `json:"op"`
		rejectFields
	}{"reject", r.fields()})
}

// ackFields and rejectFields are what is said of an acknowledgement and a
// refusal, over any transport.
type ackFields struct {
	Cursor     string `json:"cursor"`
	Partition  *int   `json:"partition,omitempty"`
	Connection string `json:"connection,omitempty"` // where it isn't said on the connection
}

func (a ack) fields() ackFields {
	f := ackFields{Cursor: a.position}
	if a.partition != noPartition {
		f.Partition = &a.partition
	}
	return f
}

type rejectFields struct {
	Cursor     string `json:"cursor"`
	Reason     string `json:"reason,omitempty"`
	Attempts   int    `json:"attempts,omitempty"`
	Connection string `json:"connection,omitempty"`
}

func (r reject) fields() rejectFields {
	return rejectFields{Cursor: r.cursor, Reason: r.reason, Attempts: r.attempts}
}

func (c *wsConn) renew(ctx context.Context, token string) error {
	return c.write(ctx, struct {
		Op    string `json:"op"`
		Ref   int    `json:"ref"`
		Token string `json:"token"`
	}{"auth", refAuth, token})
}

func (c *wsConn) subscribe(ctx context.Context, s Selection) error {
	return c.write(ctx, struct {
		Op       string   `json:"op"`
		Ref      int      `json:"ref"`
		Channels []string `json:"channels"`
		Types    []string `json:"types,omitempty"`
		Filter   string   `json:"filter,omitempty"`
		Since    string   `json:"since,omitempty"`
		Lag      string   `json:"lag,omitempty"`
	}{"subscribe", refSubscribe, s.Channels, s.Types, s.Filter, s.Since, s.Lag})
}

func (c *wsConn) close(orderly bool) {
	if orderly {
		c.ws.Close(websocket.StatusNormalClosure, "") // an error means that it is closed
	}
	c.ws.CloseNow()
	c.cancel(nil)
}
