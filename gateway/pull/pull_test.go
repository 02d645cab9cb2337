package pull_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/pull"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway serves pulls of subscription crm: events of type wanted in channel a.
type gateway struct {
	*httptest.Server
	t       *testing.T
	broker  *embedded.Broker
	manager *durable.Manager
	token   string
	epoch   string
	revoked *auth.Revocations
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{t: t, broker: durabletest.Open(t)}
	g.serve()
	g.token = authtest.Token(t, auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm", "none"}})
	def, err := durable.ParseDefinition([]byte(`{"channels":["a"],"types":["wanted"]}`))
	if err != nil {
		t.Fatal(err)
	}
	g.publish("before", 1)
	err = g.manager.Change(t.Context(), "crm", func(_ durable.State, _ bool, env durable.Env) (durable.Change, error) {
		_, c := durable.Create("crm", durable.Record{Definition: def}, event.Position{{Channel: "a", Epoch: g.epoch, Offset: 1}}, env)
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// beside is another node on the same broker.
func (g *gateway) beside() *gateway {
	g.t.Helper()
	other := &gateway{t: g.t, broker: g.broker, token: g.token, epoch: g.epoch}
	other.serve()
	return other
}

func (g *gateway) serve() {
	t, b := g.t, g.broker
	t.Helper()
	var puller *pull.Puller
	revoked := auth.NewRevocations(b, slog.New(slog.DiscardHandler), func(r auth.Revocation) { puller.EndWhere(r.Covers) })
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { revoked.Run(ctx) })
	verifier := authtest.Verifier(t, auth.Options{})
	manager := durabletest.Run(t, durable.Options{Broker: b})
	hub := session.NewHub(session.Options{Broker: b, Times: b, Manager: manager, Revocations: revoked})
	puller = pull.New(pull.Options{Log: b, Hub: hub, Manager: manager})
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, *auth.Grant) error{
		"GET /v1/subscriptions/{name}/events":    puller.ServePull,
		"DELETE /v1/subscriptions/{name}/events": puller.ServeRelease,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			g, _, err := verifier.FromRequest(r)
			if err == nil {
				err = serve(w, r, g)
			}
			if err != nil {
				wire.WriteProblem(w, err)
			}
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		server.Close()
		cancel()
		running.Wait()
		puller.Close()
		hub.Close()
	})
	g.Server, g.manager, g.revoked = server, manager, revoked
}

func (g *gateway) publish(typ string, n int) {
	g.t.Helper()
	for range n {
		f := event.Fields{ID: fmt.Sprint(typ, time.Now().UnixNano()), Source: "/s", Type: typ, Data: []byte(`1`)}
		done, err := g.broker.Append(g.t.Context(), "a", []broker.Entry{{Data: f.AppendStored(nil)}})
		if err != nil {
			g.t.Fatal(err)
		}
		if g.epoch == "" {
			g.epoch = done[0].Epoch
		}
	}
}

func (g *gateway) cursor(n int) string { return fmt.Sprintf("a@%s-%d", g.epoch, n) }

// pull pulls and wants a status and, where that is 200, the events with these
// numbers.
func (g *gateway) pull(status int, name, query string, numbers ...int) http.Header {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), "GET", g.URL+"/v1/subscriptions/"+name+"/events?"+query, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	if resp.StatusCode != status {
		g.t.Fatalf("pull %s: got %d %s, want %d", query, resp.StatusCode, text, status)
	}
	if status != http.StatusOK {
		return resp.Header
	}
	var out struct {
		Events []struct{ Cursor string }
		Cursor string
	}
	if err := json.Unmarshal(text, &out); err != nil {
		g.t.Fatalf("%v: %s", err, text)
	}
	var got, want []string
	for _, e := range out.Events {
		got = append(got, e.Cursor)
	}
	for _, n := range numbers {
		want = append(want, g.cursor(n))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		g.t.Fatalf("pull %s: got %q, want %q", query, got, want)
	}
	if len(numbers) > 0 && out.Cursor != g.cursor(numbers[len(numbers)-1]) {
		g.t.Errorf("pull %s: cursor %s, want the last event's", query, out.Cursor)
	}
	return resp.Header
}

