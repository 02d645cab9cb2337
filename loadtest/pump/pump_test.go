package pump_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/loadtest/child"
	"github.com/longline-push/longline/loadtest/floor"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/token"
)

func TestMain(m *testing.M) {
	child.Run(map[string]child.Main{floor.Role: floor.Run})
	goleak.VerifyTestMain(m)
}

// inbox is a gateway that keeps what is published and answers as it is told.
type inbox struct {
	*httptest.Server
	answer func(w http.ResponseWriter, n int) // n counts requests from 1

	mu     sync.Mutex
	n      int
	bodies []string
	auths  []string
	paths  []string
}

func newInbox(t *testing.T, answer func(w http.ResponseWriter, n int)) *inbox {
	t.Helper()
	in := &inbox{answer: answer}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		in.mu.Lock()
		in.n++
		n := in.n
		in.bodies, in.auths, in.paths = append(in.bodies, string(b)), append(in.auths, r.Header.Get("Authorization")), append(in.paths, r.URL.Path)
		in.mu.Unlock()
		in.answer(w, n)
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) addr() string { return strings.TrimPrefix(in.URL, "http://") }

func mustRun(t *testing.T, o pump.Options) *pump.Pump {
	t.Helper()
	p, err := pump.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(0) })
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the pump didn't end within 20s")
	}
	return p
}

