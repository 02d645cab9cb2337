package brokertest

import (
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

func keep(r broker.Retention) func(string) broker.Retention {
	return func(string) broker.Retention { return r }
}

// Kept are the last events by number or by age, whichever is more.
func testRetentionReplay(t *testing.T, f *fixture) {
	f.open(broker.Options{Retention: keep(broker.Retention{
		ReplayAge: time.Minute, ReplayEvents: 10, MaxAge: time.Hour, MaxBytes: 1 << 30,
	})})
	f.mustFill("young", 50)
	f.mustFill("few", 5)
	f.mustFill("both", 30)
	f.clock.Move(50 * time.Second)
	f.mustFill("both", 20)
	f.trim()
	f.wantLog("young", 1, numbered(1, 50)...)

	f.clock.Move(20 * time.Second)
	f.trim()
	f.wantLog("young", 41, numbered(41, 50)...) // all older than a minute: ten are left
	f.wantLog("few", 1, numbered(1, 5)...)
	f.wantLog("both", 31, numbered(31, 50)...) // twenty are younger than a minute

	f.mustFill("young", 1)
	f.reopen()
	f.wantLog("young", 41, numbered(41, 51)...)
	p := f.mustRead("young", 3, broker.Limit{})
	if len(p.Items) != 11 || p.Items[0].Offset != 41 {
		t.Errorf("a page after what is gone: %d events from %v, want 11 from 41", len(p.Items), p.Items[0].Offset)
	}
}

func testRetentionAge(t *testing.T, f *fixture) {
	f.open(broker.Options{Retention: keep(broker.Retention{
		ReplayAge: time.Minute, ReplayEvents: 1000, MaxAge: time.Hour, MaxBytes: 1 << 30,
	})})
	f.mustFill("a", 20)
	f.clock.Move(30 * time.Minute)
	f.mustFill("a", 20)
	f.clock.Move(29 * time.Minute)
	f.trim()
	f.wantLog("a", 1, numbered(1, 40)...)
	f.clock.Move(2 * time.Minute)
	f.trim()
	f.wantLog("a", 21, numbered(21, 40)...)
}

func testRetentionBytes(t *testing.T, f *fixture) {
	f.open(broker.Options{Retention: keep(broker.Retention{
		ReplayAge: time.Minute, ReplayEvents: 10, MaxAge: time.Hour, MaxBytes: 100_000,
	})})
	for range 200 {
		f.mustAppend("a", text(strings.Repeat("x", 1000)))
	}
	if s := f.mustState("a"); s.Bytes < 1000*int64(s.Head-s.First+1) || s.Bytes > 1500*int64(s.Head-s.First+1) {
		t.Errorf("%d events of 1000 bytes count as %d bytes", s.Head-s.First+1, s.Bytes)
	}
	f.trim()
	s := f.mustState("a")
	if s.Bytes > 110_000 {
		t.Errorf("%d bytes are left, want at most about 100000", s.Bytes)
	}
	if left := s.Head - s.First + 1; s.Head != 200 || left < 50 || left > 105 {
		t.Errorf("%d events are left (%d to %d), want some 90", left, s.First, s.Head)
	}
	if got := len(f.mustRead("a", 0, broker.Limit{}).Items); uint64(got) != s.Head-s.First+1 {
		t.Errorf("%d events can be read of %d", got, s.Head-s.First+1)
	}
}

// What a durable subscription has not acknowledged is kept, up to max_age.
func testRetentionNeed(t *testing.T, f *fixture) {
	f.open(broker.Options{Retention: keep(broker.Retention{ReplayEvents: 2, MaxAge: time.Hour, MaxBytes: 1 << 30})})
	subs, ok := f.Broker.(broker.Subscriptions)
	if !ok {
		return // a broker of logs alone
	}
	f.mustFill("a", 20)
	epoch := f.mustState("a").Epoch
	at := func(offset uint64) event.Position {
		return event.Position{{Channel: "a", Epoch: epoch, Offset: offset}}
	}
	for name, position := range map[string]event.Position{"slow": at(5), "quick": at(12), "new": nil} {
		u := broker.Update{Name: name, Generation: 1, Channels: []string{"a"}, Set: position, Due: broker.Never}
		if err := subs.Store(f.ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	f.clock.Move(time.Second)
	f.trim()
	f.wantLog("a", 6, numbered(6, 20)...)
	if _, err := subs.Advance(f.ctx, []broker.Move{{Name: "slow", Generation: 1, Position: at(15)}}); err != nil {
		t.Fatal(err)
	}
	f.trim()
	f.wantLog("a", 13, numbered(13, 20)...)
	quick, err := subs.Load(f.ctx, "quick")
	if err != nil {
		t.Fatal(err)
	}
	if err := subs.Delete(f.ctx, "quick", quick.Version); err != nil {
		t.Fatal(err)
	}
	f.trim()
	f.wantLog("a", 16, numbered(16, 20)...)
	f.clock.Move(2 * time.Hour)
	f.mustFill("a", 1)
	f.trim()
	f.wantLog("a", 21, "e21")
}

// Above 80 % of max_total_bytes the largest backlogs that are kept by need
// alone are cut to replay.
func testRetentionTotal(t *testing.T, f *fixture) {
	f.open(broker.Options{
		Retention:     keep(broker.Retention{ReplayEvents: 2, MaxAge: time.Hour, MaxBytes: 1 << 30}),
		MaxTotalBytes: 500_000,
	})
	subs, ok := f.Broker.(broker.Subscriptions)
	if !ok {
		return // a broker of logs alone
	}
	for channel, n := range map[string]int{"small": 100, "large": 350} {
		f.mustFill(channel, 1)
		u := broker.Update{Name: channel, Generation: 1, Channels: []string{channel}, Due: broker.Never,
			Set: event.Position{{Channel: channel, Epoch: f.mustState(channel).Epoch}}}
		if err := subs.Store(f.ctx, u); err != nil {
			t.Fatal(err)
		}
		for range n {
			f.mustAppend(channel, text(strings.Repeat("x", 1000)))
		}
	}
	f.clock.Move(time.Second)
	f.trim()
	if s := f.mustState("small"); s.First != 1 {
		t.Errorf("the small backlog starts at %d, want that it was left alone", s.First)
	}
	if s := f.mustState("large"); s.First != 350 {
		t.Errorf("the large backlog starts at %d, want 350, where replay begins", s.First)
	}
}

// A channel that keeps nothing still counts and announces.
func testRetentionNone(t *testing.T, f *fixture) {
	f.open(broker.Options{Retention: keep(broker.Retention{None: true})})
	e := &ear{}
	start, err := f.Follow(f.ctx, "live", e)
	if err != nil {
		t.Fatal(err)
	}
	if start.Epoch == "" || start.Head != 0 {
		t.Fatalf("state of a new channel: %+v", start)
	}
	first := f.mustAppend("live", text("e1"))
	f.mustAppend("live", text("e2"), text("e3"))
	f.eventually(func() string { return e.wantItems("e1", "e2", "e3") })
	if first[0].Offset != 1 || first[0].Epoch != start.Epoch {
		t.Errorf("first place is %+v, want offset 1 of %s", first[0], start.Epoch)
	}
	s := f.mustState("live")
	if s.Head != 3 || s.First != 4 || s.Epoch != start.Epoch || s.Bytes != 0 {
		t.Errorf("state %+v, want nothing kept and head 3", s)
	}
	if p := f.mustRead("live", 0, broker.Limit{}); len(p.Items) != 0 || p.State.Head != 3 {
		t.Errorf("a page of %d events with head %d, want none and 3", len(p.Items), p.State.Head)
	}
	if offset, err := f.OffsetAt(f.ctx, "live", f.clock.Now()); err != nil || offset != 0 && offset != 3 {
		t.Errorf("offset at a time: %d, %v, want 3 or 0", offset, err)
	}
	if err := f.Drop(f.ctx, "live"); err != nil {
		t.Errorf("drop: %v", err)
	}
	if got := f.mustAppend("live", text("f1")); got[0].Epoch == start.Epoch || got[0].Offset != 1 {
		t.Errorf("after a drop: %+v, want offset 1 of a new epoch", got[0])
	}
}

func testRetentionPerChannel(t *testing.T, f *fixture) {
	f.open(broker.Options{Retention: func(channel string) broker.Retention {
		r := broker.Retention{ReplayEvents: 1, MaxAge: time.Hour, MaxBytes: 1 << 30}
		if channel == "long" {
			r.ReplayEvents = 5
		}
		return r
	}})
	f.mustFill("long", 8)
	f.mustFill("short", 8)
	f.clock.Move(time.Second)
	f.trim()
	f.wantLog("long", 4, numbered(4, 8)...)
	f.wantLog("short", 8, "e8")
}

// A log whose events are all gone remembers where it was.
func testTrimmedToNothing(t *testing.T, f *fixture) {
	f.open(broker.Options{Retention: keep(broker.Retention{
		ReplayAge: time.Minute, ReplayEvents: 1000, MaxAge: time.Hour, MaxBytes: 1 << 30,
	})})
	f.mustFill("a", 7)
	epoch := f.mustState("a").Epoch
	f.clock.Move(2 * time.Hour)
	f.trim()
	for range 2 {
		s := f.mustState("a")
		if s.First != 8 || s.Head != 7 || s.Epoch != epoch || s.Bytes != 0 {
			t.Fatalf("state %+v, want none left, head 7, epoch %s", s, epoch)
		}
		if offset, err := f.OffsetAt(f.ctx, "a", f.clock.Now()); err != nil || offset != 7 {
			t.Errorf("offset at a time: %d, %v, want 7", offset, err)
		}
		f.reopen()
	}
	f.mustFill("a", 1)
	f.wantLog("a", 8, "e8")
}