func (g *gateway) status() string {
	g.t.Helper()
	s, err := g.manager.Load(g.t.Context(), "crm")
	if err != nil {
		g.t.Fatal(err)
	}
	return s.Status()
}

func ack(cursor string) string { return "ack=" + url.QueryEscape(cursor) }

func TestSameEventsUntilAcknowledged(t *testing.T) {
	g := newGateway(t)
	g.publish("wanted", 3) // 2, 3, 4
	g.pull(200, "crm", "max=2", 2, 3)
	g.pull(200, "crm", "max=2", 2, 3)
	if got := g.status(); got != "pull" {
		t.Errorf("between two pulls: got %s, want pull", got)
	}
	g.pull(200, "crm", "max=2&"+ack(g.cursor(2)), 3, 4)
	g.pull(200, "crm", ack(g.cursor(4)))
	g.pull(400, "crm", ack(g.cursor(5)))
	g.pull(400, "crm", ack("b@x-1"))
}

// A dead letter that is delivered again is done with once it is acknowledged,
// not once something before it is.
func TestRedrivenUntilAcknowledged(t *testing.T) {
	g := newGateway(t)
	g.publish("wanted", 3) // 2, 3, 4
	s, err := g.manager.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	letter, err := durable.DeadLetter{Time: time.Now(), Event: fmt.Appendf(nil, `{"id":"dead","type":"wanted","channel":"a","cursor":%q}`, g.cursor(1))}.Letter()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.broker.Bury(t.Context(), broker.Burial{Name: "crm", Generation: s.Generation, Letters: []broker.Letter{letter}}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.broker.Redrive(t.Context(), "crm", nil); err != nil {
		t.Fatal(err)
	}
	dead := func(want int) {
		t.Helper()
		if s, err := g.manager.Load(t.Context(), "crm"); err != nil || s.Dead != want {
			t.Errorf("dead letters: got %d, %v, want %d", s.Dead, err, want)
		}
	}
	g.pull(200, "crm", "", 1, 2, 3, 4)
	g.pull(200, "crm", "max=3&"+ack(g.cursor(2)), 1, 3, 4)
	dead(1)
	g.pull(200, "crm", "max=3&"+ack(g.cursor(1)), 3, 4)
	dead(0)
}

func TestWaitsForAnEvent(t *testing.T) {
	g := newGateway(t)
	var done sync.WaitGroup
	done.Go(func() { g.pull(200, "crm", "wait=20s", 4) })
	for deadline := time.Now().Add(10 * time.Second); g.status() != "pull"; {
		if time.Now().After(deadline) {
			t.Fatalf("still %s while somebody waits", g.status())
		}
		<-time.After(time.Millisecond)
	}
	g.publish("other", 2)
	g.publish("wanted", 1)
	done.Wait()
	g.pull(200, "crm", "wait=10ms&"+ack(g.cursor(4)))
}

func TestAnotherConsumerIsToldToWait(t *testing.T) {
	g := newGateway(t)
	g.publish("wanted", 1)
	g.pull(200, "crm", "consumer=x&hold=1h", 2)
	if h := g.pull(409, "crm", "consumer=y"); h.Get("Retry-After") == "" {
		t.Error("409 without Retry-After")
	}
	// Nothing was left for x to hold.
	g.pull(200, "crm", "consumer=x&"+ack(g.cursor(2)))
	for deadline := time.Now().Add(10 * time.Second); g.status() == "pull" && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	g.pull(200, "crm", "consumer=y")
}

// Whatever a puller asks for, no more is out than the window: the next owner of a
// node that is gone announces no more.
func TestAPullIsBoundedByTheWindow(t *testing.T) {
	g := newGateway(t)
	g.define(func(d *durable.Definition) { d.Window = 2 })
	g.publish("wanted", 5)
	g.pull(200, "crm", "max=100", 2, 3)
	g.pull(200, "crm", "max=100&"+ack(g.cursor(3)), 4, 5)
	g.pull(200, "crm", "max=1&"+ack(g.cursor(5)), 6)
}

// A token that is revoked holds nothing: neither a pull of its that waits nor
// the hold after one keeps others away.
func TestRevocationEndsWhatAPullHolds(t *testing.T) {
	g := newGateway(t)
	mine := g.token
	g.pull(200, "crm", "wait=10ms") // once they are known, nothing waits for revocations
	for g.status() == "pull" {      // it is given up just after the answer
		<-time.After(time.Millisecond)
	}
	// another gives the puller a token of its own, and returns that's jti.
	another := func() string {
		g.token = authtest.Token(t, auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm"}})
		grant, err := authtest.Verifier(t, auth.Options{}).Verify(t.Context(), g.token)
		if err != nil {
			t.Fatal(err)
		}
		return grant.TokenID
	}
	revoke := func(id string) {
		if err := g.revoked.Revoke(t.Context(), auth.Revocation{TokenID: id}); err != nil {
			t.Fatal(err)
		}
	}
	waiting := another()
	var done sync.WaitGroup
	done.Go(func() { g.pull(401, "crm", "consumer=x&wait=20s&hold=1h") })
	for g.status() != "pull" {
		<-time.After(time.Millisecond)
	}
	revoke(waiting)
	done.Wait()
	g.publish("wanted", 1)
	holding := another()
	g.pull(200, "crm", "consumer=x&hold=1h", 2)
	revoke(holding)
	for g.status() == "pull" {
		<-time.After(time.Millisecond)
	}
	g.token = mine
	g.pull(200, "crm", "consumer=y", 2)
}

func TestHoldEnds(t *testing.T) {
	g := newGateway(t)
	g.publish("wanted", 1)
	g.pull(200, "crm", "hold=10ms", 2)
	for deadline := time.Now().Add(10 * time.Second); g.status() != "offline"; {
		if time.Now().After(deadline) {
			t.Fatalf("still %s after the hold", g.status())
		}
		<-time.After(time.Millisecond)
	}
	g.pull(200, "crm", "", 2)
}

// answer calls for the subscription's events and returns what came.
func (g *gateway) answer(method, query string) (int, string) {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), method, g.URL+"/v1/subscriptions/crm/events?"+query, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestHoldIsToldAndGivenUp: one curl locks nobody out for long, says for how
// long, and can be taken back.
func TestHoldIsToldAndGivenUp(t *testing.T) {
	g := newGateway(t)
	g.publish("wanted", 1)

	if _, body := g.answer("GET", "consumer=x&hold=0s"); strings.Contains(body, "held_until") {
		t.Errorf("held for 0s: %s", body)
	}
	g.pull(200, "crm", "consumer=y&hold=0s", 2) // x holds nothing

	began := time.Now()
	_, body := g.answer("GET", "consumer=x")
	var held struct {
		Until time.Time `json:"held_until"`
	}
	if err := json.Unmarshal([]byte(body), &held); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if least := began.Add(29 * time.Second); held.Until.Before(least) {
		t.Errorf("held until %v, want 30 s from %v", held.Until, began)
	}
	status, body := g.answer("GET", "consumer=y")
	if status != 409 || !strings.Contains(body, `consumer \"x\" (pull)`) || !strings.Contains(body, "until 20") {
		t.Errorf("y is told %d %s, want behind whom and until when", status, body)
	}
	if status, body := g.answer("DELETE", "consumer=y"); status != 409 {
		t.Errorf("y gives up what x holds: %d %s", status, body)
	}
	for range 2 { // nothing to give up is no error
		if status, body := g.answer("DELETE", "consumer=x"); status != 204 {
			t.Errorf("x gives up: %d %s", status, body)
		}
	}
	g.pull(200, "crm", "consumer=y", 2)
}

func TestBadPulls(t *testing.T) {
	g := newGateway(t)
	for query, status := range map[string]int{
		"max=0": 400, "max=1001": 400, "max=x": 400, "wait=soon": 400, "wait=-1s": 400, "wait=2m": 400,
		"hold=2h": 400, "ack=x": 400, "consumer=" + strings.Repeat("x", 200): 400,
	} {
		g.pull(status, "crm", query)
	}
	g.pull(404, "none", "")
	g.pull(403, "erp", "")
}