func TestWhatIsPublished(t *testing.T) {
	in := newInbox(t, func(w http.ResponseWriter, _ int) { io.WriteString(w, "{}") })
	p := mustRun(t, pump.Options{Target: in.addr(), Base: "c", Channels: 2, Batch: 2, Limit: 8, Size: 80, Tokens: token.Source{Fixed: "secret"}})
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	seen := map[string]int{}
	for i, b := range in.bodies {
		var events []struct {
			ID, Type string
			Data     json.RawMessage
		}
		if err := json.Unmarshal([]byte(b), &events); err != nil {
			t.Fatalf("body %s: %v", b, err)
		}
		for _, e := range events {
			var d struct{ Seq int }
			if err := json.Unmarshal(e.Data, &d); err != nil {
				t.Fatal(err)
			}
			if want := seen[in.paths[i]] + 1; d.Seq != want || e.ID != "" || len(e.Data) != 80 {
				t.Errorf("%s: got number %d, id %q, %d bytes, want %d, none, 80", in.paths[i], d.Seq, e.ID, len(e.Data), want)
			}
			seen[in.paths[i]] = d.Seq
		}
		if got := in.auths[i]; got != "Bearer secret" {
			t.Errorf("authorization: got %q", got)
		}
	}
	for _, ch := range []string{"/v1/channels/c.0/events", "/v1/channels/c.1/events"} {
		if seen[ch] != 4 {
			t.Errorf("%s: got %d events, want 4", ch, seen[ch])
		}
	}
	if heads := p.Heads(); fmt.Sprint(heads) != "[4 4]" {
		t.Errorf("heads: got %v", heads)
	}
	if st := p.State(); st.Answered != 8 || st.Latency.Count() != 4 || st.Failures != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestAnswersOfAllShapes(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for name, answer := range map[string]func(http.ResponseWriter, int){
		"empty": func(w http.ResponseWriter, _ int) {},
		"chunked": func(w http.ResponseWriter, _ int) {
			io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			io.WriteString(w, "}")
		},
		"long": func(w http.ResponseWriter, _ int) { io.WriteString(w, long) },
	} {
		in := newInbox(t, answer)
		if p := mustRun(t, pump.Options{Target: in.addr(), Base: "c", Limit: 5}); p.Err() != nil || p.Heads()[0] != 5 {
			t.Errorf("%s: got heads %v, error %v", name, p.Heads(), p.Err())
		}
	}
}

func TestRefusalEndsThePump(t *testing.T) {
	in := newInbox(t, func(w http.ResponseWriter, n int) {
		if n == 3 {
			http.Error(w, "no more room", http.StatusInsufficientStorage)
		}
	})
	p := mustRun(t, pump.Options{Target: in.addr(), Base: "c", Limit: 100})
	if err := p.Err(); !errors.Is(err, pump.ErrRefused) || !strings.Contains(err.Error(), "no more room") {
		t.Errorf("got %v, want ErrRefused with the answer's text", err)
	}
	if got := p.Heads()[0]; got != 2 {
		t.Errorf("head: got %d, want 2", got)
	}
}

func TestRetrySendsTheSameAgain(t *testing.T) {
	in := newInbox(t, func(w http.ResponseWriter, n int) {
		switch n % 3 {
		case 0:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case 1:
			panic(http.ErrAbortHandler) // cut the connection
		}
	})
	p := mustRun(t, pump.Options{Target: in.addr(), Base: "c", Limit: 4, Retry: true})
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	distinct := map[string]bool{}
	for _, b := range in.bodies {
		distinct[b] = true
		if !strings.Contains(b, `"id":"0-`) {
			t.Errorf("no id in %s", b)
		}
	}
	if len(distinct) != 4 || len(in.bodies) <= 4 || p.Heads()[0] != 4 {
		t.Errorf("got %d bodies, %d of them distinct, head %d", len(in.bodies), len(distinct), p.Heads()[0])
	}
}

// TestStallShowsInLatency holds one answer back: all that was due meanwhile
// has waited, and its latency must say so.
func TestStallShowsInLatency(t *testing.T) {
	const stall = 300 * time.Millisecond
	in := newInbox(t, func(w http.ResponseWriter, n int) {
		if n == 1 {
			<-time.After(stall)
		}
	})
	p := mustRun(t, pump.Options{Target: in.addr(), Base: "c", Rate: 1000, Limit: 100})
	h := p.State().Latency
	// All hundred were due in the first 100 ms of the stall: none can have been
	// answered sooner than 200 ms after it was due.
	if got := h.Quantile(0); got < stall-110*time.Millisecond {
		t.Errorf("shortest of %d latencies: got %v, want at least %v", h.Count(), got, stall-110*time.Millisecond)
	}
}

// TestPrimingIsOutsideTheRate publishes once to each channel before a rate
// begins at which that would take an hour.
func TestPrimingIsOutsideTheRate(t *testing.T) {
	in := newInbox(t, func(w http.ResponseWriter, _ int) { io.WriteString(w, "{}") })
	p := mustRun(t, pump.Options{Target: in.addr(), Base: "c", Channels: 30, Conns: 4, Rate: 0.01, Prime: true, Limit: 30})
	if st := p.State(); p.Err() != nil || st.Answered != 30 {
		t.Errorf("%d answered, %v; want 30", st.Answered, p.Err())
	}
	for i, head := range p.Heads() {
		if head != 1 {
			t.Errorf("channel %d was published to %d times, want once", i, head)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, o := range []pump.Options{{Target: "nowhere"}, {Target: "127.0.0.1:1", Transport: "smoke"}} {
		if p, err := pump.Start(o); err == nil {
			_ = p.Stop(0)
			t.Errorf("%+v: got no error", o)
		}
	}
	if p := mustRun(t, pump.Options{Target: "127.0.0.1:1", Base: "c", Limit: 1}); p.Err() == nil {
		t.Error("nobody listens: got no error")
	}
}

func TestFloorAnswersBothTransports(t *testing.T) {
	f, err := floor.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	for _, by := range []string{pump.HTTP, pump.WebSocket} {
		p := mustRun(t, pump.Options{Target: f.Addr, Transport: by, Base: by, Channels: 20, Conns: 4, Batch: 5, Limit: 1000})
		if st := p.State(); p.Err() != nil || st.Answered != 1000 {
			t.Errorf("%s: got %d answered, error %v", by, st.Answered, p.Err())
		}
	}
}
