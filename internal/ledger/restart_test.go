package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/ledger"
)

// client is a consumer of its own subscription that comes back when it is told
// to, to whichever node takes it.
type client struct {
	name string
	book *ledger.Ledger

	mu      sync.Mutex
	greeted int
	waits   []wait
}

// wait is how long a client was without a line.
type wait struct {
	began        time.Time
	told, lasted time.Duration
}

func (c *client) run(ctx context.Context, at int, nodes ...*node) {
	var left time.Time // when the line ended, zero at first
	var told time.Duration
	for ; ctx.Err() == nil; at++ {
		err := attachTold(ctx, nodes[at%len(nodes)], c.book, c.name, "c", 1, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.greeted++
			if !left.IsZero() {
				c.waits = append(c.waits, wait{left, told, time.Since(left)})
				left = time.Time{}
			}
		})
		var b bye
		retry := 50 * time.Millisecond // nobody there: the next node
		if errors.As(err, &b) {
			retry = b.retry
		}
		if left.IsZero() {
			left, told = time.Now(), retry
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

func (c *client) connected() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.greeted
}

// TestRollingRestart restarts two gateways one after the other under load, with
// many clients, each of which has a subscription with a callback. Nobody loses
// anything, and no callback is called: those who must leave come back inside
// the grace.
func TestRollingRestart(t *testing.T) {
	clients, perSecond := 200, 20
	if *long {
		clients, perSecond = 2000, 5
	}
	server := redisURL(t)
	nodes := []*node{startNode(t, server, "one"), startNode(t, server, "two")}
	calls := ledger.New()
	r := startReceiver(t, calls)
	all := make([]*client, clients)
	var made sync.WaitGroup
	for worker := range 16 {
		made.Go(func() {
			for i := worker; i < clients; i += 16 {
				all[i] = &client{name: fmt.Sprintf("crm-%d", i), book: ledger.New()}
				if _, err := nodes[i%2].do(t.Context(), "PUT", "/v1/subscriptions/"+all[i].name, map[string]any{
					"channels": []string{"acct-1"}, "callback": map[string]any{"url": r.URL},
				}, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	made.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	leave := sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(leave)
	for i, c := range all {
		running.Go(func() { c.run(ctx, i, nodes...) })
	}
	everybody := func(what string, is func(*client) bool) {
		t.Helper()
		within(t, 2*time.Minute, what, func() bool {
			return !slices.ContainsFunc(all, func(c *client) bool { return !is(c) })
		})
	}
	everybody("all are connected", func(c *client) bool { return c.connected() > 0 })

	book := ledger.New()
	p := publish(t, book, perSecond, nodes...)
	var told []time.Time
	for _, n := range nodes {
		now, _ := book.Counts()
		everybody("events flow", func(c *client) bool { return len(c.book.Deliveries()) >= now+5 })
		told = append(told, time.Now())
		n.end()
		n.start()
	}
	now, _ := book.Counts()
	within(t, time.Minute, "more is published", func() bool { n, _ := book.Counts(); return n >= now+10 })
	p.finish()

	for _, c := range all {
		book.Copy(c.book)
	}
	var sum ledger.Account
	everybody("everything is accounted for", func(c *client) bool {
		var s struct{ Cursor string }
		if _, err := nodes[0].do(t.Context(), "GET", "/v1/subscriptions/"+c.name, nil, &s); err != nil {
			return false
		}
		at, err := event.ParsePosition(s.Cursor)
		if err != nil {
			t.Fatal(err)
		}
		return len(c.book.Balance(at, false).Pending) == 0
	})
	var back []time.Duration // since the node they were at was told to end
	late, worst := 0, time.Duration(0)
	for _, c := range all {
		var s struct{ Cursor string }
		nodes[0].must("GET", "/v1/subscriptions/"+c.name, nil, &s)
		at, err := event.ParsePosition(s.Cursor)
		if err != nil {
			t.Fatal(err)
		}
		a := c.book.Balance(at, false)
		if len(a.Lost) > 0 || a.Gap > 0 || len(a.Unannounced) > 0 || len(a.Disordered) > 0 {
			t.Errorf("%s lost %v, %d are in gaps, %v came twice without a word, out of order %q", c.name, a.Lost, a.Gap, a.Unannounced, a.Disordered)
		}
		sum.Published, sum.Duplicates = sum.Published+a.Published, sum.Duplicates+a.Duplicates
		c.mu.Lock()
		for _, w := range c.waits {
			i, _ := slices.BinarySearchFunc(told, w.began, time.Time.Compare)
			back = append(back, w.began.Add(w.lasted).Sub(told[max(i-1, 0)]))
			worst = max(worst, w.lasted-w.told)
			if w.lasted > w.told+5*time.Second {
				late++
			}
		}
		c.mu.Unlock()
	}
	leave()
	if n := r.count(time.Time{}); n > 0 {
		t.Errorf("%d callbacks were called", n)
	}
	t.Logf("%d clients had %d events, %d of them twice, announced; %d reconnects, at most %v later than told, since their gateway was told to end:%s",
		clients, sum.Published, sum.Duplicates, len(back), worst.Round(time.Millisecond), histogram(back))
	if *long && late > 0 {
		t.Errorf("%d clients waited for more than 5 s longer than they were told", late)
	}
}

// histogram counts times by half seconds.
func histogram(times []time.Duration) string {
	const step = 500 * time.Millisecond
	slices.Sort(times)
	var text strings.Builder
	for from := time.Duration(0); len(times) > 0; from += step {
		n, _ := slices.BinarySearch(times, from+step)
		fmt.Fprintf(&text, "\n%6v: %d", from, n)
		times = times[n:]
	}
	return text.String()
}
