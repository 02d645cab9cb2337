package longline

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Both transports must tell the same story.
var transports = []Transport{WebSocket, SSE}

func TestSubscribeAcrossAKilledGateway(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			g := newGateway(t)
			c := g.client(t, Options{Transport: transport})
			count, watch := newCounter(t), newWatcher()
			l := mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}, Since: "earliest"}, SubscriptionOptions{
				Concurrency: 4, Handler: count.handle, OnState: watch.tell,
			})
			runSubscription(t, l)
			watch.wantLive(t)
			publish(t, c, "acct-42", 1, 200, 7)
			count.wantOnce(200)
			for round := range 2 {
				g.kill()
				g.start()
				watch.wantLive(t)
				publish(t, c, "acct-42", 201+100*round, 100, 7)
				count.wantOnce(300 + 100*round)
			}
		})
	}
}

func TestSubscribeResumesWhereItWas(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			g := newGateway(t)
			c := g.client(t, Options{Transport: transport})
			count, watch := newCounter(t), newWatcher()
			count.ordered = false // over two channels
			o := SubscriptionOptions{Handler: count.handle, OnState: watch.tell}
			publish(t, c, "b", 1000, 1, 0) // before the subscription: not wanted
			first := mustSubscribe(t, c, Selection{Channels: []string{"a", "b"}}, o)
			end := runSubscription(t, first)
			watch.wantLive(t)
			publish(t, c, "a", 1, 10, 0)
			publish(t, c, "b", 11, 10, 0)
			until(t, "20 events come", func() bool { return count.count() == 20 })
			if err := end(); err != nil {
				t.Fatal(err)
			}
			publish(t, c, "a", 21, 10, 0)
			second := mustSubscribe(t, c, Selection{Channels: []string{"a", "b"}, Since: first.Position()}, o)
			runSubscription(t, second)
			count.wantOnce(30)
		})
	}
}

func TestSubscribeByTypeAndIterate(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{})
	for _, typ := range []string{"email.opened", "mailshot.completed", "email.clicked"} {
		if _, err := c.Publish(t.Context(), "acct-42", Event{Type: typ, ID: typ, Source: "/test"}); err != nil {
			t.Fatal(err)
		}
	}
	l := mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}, Types: []string{"email.*"}, Since: "earliest"}, SubscriptionOptions{})
	var got []string
	for e, err := range l.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.ID); len(got) == 2 {
			break
		}
	}
	wantEqual(t, "ranged over", got, []string{"email.opened", "email.clicked"})
}

func TestRefusalsAreFinalAndTyped(t *testing.T) {
	g := newGateway(t)
	expired := token(t, "customer-42", -time.Hour)
	narrow := mint(t, "customer-42", time.Hour, map[string]any{"subscribe": []string{"acct-42"}})
	for _, transport := range transports {
		for _, test := range []struct {
			name, token string
			selection   Selection
			want        error
		}{
			{"a channel the token does not cover", narrow, Selection{Channels: []string{"acct-43"}}, ErrForbidden},
			{"an expired token", expired, Selection{Channels: []string{"acct-42"}}, ErrUnauthorized},
			{"no token worth the name", "nonsense", Selection{Channels: []string{"acct-42"}}, ErrUnauthorized},
			{"since what", narrow, Selection{Channels: []string{"acct-42"}, Since: "yesterday"}, ErrBadRequest},
		} {
			t.Run(string(transport)+": "+test.name, func(t *testing.T) {
				c := g.client(t, Options{Transport: transport, Token: test.token})
				wantEnd(t, mustSubscribe(t, c, test.selection, SubscriptionOptions{Handler: nothing}), test.want)
			})
		}
	}
}

