package longline

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An administrator's client of a gateway that may call this machine.
func newAdmin(t *testing.T) (*gateway, *Client) {
	t.Helper()
	g := newGateway(t, "--callback-allow-cidr", "127.0.0.0/8")
	token, err := MintToken([]byte(gatewaySecret), Grant{Subject: "ops", Admin: true})
	if err != nil {
		t.Fatal(err)
	}
	return g, g.client(t, Options{Token: token})
}

// must is for calls that are expected to work.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// collect gathers what an iterator brings.
func collect[T any](t *testing.T, list func(func(T, error) bool)) (all []T) {
	t.Helper()
	for v, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func TestDefinitionsComeBackAsTheyWent(t *testing.T) {
	_, c := newAdmin(t)
	s := c.Subscriptions()
	d := Definition{
		Channels: []string{"acct-42", "acct-43"}, Types: []string{"email.*"}, Filter: `event.subject != ""`, Start: "earliest",
		Window: 512, Group: &Group{Partitions: 4}, ExpiresAfter: Duration(720 * time.Hour), Description: "A CRM.",
		Labels: map[string]string{"customer": "42"},
		Callback: &CallbackSettings{
			URL: "http://127.0.0.1:9/{subject}", Mode: "fallback", Grace: Duration(1500 * time.Millisecond), Headers: map[string]string{"X-Tenant": "42"},
			Auth: &CallbackAuth{Basic: &BasicAuth{"user", "password"}}, Rate: 2.5, Order: "key", Concurrency: 3,
			Batch: &Batch{MaxEvents: 1}, Timeout: Duration(7 * time.Second), Method: "PUT", Format: "structured",
			Outcome: `response.status == 200 ? "ack" : "retry"`, Signature: &CallbackSignature{Header: "X-Sig", Scheme: "hmac-sha256-hex", Prefix: "sha256="},
		},
	}
	made, created, err := s.Create(t.Context(), "crm", d)
	if err != nil || !created || made.Callback.Secret == "" {
		t.Fatalf("create: %+v, %v, %v; want it with a secret", made, created, err)
	}
	if _, created, err := s.Create(t.Context(), "crm", Definition{Channels: []string{"other"}}); err != nil || created {
		t.Errorf("create again: %v, %v; want nothing done", created, err)
	}
	got := must[SubscriptionInfo](t)(s.Get(t.Context(), "crm"))
	want := d
	callback := *d.Callback
	callback.Headers, callback.Auth = nil, nil // they never come back
	want.Callback = &callback
	if !reflect.DeepEqual(got.Definition, want) {
		t.Errorf("got:\n%+v\n%+v\nwant:\n%+v\n%+v", got.Definition, *got.Callback, want, callback)
	}
	if got.Name != "crm" || got.Cursor == "" || got.Status.State != "callback" && got.Status.State != "waiting" {
		t.Errorf("got %+v", got)
	}

	// What is read can be changed and put.
	got.Description = "The CRM."
	if again := must[SubscriptionInfo](t)(s.Put(t.Context(), "crm", got.Definition)); again.Description != "The CRM." || again.Callback.Secret != "" {
		t.Errorf("put: %+v; want the description changed, and no other secret", again)
	}
	if patched := must[SubscriptionInfo](t)(s.Patch(t.Context(), "crm", map[string]any{"callback": map[string]any{"rate": 7}})); patched.Callback.Rate != 7 || patched.Callback.Concurrency != 3 {
		t.Errorf("patch: %+v; want the rate changed alone", patched.Callback)
	}
	before := made.Callback.Secret
	if secret := must[string](t)(s.RotateSecret(t.Context(), "crm")); secret == "" || secret == before {
		t.Errorf("rotated to %q from %q", secret, before)
	}
}

func TestSubscriptionsAreListedByPages(t *testing.T) {
	_, c := newAdmin(t)
	s := c.Subscriptions()
	var want []string
	for i := range pageSize + 5 {
		name := fmt.Sprintf("crm-%03d", i)
		want = append(want, name)
		must[SubscriptionInfo](t)(s.Put(t.Context(), name, Definition{Channels: []string{"acct-42"}, Labels: map[string]string{"odd": fmt.Sprint(i % 2)}}))
	}
	var got []string
	for _, info := range collect(t, s.List(t.Context(), ListOptions{Prefix: "crm-"})) {
		got = append(got, info.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d: %v, want %d", len(got), got, len(want))
	}
	if odd := collect(t, s.List(t.Context(), ListOptions{Label: "odd=1", State: "offline", Channel: "acct-42"})); len(odd) != len(want)/2 {
		t.Errorf("%d are odd, want %d", len(odd), len(want)/2)
	}
	for info, err := range s.List(t.Context(), ListOptions{State: "happy"}) {
		if !errors.Is(err, ErrBadRequest) {
			t.Errorf("got %v, %v, want bad_request", info, err)
		}
	}
	if err := s.Delete(t.Context(), "crm-000"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"crm-000", "no such", "a/b", ""} {
		if _, err := s.Get(t.Context(), name); !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrBadRequest) {
			t.Errorf("%q: got %v, want that there is none", name, err)
		}
	}
}

// The life of events that a callback refuses: set aside, looked at, delivered
// again, removed.
func TestHistoryOfACallback(t *testing.T) {
	_, c := newAdmin(t)
	s := c.Subscriptions()
	var well atomic.Bool
	var mu sync.Mutex
	var taken []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			w.WriteHeader(422)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		taken = append(taken, r.Header.Get("webhook-id"))
	}))
	defer server.Close()
	came := func(id string, times int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			n := 0
			for _, one := range taken {
				if one == id {
					n++
				}
			}
			return n == times
		}
	}
	must[SubscriptionInfo](t)(s.Put(t.Context(), "crm", Definition{
		Channels: []string{"acct-42"}, Start: "earliest", Callback: &CallbackSettings{URL: server.URL, Mode: "always"},
	}))
	result := must[TestResult](t)(s.Test(t.Context(), "crm", TestEvent{Subject: "alice@example.com", Data: []byte(`{"n":1}`)}))
	if result.Status != 422 || result.Request == nil || result.Request.Method != "POST" || result.Request.Headers["webhook-id"] == "" && len(result.Request.Headers) == 0 {
		t.Errorf("test: got %+v, want what was sent and 422", result)
	}

	published := must[[]Published](t)(c.Publish(t.Context(), "acct-42", Event{Type: "a", ID: "1"}, Event{Type: "a", ID: "2"}))
	until(t, "both are set aside", func() bool {
		return must[SubscriptionInfo](t)(s.Get(t.Context(), "crm")).Status.Dead == 2
	})
	dead := collect(t, s.Dead(t.Context(), "crm"))
	if len(dead) != 2 || dead[0].Event.ID != "1" || dead[0].Event.Cursor != published[0].Cursor || dead[0].Attempts != 3 || dead[0].Reason == "" || dead[0].Time.IsZero() {
		t.Errorf("dead letters: %+v", dead)
	}
	trace := must[Trace](t)(s.Trace(t.Context(), "crm", published[0].Cursor))
	if trace.State != "dead" || trace.Reason == "" {
		t.Errorf("trace: %+v, want it dead", trace)
	}
	until(t, "the attempts are kept", func() bool {
		return len(collect(t, s.Attempts(t.Context(), "crm", AttemptsOptions{Status: "4xx", Cursor: published[1].Cursor}))) == 3
	})
	attempts := collect(t, s.Attempts(t.Context(), "crm", AttemptsOptions{Since: time.Now().Add(-time.Hour)}))
	if last := attempts[0]; last.Status != 422 || !slices.Equal(last.IDs, []string{"2"}) || last.Method != "POST" || last.URL == "" || last.Time.IsZero() {
		t.Errorf("the last attempt: %+v", last)
	}

	well.Store(true)
	if n := must[int](t)(s.Redrive(t.Context(), "crm", Letters{IDs: []string{"1"}})); n != 1 {
		t.Errorf("redriven %d, want 1", n)
	}
	until(t, "the one is delivered", came("1", 1))
	if n := must[int](t)(s.ClearDead(t.Context(), "crm")); n < 1 {
		t.Errorf("removed %d, want the other", n)
	}
	if n := must[int](t)(s.Resend(t.Context(), "crm", published[1].Cursor)); n != 1 {
		t.Errorf("resent %d, want 1", n)
	}
	until(t, "the other is delivered", came("2", 1))
	replay := must[Replay](t)(s.Replay(t.Context(), "crm", Range{From: "earliest", To: published[0].Cursor, Callback: true}))
	if replay.Name == "" || replay.To == "" {
		t.Errorf("replay: %+v", replay)
	}
	until(t, "the first is delivered again", came("1", 2))
	until(t, "it is known as acknowledged", func() bool {
		return must[Trace](t)(s.TraceID(t.Context(), "crm", "1")).State == "acknowledged"
	})
	if !came("2", 1)() {
		t.Error("the second was replayed too")
	}
}

