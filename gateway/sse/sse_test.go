package sse_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/feed/feedtest"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/sse"
	"github.com/longline-push/longline/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type gateway struct {
	*httptest.Server
	hub   *session.Hub
	log   *feedtest.Log
	token string
}

// kinds of connection an event stream can be on
const (
	http1 = "HTTP/1.1"
	https = "HTTPS/1.1"
	http2 = "HTTP/2"
)

func newGateway(t *testing.T, kind string) gateway {
	t.Helper()
	verifier := authtest.Verifier(t, auth.Options{})
	log := feedtest.New()
	hub := session.NewHub(session.Options{Broker: log, Times: log})
	server := httptest.NewUnstartedServer(&sse.Handler{Hub: hub, Verifier: verifier})
	switch kind {
	case http1:
		server.Start()
	case https:
		server.StartTLS()
	case http2:
		server.EnableHTTP2 = true
		server.StartTLS()
	}
	token := authtest.Token(t, auth.Mintage{Subscribe: []string{"a", "b", "c.**", "longline.events"}, MaxConnections: 5})
	t.Cleanup(func() {
		hub.Close()
		server.Close()
	})
	return gateway{server, hub, log, token}
}

// stream is an open event stream, read line by line.
type stream struct {
	*http.Response
	lines *bufio.Scanner
	stop  context.CancelFunc
}

func (g gateway) open(t *testing.T, query string, header ...string) stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", g.URL+"/v1/sse?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := g.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	return stream{response, lines, cancel}
}

// next returns the next block of lines, joined by "|".
func (s stream) next() string {
	var block []string
	for s.lines.Scan() {
		if s.lines.Text() == "" {
			break
		}
		block = append(block, s.lines.Text())
	}
	return strings.Join(block, "|")
}

