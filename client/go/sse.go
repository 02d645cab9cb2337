package longline

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tmaxmax/go-sse"
)

// sseConn is a connection by Server-Sent Events; what goes the other way is
// posted.
type sseConn struct {
	sub    *Subscription
	cancel context.CancelCauseFunc
	body   io.Closer
	heard  atomic.Int64 // Unix nanoseconds
	id     atomic.Pointer[string]
	next   func() (sse.Event, error, bool)

	// owned by read
	stop     func()
	position string // the last id
}

var _ conn = (*sseConn)(nil)

func openSSE(ctx context.Context, cancel context.CancelCauseFunc, s *Subscription, q url.Values, h http.Header) (conn, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.client.address("/v1/sse", q), nil)
	if err != nil {
		return nil, unreachable(err, h.Get(requestIDHeader))
	}
	req.Header = h.Clone()
	req.Header.Set("Accept", "text/event-stream, application/problem+json")
	req.Header.Set("Cache-Control", "no-store")
	res, err := s.client.options.HTTPClient.Do(req)
	if err != nil {
		return nil, unreachable(err, h.Get(requestIDHeader))
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK || kind != "text/event-stream" {
		defer res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return nil, malformed("answer is %q, want text/event-stream", kind)
		}
		e, fromGateway := answerError(res)
		e.gateway = fromGateway
		e.final = fromGateway && !e.Temporary()
		return nil, e
	}
	c := &sseConn{sub: s, cancel: cancel, body: res.Body}
	c.pull(&heardReader{res.Body, &c.heard}, s.client.options.MaxFrame)
	return c, nil
}

// pull makes next of the stream.
func (c *sseConn) pull(r io.Reader, limit int64) {
	events := sse.Read(r, &sse.ReadConfig{MaxEventSize: int(min(limit, 1<<31-1))})
	c.next, c.stop = iter.Pull2(iter.Seq2[sse.Event, error](events))
}

// heardReader notes when bytes come, comments included, which the reader of
// events skips.
type heardReader struct {
	io.Reader
	heard *atomic.Int64
}

func (r *heardReader) Read(b []byte) (int, error) {
	r.heard.Store(time.Now().UnixNano())
	n, err := r.Reader.Read(b)
	r.heard.Store(time.Now().UnixNano())
	return n, err
}

func (c *sseConn) transport() Transport { return SSE }
func (c *sseConn) readEnded()           { c.stop() }
func (c *sseConn) alive() time.Time     { return time.Unix(0, c.heard.Load()) }

func (c *sseConn) read() (frame, error) {
	e, err, ok := c.next()
	if err != nil || !ok {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if errors.Is(err, bufio.ErrTooLong) {
			return frame{}, &Error{Code: ErrTooLarge.Code, Detail: "event is larger than MaxFrame", cause: err, final: true}
		}
		return frame{}, unreachable(err, "")
	}
	f, err := c.decode(e)
	if f.Connection != "" {
		c.id.Store(&f.Connection)
	}
	return f, err
}

// decode makes the frame that would have come by WebSocket.
func (c *sseConn) decode(e sse.Event) (frame, error) {
	moved := e.LastEventID != c.position
	c.position = e.LastEventID
	op, isControl := strings.CutPrefix(e.Type, "longline.")
	switch {
	case isControl:
		f := frame{op: op}
		if e.Data == "" {
			return f, nil
		}
		if err := json.Unmarshal([]byte(e.Data), &f.control); err != nil {
			return f, &Error{Code: ErrMalformed.Code, Detail: e.Type + " " + clip([]byte(e.Data)), cause: err}
		}
		return f, nil
	case e.Data == "" && moved:
		return frame{op: "position", control: control{Cursor: e.LastEventID}}, nil
	case e.Data == "":
		return frame{op: "nothing"}, nil // an unknown op, which is skipped
	}
	return decodeFrame([]byte(e.Data))
}

func (c *sseConn) ack(ctx context.Context, a ack) error {
	f := a.fields()
	f.Connection = c.connection()
	return c.post(ctx, "ack", f)
}

func (c *sseConn) reject(ctx context.Context, r reject) error {
	f := r.fields()
	f.Connection = c.connection()
	err := c.post(ctx, "reject", f)
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed) {
		// A gateway that takes refusals by WebSocket only. The subscription must go
		// on; OnReject was told.
		c.sub.client.log.Error("event rejected, but not kept as a dead letter", "cursor", r.cursor, "reason", r.reason)
		return nil
	}
	return err
}

// postTries is how often an acknowledgement is posted before the session is
// given up, after which its events come again.
const postTries = 4

// connection is the gateway's name for it, or "".
func (c *sseConn) connection() string {
	if id := c.id.Load(); id != nil {
		return *id
	}
	return ""
}

func (c *sseConn) post(ctx context.Context, what string, body any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	path := "/v1/subscriptions/" + url.PathEscape(c.sub.name) + "/" + what
	for n := 0; ; n++ {
		err := c.sub.client.Do(ctx, http.MethodPost, path, body, nil)
		var e *Error
		if err == nil || !errors.As(err, &e) || !e.Temporary() || n+1 >= postTries {
			return err
		}
		c.sub.trouble.warn("acknowledgement not taken, will try again", "what", what, "try", n+1, "error", err)
		if !sleep(ctx, max(e.RetryAfter, jitter(100*time.Millisecond, 2*time.Second, n))) {
			return err
		}
	}
}

func (c *sseConn) renew(context.Context, string) error        { return errors.ErrUnsupported }
func (c *sseConn) subscribe(context.Context, Selection) error { return errors.ErrUnsupported }

func (c *sseConn) close(bool) {
	c.cancel(nil)
	c.body.Close() // an error changes nothing
}
