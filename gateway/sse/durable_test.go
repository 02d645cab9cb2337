package sse_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/sse"
)

// newDurable serves subscription crm of channel a, in which there are events
// already, all unacknowledged, and returns the cursor behind each.
func newDurable(t *testing.T, events int) (gateway, *durable.Manager, func(n int) string) {
	t.Helper()
	verifier := authtest.Verifier(t, auth.Options{})
	b := durabletest.Open(t)
	manager := durabletest.Run(t, durable.Options{Broker: b})
	hub := session.NewHub(session.Options{Broker: b, Times: b, Manager: manager})
	server := httptest.NewServer(&sse.Handler{Hub: hub, Verifier: verifier})
	t.Cleanup(func() {
		hub.Close()
		server.Close()
	})
	epoch := ""
	for i := range events {
		f := event.Fields{ID: fmt.Sprint("e", i), Source: "/s", Type: "t", Data: []byte(`1`)}
		done, err := b.Append(t.Context(), "a", []broker.Entry{{Data: f.AppendStored(nil)}})
		if err != nil {
			t.Fatal(err)
		}
		epoch = done[0].Epoch
	}
	def, err := durable.ParseDefinition([]byte(`{"channels":["a"]}`))
	if err != nil {
		t.Fatal(err)
	}
	err = manager.Change(t.Context(), "crm", func(_ durable.State, _ bool, env durable.Env) (durable.Change, error) {
		_, c := durable.Create("crm", durable.Record{Definition: def}, event.Position{{Channel: "a", Epoch: epoch}}, env)
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	token := authtest.Token(t, auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm"}})
	return gateway{Server: server, hub: hub, token: token}, manager, func(n int) string { return fmt.Sprintf("a@%s-%d", epoch, n) }
}

// wantBlock reads the next block and wants it to hold all of these.
func wantBlock(t *testing.T, s stream, parts ...string) {
	t.Helper()
	got := s.next()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Fatalf("block %q lacks %q", got, part)
		}
	}
}

func wantPosition(t *testing.T, k *durable.Manager, want string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		s, err := k.Load(t.Context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		if s.Position.String() == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("acknowledged %s, want %s", s.Position, want)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// What an EventSource has received is acknowledged by its coming back, which
// it is made to do whenever its window is full.
func TestComingBackAcknowledges(t *testing.T) {
	g, manager, at := newDurable(t, 5)
	s := g.open(t, "subscription=crm&window=3")
	wantBlock(t, s, "retry: ", "event: longline.hello", `"subscription":"crm"`, "id: "+at(0))
	for n := 1; n <= 3; n++ {
		wantBlock(t, s, "id: "+at(n))
	}
	wantBlock(t, s, "retry: 50", "event: longline.bye", `"reconnect":true`)
	wantPosition(t, manager, at(0))
	s.stop()
	released(t, manager)

	s = g.open(t, "subscription=crm&window=3", "Last-Event-ID", at(3))
	wantBlock(t, s, "retry: ", "event: longline.hello", "id: "+at(3))
	wantPosition(t, manager, at(3))
	wantBlock(t, s, "id: "+at(4))
	wantBlock(t, s, "id: "+at(5))
	s.stop()
	released(t, manager)

	s = g.open(t, "subscription=crm&window=3", "Last-Event-ID", at(4))
	wantBlock(t, s, "retry: ", "event: longline.hello", "id: "+at(4))
	wantBlock(t, s, "event: longline.redelivery", at(5))
	wantBlock(t, s, "id: "+at(5))
}

// released waits until nobody owns the subscription: whoever takes it from a
// connection that is still there is told of everything that may come twice.
func released(t *testing.T, manager *durable.Manager) {
	t.Helper()
	waitFor(t, func() bool {
		state, err := manager.Load(t.Context(), "crm")
		return err == nil && state.Owner == nil
	})
}

func TestManualAcksAreByPostAlone(t *testing.T) {
	g, manager, at := newDurable(t, 5)
	s := g.open(t, "subscription=crm&window=2&ack=manual", "Last-Event-ID", at(4))
	wantBlock(t, s, "retry: ", "event: longline.hello", "id: "+at(0))
	wantBlock(t, s, "id: "+at(1))
	wantBlock(t, s, "id: "+at(2))
	wantPosition(t, manager, at(0)) // Last-Event-ID acknowledged nothing
	state, err := manager.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.Ack(t.Context(), state, state.Position, state.Position, "c-of-another"); err == nil {
		t.Error("an acknowledgement for a connection that owns nothing counted")
	}
	to, err := event.ParsePosition(at(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.Ack(t.Context(), state, to, to, state.Owner.Connection); err != nil {
		t.Fatal(err)
	}
	wantBlock(t, s, "id: "+at(3))
	wantBlock(t, s, "id: "+at(4))
}

// The log has forked, which a stream whose window is full doesn't come to
// learn: it is told of acknowledgements in its own cursors, and goes on.
func TestAnAckAfterAForkOpensAWindowThatWasFullBefore(t *testing.T) {
	g, manager, at := newDurable(t, 4)
	s := g.open(t, "subscription=crm&window=2&ack=manual")
	wantBlock(t, s, "retry: ", "event: longline.hello")
	wantBlock(t, s, "id: "+at(1))
	wantBlock(t, s, "id: "+at(2))
	state, err := manager.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	said, err := event.ParsePosition(at(2))
	if err != nil {
		t.Fatal(err)
	}
	forked := event.Position{{Channel: "a", Epoch: "forked", Offset: 2}}
	if err := manager.Ack(t.Context(), state, said, forked, state.Owner.Connection); err != nil {
		t.Fatal(err)
	}
	wantBlock(t, s, "id: "+at(3))
	wantBlock(t, s, "id: "+at(4))
}

func TestBadLastEventIDIsRefused(t *testing.T) {
	g, _, at := newDurable(t, 1)
	for _, id := range []string{"x", "b@x-1", at(2)} {
		s := g.open(t, "subscription=crm", "Last-Event-ID", id)
		if s.StatusCode != 400 {
			t.Errorf("Last-Event-ID %s: got %d, want 400", id, s.StatusCode)
		}
	}
	if s := g.open(t, "subscription=crm&ack=never"); s.StatusCode != 400 {
		t.Errorf("ack=never: got %d, want 400", s.StatusCode)
	}
}

// The position travels in a header, so a subscription whose channels don't fit
// one is refused as any such stream is.
func TestASubscriptionOfTooManyChannelsIsRefused(t *testing.T) {
	g, manager, _ := newDurable(t, 1)
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf(`"%s-%d"`, strings.Repeat("x", 100), i))
	}
	def, err := durable.ParseDefinition([]byte(`{"channels":[` + strings.Join(names, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	err = manager.Change(t.Context(), "wide", func(_ durable.State, _ bool, env durable.Env) (durable.Change, error) {
		_, c := durable.Create("wide", durable.Record{Definition: def}, nil, env)
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	g.token = authtest.Token(t, auth.Mintage{Subscribe: []string{"**"}, Subscriptions: []string{"wide"}})
	r, err := http.NewRequestWithContext(t.Context(), "GET", g.URL+"?subscription=wide", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(text), "4096 bytes") {
		t.Errorf("got %d %s", resp.StatusCode, text)
	}
}
