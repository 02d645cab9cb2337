package callback_test

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
)

func TestDeliverUntilCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish("", "", "")
		d := deliver(t, m, e, nil)
		synctest.Wait()
		wantText(t, "calls", e.said(), "e1 e2 e3")
		time.Sleep(5 * time.Second) // within the linger, new events are taken at once
		m.publish("")
		published := time.Now()
		synctest.Wait()
		wantText(t, "calls", e.said(), "e1 e2 e3 e4")
		if at := e.seen()[3].at; !at.Equal(published) {
			t.Errorf("e4 was sent %v after it was published", at.Sub(published))
		}
		r := d.ends(t)
		if r.Outcome != callback.CaughtUp || r.Position[0] != cursor(4) || m.position() != 4 {
			t.Errorf("got outcome %v at %v, committed %d; want caught up at 4", r.Outcome, r.Position, m.position())
		}
		if got := len(r.Attempts); got != 4 {
			t.Errorf("got %d attempts, want 4", got)
		}
	})
}

func TestAcksAreCommittedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: func(call) reply { return reply{status: 200, takes: time.Millisecond} }}
		m.publish(repeat("", 1000)...)
		d := deliver(t, m, e, nil)
		d.ends(t)
		// A second of calls: one commit each 50 ms.
		if m.commits() < 15 || m.commits() > 25 {
			t.Errorf("1,000 acks in a second took %d commits", m.commits())
		}
	})
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish("", "")
		d := deliver(t, m, e, func(s *callback.Subscription) { s.MaxEvents, s.MaxWait = 3, 4*time.Second })
		start := time.Now()
		time.Sleep(time.Second)
		m.publish("", "", "") // the first batch is full now, e4 and e5 wait
		time.Sleep(10 * time.Second)
		m.publish("")
		d.ends(t)
		wantText(t, "calls", e.said(), "e1+e2+e3 e4+e5 e6")
		var at []string
		for _, c := range e.seen() {
			at = append(at, c.at.Sub(start).String())
			if !strings.HasPrefix(c.body, "[") || c.header.Get("Content-Type") != "application/cloudevents-batch+json" {
				t.Errorf("%v is no batch: %s", c.ids, c.body)
			}
		}
		wantText(t, "sent after", strings.Join(at, " "), "1s 5s 15s")
		wantText(t, "cursor of e1+e2+e3", e.seen()[0].header.Get("Longline-Cursor"), "acct-42@k3f9zq-3")
	})
}

func TestBatchKeepsItsIDOnRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		e.answer = func(c call) reply {
			if c.attempt != "3" {
				return reply{status: 500}
			}
			return reply{status: 200}
		}
		m.publish("", "")
		d := deliver(t, m, e, func(s *callback.Subscription) { s.MaxEvents = 10 })
		synctest.Wait()
		m.publish("", "", "")
		d.ends(t)
		calls := e.seen()
		wantText(t, "calls", e.said(), "e1+e2 e1+e2 e1+e2 e3+e4+e5 e3+e4+e5 e3+e4+e5")
		id := calls[0].header.Get("Webhook-Id")
		if id == "" || strings.Contains(id, ".") {
			t.Errorf("batch has id %q, want one without dots", id)
		}
		for i, c := range calls {
			if same := c.header.Get("Webhook-Id") == id; same != (i < 3) {
				t.Errorf("call %d (%v) has id %q, the first one %q", i, c.ids, c.header.Get("Webhook-Id"), id)
			}
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish(repeat("", 100)...)
		d := deliver(t, m, e, func(s *callback.Subscription) { s.Rate = 20 })
		start := time.Now()
		d.ends(t)
		calls := e.seen()
		if len(calls) != 100 {
			t.Fatalf("got %d calls, want 100", len(calls))
		}
		for i, c := range calls {
			// A burst of one second's worth, then one each 50 ms.
			due := max(0, time.Duration(i-19)*50*time.Millisecond)
			if got := c.at.Sub(start); got < due || got > due+time.Millisecond {
				t.Errorf("call %d came after %v, want %v", i, got, due)
			}
			if c.attempt != "1" {
				t.Errorf("call %d was attempt %s: pacing burns no attempt", i, c.attempt)
			}
		}
	})
}

func TestSlowRateNeedsNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish("", "", "")
		d := deliver(t, m, e, func(s *callback.Subscription) { s.Rate = 0.01 })
		start := time.Now()
		time.Sleep(time.Second)
		if got := d.engine.Room(); got != 4096 {
			t.Errorf("room is %d while the only worker waits for its rate, want 4096", got)
		}
		d.ends(t)
		if got := e.seen()[2].at.Sub(start).Round(time.Second); got != 200*time.Second {
			t.Errorf("the third call came after %v, want 200s", got)
		}
	})
}

func TestLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		e.answer = func(c call) reply { return reply{status: 200, takes: time.Second} }
		var keys []string
		for i := range 60 {
			keys = append(keys, fmt.Sprint("k", i%6))
		}
		m.publish(keys...)
		d := deliver(t, m, e, func(s *callback.Subscription) { s.ByKey, s.Concurrency = true, 4 })
		start := time.Now()
		d.ends(t)
		calls := e.seen()
		if e.most != 4 || len(calls) != 60 {
			t.Errorf("got %d calls, %d at most at once; want 60, 4", len(calls), e.most)
		}
		if took := calls[59].at.Sub(start); took > 16*time.Second {
			t.Errorf("60 calls of 1 s in 4 lanes took %v", took)
		}
		last := map[string]int{}
		for _, c := range calls {
			n, _ := strconv.Atoi(c.ids[0][1:])
			key := keys[n-1]
			if n <= last[key] {
				t.Errorf("key %s: e%d was sent after e%d", key, n, last[key])
			}
			last[key] = n
		}
		if m.position() != 60 {
			t.Errorf("committed %d, want 60", m.position())
		}
	})
}

func TestAStuckKeyHoldsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		e.answer = func(c call) reply {
			if c.ids[0] == "e1" {
				return reply{status: 200, takes: 10 * time.Second}
			}
			return reply{status: 200}
		}
		m.publish("stuck", "stuck")
		m.publish(repeat("free", 300)...)
		d := deliver(t, m, e, func(s *callback.Subscription) { s.ByKey, s.Concurrency, s.Window = true, 2, 100 })
		time.Sleep(9 * time.Second)
		// At most window events past the contiguous prefix, e1 and e2 included,
		// less the few that are kept for trying others.
		if got := len(e.seen()); got != 1+100-2-3 {
			t.Errorf("%d calls while the first key is stuck", got)
		}
		if m.position() != 0 {
			t.Errorf("committed %d while e1 is not done", m.position())
		}
		d.ends(t)
		if len(e.seen()) != 302 || m.position() != 302 {
			t.Errorf("got %d calls, committed %d; want 302", len(e.seen()), m.position())
		}
	})
}

func TestYield(t *testing.T) {
	for _, tc := range []struct {
		name  string
		takes time.Duration
		ends  time.Duration
		at    int
	}{
		{"the call in flight ends in time", time.Second, time.Second, 1},
		{"it doesn't", 10 * time.Second, callback.Patience, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := newMemory(), &endpoint{}
				e.answer = func(call) reply { return reply{status: 200, takes: tc.takes} }
				m.publish("", "", "")
				d := deliver(t, m, e, nil)
				synctest.Wait()
				start := time.Now()
				d.worker.Yield(callback.Patience)
				r := d.ends(t)
				if r.Outcome != callback.Yielded || time.Since(start) != tc.ends {
					t.Errorf("got outcome %v after %v, want yielded after %v", r.Outcome, time.Since(start), tc.ends)
				}
				wantText(t, "calls", e.said(), "e1")
				if m.position() != tc.at {
					t.Errorf("committed %d, want %d", m.position(), tc.at)
				}
			})
		})
	}
}

func TestYieldWhileAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: func(call) reply {
			return reply{status: 503, header: http.Header{"Retry-After": {"3600"}}}
		}}
		m.publish("")
		d := deliver(t, m, e, nil)
		time.Sleep(time.Minute)
		start := time.Now()
		d.worker.Yield(callback.Patience)
		if r := d.ends(t); r.Outcome != callback.Yielded || time.Since(start) != 0 {
			t.Errorf("got outcome %v after %v", r.Outcome, time.Since(start))
		}
	})
}

