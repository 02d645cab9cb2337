package longline

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// position asks the gateway how far a subscription is acknowledged.
func position(t testing.TB, c *Client, name string) string {
	t.Helper()
	var answer struct{ Cursor string }
	if err := c.Do(context.Background(), http.MethodGet, "/v1/subscriptions/"+name, nil, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Cursor
}

func wantPosition(t testing.TB, c *Client, name, want string) {
	t.Helper()
	until(t, name+" is acknowledged up to "+want, func() bool { return position(t, c, name) == want })
}

// state asks the gateway how a subscription is delivered at present.
func state(t testing.TB, c *Client, name string) string {
	t.Helper()
	var answer struct{ Status struct{ State string } }
	if err := c.Do(context.Background(), http.MethodGet, "/v1/subscriptions/"+name, nil, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Status.State
}

func channels(names ...string) map[string]any {
	return map[string]any{"channels": names, "start": "earliest"}
}

func TestAttachKeepsOrderPerKey(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			g := newGateway(t)
			c := g.client(t, Options{Transport: transport})
			subscription(t, c, "crm", map[string]any{"channels": []string{"acct-42"}, "start": "earliest", "window": 1024})
			const most = 10000
			var last string
			for n := 0; n < most; n += 1000 {
				last = publish(t, c, "acct-42", n+1, 1000, 97)
			}
			count := newCounter(t)
			end := runSubscription(t, mustAttach(t, c, "crm", SubscriptionOptions{Concurrency: 8, Handler: count.handle}))
			count.wantOnce(most)
			wantPosition(t, c, "crm", last)
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAttachAcrossAKilledGateway(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			g := newGateway(t)
			c := g.client(t, Options{Transport: transport})
			subscription(t, c, "crm", channels("acct-42"))
			count, watch := newCounter(t), newWatcher()
			count.before = func(int) error {
				time.Sleep(time.Millisecond) // a handler that takes its time
				return nil
			}
			runSubscription(t, mustAttach(t, c, "crm", SubscriptionOptions{Concurrency: 4, Handler: count.handle, OnState: watch.tell}))
			watch.wantLive(t)
			publish(t, c, "acct-42", 1, 500, 11)
			until(t, "some are handled", func() bool { return count.count() > 100 })
			g.kill()
			g.start()
			watch.wantLive(t)
			last := publish(t, c, "acct-42", 501, 500, 11)
			count.wantOnce(1000)
			wantPosition(t, c, "crm", last)
		})
	}
}

func TestAttachBatches(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{})
	subscription(t, c, "crm", map[string]any{"channels": []string{"acct-42"}, "start": "earliest", "window": 1000})
	last := publish(t, c, "acct-42", 1, 1000, 0)
	var mu sync.Mutex
	total, most := 0, 0
	runSubscription(t, mustAttach(t, c, "crm", SubscriptionOptions{BatchSize: 200, BatchWait: time.Minute, Concurrency: 4, BatchHandler: func(_ context.Context, events []Event) error {
		mu.Lock()
		defer mu.Unlock()
		total += len(events)
		most = max(most, len(events))
		return nil
	}}))
	wantPosition(t, c, "crm", last)
	mu.Lock()
	defer mu.Unlock()
	if total != 1000 || most != 200 {
		t.Errorf("got %d events in batches of up to %d, want 1000 in batches of 200", total, most)
	}
}

// A handler that fails is called again; one that fails to the end has its
// event dead-lettered, and the subscription goes on.
func TestHandlerFailsThenRejects(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{Transport: WebSocket})
	subscription(t, c, "crm", channels("acct-42"))
	count := newCounter(t)
	count.ordered = false
	var mu sync.Mutex
	tries := make(map[int]int)
	count.before = func(n int) error {
		mu.Lock()
		defer mu.Unlock()
		tries[n]++
		switch {
		case n == 3 && tries[n] < 3:
			return errBroken
		case n == 5:
			return errBroken
		case n == 7:
			return Reject(errors.New("no such contact"))
		}
		return nil
	}
	var rejected atomic.Int32
	runSubscription(t, mustAttach(t, c, "crm", SubscriptionOptions{
		Handler: count.handle, Retry: Retry{Attempts: 4, Min: time.Millisecond, Max: 5 * time.Millisecond},
		OnReject: func(Event, error) { rejected.Add(1) },
	}))
	last := publish(t, c, "acct-42", 1, 10, 0)
	wantPosition(t, c, "crm", last)
	mu.Lock()
	if tries[3] != 3 || tries[5] != 4 || tries[7] != 1 || tries[4] != 1 {
		t.Errorf("got tries %v", tries)
	}
	mu.Unlock()
	if count.count() != 8 || rejected.Load() != 2 {
		t.Errorf("got %d handled and %d rejected, want 8 and 2", count.count(), rejected.Load())
	}
	var letters struct {
		Dead []struct {
			Event    Event
			Reason   string
			Attempts int
		}
	}
	until(t, "two dead letters are there", func() bool {
		if err := c.Do(t.Context(), http.MethodGet, "/v1/subscriptions/crm/dead", nil, &letters); err != nil {
			t.Fatal(err)
		}
		return len(letters.Dead) == 2
	})
	for i, want := range []string{"CRM is down", "no such contact"} {
		if tries := []int{4, 1}[i]; letters.Dead[i].Attempts != tries {
			t.Errorf("dead letter %d: got %d attempts, want %d", i+1, letters.Dead[i].Attempts, tries)
		}
		if letters.Dead[i].Reason != want {
			t.Errorf("dead letter %d: got reason %q, want %q", i+1, letters.Dead[i].Reason, want)
		}
	}

	// The contact is there now: the dead letters are delivered again.
	count.before = nil
	if err := c.Do(t.Context(), http.MethodPost, "/v1/subscriptions/crm/dead/redrive", map[string]bool{"all": true}, nil); err != nil {
		t.Fatal(err)
	}
	count.wantOnce(10)
	until(t, "no dead letters are left", func() bool {
		if err := c.Do(t.Context(), http.MethodGet, "/v1/subscriptions/crm/dead", nil, &letters); err != nil {
			t.Fatal(err)
		}
		return len(letters.Dead) == 0
	})
}

