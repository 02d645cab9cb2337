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
func (s *Subscription) connect(ctx context.Context) (*session, error) {
	c := s.client
	// The first of two limits: dial has its own, for the token's owner may be
	// as far away as the gateway.
	limited, cancel := context.WithTimeout(ctx, c.options.ConnectTimeout)
	token, err := c.token(limited)
	cancel()
	if err != nil {
		return nil, err
	}
	to := &session{sub: s, token: token, endAcks: func() {}}
	transport := c.options.Transport
	if transport == Auto {
		transport = WebSocket
		if time.Now().Unix() < c.path.sseUntil.Load() {
			transport = SSE
		}
	}
	to.conn, to.first, err = s.open(ctx, transport, token)
	if transport == SSE {
		return to, err
	}
	if err == nil {
		s.wsFailures = 0
		c.path.wsWorks.Store(true)
		return to, nil
	}
	if c.options.Transport != Auto || !blocked(err) || ctx.Err() != nil {
		return to, err
	}
	if s.wsFailures++; c.path.wsWorks.Load() && s.wsFailures < wsPatience {
		return to, err
	}
	c.log.Info("WebSocket does not get through, trying SSE", "error", err)
	var sseErr error
	if to.conn, to.first, sseErr = s.open(ctx, SSE, token); sseErr != nil {
		return to, sseErr
	}
	c.path.wsWorks.Store(false)
	c.path.sseUntil.Store(time.Now().Add(sseFor).Unix())
	return to, nil
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
func (s *Subscription) dial(ctx context.Context, t Transport, token string) (conn, frame, error) {
	query := s.query(t)
	header := http.Header{requestIDHeader: {newID()}}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	// The time limit is for the attempt, the connection outlives it.
	held, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	limit := time.AfterFunc(s.client.options.ConnectTimeout, func() {
		cancel(&Error{Code: ErrTimeout.Code, Detail: "no answer from the gateway within " + s.client.options.ConnectTimeout.String()})
	})
	defer limit.Stop()
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer stop()

	var c conn
	var err error
	late := false
	if t == SSE {
		c, err = openSSE(held, cancel, s, query, header)
	} else {
		if late = len(query.Encode()) > longestQuery; late {
			query = url.Values{}
		}
		c, err = openWS(held, cancel, s, query, header)
	}
	var first frame
	if err == nil {
		abort := context.AfterFunc(held, func() { c.close(false) })
		defer abort()
		first, err = c.read()
	}
	if err == nil && first.op == "bye" {
		bye := byeError(first.control)
		bye.gateway, bye.RequestID = true, header.Get(requestIDHeader)
		err = bye
	}
	if err == nil && first.op != "hello" && first.op != "standby" {
		err = malformed("connection begins with %q, want hello", first.op)
	}
	if err == nil && late {
		selection := s.selection
		selection.Since = s.since()
		err = c.subscribe(ctx, selection)
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

func (s *Subscription) query(t Transport) url.Values {
	q := url.Values{}
	if s.name != "" {
		q.Set("subscription", s.name)
		q.Set("consumer", s.options.Consumer)
		if s.options.Window > 0 {
			q.Set("window", strconv.Itoa(s.options.Window))
		}
		if t == SSE {
			q.Set("ack", "manual")
		}
		return q
	}
	q["channel"] = s.selection.Channels
	if len(s.selection.Types) > 0 {
		q.Set("types", strings.Join(s.selection.Types, ","))
	}
	if s.selection.Filter != "" {
		q.Set("filter", s.selection.Filter)
	}
	if s.selection.Lag != "" {
		q.Set("lag", s.selection.Lag)
	}
	if since := s.since(); since != "" {
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