func TestPositionsAreMovedByHand(t *testing.T) {
	_, c := newAdmin(t)
	s := c.Subscriptions()
	must[SubscriptionInfo](t)(s.Put(t.Context(), "crm", Definition{Channels: []string{"acct-42"}, Start: "earliest"}))
	published := must[[]Published](t)(c.Publish(t.Context(), "acct-42", Event{Type: "a"}, Event{Type: "b"}, Event{Type: "c"}))

	got := must[Pulled](t)(s.Pull(t.Context(), "crm", PullOptions{Max: 2, Wait: 10 * time.Second, Hold: time.Minute, Consumer: "job"}))
	if len(got.Events) != 2 || got.Events[1].Type != "b" || got.Cursor != published[1].Cursor || time.Until(got.HeldUntil) < 30*time.Second {
		t.Fatalf("pull: %+v, want two events, held for a minute", got)
	}
	if _, err := s.Pull(t.Context(), "crm", PullOptions{Consumer: "another job"}); !errors.Is(err, ErrConflict) {
		t.Errorf("pull by another: %v, want conflict", err)
	}
	if err := s.Release(t.Context(), "crm", "job"); err != nil {
		t.Error(err)
	}
	if got := must[Pulled](t)(s.Pull(t.Context(), "crm", PullOptions{Consumer: "another job"})); len(got.Events) != 3 || got.Redelivery == "" || got.HeldUntil.IsZero() {
		t.Errorf("pull after the release: %+v, want all, announced, and held", got)
	}
	if position := must[string](t)(s.Ack(t.Context(), "crm", published[0].Cursor, AckOptions{})); position != published[0].Cursor {
		t.Errorf("position is %q after the acknowledgement", position)
	}
	if position := must[string](t)(s.Reject(t.Context(), "crm", published[1].Cursor, RejectOptions{Reason: "no contact", Attempts: 2})); position == "" {
		t.Errorf("position is %q after the refusal", position)
	}
	if dead := collect(t, s.Dead(t.Context(), "crm")); len(dead) != 1 || dead[0].Reason != "no contact" || dead[0].Attempts != 2 {
		t.Errorf("dead letters: %+v", dead)
	}
	if got := must[Pulled](t)(s.Pull(t.Context(), "crm", PullOptions{Ack: published[1].Cursor, Consumer: "another job", Hold: -1})); len(got.Events) != 1 || !got.HeldUntil.IsZero() {
		t.Errorf("pull: %+v, want the last, and not held", got)
	}
	if _, err := s.Ack(t.Context(), "crm", "acct-42@zzzzzz-3", AckOptions{}); err == nil {
		t.Error("a cursor of another log is acknowledged")
	}
	if info := must[SubscriptionInfo](t)(s.Pause(t.Context(), "crm")); info.Status.State != "paused" {
		t.Errorf("state is %q, want paused", info.Status.State)
	}
	if info := must[SubscriptionInfo](t)(s.Resume(t.Context(), "crm")); info.Status.State != "offline" {
		t.Errorf("state is %q, want offline", info.Status.State)
	}
	if position := must[string](t)(s.Seek(t.Context(), "crm", published[2].Cursor)); position != published[2].Cursor {
		t.Errorf("position is %q, want %q", position, published[2].Cursor)
	}
	if lag := must[SubscriptionInfo](t)(s.Get(t.Context(), "crm")).Status.Lag; lag.Events != 0 {
		t.Errorf("lag is %+v, want none", lag)
	}
}

