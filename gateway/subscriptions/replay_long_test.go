package subscriptions_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/pull"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/subscriptions"
	"github.com/longline-push/longline/gateway/wire"
)

// pulls serves pulls on the API's node, beside the API.
func (a *api) pulls() *api {
	hub := session.NewHub(session.Options{Broker: a.broker, Times: a.broker, Manager: a.manager, Logger: slog.New(slog.DiscardHandler)})
	puller := pull.New(pull.Options{Log: a.broker, Hub: hub, Manager: a.manager})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, _, err := a.auth.FromRequest(r)
		if err == nil {
			r.SetPathValue("name", strings.Split(r.URL.Path, "/")[3])
			err = puller.ServePull(w, r, g)
		}
		if err != nil {
			wire.WriteProblem(w, err)
		}
	}))
	a.t.Cleanup(func() {
		server.Close()
		puller.Close()
		hub.Close()
	})
	beside := *a
	beside.url = server.URL
	return &beside
}

// Whoever pulls a replay comes to its end page by page: once the last is
// acknowledged there is no such replay any more, which the next pull is told.
func TestReplayPulled(t *testing.T) { onBoth(t, replayPulled) }

func replayPulled(t *testing.T, a *api) {
	me, puller := token(t, customer), a.pulls()
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)
	a.append("acct-42", 7)
	path := a.replayed(me, fmt.Sprintf(`{"from":%q,"to":%q}`, a.cursor(1), a.cursor(6)))
	var got []any
	page := "/events?max=2&wait=0s"
	for status, out := puller.call(me, "GET", path+page, ""); status != 404; status, out = puller.call(me, "GET", path+page, "") {
		events, _ := out["events"].([]any)
		if status != 200 || len(events) == 0 {
			t.Fatalf("got %d %v after %v, want the next of the range", status, out, got)
		}
		for _, e := range events {
			got = append(got, at(e.(map[string]any), "id"))
		}
		page = fmt.Sprint("/events?max=2&wait=0s&ack=", out["cursor"])
	}
	if fmt.Sprint(got) != "[e1 e2 e3 e4 e5]" {
		t.Errorf("pulled %v, want e1 to e5, once each", got)
	}
	a.want(404, me, "GET", path, "")
}

// mortal is a broker as a node sees it that may be cut off: nothing that it
// writes arrives from then on, its lease not either.
type mortal struct {
	subscriptions.Broker
	dead atomic.Bool
}

func (m *mortal) alive() error {
	if m.dead.Load() {
		return broker.ErrUnavailable
	}
	return nil
}

func (m *mortal) Renew(ctx context.Context, id string, ttl time.Duration) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Broker.Renew(ctx, id, ttl)
}

func (m *mortal) Join(ctx context.Context, n broker.Node, ttl time.Duration) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Broker.Join(ctx, n, ttl)
}

func (m *mortal) Leave(ctx context.Context, id string) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Broker.Leave(ctx, id)
}

func (m *mortal) Store(ctx context.Context, u broker.Update) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Broker.Store(ctx, u)
}

func (m *mortal) Advance(ctx context.Context, moves []broker.Move) ([]int, error) {
	if err := m.alive(); err != nil {
		return nil, err
	}
	return m.Broker.Advance(ctx, moves)
}

// A node dies in the middle of a replay by callback, with a call on its way.
// Another goes on from what is acknowledged, to the end, and leaves none out.
func TestReplayOutlivesItsNode(t *testing.T) { onBoth(t, replayOutlivesItsNode) }

