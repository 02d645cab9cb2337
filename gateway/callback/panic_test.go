package callback_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/guard"
)

// silent notes panics where nobody looks.
func silent() *guard.Guard { return guard.New(slog.New(slog.NewTextHandler(io.Discard, nil)), nil) }

// A call that panics is one that failed: it is made again, in line and beside
// others.
func TestAPanicEndsTheCallItIsIn(t *testing.T) {
	for _, concurrency := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			m, broken := newMemory(), atomic.Bool{}
			broken.Store(true)
			e := &endpoint{answer: func(c call) reply {
				if c.ids[0] == "e2" && broken.Swap(false) {
					panic("a mistake")
				}
				return reply{status: 200}
			}}
			m.publish("a", "b", "c")
			d := deliver(t, m, e, func(s *callback.Subscription) { s.ByKey, s.Concurrency = concurrency > 1, concurrency })
			if r := d.ends(t); r.Outcome != callback.CaughtUp || m.position() != 3 || m.deadIDs() != "" {
				t.Errorf("got outcome %v at %d, dead %q; want caught up at 3", r.Outcome, m.position(), m.deadIDs())
			}
			if n := strings.Count(e.said(), "e2"); n != 2 {
				t.Errorf("e2 was sent %d times (%s), want twice", n, e.said())
			}
		})
	}
}

// faulty is a Source that panics.
type faulty struct{ *memory }

func (f faulty) Read(ctx context.Context, after event.Position, limit, bytes int) (callback.Page, error) {
	if after[0].Offset > 0 {
		panic("a mistake")
	}
	return f.memory.Read(ctx, after, limit, bytes)
}

// A worker that panics ends, says how far it may have delivered, and leaves
// the engine as any other does.
func TestAPanicEndsTheWorkerItIsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish("", "")
		engine := callback.New(callback.Options{Transport: e, Guard: silent()})
		result := make(chan callback.Result, 1)
		_, err := engine.Deliver(callback.Subscription{
			Name: "crm-42", Target: callback.Target{URL: "https://crm.example.com/longline"}, Position: event.Position{cursor(0)},
		}, faulty{m}, m, func(r callback.Result) { result <- r })
		if err != nil {
			t.Fatal(err)
		}
		r := <-result
		if r.Outcome != callback.Broken || len(r.DeliveredUpTo) != 1 || r.DeliveredUpTo[0] != cursor(2) {
			t.Errorf("got outcome %v, delivered up to %v; want broken, up to 2", r.Outcome, r.DeliveredUpTo)
		}
		engine.Close(t.Context()) // which waits for it
	})
}
