package longline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memConn is a connection whose other end is the test.
type memConn struct {
	frames chan frame
	gone   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	acks    []string
	ackedAt []time.Time
	rejects []reject
	tokens  []string
	heard   time.Time
}

func newMemConn() *memConn {
	return &memConn{frames: make(chan frame, 10000), gone: make(chan struct{}), heard: time.Now()}
}

func (c *memConn) transport() Transport { return WebSocket }
func (c *memConn) readEnded()           {}

func (c *memConn) read() (frame, error) {
	select {
	case f := <-c.frames:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.heard = time.Now()
		return f, nil
	case <-c.gone:
		return frame{}, unreachable(errors.New("connection closed"), "")
	}
}

func (c *memConn) alive() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard
}

func (c *memConn) ack(_ context.Context, a ack) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks = append(c.acks, a.position)
	c.ackedAt = append(c.ackedAt, time.Now())
	return nil
}

func (c *memConn) reject(_ context.Context, r reject) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rejects = append(c.rejects, r)
	return nil
}

func (c *memConn) renew(_ context.Context, token string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens = append(c.tokens, token)
	return nil
}

func (c *memConn) subscribe(context.Context, Selection) error { return nil }
func (c *memConn) close(bool)                                 { c.once.Do(func() { close(c.gone) }) }

func (c *memConn) renewals() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.tokens)
}

func (c *memConn) lastAck() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.acks) == 0 {
		return ""
	}
	return c.acks[len(c.acks)-1]
}

func (c *memConn) send(n int, key string) { c.frames <- frame{event: testEvent(n, key)} }

func helloFrame(cursor string, window int) frame {
	return frame{op: "hello", control: control{Connection: "c-1", Cursor: cursor, Window: window, HeartbeatMS: 25000}}
}

// testSubscription is a subscription whose connections the test makes. Each call of connect
// takes the next of conns; an error there is what the attempt ends with.
type testSubscription struct {
	*Subscription
	conns  chan any // *memConn or error
	mu     sync.Mutex
	states []State
	gaps   []Gap
}

func newTestSubscription(t *testing.T, name string, c Options, o SubscriptionOptions) *testSubscription {
	t.Helper()
	c.Transport = WebSocket
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	client, err := New("http://gateway.test", c)
	if err != nil {
		t.Fatal(err)
	}
	tl := &testSubscription{conns: make(chan any, 100)}
	o.OnState = func(s State) {
		tl.mu.Lock()
		defer tl.mu.Unlock()
		tl.states = append(tl.states, s)
	}
	o.OnGap = func(g Gap) { tl.gaps = append(tl.gaps, g) }
	if name == "" {
		tl.Subscription, err = client.Subscribe(Selection{Channels: []string{"a"}}, o)
	} else {
		tl.Subscription, err = client.Attach(name, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	tl.open = func(ctx context.Context, _ Transport, token string) (conn, frame, error) {
		select {
		case next := <-tl.conns:
			if err, ok := next.(error); ok {
				return nil, frame{}, err
			}
			c := next.(*memConn)
			first, err := c.read()
			return c, first, err
		case <-ctx.Done():
			return nil, frame{}, ctx.Err()
		}
	}
	return tl
}

func (tl *testSubscription) phases() []Phase {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	var phases []Phase
	for _, s := range tl.states {
		phases = append(phases, s.Phase)
	}
	return phases
}

// start runs the subscription and returns how to end it; its error is what Run
// returned.
func (tl *testSubscription) start() (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tl.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

func nothing(context.Context, Event) error { return nil }

func TestAcknowledgementsAreFewForManyEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: nothing})
		c := newMemConn()
		c.frames <- helloFrame("a@k-0", 10000)
		l.conns <- c
		end := l.start()
		n := 0
		for range 1000 { // two seconds, 2000 events a second
			for range 4 {
				n++
				c.send(n, "")
			}
			time.Sleep(2 * time.Millisecond)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if got, want := c.lastAck(), fmt.Sprintf("a@k-%d", n); got != want {
			t.Errorf("got %s acknowledged at the end, want %s", got, want)
		}
		if most := n/manyDone + 42; len(c.acks) > most || len(c.acks) < 20 {
			t.Errorf("got %d acknowledgements in 2 s, want 20 a second and one for every %d events, %d at most", len(c.acks), manyDone, most)
		}
	})
}

func TestShutdownLetsHandlersEndAndAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled []string
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: func(ctx context.Context, e Event) error {
			if !sleep(ctx, 5*time.Second) {
				t.Error("the handler's context ended within the grace")
			}
			handled = append(handled, e.ID)
			return nil
		}})
		c := newMemConn()
		c.frames <- helloFrame("a@k-0", 256)
		c.send(1, "")
		c.send(2, "")
		l.conns <- c
		end := l.start()
		pass(time.Second)
		if err := end(); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "handled", handled, []string{"1"})
		wantEqual(t, "acknowledged", c.acks, []string{"a@k-1"})
		wantEqual(t, "phases", l.phases(), []Phase{Connecting, Live, Closed})
	})
}

func TestHandlersContextEndsAfterTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Grace: 3 * time.Second, Handler: func(ctx context.Context, e Event) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		c := newMemConn()
		c.frames <- helloFrame("a@k-0", 256)
		c.send(1, "")
		l.conns <- c
		end := l.start()
		synctest.Wait()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("got an end after %v, want the grace of 3s", took)
		}
		if len(c.acks)+len(c.rejects) != 0 {
			t.Errorf("got acks %v, rejects %v of an event that was not handled", c.acks, c.rejects)
		}
	})
}

func TestLineReconnectsAndObeysRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: nothing})
		first, second := newMemConn(), newMemConn()
		first.frames <- helloFrame("a@k-0", 256)
		first.frames <- frame{op: "bye", control: control{Code: []byte("1012"), RetryMS: 1500, Reconnect: true}}
		l.conns <- first
		l.conns <- unreachable(errors.New("connection refused"), "")
		second.frames <- helloFrame("a@k-0", 256)
		l.conns <- second
		end := l.start()
		pass(time.Minute)
		if err := end(); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "phases", l.phases(), []Phase{Connecting, Live, Waiting, Connecting, Waiting, Connecting, Live, Closed})
		if got := l.states[2].Retry; got != 1500*time.Millisecond {
			t.Errorf("got a wait of %v, want the gateway's 1.5s", got)
		}
		if !errors.Is(l.states[2].Err, ErrUnavailable) {
			t.Errorf("got %v as the reason, want ErrUnavailable", l.states[2].Err)
		}
	})
}

func TestFinalErrorsEndTheLine(t *testing.T) {
	bye := func(code string) frame {
		return frame{op: "bye", control: control{Code: []byte(code), Reason: "because"}}
	}
	for _, test := range []struct {
		name string
		last frame
		want error
	}{
		{"forbidden", bye("4403"), ErrForbidden},
		{"not found", bye("4404"), ErrNotFound},
		{"taken over", bye("4409"), ErrTakenOver},
		{"unauthorized, with a token that can't be renewed", bye("4401"), ErrUnauthorized},
		{"bad request", bye("4400"), ErrBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var handlerEnded error
				l := newTestSubscription(t, "crm", Options{Token: "t"}, SubscriptionOptions{Handler: func(ctx context.Context, e Event) error {
					<-ctx.Done()
					handlerEnded = context.Cause(ctx)
					return ctx.Err()
				}})
				c := newMemConn()
				c.frames <- helloFrame("a@k-0", 256)
				c.send(1, "")
				l.conns <- c
				ended := make(chan error)
				go func() { ended <- l.Run(context.Background()) }()
				synctest.Wait()
				c.frames <- test.last
				if err := <-ended; !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if !errors.Is(handlerEnded, test.want) {
					t.Errorf("the handler's context ended by %v, want %v", handlerEnded, test.want)
				}
			})
		})
	}
}

func TestMalformedThreeTimesIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: nothing})
		for range maxMalformed {
			l.conns <- error(malformed("frame is not one JSON object"))
		}
		if err := l.Run(context.Background()); !errors.Is(err, ErrMalformed) {
			t.Errorf("got %v, want ErrMalformed", err)
		}
	})
}

func TestTokenIsAskedForAgainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		l := newTestSubscription(t, "crm", Options{TokenFunc: func(context.Context) (string, error) {
			asked++
			return fmt.Sprint("token ", asked), nil
		}}, SubscriptionOptions{Handler: nothing})
		unauthorized := &Error{Code: "unauthorized", final: true}
		l.conns <- unauthorized
		l.conns <- unauthorized
		if err := l.Run(context.Background()); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("got %v, want ErrUnauthorized", err)
		}
		if asked != 2 {
			t.Errorf("asked for %d tokens, want 2", asked)
		}
	})
}

func TestTokenIsRenewedInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		l := newTestSubscription(t, "crm", Options{TokenFunc: func(context.Context) (string, error) {
			asked++
			return fmt.Sprint("token ", asked), nil
		}}, SubscriptionOptions{Handler: nothing})
		c := newMemConn()
		h := helloFrame("a@k-0", 256)
		h.Expires = time.Now().Add(10 * time.Minute)
		c.frames <- h
		l.conns <- c
		end := l.start()
		for range 9 { // a frame now and then, so that the subscription isn't silent
			for range 2 {
				pass(30*time.Second - time.Millisecond)
				c.frames <- frame{op: "position", control: control{Cursor: "a@k-1"}}
			}
			if len(c.renewals()) != 0 {
				t.Fatalf("renewed with more than a minute left")
			}
		}
		pass(10 * time.Second)
		if err := end(); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "sent", c.renewals(), []string{"token 2"})
	})
}

func TestSilentConnectionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: nothing})
		for range 2 {
			c := newMemConn()
			c.frames <- helloFrame("a@k-0", 256)
			l.conns <- c
		}
		end := l.start()
		pass(80 * time.Second)
		if err := end(); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "phases", l.phases(), []Phase{Connecting, Live, Waiting, Connecting, Live, Closed})
	})
}

// A handler that can't keep up: the subscription reads a window, hangs up, and comes
// back when half of it is done.
func TestSlowHandlerOnAnEphemeralLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var handled []string
		l := newTestSubscription(t, "", Options{}, SubscriptionOptions{Window: 8, Handler: func(ctx context.Context, e Event) error {
			sleep(ctx, 10*time.Second)
			mu.Lock()
			defer mu.Unlock()
			handled = append(handled, e.ID)
			return nil
		}})
		first, second := newMemConn(), newMemConn()
		first.frames <- helloFrame("a@k-0", 0)
		for n := 1; n <= 20; n++ {
			first.send(n, "")
		}
		l.conns <- first
		end := l.start()
		pass(15 * time.Second)
		if left := len(first.frames); left < 11 {
			t.Errorf("got %d of 20 events left in the connection, want 11 or more: the window is 8", left)
		}
		if got := l.since(); got != "a@k-9" && got != "a@k-8" {
			t.Errorf("resuming after %s, want what was received, a@k-8 or a@k-9", got)
		}
		resume := l.since()
		second.frames <- helloFrame(resume, 0)
		l.conns <- second
		pass(2 * time.Minute)
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if got := l.Position(); got != resume || len(handled) < 8 {
			t.Errorf("got %s done after %d events, want all that was received, %s", got, len(handled), resume)
		}
	})
}

func TestGapsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestSubscription(t, "", Options{}, SubscriptionOptions{Handler: nothing})
		c := newMemConn()
		c.frames <- helloFrame("a@k-0", 0)
		c.frames <- frame{op: "gap", control: control{Channel: "a", From: "a@k-0", To: "a@k-7", Reason: "retention"}}
		c.send(8, "")
		l.conns <- c
		end := l.start()
		synctest.Wait()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "gaps", l.gaps, []Gap{{Channel: "a", From: "a@k-0", To: "a@k-7", Reason: "retention"}})
		if got := l.Position(); got != "a@k-8" {
			t.Errorf("got %s, want a@k-8", got)
		}
	})
}

func TestStandbyThenLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: nothing})
		c := newMemConn()
		c.frames <- frame{op: "standby"}
		l.conns <- c
		end := l.start()
		pass(time.Minute / 2)
		wantEqual(t, "phases", l.phases(), []Phase{Connecting, Standby})
		c.frames <- helloFrame("a@k-4", 256)
		c.frames <- frame{op: "redelivery", control: control{Cursor: "a@k-5"}}
		c.send(5, "")
		synctest.Wait()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "phases", l.phases(), []Phase{Connecting, Standby, Live, Closed})
		wantEqual(t, "acknowledged", c.acks, []string{"a@k-5"})
	})
}

// The gateway is killed, and the connection that follows is cut off before it
// brings anything: what the first one brought is known all the same.
func TestWhatWasHandledIsKnownPastAConnectionThatBroughtNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var handled []string
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: func(_ context.Context, e Event) error {
			mu.Lock()
			defer mu.Unlock()
			handled = append(handled, e.ID)
			return nil
		}})
		end := l.start()
		for i, events := range []int{3, 0, 4} {
			c := newMemConn()
			c.frames <- helloFrame("a@k-0", 256)
			for n := 1; n <= events; n++ {
				c.send(n, "")
			}
			l.conns <- c
			pass(time.Second) // less than it takes to be sure of an acknowledgement
			if i < 2 {
				c.close(false)
			}
		}
		pass(time.Minute)
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if len(handled) != 4 {
			t.Errorf("handled %v, want four events once each", handled)
		}
	})
}