// Over SSE a gateway may not take refusals; OnReject is told either way, and
// the subscription goes on.
func TestRejectOverSSE(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{Transport: SSE})
	subscription(t, c, "crm", channels("acct-42"))
	rejected := make(chan string, 10)
	count := newCounter(t)
	count.before = func(n int) error {
		if n == 2 {
			return Reject(errors.New("no such contact"))
		}
		return nil
	}
	runSubscription(t, mustAttach(t, c, "crm", SubscriptionOptions{Handler: count.handle, OnReject: func(e Event, err error) {
		rejected <- string(e.Data) + " " + err.Error()
	}}))
	wantPosition(t, c, "crm", publish(t, c, "acct-42", 1, 5, 0))
	if got, want := <-rejected, `{"n":2} no such contact`; got != want || len(rejected) != 0 {
		t.Errorf("got %q rejected and %d more, want %q", got, len(rejected), want)
	}
	if count.count() != 4 {
		t.Errorf("got %d events handled, want 4", count.count())
	}
}

func TestTakeoverAndStandby(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			g := newGateway(t)
			c := g.client(t, Options{Transport: transport})
			subscription(t, c, "crm", channels("acct-42"))
			count := newCounter(t)
			attach := func(consumer string) (*watcher, chan error, context.CancelFunc) {
				watch := newWatcher()
				l := mustAttach(t, c, "crm", SubscriptionOptions{Consumer: consumer, Handler: count.handle, OnState: watch.tell})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- l.Run(ctx) }()
				t.Cleanup(func() { cancel(); <-ended })
				return watch, ended, cancel
			}
			first, firstEnded, _ := attach("one")
			first.wantLive(t)
			// Acknowledged, so that the next subscription, which knows nothing of this
			// one, does not get it again.
			wantPosition(t, c, "crm", publish(t, c, "acct-42", 1, 10, 0))
			count.wantOnce(10)

			standby, _, _ := attach("two")
			until(t, "the second consumer stands by", func() bool { return standby.last().Phase == Standby })

			again, againEnded, stop := attach("one")
			again.wantLive(t)
			select {
			case err := <-firstEnded:
				if !errors.Is(err, ErrTakenOver) {
					t.Errorf("the first subscription ended with %v, want ErrTakenOver", err)
				}
				firstEnded <- err
			case <-time.After(30 * time.Second):
				t.Fatal("the first subscription was not taken over")
			}
			wantPosition(t, c, "crm", publish(t, c, "acct-42", 11, 10, 0))
			count.wantOnce(20)

			stop()
			if err := <-againEnded; err != nil {
				t.Error(err)
			}
			againEnded <- nil
			standby.wantLive(t)
			publish(t, c, "acct-42", 21, 10, 0)
			count.wantOnce(30)
		})
	}
}

// The gateway sends no more than the window while the handler is busy, and
// memory doesn't grow with what waits.
func TestSlowHandlerHoldsTheWindow(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{})
	subscription(t, c, "crm", channels("acct-42"))
	e, err := NewEvent("scan.done", strings.Repeat("x", 16<<10))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	release := make(chan struct{})
	var handled atomic.Int32
	l := mustAttach(t, c, "crm", SubscriptionOptions{Window: 50, Handler: func(context.Context, Event) error {
		<-release
		handled.Add(1)
		return nil
	}})
	watch := newWatcher()
	l.options.OnState = watch.tell
	runSubscription(t, l)
	watch.wantLive(t)
	runtime.GC()
	runtime.ReadMemStats(&before)
	const most = 2000
	for range most / 10 {
		ten := make([]Event, 10)
		for i := range ten {
			ten[i] = e
		}
		if _, err := c.Publish(t.Context(), "acct-42", ten...); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the window is full", func() bool { return l.current().full(50) != nil })
	if l.current().full(51) != nil {
		t.Error("more than the window of 50 is open")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// What waits has 32 MiB, a window less than one.
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("memory grew by %d KiB while %d events wait", grown>>10, most)
	}
	close(release)
	until(t, "all are handled", func() bool { return handled.Load() == most })
}