func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: func(call) reply { return reply{status: 200, takes: 30 * time.Millisecond} }}
		m.publish(repeat("", 100)...)
		d := deliver(t, m, e, nil)
		time.Sleep(time.Second)
		m.fence()
		start, calls := time.Now(), len(e.seen())
		r := d.ends(t)
		if r.Outcome != callback.Fenced || time.Since(start) > 100*time.Millisecond || len(e.seen()) > calls+3 {
			t.Errorf("got outcome %v after %v and %d calls", r.Outcome, time.Since(start), len(e.seen())-calls)
		}
	})
}

func TestHaltCancelsCallsAndCommitsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: func(call) reply { return reply{status: 200, takes: time.Minute} }}
		m.publish("", "")
		d := deliver(t, m, e, nil)
		synctest.Wait()
		start := time.Now()
		d.engine.Halt()
		if r := d.ends(t); r.Outcome != callback.Halted || time.Since(start) != 0 || m.commits() != 0 {
			t.Errorf("got outcome %v after %v, %d commits", r.Outcome, time.Since(start), m.commits())
		}
	})
}

func TestCloseLetsCallsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: func(call) reply { return reply{status: 200, takes: 8 * time.Second} }}
		m.publish("", "")
		d := deliver(t, m, e, nil)
		synctest.Wait()
		ctx, cancel := contextFor(10 * time.Second)
		defer cancel()
		d.engine.Close(ctx)
		if r := d.ends(t); r.Outcome != callback.Yielded || m.position() != 1 {
			t.Errorf("got outcome %v, committed %d; want yielded at 1", r.Outcome, m.position())
		}
		if _, err := d.engine.Deliver(callback.Subscription{}, m, m, nil); !errors.Is(err, callback.ErrClosed) {
			t.Errorf("a closed engine answers %v", err)
		}
	})
}

func TestBrokerAway(t *testing.T) {
	for _, window := range []int{1, 4, 150} {
		t.Run(fmt.Sprint("window ", window), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := newMemory(), &endpoint{answer: func(call) reply { return reply{status: 200, takes: time.Millisecond} }}
				m.publish(repeat("", 1000)...)
				d := deliver(t, m, e, func(s *callback.Subscription) { s.Window = window })
				time.Sleep(200 * time.Millisecond)
				m.trouble(errors.New("away"))
				time.Sleep(time.Minute)
				// What is sent but can't be acknowledged would all come again.
				if ahead := len(e.seen()) - m.position(); ahead > 2*window {
					t.Errorf("%d events were sent beyond what is committed", ahead)
				}
				m.trouble(nil)
				d.ends(t)
				if m.position() != 1000 || len(e.seen()) != 1000 {
					t.Errorf("committed %d after %d calls, want 1,000", m.position(), len(e.seen()))
				}
			})
		})
	}
}

func TestGapIsToldAndPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish("", "", "", "")
		m.first = 2
		d := deliver(t, m, e, nil)
		d.ends(t)
		wantText(t, "calls", e.said(), "e3 e4")
		wantText(t, "notices", m.noticed(), "gap")
	})
}

// One event of a backlog is held while its endpoint is down, and no goroutine.
func TestMemoryOfADeadEndpointsSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		e := &endpoint{forget: true, answer: status(503)}
		engine := callback.New(callback.Options{Transport: e, Linger: time.Second})
		t.Cleanup(engine.Halt)
		logs := make([]*memory, n)
		for i := range logs {
			logs[i] = newMemory()
			logs[i].publish(repeat("", 300)...)
		}
		before := heap()
		for i, m := range logs {
			if _, err := engine.Deliver(callback.Subscription{
				Name: fmt.Sprint("crm-", i), Position: event.Position{cursor(0)},
				Target: callback.Target{URL: "https://crm.example.com/longline", Headers: map[string]string{"X-Tenant": "42"}},
			}, m, m, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Minute) // backoff is minutes now: all are asleep
		if room := engine.Room(); room < 4096-n/10 {
			t.Errorf("room is %d: workers are awake", room)
		}
		if each := (heap() - before) / n; each > 10<<10 {
			t.Errorf("a subscription with a dead endpoint holds %d bytes", each)
		} else {
			t.Logf("%d bytes each", each)
		}
	})
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