func TestIteratorAcknowledgesWhatTheLoopFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		l := newTestSubscription(t, "crm", Options{Logger: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))}, SubscriptionOptions{})
		c := newMemConn()
		c.frames <- helloFrame("a@k-0", 256)
		for n := 1; n <= 5; n++ {
			c.send(n, "")
		}
		l.conns <- c
		var got []string
		for e, err := range l.Events(context.Background()) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, e.ID); len(got) == 3 {
				break
			}
		}
		wantEqual(t, "ranged over", got, []string{"1", "2", "3"})
		if c.lastAck() != "a@k-2" {
			t.Errorf("got %v acknowledged, want up to a@k-2: at 3 the loop was left", c.acks)
		}
		if said.Len() > 0 {
			t.Errorf("got warnings although nothing is wrong:\n%s", &said)
		}
	})
}

// Who asks for it learns at once that nothing is there; once it was, the
// subscription outlives what may come.
func TestFailFastIsForTheFirstConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, away := range []error{unreachable(errors.New("connection refused"), ""), &Error{Code: "rate_limited", RetryAfter: time.Hour}} {
			never := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: nothing, FailFast: true})
			never.conns <- away
			if err := never.Run(context.Background()); !errors.Is(err, away) {
				t.Errorf("got %v, want %v", err, away)
			}
			wantEqual(t, "phases", never.phases(), []Phase{Connecting, Closed})
		}

		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{Handler: nothing, FailFast: true})
		first, second := newMemConn(), newMemConn()
		first.frames <- helloFrame("a@k-0", 256)
		second.frames <- helloFrame("a@k-0", 256)
		for _, next := range []any{first, unreachable(errors.New("connection refused"), ""), second} {
			l.conns <- next
		}
		end := l.start()
		synctest.Wait()
		first.close(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "phases", l.phases(), []Phase{Connecting, Live, Waiting, Connecting, Waiting, Connecting, Live, Closed})
	})
}

func TestIteratorYieldsTheFinalError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestSubscription(t, "crm", Options{}, SubscriptionOptions{})
		l.conns <- error(&Error{Code: "not_found", final: true})
		for _, err := range l.Events(context.Background()) {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v, want ErrNotFound", err)
			}
		}
	})
}

// feedConn gives the same frame over and over, decoded each time.
type feedConn struct {
	*memConn
	left int
	text []byte
}

func (c *feedConn) read() (frame, error) {
	if c.left--; c.left < 0 {
		<-c.gone
		return frame{}, errStopped
	}
	// Another id each time: the last 7 digits of it.
	at := bytes.Index(c.text, []byte("7f01"))
	for i, n := at, c.left; i > at-7; i, n = i-1, n/10 {
		if c.text[i-1] != '-' {
			c.text[i-1] = '0' + byte(n%10)
		}
	}
	return decodeFrame(c.text)
}

// The whole way from a frame's bytes to the handler and the tracker, for one
// subscription with a no-op handler.
func BenchmarkSubscription(b *testing.B) {
	for _, name := range []string{"", "crm"} {
		for _, concurrency := range []int{1, 8} {
			kind := "ephemeral"
			if name != "" {
				kind = "durable"
			}
			b.Run(fmt.Sprintf("%s/concurrency=%d", kind, concurrency), func(b *testing.B) {
				client, err := New("http://gateway.test", Options{})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				handled := make(chan struct{}, 1)
				var mu sync.Mutex
				n := 0
				o := SubscriptionOptions{Concurrency: concurrency, Window: 10000, Handler: func(context.Context, Event) error {
					mu.Lock()
					defer mu.Unlock()
					if n++; n == b.N {
						handled <- struct{}{}
					}
					return nil
				}}
				var l *Subscription
				if name == "" {
					l, err = client.Subscribe(Selection{Channels: []string{"acct-42"}}, o)
				} else {
					l, err = client.Attach(name, o)
				}
				if err != nil {
					b.Fatal(err)
				}
				l.open = func(context.Context, Transport, string) (conn, frame, error) {
					return &feedConn{memConn: newMemConn(), left: b.N, text: bytes.Clone(frame300)}, helloFrame("acct-42@k3f9zq-0", 10000), nil
				}
				b.SetBytes(int64(len(frame300)))
				b.ReportAllocs()
				runtime.GC()
				b.ResetTimer()
				ended := make(chan error, 1)
				go func() { ended <- l.Run(ctx) }()
				<-handled
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
				b.StopTimer()
				cancel()
				<-ended
			})
		}
	}
}