func TestBadSelectionsAreRefusedHere(t *testing.T) {
	c, err := New("http://gateway.test", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Selection{{}, {Channels: []string{"a b"}}, {Channels: []string{"a"}, Types: []string{"**.x"}}, {Channels: []string{"a"}, Lag: "drop"}} {
		if _, err := c.Subscribe(s, SubscriptionOptions{}); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%+v: got %v, want ErrBadRequest", s, err)
		}
	}
	for _, o := range []SubscriptionOptions{{Rate: -1}, {Window: -1}, {Handler: nothing, BatchHandler: func(context.Context, []Event) error { return nil }}, {Secrets: []string{"whsec_"}}} {
		if _, err := c.Attach("crm", o); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%+v: got %v, want ErrBadRequest", o, err)
		}
	}
	for _, base := range []string{"", "push.example.com", "ftp://example.com", "ws://example.com", "http://"} {
		if _, err := New(base, Options{}); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%q: got %v, want ErrBadRequest", base, err)
		}
	}
}

// A token that runs out is renewed in place by WebSocket, and by another
// connection over SSE; either way nothing is missed.
func TestTokenExpiresAndIsRenewed(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			g := newGateway(t)
			var asked atomic.Int32
			c := g.client(t, Options{Transport: transport, TokenFunc: func(context.Context) (string, error) {
				asked.Add(1)
				return token(t, "customer-42", 4*time.Second), nil
			}})
			publisher := g.client(t, Options{})
			count, watch := newCounter(t), newWatcher()
			l := mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}}, SubscriptionOptions{Handler: count.handle, OnState: watch.tell})
			end := runSubscription(t, l)
			watch.wantLive(t)
			for n := 1; asked.Load() < 4; n++ {
				publish(t, publisher, "acct-42", n, 1, 0)
				until(t, "the event comes", func() bool { return count.count() == n })
				if n > 10000 {
					t.Fatal("the token was never renewed")
				}
			}
			if err := end(); err != nil {
				t.Error(err)
			}
			if connected := len(watch.live); transport == WebSocket && connected != 0 {
				t.Errorf("connected %d more times, want renewal in place", connected)
			}
		})
	}
}

// A proxy that knows nothing of WebSocket.
func TestFallsBackToSSE(t *testing.T) {
	g := newGateway(t)
	target, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Transport: newHTTPClient(t).Transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Del("Upgrade")
		r.Out.Header.Del("Connection")
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			http.Error(w, "what is this", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()
	c, err := New(front.URL, Options{Token: token(t, "customer-42", time.Hour), HTTPClient: newHTTPClient(t), MinBackoff: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	count, watch := newCounter(t), newWatcher()
	end := runSubscription(t, mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}}, SubscriptionOptions{Handler: count.handle, OnState: watch.tell}))
	watch.wantLive(t)
	if got := watch.last().Transport; got != SSE {
		t.Errorf("got transport %q, want %q", got, SSE)
	}
	publish(t, c, "acct-42", 1, 5, 0)
	count.wantOnce(5)
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestLargeEvents(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			g := newGateway(t)
			c := g.client(t, Options{Transport: transport})
			e, err := NewEvent("scan.done", strings.Repeat("x", 250<<10))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Publish(t.Context(), "acct-42", e); err != nil {
				t.Fatal(err)
			}
			l := mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}, Since: "earliest"}, SubscriptionOptions{})
			for got, err := range l.Events(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Data) != len(e.Data) {
					t.Errorf("got %d bytes of data, want %d", len(got.Data), len(e.Data))
				}
				break
			}
			small := g.client(t, Options{Transport: transport, MaxFrame: 100 << 10})
			wantEnd(t, mustSubscribe(t, small, Selection{Channels: []string{"acct-42"}, Since: "earliest"}, SubscriptionOptions{Handler: nothing}), ErrTooLarge)
		})
	}
}