func (s stream) wants(t *testing.T, parts ...string) {
	t.Helper()
	got := s.next()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("block  %s\nlacks %s", got, part)
		}
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestStream(t *testing.T) {
	for _, kind := range []string{http1, https, http2} {
		t.Run(kind, func(t *testing.T) {
			g := newGateway(t, kind)
			s := g.open(t, "channel=a")
			for name, want := range map[string]string{
				"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
			} {
				if got := s.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if major := s.ProtoMajor; (major == 2) != (kind == http2) {
				t.Errorf("protocol %s", s.Proto)
			}
			s.wants(t, "retry: ", "|id: a@e1-0|event: longline.hello|data: {", `"recovered":false`)
			for i := range 200 {
				g.log.Append("a", "t", "", fmt.Sprint(i))
			}
			for i := range 200 {
				s.wants(t, fmt.Sprintf(`id: a@e1-%d|data: {"specversion":"1.0"`, i+1), fmt.Sprintf(`"data":%d}`, i))
			}
			large := `"` + strings.Repeat("x", 200<<10) + `"`
			for range 10 {
				g.log.Append("a", "t", "", large)
			}
			for range 10 {
				s.wants(t, large)
			}
			s.stop()
			waitFor(t, func() bool { return g.hub.Count() == 0 })
		})
	}
}

func TestResumeOverSeveralChannels(t *testing.T) {
	g := newGateway(t, http1)
	g.log.Append("a", "t", "", "1", "2", "3")
	g.log.Append("b", "t", "", "4", "5")
	for _, tt := range []struct {
		name, query, header string
		want                []string
	}{
		{"by the header", "channel=a&channel=b", "a@e1-2,b@e2-1", []string{"a@e1-3,b@e2-1", "a@e1-3,b@e2-2"}},
		{"the header before the query", "channel=a&channel=b&since=earliest&last_event_id=a@e1-1", "a@e1-3,b@e2-1", []string{"a@e1-3,b@e2-2"}},
		{"last_event_id before since", "channel=a&channel=b&since=earliest&last_event_id=a@e1-3,b@e2-1", "", []string{"a@e1-3,b@e2-2"}},
		{"a channel missing starts at latest", "channel=a&channel=b&since=a@e1-2", "", []string{"a@e1-3,b@e2-2"}},
		{"earliest", "channel=b&since=earliest", "", []string{"b@e2-1", "b@e2-2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var header []string
			if tt.header != "" {
				header = []string{"Last-Event-ID", tt.header}
			}
			s := g.open(t, tt.query, header...)
			s.wants(t, "retry: ", "event: longline.hello")
			// Channels have no order among each other: only the last id is sure.
			for range len(tt.want) - 1 {
				s.wants(t, "|data: ")
			}
			s.wants(t, "id: "+tt.want[len(tt.want)-1]+"|data: ")
			s.stop()
		})
	}
}

func TestGapAndTypes(t *testing.T) {
	g := newGateway(t, http1)
	g.log.Append("a", "email.opened", "", "1")
	g.log.Append("a", "email.bounced", "", "2")
	s := g.open(t, "channel=a&types=email.opened&event=type&since=a@zz-7")
	s.wants(t, "retry: ", "event: longline.hello", `"recovered":false`)
	s.wants(t, "event: longline.gap", `"from":"a@zz-7","to":"a@e1-0","reason":"reset"`)
	s.wants(t, "id: a@e1-1|event: email.opened|data: {")
	g.log.Append("a", "email.opened", "", "3")
	s.wants(t, "id: a@e1-3|event: email.opened|data: {")
}

func TestFilter(t *testing.T) {
	g := newGateway(t, http1)
	g.log.Append("a", "order.paid", "ann", "1", "2")
	g.log.Append("a", "order.paid", "bob", "3")
	s := g.open(t, "channel=a&since=earliest&filter="+url.QueryEscape(`event.partitionkey == "bob" && event.type.startsWith("order.")`))
	s.wants(t, "event: longline.hello")
	s.wants(t, "id: a@e1-3|data: {")
	g.log.Append("a", "order.sent", "ann", "4")
	g.log.Append("a", "order.sent", "bob", "5")
	s.wants(t, "id: a@e1-5|data: {")
}

// A log from before such types were refused holds an event that would end the
// stream. It comes, but as an event.
func TestNoEventPassesForAControlEvent(t *testing.T) {
	g := newGateway(t, http1)
	g.log.Append("a", "longline.bye", "", `{"code":4401,"reconnect":false}`)
	s := g.open(t, "channel=a&event=type&since=earliest")
	s.wants(t, "retry: ", "event: longline.hello")
	s.wants(t, "id: a@e1-1|data: {")
	// The gateway's own channels hold what the gateway wrote.
	g.log.Append("longline.events", "longline.node.joined", "", `{}`)
	s = g.open(t, "channel=longline.events&event=type&since=earliest")
	s.wants(t, "retry: ", "event: longline.hello")
	s.wants(t, "id: longline.events@e2-1|event: longline.node.joined|data: {")
}

func TestAFinalByeKeepsEventSourceAway(t *testing.T) {
	g := newGateway(t, http1)
	s := g.open(t, "channel=a")
	s.wants(t, "retry: ", "event: longline.hello")
	g.hub.EndWhere(func(*auth.Grant) bool { return true }, wire.CloseUnauthorized, "revoked")
	s.wants(t, "retry: 86400000|", `event: longline.bye|data: {"code":4401,"retry_ms":0,"reason":"revoked","reconnect":false}`)
	if got := s.next(); got != "" || s.lines.Err() != nil {
		t.Errorf("after bye: %q, %v", got, s.lines.Err())
	}
	waitFor(t, func() bool { return g.hub.Count() == 0 })
}

// What speaks HTTP without a library gets a stream, and what it sends after its
// request disturbs nothing.
func TestStreamsOverABareSocket(t *testing.T) {
	g := newGateway(t, http1)
	head := "Host: gateway\r\nAuthorization: Bearer " + g.token + "\r\n\r\n"
	for name, request := range map[string]string{
		"HTTP/1.0":           "GET /v1/sse?channel=a HTTP/1.0\r\n" + head,
		"a second request":   "GET /v1/sse?channel=a HTTP/1.1\r\n" + head + "GET /v1/sse?channel=b HTTP/1.1\r\n" + head,
		"nonsense thereupon": "GET /v1/sse?channel=a HTTP/1.1\r\n" + head + "\x00\xff",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", g.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(conn)
			for _, want := range []string{"HTTP/1.1 200 OK", "Content-Type: text/event-stream", "event: longline.hello"} {
				for lines.Scan() && lines.Text() != want {
				}
				if lines.Text() != want {
					t.Fatalf("the stream ended without %q: %v", want, lines.Err())
				}
			}
			g.log.Append("a", "t", "", "1")
			for lines.Scan() && !strings.Contains(lines.Text(), `"type":"t"`) {
			}
			if lines.Err() != nil {
				t.Fatal(lines.Err())
			}
			// Who closes only its own half is gone as well.
			conn.(*net.TCPConn).CloseWrite()
			waitFor(t, func() bool { return g.hub.Count() == 0 })
		})
	}
}

