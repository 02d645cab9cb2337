package chaos

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// modes are the ways in which an endpoint fails.
var modes = []string{"500", "429", "hang", "reset", "redirect", "slow", "401", "garbage"}

// receiver is the endpoint of a subscription's callback.
type receiver struct {
	*httptest.Server
	book  *oracle.Book
	other func(name string) *oracle.Book // of subscriptions with the same callback; may be nil
	mode  atomic.Value                   // string; "" for well
	calls atomic.Int64
}

func newReceiver(t testing.TB, book *oracle.Book) *receiver {
	r := &receiver{book: book}
	return r.serve(t, r)
}

// serve answers by h.
func (r *receiver) serve(t testing.TB, h http.Handler) *receiver {
	r.mode.Store("")
	r.Server = httptest.NewServer(h)
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.calls.Add(1)
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	var events []message
	if json.Unmarshal(body, &events) != nil {
		var one message
		if err := json.Unmarshal(body, &one); err != nil {
			r.book.Break("a callback's body: %v: %.100s", err, body)
			return
		}
		events = []message{one}
	}
	book := r.book
	if name := q.Header.Get("Longline-Subscription"); name != book.Name && r.other != nil {
		if book = r.other(name); book == nil { // its making was not answered
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	// It has it, whatever it answers.
	take := func(done bool) {
		for _, m := range events {
			c, err := event.ParseCursor(m.Cursor)
			if err != nil {
				book.Break("callback: %v", err)
				return
			}
			book.Given(oracle.Delivery{ID: m.ID, Type: m.Type, Key: m.PartitionKey, Cursor: c, By: "callback", Announced: announced(q)})
			if done {
				book.Done(m.ID)
			}
		}
	}
	switch mode := r.mode.Load().(string); mode {
	case "":
		take(true)
		w.WriteHeader(http.StatusNoContent)
	case "hang", "reset":
		take(false)
		fail(w, q, mode)
	case "slow":
		take(true)
		fail(w, q, mode)
	default:
		fail(w, q, mode)
	}
}

// announced tells whether a call says that it may have been made before.
func announced(q *http.Request) bool {
	return q.Header.Get("Longline-Redelivery") == "true" || q.Header.Get("Longline-Attempt") != "1"
}

// fail answers as an endpoint in that mode.
func fail(w http.ResponseWriter, q *http.Request, mode string) {
	switch mode {
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	case "401":
		w.WriteHeader(http.StatusUnauthorized)
	case "429":
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case "redirect":
		w.Header().Set("Location", "http://169.254.169.254/latest/meta-data")
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "garbage", "reset":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		if mode == "garbage" {
			_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
		}
		_ = conn.Close()
	case "hang":
		pause(q.Context(), 5*time.Second)
	case "slow":
		pause(q.Context(), 300*time.Millisecond)
	}
}

// callback is a subscription's with a receiver.
func callback(r *receiver, settings map[string]any) map[string]any {
	c := map[string]any{"url": r.URL, "timeout": "2s"}
	for k, v := range settings {
		c[k] = v
	}
	return c
}