func TestChannelsConnectionsAndNodes(t *testing.T) {
	g, c := newAdmin(t)
	published := must[[]Published](t)(c.Publish(t.Context(), "acct-42", Event{Type: "a"}, Event{Type: "b"}))
	must[[]Published](t)(c.Publish(t.Context(), "other", Event{Type: "a"}))
	if info := must[ChannelInfo](t)(c.Channels().Get(t.Context(), "acct-42")); info.Head != 2 || info.First != 1 || info.Events != 2 || info.Bytes == 0 || info.Epoch == "" {
		t.Errorf("channel: %+v", info)
	}
	if names := collect(t, c.Channels().List(t.Context(), "acct")); !slices.Equal(names, []string{"acct-42"}) {
		t.Errorf("channels: %v", names)
	}
	page := must[Page](t)(c.Channels().Read(t.Context(), "acct-42", ReadOptions{Since: "earliest", Types: []string{"b", "c"}, Filter: `event.type != "c"`, Limit: 10}))
	if len(page.Events) != 1 || page.Events[0].Cursor != published[1].Cursor || page.Cursor == "" {
		t.Errorf("page: %+v", page)
	}

	watch := newWatcher()
	end := runSubscription(t, mustSubscribe(t, g.client(t, Options{}), Selection{Channels: []string{"acct-42"}}, SubscriptionOptions{Handler: nothing, OnState: watch.tell}))
	watch.wantLive(t)
	connections := must[[]ConnectionInfo](t)(c.Connections().List(t.Context(), "customer-42", "acct-42"))
	if len(connections) != 1 || connections[0].Connection != watch.last().Connection || connections[0].Sub != "customer-42" || connections[0].Since.IsZero() {
		t.Fatalf("connections: %+v, want %q", connections, watch.last().Connection)
	}
	if err := c.Connections().Close(t.Context(), connections[0].Connection); err != nil {
		t.Error(err)
	}
	watch.wantLive(t) // again, by another connection
	end()

	nodes := must[[]NodeInfo](t)(c.Nodes().List(t.Context()))
	if len(nodes) != 1 || nodes[0].Node == "" || nodes[0].Started.IsZero() {
		t.Fatalf("nodes: %+v", nodes)
	}
	draining := func() bool { return must[[]NodeInfo](t)(c.Nodes().List(t.Context()))[0].Draining }
	if err := c.Nodes().Drain(t.Context(), nodes[0].Node); err != nil {
		t.Error(err)
	}
	until(t, "it drains", draining)
	if err := c.Nodes().Undrain(t.Context(), nodes[0].Node); err != nil {
		t.Error(err)
	}
	until(t, "it doesn't", func() bool { return !draining() })

	if err := c.Channels().Delete(t.Context(), "acct-42"); err != nil {
		t.Error(err)
	}
	if info := must[ChannelInfo](t)(c.Channels().Get(t.Context(), "acct-42")); info.Events != 0 {
		t.Errorf("the deleted channel: %+v, want it empty", info)
	}
	if _, err := c.Channels().Get(t.Context(), "../nodes"); !errors.Is(err, ErrBadRequest) {
		t.Errorf("a channel's name that leads elsewhere: %v, want bad_request", err)
	}
}