func TestRefusals(t *testing.T) {
	g := newGateway(t, http1)
	many := strings.Repeat("&channel=c."+strings.Repeat("x", 80)+"-%d", 60)
	for i := range 60 {
		many = strings.Replace(many, "%d", fmt.Sprint(i), 1)
	}
	for _, tt := range []struct {
		name, query string
		status      int
		detail      string
	}{
		{"no channel", "", 400, "want channel="},
		{"another channel", "channel=zz", 403, "may not subscribe"},
		{"a bad name", "channel=a%20b", 400, "channel"},
		{"two dots", "channel=a..b", 400, "empty segment"},
		{"129 bytes", "channel=" + strings.Repeat("a", 129), 400, "129 bytes"},
		{"a cursor of another channel", "channel=a&since=b@e1-1", 400, "was not asked for"},
		{"not a number", "channel=a&since=a@e1-x", 400, "offset is not a number"},
		{"2^64", "channel=a&since=a@e1-18446744073709551616", 400, "64 bits"},
		{"a bad last_event_id", "channel=a&last_event_id=junk", 400, `last_event_id is \"junk\": want a cursor`},
		{"a bad pattern", "channel=a&types=a.**.b", 400, "a last"},
		{"a bad lag", "channel=a&lag=never", 400, "want catchup, conflate, latest or close"},
		{"event=x", "channel=a&event=x", 400, `want \"type\"`},
		{"too many channels", many[1:], 400, "WebSocket takes them"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := g.open(t, tt.query)
			body := s.next()
			if s.StatusCode != tt.status || !strings.Contains(body, tt.detail) {
				t.Errorf("got %d %s, want %d with %q", s.StatusCode, body, tt.status, tt.detail)
			}
		})
	}
}

func TestWhoIsTurnedAwayComesBackLater(t *testing.T) {
	g := newGateway(t, http1)
	for range 5 {
		g.open(t, "channel=a").wants(t, "retry: ")
	}
	native := g.open(t, "channel=a", "Accept", "text/event-stream")
	if native.StatusCode != 200 {
		t.Errorf("a browser got %d and will never come back", native.StatusCode)
	}
	native.wants(t, "retry: ", "event: longline.bye", `"code":4429`, `"reconnect":true`)
	if got := native.next(); got != "" {
		t.Errorf("after bye: %s", got)
	}
	ours := g.open(t, "channel=a", "Accept", "text/event-stream, application/problem+json")
	if ours.StatusCode != 429 || ours.Header.Get("Retry-After") == "" {
		t.Errorf("got %d, want 429 with Retry-After", ours.StatusCode)
	}
}

// An ended stream is whole: over HTTP/2 a reset would look like a failure to
// fetch.
func TestAnEndedStreamEndsInOrder(t *testing.T) {
	for _, kind := range []string{http1, https, http2} {
		t.Run(kind, func(t *testing.T) {
			g := newGateway(t, kind)
			for range 20 {
				s := g.open(t, "channel=a")
				s.wants(t, "retry:", "longline.hello")
				g.hub.EndWhere(func(*auth.Grant) bool { return true }, wire.CloseRestart, "restart")
				s.wants(t, "longline.bye")
				if s.next() != "" || s.lines.Err() != nil {
					t.Fatalf("ended by %v", s.lines.Err())
				}
				waitFor(t, func() bool { return g.hub.Count() == 0 })
			}
		})
	}
}
