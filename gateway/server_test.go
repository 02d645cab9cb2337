package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/publish"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/stats"
	"github.com/longline-push/longline/gateway/subscriptions"
	"github.com/longline-push/longline/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// testNode is a node with its server, on a broker that may be shared.
type testNode struct {
	*gateway.Server
	url      string
	hub      *session.Hub
	budget   *quota.Budget
	registry *prometheus.Registry // the budget's
	t        testing.TB
}

// setup is what a test wants otherwise.
type setup struct {
	name     string
	broker   gateway.Broker
	limits   quota.Limits
	origins  []string
	loopback bool
	routes   []gateway.Route
	mint     func(auth.Mintage) (string, error)
	portal   func(auth.Mintage) (string, error)
	frames   []string
	totals   func() stats.Totals
	logger   *slog.Logger // nil: quiet
}

func openBroker(t testing.TB) gateway.Broker {
	t.Helper()
	b, err := embedded.Open(embedded.Options{
		Dir: t.TempDir(), Fsync: embedded.FsyncEverySecond, Logger: quiet,
		Options: broker.Options{Retention: func(channel string) broker.Retention {
			r := broker.DefaultRetention
			if channel == "short" {
				r.ReplayAge, r.ReplayEvents, r.MaxAge = time.Millisecond, 1, time.Millisecond
			}
			return r
		}},
	})
	if err != nil {
		t.Fatalf("open broker: %v", err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func newTestNode(t testing.TB, s setup) *testNode {
	t.Helper()
	if s.broker == nil {
		s.broker = openBroker(t)
	}
	if s.name == "" {
		s.name = t.Name()
	}
	if s.logger == nil {
		s.logger = quiet
	}
	registry := prometheus.NewRegistry()
	budget := quota.New(s.limits, registry)
	var hub *session.Hub
	revocations := auth.NewRevocations(s.broker, quiet, func(r auth.Revocation) {
		hub.EndWhere(r.Covers, wire.CloseUnauthorized, "the token was revoked")
	})
	hub = session.NewHub(session.Options{Budget: budget, Broker: s.broker, Times: s.broker, Revocations: revocations, Logger: quiet, Node: s.name})
	origins, err := auth.ParseOrigins(s.origins)
	if err != nil {
		t.Fatal(err)
	}
	verifier := authtest.Verifier(t, auth.Options{Origins: origins, Revocations: revocations})
	n := &testNode{t: t, hub: hub, budget: budget, registry: registry}
	n.Server = gateway.New(gateway.Options{
		Broker: s.broker, Hub: hub, Verifier: verifier, Revocations: revocations, Budget: budget,
		Publisher: publish.New(s.broker, publish.Options{Admit: budget.Publish}),
		Origins:   origins, LoopbackOnly: s.loopback, Mint: s.mint, MintPortal: s.portal, PortalOrigins: s.frames, Totals: s.totals, Logger: s.logger, Version: "test", ProbeEvery: 200 * time.Millisecond,
	}, s.routes...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { revocations.Run(ctx); done <- struct{}{} }()
	go func() { n.Server.Run(ctx); done <- struct{}{} }()
	server := httptest.NewUnstartedServer(n.Server)
	server.Config = gateway.HTTPServer(n.Server, quiet)
	server.Start()
	n.url = server.URL
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		hub.Close()
		cancel()
		<-done
		<-done
		server.Close()
	})
	until(t, "the node is ready", func() bool { r := n.get("/readyz", ""); return r.status == 200 })
	return n
}

// until polls, so that no test sleeps longer than it must.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func mint(t testing.TB, m auth.Mintage) string {
	t.Helper()
	return authtest.Token(t, m)
}

func admin(t testing.TB) string { return mint(t, auth.Mintage{Subject: "ops", Admin: true}) }

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

// detail is a problem's, after checks that it is one.
func (r reply) detail(t *testing.T) string {
	t.Helper()
	var p struct {
		Status       int
		Code, Detail string
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || p.Status != r.status || p.Code == "" || r.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("no problem: %d %s %s", r.status, r.header.Get("Content-Type"), r.body)
	}
	return p.Detail
}

func (n *testNode) do(method, path, token, body string, headers ...string) reply {
	n.t.Helper()
	r, err := http.NewRequest(method, n.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

func (n *testNode) get(path, token string) reply {
	n.t.Helper()
	return n.do("GET", path, token, "")
}

// publish appends events with data 1, 2, … and returns the last cursor.
func (n *testNode) publish(channel string, events ...string) (last string) {
	n.t.Helper()
	for _, typ := range events {
		r := n.do("POST", "/v1/channels/"+channel+"/events", admin(n.t), fmt.Sprintf(`{"type":%q}`, typ))
		var got struct{ Events []struct{ Cursor string } }
		if r.status != 200 || json.Unmarshal([]byte(r.body), &got) != nil {
			n.t.Fatalf("publish: %d %s", r.status, r.body)
		}
		last = got.Events[0].Cursor
	}
	return last
}

// stream is an open event stream.
type stream struct {
	t    testing.TB
	body io.ReadCloser
	read *bufio.Scanner
}

func (n *testNode) listen(query, token string, headers ...string) *stream {
	n.t.Helper()
	r, err := http.NewRequest("GET", n.url+"/v1/sse?"+query, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		text, _ := io.ReadAll(resp.Body)
		n.t.Fatalf("listen: %d %s", resp.StatusCode, text)
	}
	return &stream{n.t, resp.Body, bufio.NewScanner(resp.Body)}
}

// want reads until a line holds text.
func (s *stream) want(text string) string {
	s.t.Helper()
	for s.read.Scan() {
		if strings.Contains(s.read.Text(), text) {
			return s.read.Text()
		}
	}
	s.t.Fatalf("the stream ended without %q: %v", text, s.read.Err())
	return ""
}

func (s *stream) wantEnd() {
	s.t.Helper()
	for s.read.Scan() {
	}
	if err := s.read.Err(); err != nil {
		s.t.Fatalf("stream ended by %v", err)
	}
}

func TestPublishedEventArrivesAndCanBeRead(t *testing.T) {
	n := newTestNode(t, setup{})
	s := n.listen("channel=acct-42", admin(t))
	s.want("longline.hello")
	cursor := n.publish("acct-42", "email.opened")
	s.want(`"cursor":"` + cursor + `"`)
	r := n.get("/v1/channels/acct-42/events", admin(t))
	if r.status != 200 || !strings.Contains(r.body, `"cursor":"`+cursor+`"`) {
		t.Errorf("read: %d %s", r.status, r.body)
	}
}

func TestProblemsInsteadOfPlainErrors(t *testing.T) {
	n := newTestNode(t, setup{})
	all := admin(t)
	for _, tt := range []struct {
		name                      string
		method, path, token, body string
		status                    int
		saying                    string
	}{
		{"nothing there", "GET", "/v2/events", all, "", 404, "/v1/openapi.json"},
		{"posting to a stream", "POST", "/v1/sse", all, "{}", 405, "want GET or OPTIONS"},
		{"another method", "PUT", "/v1/channels/a/events", all, "{}", 405, "want GET or POST"},
		{"slash in a channel's name", "POST", "/v1/channels/a%2Fb/events", all, `{"type":"t"}`, 400, `channel "a/b"`},
		{"dots for a channel's name", "POST", "/v1/channels/../events", all, `{"type":"t"}`, 400, `".."`},
		{"encoded dots", "POST", "/v1/channels/%2e%2e/events", all, `{"type":"t"}`, 400, `".."`},
		{"no name", "POST", "/v1/channels//events", all, `{"type":"t"}`, 400, "empty"},
		{"space in a channel's name", "POST", "/v1/channels/a%20b/events", all, `{"type":"t"}`, 400, `channel "a b"`},
		{"long name", "POST", "/v1/channels/" + strings.Repeat("a", 129) + "/events", all, `{"type":"t"}`, 400, "129 bytes"},
		{"reserved channel", "POST", "/v1/channels/longline.events/events", all, `{"type":"t"}`, 403, "gateway's own"},
		{"not JSON", "POST", "/v1/channels/a/events", all, `hello`, 400, "not JSON"},
		{"empty body", "POST", "/v1/channels/a/events", all, "", 415, "want application/json"},
		{"no token", "POST", "/v1/channels/a/events", "", `{"type":"t"}`, 401, "no token; want Authorization: Bearer"},
		{"damaged token", "POST", "/v1/channels/a/events", all[:len(all)-43] + strings.Repeat("A", 43), `{"type":"t"}`, 401, "signature"},
		{"token for other channels", "POST", "/v1/channels/a/events", mint(t, auth.Mintage{Publish: []string{"b"}}), `{"type":"t"}`, 403, `may not publish to "a"`},
		{"reading without right", "GET", "/v1/channels/a/events", mint(t, auth.Mintage{Publish: []string{"a"}}), "", 403, `may not subscribe to "a"`},
		{"admin's route", "GET", "/v1/nodes", mint(t, auth.Mintage{Subscribe: []string{"**"}}), "", 403, "for admins"},
		{"dropping without admin", "DELETE", "/v1/channels/a", mint(t, auth.Mintage{Publish: []string{"a"}}), "", 403, "for admins"},
		{"dropping revocations", "DELETE", "/v1/channels/longline.revocations", all, "", 403, "good again"},
		{"dropping nothing", "DELETE", "/v1/channels/nothing", all, "", 404, `no channel "nothing"`},
		{"revoking nothing", "POST", "/v1/tokens/revoke", all, "{}", 400, `want {"jti":"…"}`},
		{"revoking by both", "POST", "/v1/tokens/revoke", all, `{"jti":"a","sub":"b"}`, 400, `want {"jti":"…"}`},
		{"revoking with a typo", "POST", "/v1/tokens/revoke", all, `{"jit":"a"}`, 400, `unknown field "jit"`},
		{"closing no connection", "DELETE", "/v1/connections/abc", all, "", 404, `no connection "abc"`},
		{"page's missing part", "GET", "/console/none.js", "", "", 404, "nothing at"},
		{"details", "GET", "/v1/channels?details=perhaps", all, "", 400, "want true or false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := n.do(tt.method, tt.path, tt.token, tt.body)
			if d := r.detail(t); r.status != tt.status || !strings.Contains(d, tt.saying) {
				t.Errorf("got %d %q, want %d saying %q", r.status, d, tt.status, tt.saying)
			}
		})
	}
	// After all that, nothing was appended.
	if r := n.get("/v1/channels/a", all); r.status != 404 {
		t.Errorf("channel a exists: %s", r.body)
	}
}

func TestHeadAttachesToNothing(t *testing.T) {
	pull := func(http.ResponseWriter, *http.Request, *auth.Grant) error {
		t.Error("a HEAD pulled")
		return nil
	}
	n := newTestNode(t, setup{routes: []gateway.Route{{Method: "GET", Path: "/v1/subscriptions/{name}/events", Handle: pull}}})
	for _, path := range []string{"/v1/sse?channel=a", "/v1/ws?channel=a", "/v1/subscriptions/crm/events"} {
		r := n.do("HEAD", path, admin(t), "")
		if r.status != 405 || r.header.Get("Allow") != "GET, OPTIONS" {
			t.Errorf("%s: got %d, Allow %q; want 405 and what is allowed", path, r.status, r.header.Get("Allow"))
		}
	}
}

func TestReading(t *testing.T) {
	n := newTestNode(t, setup{})
	all := admin(t)
	n.publish("c", "a.x", "b.x", "a.x", "b.x", "a.x")
	head := n.publish("other", "t")
	var info struct {
		Epoch       string
		First, Head int
		Events      int
	}
	if err := json.Unmarshal([]byte(n.get("/v1/channels/c", all).body), &info); err != nil {
		t.Fatal(err)
	}
	if info.First != 1 || info.Head != 5 || info.Events != 5 {
		t.Errorf("info = %+v", info)
	}
	at := func(offset any) string { return fmt.Sprintf("c@%s-%v", info.Epoch, offset) }
	for _, tt := range []struct {
		name, query string
		status      int
		want        string // offsets and cursor, or what the problem says
	}{
		{"from the beginning", "", 200, "[1 2 3 4 5] " + at(5)},
		{"earliest", "since=earliest&limit=2", 200, "[1 2] " + at(2)},
		{"after a cursor", "since=" + at(2) + "&limit=2", 200, "[3 4] " + at(4)},
		{"before the first", "since=" + at(0), 200, "[1 2 3 4 5] " + at(5)},
		{"at the head", "since=" + at(5), 200, "[] " + at(5)},
		{"latest", "since=latest", 200, "[] " + at(5)},
		{"from a time", "since=2020-01-01T00:00:00Z", 200, "[1 2 3 4 5] " + at(5)},
		{"from a time to come", "since=2100-01-01T00:00:00Z", 200, "[] " + at(5)},
		{"one type", "types=b.*", 200, "[2 4] " + at(5)},
		{"a page of one type", "types=a.*&limit=2", 200, "[1 3] " + at(3)},
		{"a filter", "filter=" + url.QueryEscape(`event.type == "b.x" || event.cursor.endsWith("-5")`), 200, "[2 4 5] " + at(5)},
		{"a filter that always errs", "filter=" + url.QueryEscape(`event.none == 1`), 200, "[] " + at(5)},
		{"a filter that is none", "filter=" + url.QueryEscape(`event.type`), 400, "filter: its value is of type string; want bool"},
		{"a filter with an error in it", "filter=" + url.QueryEscape(`event.type = "b.x"`), 400, "filter: line 1, column 12"},
		{"limit of -1", "limit=-1", 400, `limit is "-1"; want a number from 1 to 1000`},
		{"limit of 1001", "limit=1001", 400, "from 1 to 1000"},
		{"limit of nothing sensible", "limit=x", 400, "from 1 to 1000"},
		{"bad pattern", "types=a.**.b", 400, `pattern "a.**.b"`},
		{"cursor of another channel", "since=" + head, 400, `channel "other"`},
		{"unknown epoch", "since=c@unknown-1", 410, "of a log that is gone"},
		{"beyond the head", "since=" + at(6), 410, "beyond the head"},
		{"not a number", "since=" + at("x"), 400, "not a number"},
		{"2⁶⁴", "since=" + at("18446744073709551616"), 400, "64 bits"},
		{"neither cursor nor time", "since=yesterday", 400, "want a cursor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := n.get("/v1/channels/c/events?"+tt.query, all)
			if r.status != tt.status {
				t.Fatalf("status %d, want %d: %s", r.status, tt.status, r.body)
			}
			if tt.status != 200 {
				if d := r.detail(t); !strings.Contains(d, tt.want) {
					t.Errorf("got %q, want it to say %q", d, tt.want)
				}
				return
			}
			var page struct {
				Events []struct{ Cursor string }
				Cursor string
			}
			if err := json.Unmarshal([]byte(r.body), &page); err != nil {
				t.Fatalf("%v in %s", err, r.body)
			}
			offsets := []string{}
			for _, e := range page.Events {
				offsets = append(offsets, strings.TrimPrefix(e.Cursor, at("")))
			}
			if got := fmt.Sprint(offsets, " ", page.Cursor); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if r := n.get("/v1/channels/nothing/events", all); r.status != 404 || !strings.Contains(r.detail(t), `no channel "nothing"`) {
		t.Errorf("reading nothing: %d %s", r.status, r.body)
	}
}

func TestReadingTellsOfWhatRetentionTook(t *testing.T) {
	b := openBroker(t).(*embedded.Broker)
	n := newTestNode(t, setup{broker: b})
	first := n.publish("short", "t")
	n.publish("short", "t", "t")
	until(t, "retention took the first event", func() bool {
		if err := b.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		state, err := b.State(t.Context(), "short")
		return err == nil && state.First > 2
	})
	r := n.get("/v1/channels/short/events?since="+first, admin(t))
	if r.status != 200 || !strings.Contains(r.body, `"gap":{"from":"`+first+`","to":"short@`) {
		t.Errorf("got %d %s, want a gap from %s", r.status, r.body, first)
	}
}

func TestListingChannels(t *testing.T) {
	n := newTestNode(t, setup{})
	for _, c := range []string{"b.1", "b.2", "b.3", "a"} {
		n.publish(c, "t")
	}
	if got, want := n.get("/v1/channels?prefix=b.&limit=2", admin(t)).body, `{"channels":["b.1","b.2"],"next":"b.2"}`; strings.TrimSpace(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := n.get("/v1/channels?prefix=b.&limit=2&page=b.2", admin(t)).body, `{"channels":["b.3"]}`; strings.TrimSpace(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := n.get("/v1/channels?prefix=zz", admin(t)).body, `{"channels":[]}`; strings.TrimSpace(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if r := n.get("/v1/channels?page=a/b", admin(t)); r.status != 400 {
		t.Errorf("bad page: %d", r.status)
	}
}

func TestDroppedChannelBeginsANewEpoch(t *testing.T) {
	n := newTestNode(t, setup{})
	before := n.publish("c", "t")
	if r := n.do("DELETE", "/v1/channels/c", admin(t), ""); r.status != 204 {
		t.Fatalf("drop: %d %s", r.status, r.body)
	}
	after := n.publish("c", "t")
	if before == after || !strings.HasSuffix(after, "-1") {
		t.Errorf("before %s, after %s", before, after)
	}
	if r := n.get("/v1/channels/c/events?since="+before, admin(t)); r.status != 410 {
		t.Errorf("old cursor: %d %s", r.status, r.body)
	}
}

func TestRevocationEndsConnectionsOnEveryNode(t *testing.T) {
	b := openBroker(t)
	one, two := newTestNode(t, setup{broker: b}), newTestNode(t, setup{broker: b})
	token := mint(t, auth.Mintage{Subject: "customer-42", Subscribe: []string{"c"}})
	other := mint(t, auth.Mintage{Subject: "customer-43", Subscribe: []string{"c"}})
	var streams []*stream
	for _, n := range []*testNode{one, two} {
		s := n.listen("channel=c", token)
		s.want("longline.hello")
		streams = append(streams, s)
	}
	kept := two.listen("channel=c", other)
	kept.want("longline.hello")

	before := time.Now().Add(time.Second).UTC().Format(time.RFC3339)
	if r := one.do("POST", "/v1/tokens/revoke", admin(t), `{"sub":"customer-42","before":"`+before+`"}`); r.status != 204 {
		t.Fatalf("revoke: %d %s", r.status, r.body)
	}
	for _, s := range streams {
		s.want(`"code":4401`)
		s.wantEnd()
	}
	for _, n := range []*testNode{one, two} {
		if r := n.get("/v1/channels/c", token); r.status != 401 || !strings.Contains(r.detail(t), "revoked") {
			t.Errorf("revoked token: %d %s", r.status, r.body)
		}
	}
	one.publish("c", "still.here")
	kept.want("still.here")

	// A node that starts later knows it too.
	three := newTestNode(t, setup{broker: b})
	if r := three.get("/v1/channels/c", token); r.status != 401 {
		t.Errorf("revoked token on a new node: %d", r.status)
	}
}

func TestRevokingOneToken(t *testing.T) {
	n := newTestNode(t, setup{})
	token := mint(t, auth.Mintage{Subject: "a", Subscribe: []string{"c"}})
	sibling := mint(t, auth.Mintage{Subject: "a", Subscribe: []string{"c"}})
	n.publish("c", "t")
	parts := strings.Split(token, ".")
	payload := decodeSegment(t, parts[1])
	if r := n.do("POST", "/v1/tokens/revoke", admin(t), `{"jti":"`+payload.ID+`"}`); r.status != 204 {
		t.Fatalf("revoke: %d %s", r.status, r.body)
	}
	if r := n.get("/v1/channels/c", token); r.status != 401 {
		t.Errorf("revoked: %d", r.status)
	}
	if r := n.get("/v1/channels/c", sibling); r.status != 200 {
		t.Errorf("sibling: %d", r.status)
	}
}

func TestConnectionsAreListedAndClosed(t *testing.T) {
	n := newTestNode(t, setup{})
	s := n.listen("channel=c", mint(t, auth.Mintage{Subject: "reader", Subscribe: []string{"c"}}))
	s.want("longline.hello")
	var list struct {
		Total       int
		Connections []struct{ Connection, Sub string }
	}
	if err := json.Unmarshal([]byte(n.get("/v1/connections?sub=reader&channel=c", admin(t)).body), &list); err != nil {
		t.Fatal(err)
	}
	if list.Total != 1 || list.Connections[0].Sub != "reader" {
		t.Fatalf("connections = %+v", list)
	}
	if got := n.get("/v1/channels/c", admin(t)); got.status != 200 || !strings.Contains(got.body, `"connections":1`) {
		t.Errorf("channel: %d %s", got.status, got.body)
	}
	if r := n.do("DELETE", "/v1/connections/"+list.Connections[0].Connection, admin(t), ""); r.status != 204 {
		t.Fatalf("close: %d %s", r.status, r.body)
	}
	s.want("longline.bye")
	s.wantEnd()
	if got := n.get("/v1/connections?sub=nobody", admin(t)).body; !strings.Contains(got, `"connections":[]`) {
		t.Errorf("got %s", got)
	}
}

func TestConnectionOfAnotherNodeIsClosed(t *testing.T) {
	b := openBroker(t)
	one, two := newTestNode(t, setup{broker: b, name: "one"}), newTestNode(t, setup{broker: b, name: "two"})
	s := two.listen("channel=c", admin(t))
	s.want("longline.hello")
	hello := s.want("data: ")
	var control struct{ Connection string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(hello, "data: ")), &control); err != nil {
		t.Fatal(err)
	}
	until(t, "one knows of two", func() bool {
		return strings.Contains(one.get("/v1/nodes", admin(t)).body, `"node":"two"`)
	})
	if r := one.do("DELETE", "/v1/connections/"+control.Connection, admin(t), ""); r.status != 202 {
		t.Fatalf("close: %d %s", r.status, r.body)
	}
	s.want("longline.bye")
	s.wantEnd()
}

func TestNodesKnowEachOther(t *testing.T) {
	b := openBroker(t)
	one, two := newTestNode(t, setup{broker: b, name: "one"}), newTestNode(t, setup{broker: b, name: "two"})
	for _, n := range []*testNode{one, two} {
		until(t, "each knows both", func() bool {
			body := n.get("/v1/nodes", admin(t)).body
			return strings.Contains(body, `"node":"one"`) && strings.Contains(body, `"node":"two"`)
		})
	}
}

func TestReadyOnlyWhileEventsComeBack(t *testing.T) {
	b := &failing{Broker: openBroker(t)}
	n := newTestNode(t, setup{broker: b})
	b.set(broker.ErrUnavailable)
	until(t, "the node is not ready", func() bool { return n.get("/readyz", "").status == 503 })
	r := n.do("POST", "/v1/channels/c/events", admin(t), `{"type":"t"}`)
	if r.status != 503 || r.header.Get("Retry-After") == "" || !strings.Contains(r.detail(t), "safe") {
		t.Errorf("publish: %d, Retry-After %q, %s", r.status, r.header.Get("Retry-After"), r.body)
	}
	if r := n.get("/livez", ""); r.status != 200 {
		t.Errorf("livez: %d", r.status)
	}
	b.set(nil)
	until(t, "the node is ready again", func() bool { return n.get("/readyz", "").status == 200 })
}

func TestDrainingSaysByeAndIsNotReady(t *testing.T) {
	n := newTestNode(t, setup{})
	s := n.listen("channel=c", admin(t))
	s.want("longline.hello")
	n.Drain(t.Context(), time.Second)
	if line := s.want(`"code":1012`); !strings.Contains(line, `"reconnect":true`) {
		t.Errorf("bye = %s", line)
	}
	s.wantEnd()
	if r := n.get("/readyz", ""); r.status != 503 || !strings.Contains(r.detail(t), "draining") {
		t.Errorf("readyz: %d %s", r.status, r.body)
	}
	if r := n.do("GET", "/v1/sse?channel=c", admin(t), "", "Accept", "text/event-stream, application/problem+json"); r.status != 503 {
		t.Errorf("new connection: %d %s", r.status, r.body)
	}
	// A browser must not give up: it is told when to come back.
	if r := n.get("/v1/sse?channel=c", admin(t)); r.status != 200 || !strings.Contains(r.body, "longline.bye") || !strings.Contains(r.body, "retry: ") {
		t.Errorf("new connection of a browser: %d %s", r.status, r.body)
	}
}

func TestCORS(t *testing.T) {
	n := newTestNode(t, setup{origins: []string{"https://app.example.com"}})
	open := newTestNode(t, setup{origins: []string{"*"}})
	for _, tt := range []struct {
		name, origin        string
		n                   *testNode
		allowed, credential string
	}{
		{"allowed by name", "https://app.example.com", n, "https://app.example.com", "true"},
		{"the gateway's own", n.url, n, n.url, "true"},
		{"foreign", "https://evil.example", n, "", ""},
		{"null", "null", n, "", ""},
		{"allowed by *", "https://any.example", open, "*", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, method := range []string{"GET", "OPTIONS"} {
				r := tt.n.do(method, "/v1/channels/none", admin(t), "", "Origin", tt.origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization, ce-type")
				if got := r.header.Get("Access-Control-Allow-Origin"); got != tt.allowed {
					t.Errorf("%s: allowed %q, want %q", method, got, tt.allowed)
				}
				if got := r.header.Get("Access-Control-Allow-Credentials"); got != tt.credential {
					t.Errorf("%s: credentials %q, want %q", method, got, tt.credential)
				}
				if !slices.Contains(r.header.Values("Vary"), "Origin") {
					t.Errorf("%s: no Vary: Origin", method)
				}
				if method == "OPTIONS" && tt.allowed != "" && r.header.Get("Access-Control-Allow-Headers") != "authorization, ce-type" {
					t.Errorf("preflight allows headers %q", r.header.Get("Access-Control-Allow-Headers"))
				}
			}
		})
	}
	r := n.do("GET", "/v1/sse?channel=c", "", "", "Origin", "https://app.example.com")
	if r.status != 401 || r.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("a refused stream keeps its reason from the page: %d %v", r.status, r.header)
	}
}

func TestForeignHostIsRefusedOnLoopback(t *testing.T) {
	n := newTestNode(t, setup{loopback: true})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"localhost:" + port: 200, "127.0.0.1:" + port: 200, "[::1]:" + port: 200, "127.0.0.1": 200, "a.localhost": 200,
		"evil.example": 403, "evil.example:" + port: 403, "127.0.0.1.evil.example": 403, "10.0.0.1": 403, "localhost.evil.example": 403,
	} {
		if r := n.do("GET", "/livez", "", "", "Host", host); r.status != want {
			t.Errorf("host %s: %d, want %d", host, r.status, want)
		}
	}
}

func TestOpenAPIAgreesWithTheRoutes(t *testing.T) {
	routes := []gateway.Route{ // pull
		{Method: "GET", Path: "/v1/subscriptions/{name}/events"}, {Method: "DELETE", Path: "/v1/subscriptions/{name}/events"},
	}
	for _, r := range subscriptions.New(subscriptions.Options{}).Routes() {
		routes = append(routes, gateway.Route(r))
	}
	n := newTestNode(t, setup{routes: routes})
	r := n.get("/v1/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(r.body), &doc); err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, methods := range doc.Paths {
		for method := range methods {
			if method != "parameters" {
				documented = append(documented, strings.ToUpper(method)+" "+path)
			}
		}
	}
	var have []string
	for _, route := range n.Routes() {
		have = append(have, strings.Replace(route, "{$}", "", 1))
	}
	slices.Sort(documented)
	slices.Sort(have)
	if !slices.Equal(documented, have) {
		t.Errorf("documented:\n%s\nroutes:\n%s", strings.Join(documented, "\n"), strings.Join(have, "\n"))
	}
	var whole any
	if err := json.Unmarshal([]byte(r.body), &whole); err != nil {
		t.Fatal(err)
	}
	wantReferencesResolved(t, whole, whole)
}

// wantReferencesResolved follows each $ref in the document.
func wantReferencesResolved(t *testing.T, whole, part any) {
	t.Helper()
	switch part := part.(type) {
	case []any:
		for _, v := range part {
			wantReferencesResolved(t, whole, v)
		}
	case map[string]any:
		if ref, ok := part["$ref"].(string); ok {
			at := whole
			for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				m, _ := at.(map[string]any)
				if at = m[name]; at == nil {
					t.Errorf("%s leads nowhere", ref)
					return
				}
			}
		}
		for _, v := range part {
			wantReferencesResolved(t, whole, v)
		}
	}
}

func TestPageIsStrict(t *testing.T) {
	n := newTestNode(t, setup{})
	r := n.get("/", "")
	policy := r.header.Get("Content-Security-Policy")
	if r.status != 200 || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
		t.Errorf("page: %d %q %v", r.status, policy, r.header)
	}
	for _, part := range []string{"page.js", "base.css", "page.css"} {
		if !strings.Contains(r.body, "/console/"+part) {
			t.Errorf("the page doesn't load %s", part)
		}
		if got := n.get("/console/"+part, ""); got.status != 200 {
			t.Errorf("%s: %d", part, got.status)
		}
	}
}

func TestSDKIsAModuleForAnyPage(t *testing.T) {
	n := newTestNode(t, setup{})
	r := n.do("GET", "/longline.js", "", "", "Origin", "https://any.example")
	if r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/javascript") || r.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(r.body, "export") {
		t.Errorf("got %d %v %.80s", r.status, r.header, r.body)
	}
	if again := n.do("GET", "/longline.js", "", "", "If-None-Match", r.header.Get("ETag")); again.status != 304 {
		t.Errorf("known already: %d", again.status)
	}
}

func TestAdminListenerServesMetricsAndProfiles(t *testing.T) {
	server := httptest.NewServer(gateway.Admin(newRegistry(t), "127.0.0.1:8081"))
	defer server.Close()
	// The command line may hold a secret.
	for path, want := range map[string]int{"/metrics": 200, "/debug/pprof/": 200, "/debug/pprof/cmdline": 404} {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAdminListenerAnswersToNamesItKnows(t *testing.T) {
	for _, tt := range []struct {
		listen, host string
		want         int
	}{
		{"127.0.0.1:8081", "127.0.0.1:8081", 200},
		{"127.0.0.1:8081", "localhost:9999", 200},
		{"127.0.0.1:8081", "[::1]:8081", 200},
		{"127.0.0.1:8081", "evil.example:8081", 403},
		{"127.0.0.1:8081", "127.0.0.1.evil.example", 403},
		{"127.0.0.1:8081", "10.0.0.7:8081", 403},
		{"10.0.0.7:8081", "10.0.0.7:8081", 200},
		{"10.0.0.7:8081", "10.0.0.8:8081", 403},
		{"10.0.0.7:8081", "evil.example", 403},
		{"metrics.internal:8081", "Metrics.Internal:8081", 200},
		{"metrics.internal:8081", "evil.example:8081", 403},
		{"0.0.0.0:8081", "10.0.0.7:8081", 200},
		{":8081", "[2001:db8::7]:8081", 200},
		{":8081", "evil.example:8081", 403},
		{":8081", "", 403},
	} {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		gateway.Admin(newRegistry(t), tt.listen).ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("listening on %s, host %q: %d, want %d", tt.listen, tt.host, w.Code, tt.want)
		}
	}
}
