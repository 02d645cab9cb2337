package gateway_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
)

// requestID is what an answer says its request is called.
func (r reply) requestID() string { return strings.Join(r.header["X-Request-Id"], " and ") }

// problemRequest is what a problem says its request is called.
func (r reply) problemRequest(t *testing.T) string {
	t.Helper()
	var p struct {
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("no problem: %s", r.body)
	}
	return p.RequestID
}

func TestEachAnswerNamesItsRequest(t *testing.T) {
	n := newTestNode(t, setup{loopback: true, origins: []string{"https://app.example.com"}})
	seen := make(map[string]string)
	for _, tt := range []struct {
		method, path, token, body string
		headers                   []string
		status                    int
	}{
		{"GET", "/livez", "", "", nil, 200},
		{"GET", "/", "", "", nil, 200},
		{"POST", "/v1/channels/acct/events", admin(t), `{"type":"a"}`, nil, 200},
		{"GET", "/v1/channels/acct/events?since=earliest", admin(t), "", nil, 200},
		{"OPTIONS", "/v1/events", "", "", nil, 204},
		{"OPTIONS", "/v1/events", "", "", []string{"Origin", "https://app.example.com", "Access-Control-Request-Method", "POST"}, 204},
		{"POST", "/v1/channels/acct/events", admin(t), `{`, nil, 400},
		{"POST", "/v1/events", admin(t), `{"type":"a"}`, nil, 400},
		{"GET", "/v1/channels", "", "", nil, 401},
		{"GET", "/v1/sse?channel=acct", "", "", nil, 401},
		{"GET", "/v1/ws?channel=acct", "", "", nil, 400},
		{"GET", "/livez", "", "", []string{"Host", "push.example.com"}, 403},
		{"GET", "/v1/channels/none", admin(t), "", nil, 404},
		{"GET", "/nowhere", "", "", nil, 404},
		{"GET", "/v1//channels", "", "", nil, 400},
		{"PUT", "/livez", "", "", nil, 405},
	} {
		what := tt.method + " " + tt.path
		r := n.do(tt.method, tt.path, tt.token, tt.body, tt.headers...)
		id := r.requestID()
		if r.status != tt.status || id == "" || seen[id] != "" {
			t.Errorf("%s: %d as %q, want %d with an id of its own (%s has it): %s", what, r.status, id, tt.status, seen[id], r.body)
		}
		seen[id] = what
		if r.status >= 400 {
			if got := r.problemRequest(t); got != id {
				t.Errorf("%s: the problem names %q, the header %q", what, got, id)
			}
		}
	}
}

func TestLinesNameTheRequestThatOpenedThem(t *testing.T) {
	n := newTestNode(t, setup{})
	for _, ask := range []string{
		"GET /v1/sse?channel=acct HTTP/1.1\r\n",
		"GET /v1/ws?channel=acct HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n",
	} {
		r := n.raw(ask + "X-Request-Id: my-line.7\r\nAuthorization: Bearer " + admin(t) + "\r\n")
		if got := r.Header["X-Request-Id"]; len(got) != 1 || got[0] != "my-line.7" {
			t.Errorf("%.12s: %s, X-Request-Id %q; want the client's own once", ask, r.Status, got)
		}
	}
}

