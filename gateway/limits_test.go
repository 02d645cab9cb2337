package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/quota"
)

func newRegistry(t *testing.T) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "test_total"})
	r.MustRegister(c)
	return r
}

// failing is a broker whose appends fail when told so.
type failing struct {
	gateway.Broker
	mu  sync.Mutex
	err error
}

func (f *failing) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failing) Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error) {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	return f.Broker.Append(ctx, channel, entries)
}

func decodeSegment(t testing.TB, segment string) (claims struct {
	ID string `json:"jti"`
}) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// wantRefused looks at what was counted under a limit's name.
func (n *testNode) wantRefused(limit string) {
	n.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.Metric {
			if family.GetName() == "longline_refused_total" && m.Label[0].GetValue() == limit && m.Counter.GetValue() > 0 {
				return
			}
		}
	}
	n.t.Errorf("nothing was counted as refused by %s", limit)
}

const andProblems = "text/event-stream, application/problem+json"

func TestNodeTakesOnlySoManyConnections(t *testing.T) {
	n := newTestNode(t, setup{limits: quota.Limits{Connections: 1}})
	n.listen("channel=c", admin(t)).want("longline.hello")
	r := n.do("GET", "/v1/sse?channel=c", admin(t), "", "Accept", andProblems)
	if r.status != 503 || r.header.Get("Retry-After") == "" || !strings.Contains(r.detail(t), "1 connections") {
		t.Errorf("second connection: %d %s", r.status, r.body)
	}
	n.wantRefused("max-connections")
}

func TestNewConnectionsAreTakenAtARate(t *testing.T) {
	n := newTestNode(t, setup{limits: quota.Limits{ConnectRate: 1}})
	n.listen("channel=c", admin(t)).want("longline.hello")
	r := n.do("GET", "/v1/sse?channel=c", admin(t), "", "Accept", andProblems)
	if r.status != 429 || r.header.Get("Retry-After") == "" {
		t.Errorf("second connection within the second: %d %s", r.status, r.body)
	}
	n.wantRefused("connect-rate")
}

func TestTokenMayHaveOnlySoManyConnections(t *testing.T) {
	n := newTestNode(t, setup{})
	token := mint(t, auth.Mintage{Subject: "a", Subscribe: []string{"c"}, MaxConnections: 1})
	n.listen("channel=c", token).want("longline.hello")
	r := n.do("GET", "/v1/sse?channel=c", token, "", "Accept", andProblems)
	if r.status != 429 || !strings.Contains(r.detail(t), "1 connections") {
		t.Errorf("second connection: %d %s", r.status, r.body)
	}
	n.wantRefused("max_connections")
}

func TestTokenMayPublishAtARate(t *testing.T) {
	for name, tt := range map[string]struct {
		limits quota.Limits
		saying string
	}{
		"publish-rate":  {quota.Limits{PublishEvents: 2}, "2 events a second"},
		"publish-bytes": {quota.Limits{PublishBytes: 400}, "400 bytes a second"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newTestNode(t, setup{limits: tt.limits})
			token := mint(t, auth.Mintage{Subject: "a", Publish: []string{"c"}})
			// More than a burst passes once, and is owed.
			body := `[{"type":"t"},{"type":"t"},{"type":"t"},{"type":"t"}]`
			if r := n.do("POST", "/v1/channels/c/events", token, body); r.status != 200 {
				t.Fatalf("first: %d %s", r.status, r.body)
			}
			r := n.do("POST", "/v1/channels/c/events", token, body)
			if r.status != 429 || r.header.Get("Retry-After") == "" || !strings.Contains(r.detail(t), tt.saying) {
				t.Errorf("second: %d %s", r.status, r.body)
			}
			// The rate is each token's own.
			if r := n.do("POST", "/v1/channels/c/events", mint(t, auth.Mintage{Subject: "b", Publish: []string{"c"}}), body); r.status != 200 {
				t.Errorf("another's: %d %s", r.status, r.body)
			}
			n.wantRefused(name)
		})
	}
}

func TestShortOfMemoryNothingNewIsTaken(t *testing.T) {
	n := newTestNode(t, setup{limits: quota.Limits{Memory: 1}})
	kept := n.listen("channel=c", admin(t))
	kept.want("longline.hello")
	n.publish("c", "before")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { n.budget.Watch(ctx, quiet); close(done) }()
	defer func() { cancel(); <-done }()
	until(t, "publishes are shed", func() bool {
		return n.do("POST", "/v1/channels/c/events", admin(t), `{"type":"t"}`).status == 503
	})
	if r := n.do("GET", "/v1/sse?channel=c", admin(t), "", "Accept", andProblems); r.status != 503 || !strings.Contains(r.detail(t), "memory") {
		t.Errorf("new connection: %d %s", r.status, r.body)
	}
	kept.want("before") // those there are go on
	n.wantRefused("memory")
}

func TestSlowHeaderEndsTheConnection(t *testing.T) {
	server := gateway.HTTPServer(http.NotFoundHandler(), quiet)
	if server.ReadHeaderTimeout <= 0 || server.ReadTimeout <= 0 || server.WriteTimeout <= 0 || server.IdleTimeout <= 0 {
		t.Fatalf("a time-out is missing: %+v", server)
	}
	server.ReadHeaderTimeout = 50 * time.Millisecond
	test := httptest.NewUnstartedServer(nil)
	test.Config = server
	test.Start()
	defer test.Close()
	c, err := net.Dial("tcp", test.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for buf := make([]byte, 512); ; {
		if _, err := c.Read(buf); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatal("the connection is still open")
			}
			return
		}
	}
}
