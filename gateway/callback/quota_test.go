package callback_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
)

// TestWindowsAreBoundedInBytes: eight endpoints that don't answer, windows of
// 10,000 events, 100 KB each. What a node holds of them is bounded together.
func TestWindowsAreBoundedInBytes(t *testing.T) {
	const size = 100 << 10
	large := make([]byte, size)
	for _, tc := range []struct {
		name   string
		byKey  bool
		budget int
		want   int // bytes held at most
	}{
		{"by key, all share one budget", true, 16 << 20, 16<<20 + 8*(4+2)*size},
		{"in order, each has a page at hand", false, 64 << 20, 8 * (2<<20 + size)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{answer: func(call) reply { return reply{status: 200, takes: 50 * time.Second} }}
				engine := callback.New(callback.Options{Transport: e, MaxBytes: tc.budget})
				defer engine.Halt()
				var logs []*memory
				for i := range 8 {
					m := newMemory()
					for n := range 1000 {
						m.events = append(m.events, callback.Event{Cursor: cursor(n + 1), ID: "e", Key: itoa(n), JSON: large})
					}
					logs = append(logs, m)
					sub := callback.Subscription{
						Name: "crm-" + itoa(i), Target: callback.Target{URL: "https://crm.example.com/longline"}, Position: event.Position{cursor(0)},
						Window: 10_000, ByKey: tc.byKey, Concurrency: 4, Timeout: time.Minute,
					}
					if _, err := engine.Deliver(sub, m, m, nil); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(10 * time.Second)
				held := 0
				for _, m := range logs {
					m.mu.Lock()
					held += m.handed * size
					if m.handed < 4 {
						t.Errorf("a worker was given %d events, want each to have some", m.handed)
					}
					m.mu.Unlock()
				}
				if held > tc.want {
					t.Errorf("%d MB of events are held, want %d at most", held>>20, tc.want>>20)
				}
				e.say(nil)
				time.Sleep(time.Hour)
				for i, m := range logs {
					if m.position() != 1000 {
						t.Errorf("subscription %d stands at %d, want all 1,000 delivered", i, m.position())
					}
				}
			})
		})
	}
}

// TestWhatSleepersKeepIsInTheBudget: eight endpoints are down for hours, and
// their workers asleep with what they were sending; one that does well has what
// that leaves of the node's bytes, and no more.
func TestWhatSleepersKeepIsInTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, budget = 100 << 10, 4 << 20
		large := make([]byte, size)
		e := &endpoint{answer: func(call) reply { return reply{status: 503, takes: time.Second} }}
		engine := callback.New(callback.Options{Transport: e, MaxBytes: budget})
		defer engine.Halt()
		start := func(name string) *memory {
			t.Helper()
			m := newMemory()
			for n := range 200 {
				m.events = append(m.events, callback.Event{Cursor: cursor(n + 1), ID: "e", Key: itoa(n), JSON: large})
			}
			sub := callback.Subscription{
				Name: name, Target: callback.Target{URL: "https://" + name + ".example.com/longline"}, Position: event.Position{cursor(0)},
				Window: 1000, ByKey: true, Concurrency: 4, Timeout: time.Minute,
			}
			if _, err := engine.Deliver(sub, m, m, nil); err != nil {
				t.Fatal(err)
			}
			return m
		}
		var logs []*memory
		for i := range 8 {
			logs = append(logs, start("crm-"+itoa(i)))
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		for engine.Room() != 4096 { // those of an outage sleep, but for a call now and then
			time.Sleep(time.Second)
		}
		kept := e.most // in flight when the endpoints failed, and to be sent again first
		if kept != 8*4 {
			t.Fatalf("%d calls were on their way, want four to each endpoint", kept)
		}
		e.say(func(call) reply { return reply{status: 200, takes: 50 * time.Second} })
		well := start("well")
		time.Sleep(20 * time.Second)
		well.mu.Lock()
		if held := (kept + well.handed) * size; held > budget+4*size || well.handed < 4 {
			t.Errorf("%d KB are held with what sleeps, want %d at most; %d events of the one that does well, want four at least", held>>10, (budget+4*size)>>10, well.handed)
		}
		well.mu.Unlock()
		e.say(nil)
		time.Sleep(12 * time.Hour)
		for i, m := range append(logs, well) {
			if m.position() != 200 {
				t.Errorf("subscription %d stands at %d, want all delivered", i, m.position())
			}
		}
	})
}
