package brokertest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// partsTold are the parts of a schedule that OnDue named.
type partsTold struct {
	mu    sync.Mutex
	parts []int
}

func (p *partsTold) add(part int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts = append(p.parts, part)
}

func (p *partsTold) take() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	parts := p.parts
	p.parts = nil
	return parts
}

// manyWait: one event wakes two thousand. They are handed out in pieces by the
// part that was named, each once, and whoever waits anew for what comes next is
// left alone.
func manyWait(t *testing.T, b Durable) {
	const many = 2000
	ctx := t.Context()
	at := mustAppendCursor(t, b, "a")
	idle := mustAppendCursor(t, b, "b")
	park := func(name string, store func(*testing.T, Durable, broker.Update), at event.Cursor) {
		store(t, b, broker.Update{Name: name, Generation: 1, Channels: []string{at.Channel},
			Due: broker.Never, Wait: event.Position{at}})
	}
	var wg sync.WaitGroup
	for worker := range 20 {
		wg.Go(func() {
			for i := worker; i < many; i += 20 {
				park(fmt.Sprintf("s%04d", i), mustStore, at)
			}
		})
	}
	park("another", mustStore, idle)
	wg.Wait()

	var told partsTold
	stop := b.OnDue(told.add)
	defer stop()
	at = mustAppendCursor(t, b, "a")
	seen := map[string]int{}
	var parts []int // that were named, or left
	eventually(t, "all are woken by the parts that are named", func() bool {
		parts = append(parts, told.take()...)
		slices.Sort(parts)
		if parts = slices.Compact(parts); len(parts) == 0 {
			return false
		}
		tickets, left, err := b.Due(ctx, parts, 50, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if len(tickets) > 50 {
			t.Errorf("asked for 50, got %d", len(tickets))
		}
		for _, ticket := range tickets {
			seen[ticket.Name]++
		}
		if err := b.Done(ctx, tickets); err != nil {
			t.Fatal(err)
		}
		// Some are quick and wait again while others are still being woken.
		for _, ticket := range tickets[:min(3, len(tickets))] {
			park(ticket.Name, mustReplace, at)
		}
		parts = left
		return len(seen) == many
	})
	if len(seen) != many || seen["another"] > 0 {
		t.Errorf("woken: got %d, want %d", len(seen), many)
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s was handed out %d times", name, n)
		}
	}
	wantNothingDue(t, b)
}

// changedWhileWoken: the channel changes again while those who waited for it
// are being woken, and some have come back to wait: they are woken again.
func changedWhileWoken(t *testing.T, b Durable) {
	const many = 600
	ctx := t.Context()
	at := mustAppendCursor(t, b, "a")
	for i := range many {
		mustStore(t, b, broker.Update{Name: fmt.Sprintf("s%04d", i), Generation: 1, Due: broker.Never, Wait: event.Position{at}})
	}
	at = mustAppendCursor(t, b, "a")
	tickets, _, err := b.Due(ctx, nil, 10, time.Hour)
	if err != nil || len(tickets) == 0 {
		t.Fatalf("due: %d, %v, want some", len(tickets), err)
	}
	back := tickets[0]
	mustReplace(t, b, broker.Update{Name: back.Name, Generation: 1, Due: broker.Never, Wait: event.Position{at}})
	if err := b.Done(ctx, tickets); err != nil {
		t.Fatal(err)
	}
	mustAppendCursor(t, b, "a")
	again := map[string]bool{}
	eventually(t, "all are woken, and the one that came back once more", func() bool {
		tickets, _, err := b.Due(ctx, nil, 100, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, ticket := range tickets {
			again[ticket.Name] = true
		}
		return len(again) >= many-9 && again[back.Name]
	})
}
