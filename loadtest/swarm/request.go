package swarm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/token"
	"github.com/longline-push/longline/loadtest/wire"
)

// final begins the reason of a close after which a client doesn't come back.
const final = "final: "

// errBusy says that the gateway takes no connections just now.
var errBusy = errors.New("asked to come back later")

// busyRetry is the longest delay before coming back then.
const busyRetry = time.Second

// extra is what a client needs while it shakes hands, and rarely later.
type extra struct {
	token  string                 // minted once, used again at every reconnect
	others map[int]*ledger.Ledger // of a shared channel, by publisher; nil before the first event
	head   int                    // size of the response's head; 0: not read yet
	chunks wire.Dechunker
}

// request is a client's HTTP request: upgrade or event stream.
func (l *loop) request(i int32) ([]byte, error) {
	c := &l.conns[i]
	index := l.spec.First + int(i)
	ch := &l.channels[index%l.spec.Channels]
	if c.extra == nil {
		t, err := l.spec.Tokens.For("loadtest-"+strconv.Itoa(index), token.Grant{Subscribe: []string{ch.name}})
		if err != nil {
			return nil, err
		}
		c.extra = &extra{token: t}
	}
	c.extra.head, c.extra.chunks = 0, wire.Dechunker{}
	query := url.Values{"channel": {ch.name}}
	since := l.spec.Since
	if o := c.book.Offset(); o != 0 {
		since = ch.name + "@" + ch.epoch + "-" + strconv.FormatUint(o, 10)
	}
	if since != "" {
		query.Set("since", since)
	}
	if l.spec.Lag != "" {
		query.Set("lag", l.spec.Lag)
	}
	b := make([]byte, 0, 1024)
	b = fmt.Appendf(b, "GET /v1/%s?%s HTTP/1.1\r\nHost: %s\r\n", l.spec.Transport, query.Encode(), l.spec.Target)
	if c.extra.token != "" {
		b = fmt.Appendf(b, "Authorization: Bearer %s\r\n", c.extra.token)
	}
	if l.spec.Transport == WebSocket {
		return append(b, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: bG9hZHRlc3QtY2xpZW50IQ==\r\nSec-WebSocket-Protocol: longline.v1\r\n\r\n"...), nil
	}
	return append(b, "Accept: text/event-stream, application/problem+json\r\n\r\n"...), nil
}

// answer reads the response's head; it reports how long it is, 0 for "not yet".
func (l *loop) answer(c *conn, b []byte) (int, error) {
	head, n, err := wire.NextHead(b)
	if n == 0 || err != nil {
		return 0, err
	}
	want := 200
	if l.spec.Transport == WebSocket {
		want = 101
	}
	switch head.Status {
	case want:
	case 429, 503:
		return 0, fmt.Errorf("%w: %s: %.300s", errBusy, head.First, b[n:])
	default:
		return 0, fmt.Errorf("refused: %s: %.300s", head.First, b[n:])
	}
	c.chunked = head.Chunked
	return n, nil
}

// control is any frame or SSE event that isn't a published event.
type control struct {
	Op         string `json:"op"`
	Connection string `json:"connection"`
	Cursor     string `json:"cursor"`
	Code       any    `json:"code"`
	Reason     string `json:"reason"`
	Detail     string `json:"detail"`
	Reconnect  *bool  `json:"reconnect"`
}

// control acts on one; op comes from the SSE event's name or from the frame.
func (l *loop) control(i int32, op string, data []byte) error {
	var m control
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("control message %.80q: %w", data, err)
	}
	if op == "" {
		op = m.Op
	}
	c := &l.conns[i]
	switch op {
	case "hello":
		l.greet(i)
	case "gap":
		l.state.Gaps++
	case "bye":
		c.closing = fmt.Sprintf("bye %v: %s", m.Code, m.Reason)
		if m.Reconnect != nil && !*m.Reconnect {
			c.closing = final + c.closing
		}
	case "error":
		return fmt.Errorf("gateway answered %v: %s", m.Code, m.Detail)
	case "":
		return errors.New("message is neither an event nor a control message")
	}
	return nil
}
