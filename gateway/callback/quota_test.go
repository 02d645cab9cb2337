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