// More channels than a request line holds are subscribed to once connected.
func TestManyChannels(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{})
	var channels []string
	for n := range 200 {
		channels = append(channels, fmt.Sprintf("a-rather-long-name-of-a-channel.for-an-account.acct-%d", n))
	}
	count, watch := newCounter(t), newWatcher()
	count.ordered = false // over so many channels
	l := mustSubscribe(t, c, Selection{Channels: channels}, SubscriptionOptions{Handler: count.handle, OnState: watch.tell})
	runSubscription(t, l)
	watch.wantLive(t)
	until(t, "the subscription is in place", func() bool { return strings.Count(l.Position(), "@") == len(channels) })
	for n := range 10 {
		publish(t, c, channels[n*20], n+1, 1, 0)
	}
	count.wantOnce(10)
	g.kill()
	g.start()
	watch.wantLive(t)
	for n := range 10 {
		publish(t, c, channels[n*19], n+11, 1, 0)
	}
	count.wantOnce(20)
}

func TestPublishTogether(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{})
	count := newCounter(t)
	count.ordered = false
	watch := newWatcher()
	runSubscription(t, mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}}, SubscriptionOptions{Handler: count.handle, OnState: watch.tell}))
	watch.wantLive(t)
	var all sync.WaitGroup
	for n := 1; n <= 300; n++ {
		all.Go(func() {
			e, err := NewEvent("email.opened", map[string]int{"n": n})
			if err != nil {
				t.Error(err)
				return
			}
			if n%50 == 0 {
				e.Type = "not a type\n"
				e.Subject = strings.Repeat("x", 300<<10) // too large: refused, alone
			}
			published, err := c.Publish(t.Context(), "acct-42", e)
			if n%50 == 0 {
				if !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrBadRequest) {
					t.Errorf("event %d: got %v, want a refusal", n, err)
				}
				return
			}
			if err != nil || len(published) != 1 || published[0].Cursor == "" {
				t.Errorf("event %d: got %v, %v", n, published, err)
			}
		})
	}
	all.Wait()
	until(t, "294 events come", func() bool { return count.count() == 294 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.outboxes) != 0 {
		t.Errorf("got %d outboxes left, want none", len(c.outboxes))
	}
}

// The gateway is killed while many publish: each event is there once.
func TestPublishAcrossAKilledGateway(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{})
	count := newCounter(t)
	count.ordered = false
	runSubscription(t, mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}, Since: "earliest"}, SubscriptionOptions{Handler: count.handle}))
	var all sync.WaitGroup
	var next atomic.Int64
	const most = 2000
	for range 8 {
		all.Go(func() {
			for n := next.Add(1); n <= most; n = next.Add(1) {
				e, err := NewEvent("email.opened", map[string]int64{"n": n})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := c.Publish(t.Context(), "acct-42", e); err != nil {
					t.Errorf("event %d: %v", n, err)
				}
			}
		})
	}
	until(t, "some are published", func() bool { return next.Load() > most/4 })
	g.kill()
	g.start()
	all.Wait()
	count.wantOnce(most)
}

func TestPublishRefusesWhatIsNone(t *testing.T) {
	g := newGateway(t)
	c := g.client(t, Options{Token: mint(t, "customer-42", time.Hour, map[string]any{"publish": []string{"acct-42"}})})
	for _, test := range []struct {
		name, channel string
		event         Event
		want          error
	}{
		{"no type", "acct-42", Event{}, ErrBadRequest},
		{"data that is not JSON", "acct-42", Event{Type: "t", Data: []byte("{")}, ErrBadRequest},
		{"two kinds of data", "acct-42", Event{Type: "t", Data: []byte("1"), Binary: []byte("1")}, ErrBadRequest},
		{"a channel that is none", "acct 42", Event{Type: "t"}, ErrBadRequest},
		{"a channel the token does not cover", "acct-43", Event{Type: "t"}, ErrForbidden},
	} {
		if _, err := c.Publish(t.Context(), test.channel, test.event); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	first, err := c.Publish(t.Context(), "acct-42", Event{Type: "t", ID: "1", Source: "/s"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Publish(t.Context(), "acct-42", Event{Type: "t", ID: "1", Source: "/s"})
	if err != nil {
		t.Fatal(err)
	}
	if !second[0].Duplicate || second[0].Cursor != first[0].Cursor {
		t.Errorf("the same event again: got %+v, want the first cursor %s", second[0], first[0].Cursor)
	}
}
