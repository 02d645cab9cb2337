package callback_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// gatewayNode is a node with callbacks over a real broker.
type gatewayNode struct {
	t       *testing.T
	broker  *embedded.Broker
	manager *durable.Manager
	engine  *callback.Engine

	mu   sync.Mutex
	told []string
}

func newNode(t *testing.T) *gatewayNode {
	t.Helper()
	b := durabletest.Open(t)
	quiet := slog.New(slog.DiscardHandler)
	n := &gatewayNode{t: t, broker: b}
	feeds := feed.New(feed.Options{Broker: b, Logger: quiet}, feed.NewReady())
	t.Cleanup(feeds.Close)
	n.manager = durabletest.Run(t, durable.Options{Broker: b, Node: "n1", Logger: quiet, Publish: func(kind, name string, data any) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.told = append(n.told, kind)
	}})
	n.engine = callback.New(callback.Options{Dialing: callback.Dialing{Loopback: true}, Linger: 50 * time.Millisecond})
	d := callback.NewDispatcher(callback.DispatcherOptions{
		Manager: n.manager, Schedule: b, Feeds: feeds, Engine: n.engine,
		Private: func(durable.State) (callback.Private, error) {
			return callback.Private{Headers: map[string]string{"X-Tenant": "42"}}, nil
		},
	})
	claiming, stopClaiming := context.WithCancel(t.Context())
	var claims sync.WaitGroup
	claims.Go(func() { d.Run(claiming) })
	t.Cleanup(func() {
		stopClaiming()
		claims.Wait()
		ctx, cancel := contextFor(5 * time.Second)
		defer cancel()
		n.engine.Close(ctx)
	})
	return n
}

// define makes a subscription to acct-42 that starts at its first event.
func (n *gatewayNode) define(name, url, more string) {
	n.t.Helper()
	def, err := durable.ParseDefinition(fmt.Appendf(nil, `{"channels":["acct-42"],"callback":{"url":%q,"grace":"200ms"%s}}`, url, more))
	if err != nil {
		n.t.Fatal(err)
	}
	state, err := n.broker.Follow(n.t.Context(), "acct-42", ignore{})
	if err != nil {
		n.t.Fatal(err)
	}
	n.broker.Unfollow("acct-42", ignore{})
	start := event.Position{{Channel: "acct-42", Epoch: state.Epoch}}
	err = n.manager.Change(n.t.Context(), name, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		_, c := durable.Create(name, durable.Record{Definition: def}, start, env)
		return c, nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

type ignore struct{}

func (ignore) Announce(broker.Announcement) {}

func (n *gatewayNode) publish(from, to int) {
	n.t.Helper()
	var entries []broker.Entry
	for i := from; i <= to; i++ {
		f := event.Fields{ID: fmt.Sprint("e", i), Source: "/test", Type: "t", Data: []byte(`{}`)}
		entries = append(entries, broker.Entry{Data: f.AppendStored(nil)})
	}
	if _, err := n.broker.Append(n.t.Context(), "acct-42", entries); err != nil {
		n.t.Fatal(err)
	}
}

func (n *gatewayNode) state(name string) durable.State {
	n.t.Helper()
	s, err := n.manager.Load(n.t.Context(), name)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// eventually polls until ok, for ten seconds at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(2*time.Millisecond), time.Now().Add(10*time.Second)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-tick.C
	}
}

// inbox is a real receiver that notes what it got.
type inbox struct {
	*httptest.Server
	mu     sync.Mutex
	ids    []string
	calls  int
	again  int // announced as redeliveries
	status int // to answer; 0: 200
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	in := &inbox{}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var e event.Event
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if err != nil || r.Header.Get("X-Tenant") != "42" || r.Header.Get("Longline-Cursor") != e.Cursor {
			t.Errorf("got %s with %v: %v", body, r.Header, err)
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		in.calls++
		if in.status != 0 {
			w.WriteHeader(in.status)
			return
		}
		in.ids = append(in.ids, e.ID)
		if r.Header.Get("Longline-Redelivery") != "" {
			in.again++
		}
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) got() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return strings.Join(in.ids, " ")
}

func (in *inbox) called() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.calls > 0
}

func (in *inbox) answer(status int) {
	in.mu.Lock()
	in.status = status
	in.mu.Unlock()
}

// client is somebody attached live.
type client struct{ ended chan struct{} }

func (c client) Ended(wire.CloseCode, string) { close(c.ended) }
func (c client) Yield()                       {}
func (c client) Changed(durable.State)        {}
func (c client) Acked(event.Position)         {}
func (c client) Redrive()                     {}
func (c client) Suspended()                   {}