func replayOutlivesItsNode(t *testing.T, a *api) {
	me := token(t, customer)
	const all = 20
	var mu sync.Mutex
	var got []string
	reached, buried := make(chan struct{}), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e struct{ ID string }
		json.NewDecoder(r.Body).Decode(&e)
		mu.Lock()
		got = append(got, e.ID)
		half := len(got) == all/2
		mu.Unlock()
		if half {
			close(reached)
			<-buried
		}
	}))
	t.Cleanup(receiver.Close)
	doomed := &mortal{Broker: a.broker}
	first := durabletest.Run(t, durable.Options{Broker: doomed, Node: "doomed", TTL: time.Second, Logger: slog.New(slog.DiscardHandler)})
	crash := a.deliverBy(first, doomed)

	a.append("acct-42", all)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", fmt.Sprintf(`{"channels":["acct-42"],"callback":{"url":%q}}`, receiver.URL))
	before := a.want(200, me, "GET", "/v1/subscriptions/crm-1", "")["cursor"]
	path := a.replayed(me, `{"from":"earliest","callback":true}`)
	<-reached
	doomed.dead.Store(true)
	crash()
	close(buried)
	a.deliver()
	a.gone(me, path)

	mu.Lock()
	defer mu.Unlock()
	next, twice := 0, 0
	for _, id := range got {
		var n int
		fmt.Sscanf(id, "e%d", &n)
		switch {
		case n == next:
			next++
		case n < next && twice < all/2: // not acknowledged when the node died
			twice++
			next = n + 1
		default:
			t.Fatalf("got %v, want e%d next", got, next)
		}
	}
	if next != all || twice > 1 {
		t.Errorf("got %v, want all %d in order, going back once at most", got, all)
	}
	if after := a.want(200, me, "GET", "/v1/subscriptions/crm-1", "")["cursor"]; after != before {
		t.Errorf("the subscription is at %v, want %v as before", after, before)
	}
}

// Twenty thousand events are replayed while new ones come: no call of the replay
// is answered before the new event of its time was called back, which waits
// behind none of it.
func TestReplayLetsLiveEventsPass(t *testing.T) { onBoth(t, replayLetsLiveEventsPass) }

func replayLetsLiveEventsPass(t *testing.T, a *api) {
	me := token(t, customer)
	const all, batch = 20_000, 1000
	entries := make([]broker.Entry, batch)
	for first := 0; first < all; first += batch {
		for i := range entries {
			f := event.Fields{ID: fmt.Sprint("old", first+i), Source: "/s", Type: "t", Data: []byte(`1`)}
			entries[i] = broker.Entry{Data: f.AppendStored(nil)}
		}
		if _, err := a.broker.Append(t.Context(), "acct-42", entries); err != nil {
			t.Fatal(err)
		}
	}
	live := make(chan string, all) // called back
	next, calls := 0, 0            // of the replay
	var wrong error
	fail := func(w http.ResponseWriter, format string, args ...any) {
		if wrong == nil {
			wrong = fmt.Errorf(format, args...)
		}
		w.WriteHeader(http.StatusGone)
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var some []struct{ ID string }
		json.NewDecoder(r.Body).Decode(&some)
		if r.Header.Get("Longline-Replay") == "" {
			for _, e := range some {
				live <- e.ID
			}
			return
		}
		// One call of the replay at a time: it is in order.
		for _, e := range some {
			if want := fmt.Sprint("old", next); e.ID != want {
				fail(w, "the replay brought %s, want %s", e.ID, want)
				return
			}
			next++
		}
		id := fmt.Sprint("new", calls)
		calls++
		f := event.Fields{ID: id, Source: "/s", Type: "t", Data: []byte(`1`)}
		if _, err := a.broker.Append(r.Context(), "acct-42", []broker.Entry{{Data: f.AppendStored(nil)}}); err != nil {
			fail(w, "%v", err)
			return
		}
		select {
		case got := <-live:
			if got != id {
				fail(w, "called back live: %s, want %s", got, id)
			}
		case <-r.Context().Done(): // the call's time-out
			fail(w, "%s was not called back while the replay waited", id)
		}
	}))
	t.Cleanup(receiver.Close)
	a.deliver()
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", fmt.Sprintf(`{"channels":["acct-42"],"callback":{"url":%q,"mode":"always","batch":{"max_events":%d}}}`, receiver.URL, batch))
	path := a.replayed(me, `{"from":"earliest","to":"latest","callback":true}`)
	a.becomes("the replay", func() any {
		status, out := a.call(me, "GET", path, "")
		return status == 404 || at(out, "status", "state") == "disabled"
	}, true)
	receiver.Close() // no handler runs any more
	if wrong != nil || next != all || calls < all/batch {
		t.Errorf("%d events replayed by %d calls, want %d: %v", next, calls, all, wrong)
	}
}