// raw sends the head of a request as it is, but for Host, and returns the
// answer's.
func (n *testNode) raw(head string) *http.Response {
	n.t.Helper()
	address := strings.TrimPrefix(n.url, "http://")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%sHost: %s\r\n\r\n", head, address)
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func TestIDsOfClientsAreKeptIfTheyAreSane(t *testing.T) {
	n := newTestNode(t, setup{})
	const own = "\x00" // the gateway's own is expected
	for _, tt := range []struct{ why, lines, want string }{
		{"a UUID", "X-Request-Id: 0198f2d4-7b1c-7e55-8f9a-1c2d3e4f5061\r\n", "0198f2d4-7b1c-7e55-8f9a-1c2d3e4f5061"},
		{"any token", "x-request-id: a!#$%&'*+-.^_`|~Z9\r\n", "a!#$%&'*+-.^_`|~Z9"},
		{"as long as it may be", "X-Request-Id: " + strings.Repeat("x", 128) + "\r\n", strings.Repeat("x", 128)},
		{"too long", "X-Request-Id: " + strings.Repeat("x", 129) + "\r\n", own},
		{"10 KB", "X-Request-Id: " + strings.Repeat("x", 10<<10) + "\r\n", own},
		{"empty", "X-Request-Id:\r\n", own},
		{"two words", "X-Request-Id: a b\r\n", own},
		{"a quotation mark", "X-Request-Id: a\"b\r\n", own},
		{"markup", "X-Request-Id: <script>\r\n", own},
		{"a line of a log", "X-Request-Id: a=1,level=ERROR\r\n", own},
		{"a tab", "X-Request-Id: a\tb\r\n", own},
		{"letters beyond ASCII", "X-Request-Id: café\r\n", own},
		{"what turns text around", "X-Request-Id: a\u202eb\r\n", own},
		{"no UTF-8", "X-Request-Id: a\xff\r\n", own},
		{"two of them", "X-Request-Id: a\r\nX-Request-Id: b\r\n", own},
		// net/http takes these for no request: nothing of ours is asked.
		{"a folded line", "X-Request-Id: a\r\n Set-Cookie: b=c\r\n", own},
		{"a bare CR", "X-Request-Id: a\rSet-Cookie: b=c\r\n", ""},
		{"NUL", "X-Request-Id: a\x00b\r\n", ""},
	} {
		r := n.raw("GET /nowhere HTTP/1.1\r\n" + tt.lines)
		got := strings.Join(r.Header["X-Request-Id"], " and ")
		made := len(got) > 8 && len(got) < 40 && strings.Count(got, "-") == 1
		if tt.want == own && !made || tt.want != own && got != tt.want || r.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d, X-Request-Id %q, want %q", tt.why, r.StatusCode, got, tt.want)
		}
	}
}

func TestPagesMayReadTheRequestID(t *testing.T) {
	n := newTestNode(t, setup{origins: []string{"https://app.example.com"}})
	r := n.do("GET", "/v1/channels", "", "", "Origin", "https://app.example.com")
	if got := r.header.Get("Access-Control-Expose-Headers"); !strings.Contains(got, "X-Request-Id") {
		t.Errorf("exposed are %q, want X-Request-Id among them", got)
	}
}

// What a client was told of an error leads to the log's line of it.
func TestLogLinesHaveTheRequestID(t *testing.T) {
	log := &lines{}
	n := newTestNode(t, setup{logger: slog.New(slog.NewJSONHandler(log, nil)), routes: []gateway.Route{
		{Method: "GET", Path: "/v1/bad", Handle: func(http.ResponseWriter, *http.Request, *auth.Grant) error { return io.ErrUnexpectedEOF }},
		{Method: "GET", Path: "/v1/worse", Handle: func(http.ResponseWriter, *http.Request, *auth.Grant) error { panic("worse") }},
	}})
	for _, path := range []string{"/v1/bad", "/v1/worse"} {
		r := n.get(path, admin(t))
		if id := r.problemRequest(t); r.status != 500 || id == "" || !log.have(`"request":"`+id+`"`, path) {
			t.Errorf("%s: %d %s; no line of the log has its id: %s", path, r.status, r.body, log.text.String())
		}
	}
	n.publish("acct", "a")
	if r := n.do("DELETE", "/v1/channels/acct", admin(t), "", "X-Request-Id", "clean-up"); r.status != 204 || !log.have(`"request":"clean-up"`, "channel dropped") {
		t.Errorf("%d; the log doesn't tell by which request the channel was dropped: %s", r.status, log.text.String())
	}
}

// lines is a log to be read.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// have tells whether one line has all the parts.
func (l *lines) have(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}