func TestEventForAParkedSubscriptionIsPosted(t *testing.T) {
	n, in := newNode(t), newInbox(t)
	n.define("crm-42", in.URL, "")
	n.publish(1, 3)
	eventually(t, "three events are posted", func() bool { return in.got() == "e1 e2 e3" })
	eventually(t, "it is parked", func() bool { s := n.state("crm-42"); return s.Parked && s.Owner == nil })
	if at := n.state("crm-42").Position[0].Offset; at != 3 {
		t.Errorf("parked at %d, want 3", at)
	}
	n.publish(4, 4)
	eventually(t, "the fourth is posted", func() bool { return in.got() == "e1 e2 e3 e4" })
	note, err := n.broker.Note(t.Context(), "crm-42")
	if err != nil {
		t.Fatal(err)
	}
	var kept callback.Note
	if err := json.Unmarshal(note, &kept); err != nil || kept.Status.LastStatus != 200 {
		t.Errorf("the note says %s: %v", note, err)
	}
}

func TestLiveCallbackLive(t *testing.T) {
	n, in := newNode(t), newInbox(t)
	n.define("crm-42", in.URL, "")
	last := 0
	for round := range 5 {
		c := client{ended: make(chan struct{})}
		h, err := n.manager.Acquire(t.Context(), "crm-42", durable.Claim{Connection: "c1", Consumer: "crm", Kind: durable.Live, Transport: "websocket"}, c)
		if err != nil {
			t.Fatal(err)
		}
		posted := in.got()
		n.publish(last+1, last+10)
		// The client takes and acknowledges half of what comes while it is there.
		at := n.state("crm-42").Position[0]
		at.Offset = uint64(last + 5)
		h.Advance(at, 5)
		if got := in.got(); got != posted {
			t.Fatalf("round %d: %q was posted while a client is attached", round, strings.TrimPrefix(got, posted))
		}
		last += 10
		h.Release(nil, 0)
		want := fmt.Sprint("e", last)
		eventually(t, want+" is posted", func() bool { return strings.HasSuffix(in.got(), want) })
	}
	var want []string
	for i := range last {
		if i%10 >= 5 {
			want = append(want, fmt.Sprint("e", i+1))
		}
	}
	wantText(t, "posted", in.got(), strings.Join(want, " "))
}

func TestCallbackYieldsToAClient(t *testing.T) {
	n, in := newNode(t), newInbox(t)
	in.answer(503)
	n.define("crm-42", in.URL, "")
	n.publish(1, 3)
	eventually(t, "a callback is tried", in.called)
	c := client{ended: make(chan struct{})}
	h, err := n.manager.Acquire(t.Context(), "crm-42", durable.Claim{Connection: "c1", Consumer: "crm", Kind: durable.Live}, c)
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := h.DeliveredUpTo.Of("acct-42"); h.Doubt || !ok || at.Offset != 1 {
		t.Errorf("the client is told that events up to %v may have come before (all: %v), want 1", h.DeliveredUpTo, h.Doubt)
	}
	in.answer(0)
	h.Release(nil, 0)
	eventually(t, "the rest is posted", func() bool { return in.got() == "e1 e2 e3" })
}

func TestGoneEndpointIsDisabledUntilItIsDefinedAnew(t *testing.T) {
	n, in := newNode(t), newInbox(t)
	in.answer(410)
	n.define("crm-42", in.URL, "")
	n.publish(1, 2)
	eventually(t, "it is disabled", func() bool { s := n.state("crm-42"); return s.Status() == "disabled" })
	in.answer(0)
	n.publish(3, 3)
	err := n.manager.Change(t.Context(), "crm-42", func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Define(s.Enabled(), s.Definition, nil, nil, force, env)
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is posted", func() bool { return in.got() == "e1 e2 e3" })
}

func TestRedrive(t *testing.T) {
	n, in := newNode(t), newInbox(t)
	in.answer(422)
	n.define("crm-42", in.URL, "")
	n.publish(1, 1)
	eventually(t, "e1 is dead", func() bool { return n.state("crm-42").Dead == 1 })
	in.answer(0)
	n.publish(2, 2)
	eventually(t, "e2 is posted and the callback parked", func() bool { return in.got() == "e2" && n.state("crm-42").Parked })
	if _, err := n.broker.Redrive(t.Context(), "crm-42", nil); err != nil {
		t.Fatal(err)
	}
	if err := n.manager.Redriven(t.Context(), "crm-42"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "e1 is posted and no longer dead", func() bool { return in.got() == "e2 e1" && n.state("crm-42").Dead == 0 })
	if in.again != 1 {
		t.Errorf("%d callbacks were announced as redeliveries, want e1's", in.again)
	}
}

func TestChangedDefinitionIsTakenUp(t *testing.T) {
	n, dead, in := newNode(t), newInbox(t), newInbox(t)
	dead.answer(500)
	n.define("crm-42", dead.URL, "")
	n.publish(1, 2)
	eventually(t, "a callback is tried", dead.called)
	err := n.manager.Change(t.Context(), "crm-42", func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		def, err := s.Definition.Patch(fmt.Appendf(nil, `{"callback":{"url":%q}}`, in.URL))
		if err != nil {
			return durable.Change{}, err
		}
		return durable.Define(s, def, nil, nil, force, env)
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is posted to the new URL", func() bool { return in.got() == "e1 e2" })
}
