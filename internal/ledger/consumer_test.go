package ledger_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/ledger"
)

// numbered is an event of the publisher's.
type numbered struct {
	Op, Reason, From, To string
	Code                 int
	RetryMS              int `json:"retry_ms"`
	SpecVersion, Cursor  string
	Data                 struct{ N int }
}

// announced are the positions up to which what comes may have come before.
type announced event.Position

func (a announced) covers(c event.Cursor) bool {
	at, ok := event.Position(a).Of(c.Channel)
	return ok && at.Epoch == c.Epoch && c.Offset <= at.Offset
}

// attach is a WebSocket consumer: it takes events, acknowledges one by one or
// every few, until ctx ends or the line does.
func attach(ctx context.Context, n *node, book *ledger.Ledger, name, consumer string, each int) error {
	return attachTold(ctx, n, book, name, consumer, each, func() {})
}

// bye is how a gateway ended a line, and when to come back.
type bye struct {
	code   int
	reason string
	retry  time.Duration
}

func (b bye) Error() string { return fmt.Sprintf("bye %d: %s", b.code, b.reason) }

// attachTold is attach that calls greeted at hello.
func attachTold(ctx context.Context, n *node, book *ledger.Ledger, name, consumer string, each int, greeted func()) error {
	q := url.Values{"subscription": {name}, "consumer": {consumer}, "access_token": {token()}}
	c, _, err := websocket.Dial(ctx, strings.Replace(n.base, "http", "ws", 1)+"/v1/ws?"+q.Encode(), &websocket.DialOptions{Subprotocols: []string{"longline.v1"}})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	var again announced
	since := 0
	for {
		_, text, err := c.Read(ctx)
		if err != nil {
			return err
		}
		var e numbered
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		switch {
		case e.Op == "hello":
			greeted()
		case e.Op == "redelivery":
			p, err := event.ParsePosition(e.Cursor)
			if err != nil {
				return err
			}
			again = announced(p)
		case e.Op == "gap":
			book.Gap(e.From, e.To)
		case e.Op == "bye":
			return bye{e.Code, e.Reason, time.Duration(e.RetryMS) * time.Millisecond}
		case e.Op == "error":
			return fmt.Errorf("error: %s", text)
		case e.SpecVersion != "":
			at, err := event.ParseCursor(e.Cursor)
			if err != nil {
				return err
			}
			book.Given(ledger.Delivery{Number: e.Data.N, Cursor: at, By: consumer, Announced: again.covers(at)})
			book.Done(e.Data.N)
			if since++; since%each == 0 {
				if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"op":"ack","cursor":%q}`, e.Cursor)); err != nil {
					return err
				}
			}
		}
	}
}

// keepAttached attaches again and again until ctx ends, to one node after the
// other.
func keepAttached(ctx context.Context, book *ledger.Ledger, name, consumer string, each int, nodes ...*node) {
	for i := 0; ctx.Err() == nil; i++ {
		attach(ctx, nodes[i%len(nodes)], book, name, consumer, each)
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(100 * time.Millisecond)):
		}
	}
}

// stream is an SSE consumer that acknowledges by coming back, or by POST.
func stream(ctx context.Context, n *node, book *ledger.Ledger, name string, manual bool, last *string) error {
	return streamAnswered(ctx, n, book, name, manual, last, func(event.Cursor) {})
}

// streamAnswered is stream that calls answered with what a POST acknowledged.
func streamAnswered(ctx context.Context, n *node, book *ledger.Ledger, name string, manual bool, last *string, answered func(event.Cursor)) error {
	q := url.Values{"subscription": {name}, "consumer": {"stream"}, "window": {"50"}}
	if manual {
		q.Set("ack", "manual")
	}
	r, err := http.NewRequestWithContext(ctx, "GET", n.base+"/v1/sse?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token())
	r.Header.Set("Accept", "text/event-stream, application/problem+json")
	if *last != "" && !manual {
		r.Header.Set("Last-Event-ID", *last)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var again announced
	kind, id := "", ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			kind = value
		case "":
			if id != "" {
				*last = id
			}
			kind, id = "", ""
		case "data":
			var e numbered
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				return err
			}
			switch kind {
			case "longline.redelivery":
				p, _ := event.ParsePosition(e.Cursor)
				again = announced(p)
			case "longline.gap":
				book.Gap(e.From, e.To)
			case "":
				at, err := event.ParseCursor(e.Cursor)
				if err != nil {
					return err
				}
				book.Given(ledger.Delivery{Number: e.Data.N, Cursor: at, By: "stream", Announced: again.covers(at)})
				book.Done(e.Data.N)
				if manual && e.Data.N%10 == 0 {
					if _, err := n.do(ctx, "POST", "/v1/subscriptions/"+name+"/ack", map[string]string{"cursor": e.Cursor}, nil); err == nil {
						answered(at)
					}
				}
			}
		}
	}
	return ctx.Err()
}

// pullAll pulls until ctx ends.
func pullAll(ctx context.Context, n *node, book *ledger.Ledger, name string) error {
	ack := ""
	for ctx.Err() == nil {
		var out struct {
			Events []numbered
			Cursor string
		}
		q := url.Values{"max": {"20"}, "wait": {"1s"}, "consumer": {"puller"}, "hold": {"5s"}}
		if ack != "" {
			q.Set("ack", ack)
		}
		if _, err := n.do(ctx, "GET", "/v1/subscriptions/"+name+"/events?"+q.Encode(), nil, &out); err != nil {
			return err
		}
		for _, e := range out.Events {
			at, err := event.ParseCursor(e.Cursor)
			if err != nil {
				return err
			}
			// Pull has no word for it: what isn't acknowledged comes again.
			book.Given(ledger.Delivery{Number: e.Data.N, Cursor: at, By: "puller", Announced: true})
			book.Done(e.Data.N)
		}
		ack = out.Cursor
	}
	return nil
}

// receiver is a callback endpoint that misbehaves as it is told.
type receiver struct {
	*httptest.Server
	book *ledger.Ledger
	mode atomic.Value // string

	mu       sync.Mutex
	requests []time.Time
	poison   map[int]bool
	refused  map[int]int
}

func startReceiver(t *testing.T, book *ledger.Ledger) *receiver {
	r := &receiver{book: book, poison: map[int]bool{}, refused: map[int]int{}}
	r.mode.Store("")
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

// count returns how many requests came after a time.
func (r *receiver) count(after time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.requests {
		if at.After(after) {
			n++
		}
	}
	return n
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	text, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	var e numbered
	if err := json.Unmarshal(text, &e); err != nil {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	at, err := event.ParseCursor(e.Cursor)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.requests = append(r.requests, time.Now())
	poison := r.poison[e.Data.N]
	if poison {
		r.refused[e.Data.N]++
	}
	r.mu.Unlock()
	given := func() {
		r.book.Given(ledger.Delivery{
			Number: e.Data.N, Cursor: at, By: "callback",
			Announced: q.Header.Get("Longline-Redelivery") == "true" || q.Header.Get("Longline-Attempt") != "1",
		})
	}
	if poison {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	switch r.mode.Load().(string) {
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	case "429":
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case "redirect":
		w.Header().Set("Location", "http://169.254.169.254/latest/meta-data")
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "hang":
		select {
		case <-q.Context().Done():
		case <-time.After(10 * time.Second):
		}
	case "reset":
		given() // it may have been processed
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
		}
	case "slow":
		w.Header().Set("Content-Length", "200")
		w.WriteHeader(http.StatusInternalServerError)
		for range 200 {
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			http.NewResponseController(w).Flush()
			<-time.After(50 * time.Millisecond)
		}
	case "bomb":
		given()
		r.book.Done(e.Data.N)
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(bomb())
	default:
		given()
		r.book.Done(e.Data.N)
		w.WriteHeader(http.StatusNoContent)
	}
}

// bomb is 64 MiB of zeros, compressed.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range 64 {
		z.Write(zeros)
	}
	z.Close()
	return b.Bytes()
})
