package brokertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
)

func testReadPages(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 25)
	var sizes []int
	for offset := uint64(0); ; {
		p := f.mustRead("a", offset, broker.Limit{Events: 10})
		if p.State.First != 1 || p.State.Head != 25 {
			t.Fatalf("page's state is %d to %d, want 1 to 25", p.State.First, p.State.Head)
		}
		sizes = append(sizes, len(p.Items))
		if len(p.Items) == 0 {
			break
		}
		if p.Items[0].Offset != offset+1 {
			t.Fatalf("page after %d starts at %d", offset, p.Items[0].Offset)
		}
		offset = p.Items[len(p.Items)-1].Offset
	}
	if want := []int{10, 10, 5, 0}; !slices.Equal(sizes, want) {
		t.Fatalf("pages of %v events, want %v", sizes, want)
	}
	p := f.mustRead("a", 7, broker.Limit{Events: 2})
	if len(p.Items) != 2 || string(p.Items[0].Data) != "e8" || string(p.Items[1].Data) != "e9" {
		t.Fatalf("after 7 come %v, want e8 and e9", p.Items)
	}
}

func testReadLimit(t *testing.T, f *fixture) {
	f.start()
	for range 10 {
		f.mustAppend("a", broker.Entry{Data: make([]byte, 1000)})
	}
	if p := f.mustRead("a", 0, broker.Limit{Bytes: 1}); len(p.Items) != 1 {
		t.Errorf("a page of 1 byte holds %d events, want 1", len(p.Items))
	}
	if n := len(f.mustRead("a", 0, broker.Limit{Bytes: 4500}).Items); n < 3 || n > 6 {
		t.Errorf("a page of 4500 bytes holds %d events of 1000, want about 4", n)
	}
}

func testReadBeyond(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 3)
	for _, offset := range []uint64{3, 4, 1 << 40, 1<<64 - 1} {
		if p := f.mustRead("a", offset, broker.Limit{}); len(p.Items) != 0 || p.State.Head != 3 {
			t.Errorf("after %d: %d events and head %d, want none and 3", offset, len(p.Items), p.State.Head)
		}
	}
}

func testMissingChannel(t *testing.T, f *fixture) {
	f.start()
	for name, call := range map[string]func() error{
		"state":    func() error { _, err := f.State(f.ctx, "none"); return err },
		"read":     func() error { _, err := f.Read(f.ctx, "none", 0, broker.Limit{}); return err },
		"offsetAt": func() error { _, err := f.OffsetAt(f.ctx, "none", f.clock.Now()); return err },
		"drop":     func() error { return f.Drop(f.ctx, "none") },
	} {
		if err := call(); !errors.Is(err, broker.ErrNotFound) {
			t.Errorf("%s of a channel that isn't there: %v, want ErrNotFound", name, err)
		}
	}
}

// The clock of the machine may be set back; a log's never goes back.
func testTimes(t *testing.T, f *fixture) {
	f.start()
	start := f.clock.Now()
	f.mustFill("a", 1)
	f.clock.Move(90 * time.Second)
	f.mustFill("a", 1)
	f.clock.Move(-time.Minute)
	f.mustFill("a", 1)
	f.reopen()
	f.mustFill("a", 1)
	f.clock.Move(time.Hour)
	f.mustFill("a", 1)
	want := []time.Duration{0, 90 * time.Second, 90 * time.Second, 90 * time.Second, time.Hour + 30*time.Second}
	for i, item := range f.mustRead("a", 0, broker.Limit{}).Items {
		if got := item.Time.Sub(start); got != want[i] {
			t.Errorf("event %d was appended at %v, want %v", i+1, got, want[i])
		}
	}
}

func testOffsetAt(t *testing.T, f *fixture) {
	f.open(broker.Options{Retention: keep(broker.Retention{ReplayEvents: 10, MaxAge: time.Hour})})
	f.clock.Move(500 * time.Microsecond) // finer than what is kept
	start := f.clock.Now().Truncate(time.Millisecond)
	// One event a minute, two of them in the sixth.
	for i := range 10 {
		f.mustFill("a", 1)
		if i == 5 {
			f.mustFill("a", 1)
		}
		f.clock.Move(time.Minute)
	}
	want := func(after time.Duration, want uint64) {
		t.Helper()
		got, err := f.OffsetAt(f.ctx, "a", start.Add(after))
		if err != nil || got != want {
			t.Errorf("offset at %v: %d, %v, want %d", after, got, err, want)
		}
	}
	want(-time.Hour, 0)
	want(0, 0)
	want(time.Millisecond, 1)
	want(time.Minute, 1)
	want(90*time.Second, 2)
	want(5*time.Minute, 5)
	want(5*time.Minute+time.Second, 7)
	want(9*time.Minute, 10)
	want(time.Hour, 11)

	f.mustFill("a", 4)
	f.trim()
	s := f.mustState("a")
	if s.First != 6 {
		t.Fatalf("log starts at %d after trimming to 10, want 6", s.First)
	}
	got, err := f.OffsetAt(f.ctx, "a", start)
	if err != nil || got != 0 && got != s.First-1 {
		t.Errorf("offset before all that is left: %d, %v, want 0 or %d", got, err, s.First-1)
	}
	want(9*time.Minute, 10)
}

