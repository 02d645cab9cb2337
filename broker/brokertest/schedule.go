package brokertest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

func dueOnce(t *testing.T, b Durable) {
	mustStore(t, b, broker.Update{Name: "now", Generation: 1})
	mustStore(t, b, broker.Update{Name: "soon", Generation: 1, Due: 30 * time.Millisecond})
	mustStore(t, b, broker.Update{Name: "later", Generation: 1, Due: time.Hour})
	mustStore(t, b, broker.Update{Name: "never", Generation: 1, Due: broker.Never})
	tickets := mustDue(t, b, time.Hour, "now", "soon")
	wantNothingDue(t, b)
	if err := b.Done(t.Context(), tickets); err != nil {
		t.Fatal(err)
	}

	// Nobody looked after it within the time it is hidden.
	mustReplace(t, b, broker.Update{Name: "never", Generation: 1})
	mustDue(t, b, 20*time.Millisecond, "never")
	mustDue(t, b, time.Hour, "never")
	// A store says when it is due next, hidden or not.
	mustReplace(t, b, broker.Update{Name: "never", Generation: 1})
	mustDue(t, b, time.Hour, "never")
	mustReplace(t, b, broker.Update{Name: "later", Generation: 1})
	if err := b.Delete(t.Context(), "later", mustLoad(t, b, "later").Version); err != nil {
		t.Fatal(err)
	}
	wantNothingDue(t, b)
}

func dueToOne(t *testing.T, b Durable) {
	const subscriptions = 60
	for i := range subscriptions {
		mustStore(t, b, broker.Update{Name: fmt.Sprint("s", i), Generation: 1})
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				tickets, _, err := b.Due(t.Context(), nil, 7, time.Hour)
				if err != nil {
					t.Error(err)
					return
				}
				if len(tickets) > 7 {
					t.Errorf("asked for 7, got %d", len(tickets))
				}
				mu.Lock()
				for _, ticket := range tickets {
					seen[ticket.Name]++
				}
				all := len(seen) == subscriptions
				mu.Unlock()
				if all || t.Context().Err() != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s was handed out %d times", name, n)
		}
	}
}

func waitForAppend(t *testing.T, b Durable) {
	at := mustAppendCursor(t, b, "a")
	idle := mustAppendCursor(t, b, "b")
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Channels: []string{"a", "b"}, Due: broker.Never,
		Set: event.Position{at, idle}, Wait: event.Position{at, idle}})
	wantNothingDue(t, b)
	var told atomic.Int64
	stop := b.OnDue(func(int) { told.Add(1) })
	defer stop()

	at = mustAppendCursor(t, b, "a")
	tickets := mustDue(t, b, time.Hour, "crm")
	eventually(t, "OnDue tells of it", func() bool { return told.Load() > 0 })
	// It is claimed, catches up and waits again before its ticket is dropped.
	mustReplace(t, b, broker.Update{Name: "crm", Generation: 2, Node: "n", Channels: []string{"a", "b"}, Due: broker.Never})
	mustReplace(t, b, broker.Update{Name: "crm", Generation: 2, Channels: []string{"a", "b"}, Due: broker.Never,
		Wait: event.Position{at, idle}})
	mustAppendCursor(t, b, "b")
	if err := b.Done(t.Context(), tickets); err != nil {
		t.Fatal(err)
	}
	tickets = mustDue(t, b, time.Hour, "crm")
	mustReplace(t, b, broker.Update{Name: "crm", Generation: 3, Node: "n", Channels: []string{"a", "b"}, Due: broker.Never})
	if err := b.Done(t.Context(), tickets); err != nil {
		t.Fatal(err)
	}
	wantNothingDue(t, b)
}

func waitTooLate(t *testing.T, b Durable) {
	old := mustAppendCursor(t, b, "a")
	mustAppendCursor(t, b, "a")
	mustStore(t, b, broker.Update{Name: "late", Generation: 1, Channels: []string{"a"}, Due: broker.Never, Wait: event.Position{old}})
	mustDue(t, b, time.Hour, "late")
	old.Epoch = "zzz"
	mustStore(t, b, broker.Update{Name: "lost", Generation: 1, Channels: []string{"a"}, Due: broker.Never, Wait: event.Position{old}})
	mustDue(t, b, time.Hour, "lost")
}

func waitForDrop(t *testing.T, b Durable) {
	at := mustAppendCursor(t, b, "a")
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Channels: []string{"a"}, Due: broker.Never, Wait: event.Position{at}})
	if err := b.Drop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	mustDue(t, b, time.Hour, "crm")
}

func waitRaces(t *testing.T, b Durable) {
	at := mustAppendCursor(t, b, "a")
	version := uint64(0)
	for i := range 100 {
		var wg sync.WaitGroup
		var next event.Cursor
		wg.Go(func() { next = mustAppendCursor(t, b, "a") })
		mustStore(t, b, broker.Update{Name: "crm", Version: version, Generation: 1, Channels: []string{"a"}, Due: broker.Never, Wait: event.Position{at}})
		wg.Wait()
		tickets := mustDue(t, b, time.Hour, "crm")
		mustReplace(t, b, broker.Update{Name: "crm", Generation: 1, Channels: []string{"a"}, Due: broker.Never})
		if err := b.Done(t.Context(), tickets); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("in round %d", i)
		}
		at, version = next, mustLoad(t, b, "crm").Version
	}
}

// mustDue waits until exactly the named subscriptions were handed out.
func mustDue(t *testing.T, b Durable, hide time.Duration, names ...string) []broker.Ticket {
	t.Helper()
	var all []broker.Ticket
	eventually(t, fmt.Sprintf("%q are due", names), func() bool {
		tickets, _, err := b.Due(t.Context(), nil, 100, hide)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tickets...)
		return len(all) >= len(names)
	})
	var got []string
	for _, ticket := range all {
		got = append(got, ticket.Name)
	}
	slices.Sort(got)
	if slices.Sort(names); !slices.Equal(slices.Compact(got), names) {
		t.Fatalf("due: got %q, want %q", got, names)
	}
	return all
}

func wantNothingDue(t *testing.T, b Durable) {
	t.Helper()
	tickets, _, err := b.Due(t.Context(), nil, 100, time.Hour)
	if err != nil || len(tickets) > 0 {
		t.Errorf("due: got %v, %v, want none", tickets, err)
	}
}
