package ledger_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/internal/ledger"
)

// many is how many subscriptions a crowd has.
func many(few, lot int) int {
	if *long {
		return lot
	}
	return few
}

// crowd puts subscriptions with a callback each, each with its own channel.
func crowd(t *testing.T, n *node, count int, url, grace string) {
	t.Helper()
	each(t, count, func(i int) error {
		_, err := n.do(t.Context(), "PUT", fmt.Sprintf("/v1/subscriptions/s%d", i), map[string]any{
			"channels": []string{"c" + strconv.Itoa(i)}, "callback": map[string]any{"url": url, "grace": grace},
		}, nil)
		return err
	})
}

// each calls f for 0 to count-1, many at once.
func each(t *testing.T, count int, f func(i int) error) {
	t.Helper()
	var wait sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wait.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// TestReturnWithinTheGraceCausesNoCallback takes all connections from a crowd
// at once, with events waiting, and lets it come back.
func TestReturnWithinTheGraceCausesNoCallback(t *testing.T) {
	count := many(300, 10_000)
	n := startNode(t, "embedded:"+t.TempDir(), "one")
	book := ledger.New()
	r := startReceiver(t, book)
	crowd(t, n, count, r.URL, "60s")
	attachAll := func() (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		slots := make(chan struct{}, 64)
		for i := range count {
			slots <- struct{}{}
			up := sync.OnceFunc(func() { <-slots })
			wait.Go(func() {
				defer up()
				time.AfterFunc(50*time.Millisecond, up)
				attach(ctx, n, book, "s"+strconv.Itoa(i), "c", 1)
			})
		}
		live := func() bool {
			var out struct{ Subscriptions []struct{ Name string } }
			n.must("GET", "/v1/subscriptions?limit=1&state=callback", nil, &out)
			if len(out.Subscriptions) > 0 {
				return false
			}
			n.must("GET", "/v1/subscriptions?limit=1&state=waiting", nil, &out)
			return len(out.Subscriptions) == 0
		}
		within(t, time.Minute, "all are attached", live)
		return func() { cancel(); wait.Wait() }
	}
	end := attachAll()
	end()
	each(t, count, func(i int) error {
		_, err := n.do(t.Context(), "POST", fmt.Sprintf("/v1/channels/c%d/events", i), map[string]any{"type": "t", "data": map[string]int{"n": i}}, nil)
		return err
	})
	end = attachAll()
	eventually(t, "all have their event", func() bool { _, done := book.Counts(); return done == count })
	end()
	if calls := r.count(time.Time{}); calls > 0 {
		t.Errorf("%d callbacks, want none", calls)
	}
}

// TestParkedSubscriptionsCostNothing has a crowd of subscriptions that nobody
// attaches to, and looks at what Redis is asked meanwhile.
func TestParkedSubscriptionsCostNothing(t *testing.T) {
	count := many(500, 100_000)
	server := redistest.Start(t)
	n := startNode(t, server.URL(), "one")
	r := startReceiver(t, ledger.New())
	crowd(t, n, count, r.URL, "1s")
	eventually(t, "all are parked", func() bool {
		var out struct {
			Subscriptions []struct{ Status struct{ Node string } }
		}
		n.must("GET", "/v1/subscriptions?limit=1000&state=callback", nil, &out)
		for _, s := range out.Subscriptions {
			if s.Status.Node != "" {
				return false
			}
		}
		return len(out.Subscriptions) == min(count, 1000)
	})
	// What was just made is visited once by retention; then there is rest. The
	// node's own probe, an event every two seconds, its leases and its look at
	// what is due are among what remains, however many subscriptions there are.
	var perSecond float64
	for range 24 {
		before, since := reads(t, server), time.Now()
		wait := time.NewTimer(5 * time.Second)
		<-wait.C
		perSecond = float64(reads(t, server)-before) / time.Since(since).Seconds()
		t.Logf("%.1f round trips a second", perSecond)
		if perSecond <= 16 {
			break
		}
	}
	if perSecond > 16 {
		t.Errorf("%.1f round trips a second, want 16 at most", perSecond)
	}
	var worst time.Duration
	for i := range 20 {
		at := time.Now()
		had := r.count(time.Time{})
		n.must("POST", fmt.Sprintf("/v1/channels/c%d/events", i*count/20), map[string]any{"type": "t", "data": map[string]int{"n": i}}, nil)
		for r.count(time.Time{}) == had {
			if time.Since(at) > 10*time.Second {
				t.Fatal("an event for a parked subscription was not called back")
			}
			<-time.After(time.Millisecond)
		}
		worst = max(worst, time.Since(at))
	}
	t.Logf("%d parked: %.1f round trips a second; an event is called back within %v at worst", count, perSecond, worst.Round(time.Millisecond))
}

// reads is how many times Redis read from its connections.
func reads(t *testing.T, server *redistest.Server) int {
	t.Helper()
	text, _ := server.Do("INFO", "stats").(string)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "total_reads_processed:"); ok {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no total_reads_processed in %q", text)
	return 0
}
