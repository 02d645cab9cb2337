package embedded_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
)

// Retention looks at what changed and at what is old enough, not at how many
// channels there are.
func TestRetentionVisitsWhatChanged(t *testing.T) {
	const channels, few = 1500, 7
	var ahead atomic.Int64
	b := mustOpen(t, embedded.Options{
		Dir: t.TempDir(), Fsync: embedded.FsyncEverySecond, Logger: quiet(t),
		Options: broker.Options{
			Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
			Retention: func(string) broker.Retention {
				return broker.Retention{ReplayAge: 10 * time.Minute, ReplayEvents: 1, MaxAge: 24 * time.Hour}
			},
		},
	})
	work := func(seconds int) int {
		t.Helper()
		n, err := b.Work(seconds)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	name := func(i int) string { return fmt.Sprint("c", i) }
	left := func(n, want int) {
		t.Helper()
		for i := range n {
			s, err := b.State(context.Background(), name(i))
			if err != nil {
				t.Fatal(err)
			}
			if got := int(s.Head - s.First + 1); got != want {
				t.Fatalf("%s has %d events, want %d", name(i), got, want)
			}
		}
	}
	for i := range channels {
		for range 3 {
			mustAppend(t, b, name(i), "e")
		}
	}
	ahead.Add(int64(time.Minute))
	work(40) // the round after a start, and all that changed
	if n := work(20); n > 0 {
		t.Errorf("%d visits though nothing changed", n)
	}
	for i := range few {
		mustAppend(t, b, name(i), "e")
	}
	ahead.Add(int64(time.Minute))
	if n := work(20); n < few || n > 2*few {
		t.Errorf("%d visits after %d channels changed", n, few)
	}
	left(few, 4)
	ahead.Add(int64(9 * time.Minute))
	if n := work(20); n < channels-few || n > 2*channels {
		t.Errorf("%d visits once %d channels had old events", n, channels)
	}
	for i := few; i < channels; i += 100 {
		s, err := b.State(context.Background(), name(i))
		if err != nil || s.Head-s.First+1 != 1 {
			t.Fatalf("%s: %+v, %v; want one event left", name(i), s, err)
		}
	}
	ahead.Add(int64(2 * time.Minute))
	work(20)
	left(channels, 1)
}
