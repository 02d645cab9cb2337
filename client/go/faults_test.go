package longline

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// fakeGateway does what a real one can't be made to do: each connection by
// WebSocket is in the hands of script, whose n counts from 1.
func fakeGateway(t *testing.T, script func(n int, ws *websocket.Conn)) *Client {
	t.Helper()
	var n, open atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}})
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		script(int(n.Add(1)), ws)
	}))
	t.Cleanup(func() {
		server.Close()
		until(t, "connections end", func() bool { return open.Load() == 0 })
	})
	c, err := New(server.URL, Options{HTTPClient: newHTTPClient(t), Transport: WebSocket, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func say(t *testing.T, ws *websocket.Conn, frames ...string) {
	t.Helper()
	for _, f := range frames {
		if err := ws.Write(context.Background(), websocket.MessageText, []byte(f)); err != nil {
			t.Logf("write: %v", err) // the subscription hung up, which may be right
			return
		}
	}
}

func stay(ws *websocket.Conn) {
	for {
		if _, _, err := ws.Read(context.Background()); err != nil {
			return
		}
	}
}

const (
	fakeHello   = `{"op":"hello","connection":"c-1","node":"n1","session":"durable","cursor":"a@k-0","recovered":true,"window":10,"heartbeat_ms":25000}`
	fakeEvent   = `{"specversion":"1.0","id":"%d","source":"/s","type":"t","channel":"a","cursor":"a@k-%d"}`
	fakeUnknown = `{"op":"weather","sunny":true}`
)

func TestFaultyFramesAreTypedErrors(t *testing.T) {
	for name, frame := range map[string]string{
		"not JSON":          `{"op":`,
		"two objects":       `{"op":"ok"}{"op":"ok"}`,
		"an event of 2.0":   `{"specversion":"2.0","id":"1","source":"/s","type":"t"}`,
		"an event without":  `{"specversion":"1.0"}`,
		"no UTF-8":          "{\"op\":\"\xff\"}",
		"cursors that lie":  `{"op":"redelivery","cursor":"here"}`,
		"control of rubble": `{"op":"gap","channel":7}`,
	} {
		t.Run(name, func(t *testing.T) {
			var connections atomic.Int32
			c := fakeGateway(t, func(n int, ws *websocket.Conn) {
				connections.Add(1)
				say(t, ws, fakeHello, frame)
				stay(ws)
			})
			wantEnd(t, mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing}), ErrMalformed)
			if got := connections.Load(); got != maxMalformed {
				t.Errorf("connected %d times, want %d tries", got, maxMalformed)
			}
		})
	}
}

func TestBinaryAndOversizedFrames(t *testing.T) {
	c := fakeGateway(t, func(n int, ws *websocket.Conn) {
		say(t, ws, fakeHello)
		ws.Write(context.Background(), websocket.MessageBinary, []byte(fakeUnknown)) // the subscription may hang up first
		stay(ws)
	})
	wantEnd(t, mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing}), ErrMalformed)

	c = fakeGateway(t, func(n int, ws *websocket.Conn) {
		say(t, ws, fakeHello)
		ws.Write(context.Background(), websocket.MessageText, make([]byte, 2<<20)) // likewise
		stay(ws)
	})
	c.options.MaxFrame = 1 << 20
	wantEnd(t, mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing}), ErrTooLarge)
}

func TestSomethingElseAnswers(t *testing.T) {
	c := fakeGateway(t, func(n int, ws *websocket.Conn) {
		say(t, ws, `{"op":"ok"}`)
		stay(ws)
	})
	wantEnd(t, mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing}), ErrMalformed)
}

// Nobody answers at all after the handshake.
func TestNoHello(t *testing.T) {
	c := fakeGateway(t, func(n int, ws *websocket.Conn) { stay(ws) })
	c.options.ConnectTimeout = 50 * time.Millisecond
	watch := newWatcher()
	end := runSubscription(t, mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing, OnState: watch.tell}))
	until(t, "the attempt is given up", func() bool {
		watch.mu.Lock()
		defer watch.mu.Unlock()
		for _, s := range watch.states {
			if s.Phase == Waiting && errors.Is(s.Err, ErrTimeout) {
				return true
			}
		}
		return false
	})
	if err := end(); err != nil {
		t.Error(err)
	}
}

// Closed without a goodbye: by the code alone the subscription knows whether to come
// back.
func TestCloseWithoutBye(t *testing.T) {
	for code, want := range map[websocket.StatusCode]error{4403: ErrForbidden, 4409: ErrTakenOver, 4404: ErrNotFound} {
		c := fakeGateway(t, func(n int, ws *websocket.Conn) {
			say(t, ws, fakeHello)
			ws.Close(code, "") // an error means that the subscription was faster
		})
		wantEnd(t, mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing}), want)
	}
	var again atomic.Bool
	c := fakeGateway(t, func(n int, ws *websocket.Conn) {
		say(t, ws, fakeHello)
		if n == 1 {
			ws.Close(websocket.StatusGoingAway, "") // likewise
			return
		}
		again.Store(true)
		stay(ws)
	})
	runSubscription(t, mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing}))
	until(t, "the subscription is back", again.Load)
}

// Cut in the middle of deliveries, a hundred times: each event is handled
// once, and what was acknowledged is what the connection had delivered.
func TestManyCuts(t *testing.T) {
	const most = 300
	var mu sync.Mutex
	acked := 0
	c := fakeGateway(t, func(n int, ws *websocket.Conn) {
		mu.Lock()
		from := acked
		mu.Unlock()
		say(t, ws, fmt.Sprintf(`{"op":"hello","connection":"c-%d","cursor":"a@k-%d","window":20}`, n, from),
			fakeUnknown, fmt.Sprintf(`{"op":"redelivery","cursor":"a@k-%d"}`, from+40))
		sent := from
		for sent < min(from+20, most) {
			sent++
			say(t, ws, fmt.Sprintf(fakeEvent, sent, sent))
		}
		for {
			_, text, err := ws.Read(context.Background())
			if err != nil {
				return
			}
			var offset int
			if _, err := fmt.Sscanf(string(text), `{"op":"ack","cursor":"a@k-%d"}`, &offset); err != nil {
				t.Errorf("got %s, want an ack", text)
			}
			if offset > sent {
				t.Errorf("got an ack of %d, which this connection has not delivered: it is at %d", offset, sent)
			}
			mu.Lock()
			acked = max(acked, offset)
			done := acked
			mu.Unlock()
			if done < most && offset > from+n%7 {
				return // cut
			}
		}
	})
	var handled sync.Map
	l := mustAttach(t, c, "crm", SubscriptionOptions{Concurrency: 4, Handler: func(_ context.Context, e Event) error {
		if _, twice := handled.LoadOrStore(e.ID, true); twice {
			t.Errorf("got event %s twice", e.ID)
		}
		return nil
	}})
	end := runSubscription(t, l)
	until(t, "all is acknowledged", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return acked == most
	})
	if err := end(); err != nil {
		t.Error(err)
	}
	n := 0
	handled.Range(func(any, any) bool { n++; return true })
	if n != most {
		t.Errorf("got %d events, want %d", n, most)
	}
}