func TestGapIsTold(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{})
	admin := g.client(t, Options{Token: mint(t, "admin", time.Hour, map[string]any{"admin": true})})
	publish(t, c, "acct-42", 1, 5, 0)
	first := mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}, Since: "earliest"}, SubscriptionOptions{Handler: nothing})
	end := runSubscription(t, first)
	until(t, "five came", func() bool { return len(first.Position()) > 0 && first.Position()[len(first.Position())-1] == '5' })
	if err := end(); err != nil {
		t.Fatal(err)
	}
	// The log is dropped: what the subscription knows is of another epoch.
	if err := admin.Do(t.Context(), http.MethodDelete, "/v1/channels/acct-42", nil, nil); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "acct-42", 6, 3, 0)
	var gaps []Gap
	count := newCounter(t)
	second := mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}, Since: first.Position()}, SubscriptionOptions{
		Handler: count.handle, OnGap: func(g Gap) { gaps = append(gaps, g) },
	})
	end = runSubscription(t, second)
	until(t, "the new log's events come", func() bool { return count.count() == 3 })
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if len(gaps) != 1 || gaps[0].Reason != "reset" || gaps[0].Channel != "acct-42" {
		t.Errorf("got gaps %+v, want one by reset", gaps)
	}
}

// A replay brings everything again, though all of it is remembered.
func TestSeekBackReplays(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{Transport: WebSocket})
	subscription(t, c, "crm", channels("acct-42"))
	last := publish(t, c, "acct-42", 1, 20, 0)
	count, watch := newCounter(t), newWatcher()
	count.ordered = false
	l := mustAttach(t, c, "crm", SubscriptionOptions{Handler: count.handle, OnState: watch.tell})
	runSubscription(t, l)
	watch.wantLive(t)
	count.wantOnce(20)
	wantPosition(t, c, "crm", last)
	if err := c.Do(t.Context(), http.MethodPost, "/v1/subscriptions/crm/seek", map[string]string{"to": "earliest"}, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "all came twice", func() bool {
		count.mu.Lock()
		defer count.mu.Unlock()
		for n := 1; n <= 20; n++ {
			if count.times[n] != 2 {
				return false
			}
		}
		return true
	})
}

// Live, then by callback, then live again, with one handler: each event once,
// in order.
func TestLiveCallbackLive(t *testing.T) {
	g := newGateway(t, "--callback-allow-cidr", "127.0.0.0/8")
	c := g.client(t, Options{})
	count, watch := newCounter(t), newWatcher()

	var sub atomic.Pointer[Subscription]
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sub.Load().CallbackHandler().ServeHTTP(w, r)
	}))
	defer endpoint.Close()
	answer := subscription(t, c, "crm", map[string]any{
		"channels": []string{"acct-42"}, "start": "earliest",
		"callback": map[string]any{"url": endpoint.URL, "grace": "100ms"},
	})
	secret, _ := answer["callback"].(map[string]any)["secret"].(string)
	if secret == "" {
		t.Fatalf("got no secret in %v", answer)
	}
	l := mustAttach(t, c, "crm", SubscriptionOptions{Handler: count.handle, OnState: watch.tell, Secrets: []string{secret}})
	sub.Store(l)

	n := 0
	for round := range 3 {
		end := runSubscription(t, l)
		watch.wantLive(t)
		publish(t, c, "acct-42", n+1, 50, 5)
		n += 50
		count.wantOnce(n)
		publish(t, c, "acct-42", n+1, 50, 5)
		if err := end(); err != nil { // in the midst of them
			t.Fatal(err)
		}
		publish(t, c, "acct-42", n+51, 50, 5)
		n += 100
		count.wantOnce(n) // the rest by callback
		until(t, fmt.Sprintf("round %d: delivered by callback", round), func() bool { return state(t, c, "crm") == "callback" })
	}
}

func TestAttachIsRefused(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{})
	subscription(t, c, "crm-42", channels("acct-42"))
	for _, transport := range transports {
		for _, test := range []struct {
			name, subscription string
			rights             map[string]any
			want               error
		}{
			{"no such subscription", "crm-43", map[string]any{"subscribe": []string{"**"}, "subscriptions": []string{"*"}}, ErrNotFound},
			{"not the token's", "crm-42", map[string]any{"subscribe": []string{"**"}, "subscriptions": []string{"other"}}, ErrForbidden},
			{"channels are not the token's", "crm-42", map[string]any{"subscribe": []string{"acct-43"}, "subscriptions": []string{"*"}}, ErrForbidden},
		} {
			t.Run(string(transport)+": "+test.name, func(t *testing.T) {
				c := g.client(t, Options{Transport: transport, Token: mint(t, "x", time.Hour, test.rights)})
				wantEnd(t, mustAttach(t, c, test.subscription, SubscriptionOptions{Handler: nothing}), test.want)
			})
		}
	}
}
