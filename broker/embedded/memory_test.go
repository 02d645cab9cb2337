package embedded_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/event"
)

// Channels that nobody follows or uses leave memory and come back as they were.
func TestIdleChannelsLeaveMemory(t *testing.T) {
	b := mustOpen(t, embedded.Options{Dir: t.TempDir(), Fsync: embedded.FsyncEverySecond, Logger: quiet(t)})
	const channels = 300
	for i := range channels {
		if _, err := b.Append(t.Context(), fmt.Sprint("c", i), entry("one")); err != nil {
			t.Fatal(err)
		}
	}
	start, err := b.Follow(t.Context(), "c7", deaf{})
	if err != nil {
		t.Fatal(err)
	}
	b.Sweep(30)
	if got := b.InMemory(); got != channels {
		t.Errorf("after half a minute %d channels are in memory, want all %d", got, channels)
	}
	b.Sweep(200)
	if got := b.InMemory(); got != 1 {
		t.Errorf("after four minutes %d channels are in memory, want the followed one", got)
	}
	for i := range channels {
		places, err := b.Append(t.Context(), fmt.Sprint("c", i), entry("two"))
		if err != nil || places[0].Offset != 2 {
			t.Fatalf("the second append to c%d: %v, %v", i, places, err)
		}
	}
	if s, err := b.State(t.Context(), "c7"); err != nil || s.Epoch != start.Epoch || s.Head != 2 {
		t.Errorf("the followed channel is %+v, %v", s, err)
	}
}

// A crash may come between an append and those who wait for it; they are due
// after the start.
func TestWaitersAreFoundAfterACrash(t *testing.T) {
	o := embedded.Options{Dir: t.TempDir(), Logger: quiet(t)}
	b := mustOpen(t, o)
	var waits event.Position
	for _, channel := range []string{"a", "b", "c"} {
		places, err := b.Append(t.Context(), channel, entry("one"))
		if err != nil {
			t.Fatal(err)
		}
		at := event.Cursor{Channel: channel, Epoch: places[0].Epoch, Offset: 1}
		waits = append(waits, at)
		u := broker.Update{Name: "only " + channel, Generation: 1, Channels: []string{channel}, Wait: event.Position{at}, Due: broker.Never}
		if err := b.Store(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Store(t.Context(), broker.Update{Name: "all", Generation: 1, Wait: waits, Due: broker.Never, Durable: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.AppendUnnoticed("b", []byte("two")); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = mustOpen(t, o)
	due := map[string]bool{}
	err := until(func() error {
		tickets, _, err := b.Due(t.Context(), nil, 10, time.Hour)
		for _, ticket := range tickets {
			due[ticket.Name] = true
		}
		if err == nil && len(due) < 2 {
			err = fmt.Errorf("due are %v", due)
		}
		return err
	})
	if err != nil || !due["only b"] || !due["all"] || len(due) != 2 {
		t.Errorf("due after the start: %v, %v, want those who wait for b", due, err)
	}
}

// An append allocates its answer and nothing else per event.
func TestAppendAllocates(t *testing.T) {
	b := mustOpen(t, embedded.Options{Dir: t.TempDir(), Fsync: embedded.FsyncEverySecond, Logger: quiet(t)})
	batch := make([]broker.Entry, 100)
	for i := range batch {
		batch[i].Data = make([]byte, 300)
	}
	got := testing.AllocsPerRun(200, func() {
		if _, err := b.Append(t.Context(), "a", batch); err != nil {
			t.Fatal(err)
		}
	})
	if got > 10 {
		t.Errorf("an append of 100 events allocates %v times, want a few for all", got)
	}
}