func testChannels(t *testing.T, f *fixture) {
	f.start()
	for _, name := range []string{"b", "a.2", "a", "a.1", "a-1", "c.x", "A", "a.1.z"} {
		f.mustAppend(name, text("x"))
	}
	f.mustAppend("gone", text("x"))
	if err := f.Drop(f.ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		prefix string
		limit  int
		want   []string
	}{
		{"", 100, []string{"A", "a", "a-1", "a.1", "a.1.z", "a.2", "b", "c.x"}},
		{"", 3, []string{"A", "a", "a-1", "a.1", "a.1.z", "a.2", "b", "c.x"}},
		{"a.", 100, []string{"a.1", "a.1.z", "a.2"}},
		{"a.", 1, []string{"a.1", "a.1.z", "a.2"}},
		{"nothing", 100, nil},
	} {
		var got []string
		for after, more := "", true; more; {
			page, err := f.Channels(f.ctx, test.prefix, after, test.limit)
			if err != nil || len(page) > test.limit {
				t.Fatalf("channels %q after %q, %d at most: %v, %v", test.prefix, after, test.limit, page, err)
			}
			if more = len(page) > 0; more {
				got, after = append(got, page...), page[len(page)-1]
			}
		}
		if slices.Sort(got); !slices.Equal(got, test.want) {
			t.Errorf("channels %q by %d: %v, want %v", test.prefix, test.limit, got, test.want)
		}
	}
}

func testDrop(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 5)
	f.mustFill("ab", 2)
	old := f.mustState("a")
	if err := f.Drop(f.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.State(f.ctx, "a"); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("state of a dropped channel: %v, want ErrNotFound", err)
	}
	f.mustFill("a", 2)
	f.wantLog("a", 1, "e1", "e2")
	f.wantLog("ab", 1, "e1", "e2")
	s := f.mustState("a")
	if s.Epoch == old.Epoch {
		t.Error("the new log has the epoch of the dropped one")
	}
	if _, place := s.Locate(old.Epoch, 3); place != broker.Unknown {
		t.Errorf("a cursor of the dropped log is %v, want Unknown", place)
	}
	f.reopen()
	f.wantLog("a", 1, "e1", "e2")
	if got := f.mustState("a"); got.Epoch != s.Epoch {
		t.Errorf("epoch %s became %s", s.Epoch, got.Epoch)
	}
}

func testReopen(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 30)
	f.mustFill("b", 1)
	before := f.mustState("a")
	for range 3 {
		f.reopen()
		f.wantLog("a", 1, numbered(1, 30)...)
		f.wantLog("b", 1, "e1")
		if s := f.mustState("a"); s.Epoch != before.Epoch || s.Bytes != before.Bytes {
			t.Fatalf("state was %+v, is %+v", before, s)
		}
	}
	f.mustFill("a", 1)
	f.wantLog("a", 1, numbered(1, 31)...)
	if at, place := f.mustState("a").Locate(before.Epoch, 30); at != 30 || place != broker.Here {
		t.Errorf("after an orderly restart %s-30 is at %d (%v), want 30", before.Epoch, at, place)
	}
}

func testContexts(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 1)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	for name, call := range map[string]func() error{
		"append":   func() error { _, err := f.Append(ctx, "b", []broker.Entry{text("x")}); return err },
		"state":    func() error { _, err := f.State(ctx, "a"); return err },
		"read":     func() error { _, err := f.Read(ctx, "a", 0, broker.Limit{}); return err },
		"offsetAt": func() error { _, err := f.OffsetAt(ctx, "a", f.clock.Now()); return err },
		"channels": func() error { _, err := f.Channels(ctx, "", "", 10); return err },
		"drop":     func() error { return f.Drop(ctx, "a") },
		"follow":   func() error { _, err := f.Follow(ctx, "a", &ear{}); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v, want that it was cancelled", name, err)
		}
	}
	f.wantLog("a", 1, "e1")
}

func testClosed(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 1)
	b := f.Broker
	if err := b.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	for name, call := range map[string]func() error{
		"append":   func() error { _, err := b.Append(f.ctx, "a", []broker.Entry{text("x")}); return err },
		"state":    func() error { _, err := b.State(f.ctx, "a"); return err },
		"read":     func() error { _, err := b.Read(f.ctx, "a", 0, broker.Limit{}); return err },
		"offsetAt": func() error { _, err := b.OffsetAt(f.ctx, "a", f.clock.Now()); return err },
		"channels": func() error { _, err := b.Channels(f.ctx, "", "", 10); return err },
		"drop":     func() error { return b.Drop(f.ctx, "a") },
		"follow":   func() error { _, err := b.Follow(f.ctx, "a", &ear{}); return err },
	} {
		if err := call(); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	b.Unfollow("a", &ear{})
	if err := b.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}
