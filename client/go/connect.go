package longline

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// wsPatience is how many attempts by WebSocket in a row may come to
	// nothing before SSE is tried, once WebSocket was seen to get through.
	wsPatience = 3
	// sseFor is how long SSE is used before WebSocket gets another chance.
	sseFor = 10 * time.Minute
)

// path is what a client knows about ways to its gateway.
type path struct {
	wsWorks  atomic.Bool
	sseUntil atomic.Int64 // Unix seconds
}

// connect makes a connection that got as far as its hello, or to stand by.
func (l *Subscription) connect(ctx context.Context) (*session, error) {
	token, err := l.client.token(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{sub: l, token: token, endAcks: func() {}}
	c := l.client
	transport := c.options.Transport
	if transport == Auto {
		transport = WebSocket
		if time.Now().Unix() < c.path.sseUntil.Load() {
			transport = SSE
		}
	}
	s.conn, s.first, err = l.open(ctx, transport, token)
	if transport == SSE {
		return s, err
	}
	if err == nil {
		l.wsFailures = 0
		c.path.wsWorks.Store(true)
		return s, nil
	}
	if c.options.Transport != Auto || !blocked(err) || ctx.Err() != nil {
		return s, err
	}
	if l.wsFailures++; c.path.wsWorks.Load() && l.wsFailures < wsPatience {
		return s, err
	}
	c.log.Info("WebSocket does not get through, trying SSE", "error", err)
	var sseErr error
	if s.conn, s.first, sseErr = l.open(ctx, SSE, token); sseErr != nil {
		return s, sseErr
	}
	c.path.wsWorks.Store(false)
	c.path.sseUntil.Store(time.Now().Add(sseFor).Unix())
	return s, nil
}

// blocked tells whether something between us and the gateway may be to blame:
// there was an answer, or at least a listener, but not a gateway's.
func blocked(err error) bool {
	var e *Error
	if errors.As(err, &e) && e.gateway {
		return false
	}
	var op *net.OpError
	return !(errors.As(err, &op) && op.Op == "dial")
}

// dial connects by one transport and reads the first frame.
func (l *Subscription) dial(ctx context.Context, t Transport, token string) (conn, frame, error) {
	query := l.query(t)
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	// The time limit is for the attempt, the connection outlives it.
	held, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	limit := time.AfterFunc(l.client.options.ConnectTimeout, func() {
		cancel(&Error{Code: ErrTimeout.Code, Detail: "no answer from the gateway within " + l.client.options.ConnectTimeout.String()})
	})
	defer limit.Stop()
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer stop()

	var c conn
	var err error
	late := false
	if t == SSE {
		c, err = openSSE(held, cancel, l, query, header)
	} else {
		if late = len(query.Encode()) > longestQuery; late {
			query = url.Values{}
		}
		c, err = openWS(held, cancel, l, query, header)
	}
	var first frame
	if err == nil {
		abort := context.AfterFunc(held, func() { c.close(false) })
		defer abort()
		first, err = c.read()
	}
	if err == nil && first.op == "bye" {
		bye := byeError(first.control)
		bye.gateway = true
		err = bye
	}
	if err == nil && first.op != "hello" && first.op != "standby" {
		err = malformed("connection begins with %q, want hello", first.op)
	}
	if err == nil && late {
		s := l.selection
		s.Since = l.since()
		err = c.subscribe(ctx, s)
	}
	if err != nil {
		if cause := context.Cause(held); cause != nil {
			err = cause
		}
		if c != nil {
			c.close(false)
			c.readEnded()
		}
		cancel(nil)
		return nil, frame{}, err
	}
	return c, first, nil
}

// longestQuery is how much of a request line proxies can be trusted with.
// What is longer is subscribed to once connected.
const longestQuery = 6000

func (l *Subscription) query(t Transport) url.Values {
	q := url.Values{}
	if l.name != "" {
		q.Set("subscription", l.name)
		q.Set("consumer", l.options.Consumer)
		if l.options.Window > 0 {
			q.Set("window", strconv.Itoa(l.options.Window))
		}
		if t == SSE {
			q.Set("ack", "manual")
		}
		return q
	}
	q["channel"] = l.selection.Channels
	if len(l.selection.Types) > 0 {
		q.Set("types", strings.Join(l.selection.Types, ","))
	}
	if l.selection.Lag != "" {
		q.Set("lag", l.selection.Lag)
	}
	if since := l.since(); since != "" {
		q.Set("since", since)
	}
	return q
}

// address is where a transport's endpoint is.
func (c *Client) address(path string, q url.Values) string {
	u := *c.base
	u.Path += path
	u.RawQuery = q.Encode()
	return u.String()
}