func TestTokensAreMintedAndRevoked(t *testing.T) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, "--jwt-public-key", file)
	mintings := map[string]func(Grant) (string, error){
		"HS256": func(grant Grant) (string, error) { return MintToken([]byte(gatewaySecret), grant) },
		"EdDSA": func(grant Grant) (string, error) { return MintTokenEdDSA(key, grant) },
	}
	for algorithm, mint := range mintings {
		t.Run(algorithm, func(t *testing.T) {
			admin := g.client(t, Options{Token: must[string](t)(mint(Grant{Subject: "ops", Admin: true}))})
			use := func(grant Grant) func() error {
				c := g.client(t, Options{Token: must[string](t)(mint(grant))})
				return func() error {
					_, err := c.Channels().Get(t.Context(), "acct-42")
					if errors.Is(err, ErrNotFound) {
						return nil // it may ask
					}
					return err
				}
			}
			rights := Grant{Subject: "customer of " + algorithm, Subscribe: []string{"acct-42"}, MaxConnections: 3, TTL: time.Minute, ID: algorithm + "-1"}
			one := use(rights)
			rights.ID = ""
			another, rights := use(rights), Grant{Subject: "customer-43", Subscribe: []string{"acct-43"}}
			if err := errors.Join(one(), another()); err != nil {
				t.Error(err)
			}
			if err := use(rights)(); !errors.Is(err, ErrForbidden) {
				t.Errorf("another's channel: %v, want forbidden", err)
			}
			if err := admin.Tokens().Revoke(t.Context(), algorithm+"-1"); err != nil {
				t.Fatal(err)
			}
			if err := one(); !errors.Is(err, ErrUnauthorized) {
				t.Errorf("the revoked token: %v, want unauthorized", err)
			}
			if err := another(); err != nil {
				t.Errorf("the other token: %v", err)
			}
			if err := admin.Tokens().RevokeBefore(t.Context(), "customer of "+algorithm, time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if err := another(); !errors.Is(err, ErrUnauthorized) {
				t.Errorf("the other token: %v, want unauthorized", err)
			}
		})
	}
	if _, err := MintToken([]byte("short"), Grant{Subject: "x"}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("a short secret: %v, want bad_request", err)
	}
	if _, err := MintToken([]byte(gatewaySecret), Grant{Subject: "x", TTL: time.Millisecond}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("a moment's token: %v, want bad_request", err)
	}
}

func TestAListIsGoneThroughAgain(t *testing.T) {
	pages := map[string]string{"": `{"channels":["a"],"next":"a"}`, "a": `{"channels":["b"]}`}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, pages[r.URL.Query().Get("page")])
	}))
	t.Cleanup(server.Close)
	c, err := New(server.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	list := c.Channels().List(t.Context(), "")
	for range 2 {
		if got, want := collect(t, list), []string{"a", "b"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
