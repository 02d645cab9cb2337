package brokertest

import (
	"testing"

	"github.com/longline-push/longline/broker"
)

func (f *fixture) lose() bool {
	f.t.Helper()
	if f.h.Lose == nil {
		return false // this broker has but one term
	}
	f.Broker = f.h.Lose(f.t)
	return true
}

// A lost machine's log goes on in a new epoch; what it kept means the same.
func testTerms(t *testing.T, f *fixture) {
	f.start()
	first := f.mustAppend("a", named("x", "e1"), text("e2"), text("e3"))
	old := f.mustState("a")
	if !f.lose() {
		return
	}
	kept := f.mustState("a")
	if kept.Head > 3 {
		t.Fatalf("head is %d after a loss, was 3", kept.Head)
	}
	f.mustFill("a", 1)
	s := f.mustState("a")
	if s.Epoch == old.Epoch {
		t.Fatal("the first append of another term left the epoch as it was")
	}
	if s.Head != kept.Head+1 || len(s.Forks) != 1 || s.Forks[0] != (broker.Fork{Epoch: old.Epoch, Head: kept.Head}) {
		t.Fatalf("state %+v, want head %d and one fork of %s at %d", s, kept.Head+1, old.Epoch, kept.Head)
	}
	for _, test := range []struct {
		offset, want uint64
		place        broker.Place
	}{
		{0, 0, broker.Here},
		{kept.Head, kept.Head, broker.Here},
		{kept.Head + 1, kept.Head, broker.Forked},
		{kept.Head + 100, kept.Head, broker.Forked},
	} {
		if got, place := s.Locate(old.Epoch, test.offset); got != test.want || place != test.place {
			t.Errorf("%s-%d is at %d (%v), want %d (%v)", old.Epoch, test.offset, got, place, test.want, test.place)
		}
	}
	if kept.Head == 3 {
		got := f.mustAppend("a", named("x", "other"))
		wantDuplicate(t, got[0], first[0])
		if offset, place := s.Locate(got[0].Epoch, got[0].Offset); offset != 1 || place != broker.Here {
			t.Errorf("the duplicate's place %+v is at %d (%v), want 1", got[0], offset, place)
		}
	}
	f.reopen()
	if got := f.mustState("a"); got.Epoch != s.Epoch || len(got.Forks) != 1 || got.Forks[0] != s.Forks[0] {
		t.Errorf("the fork was forgotten: %+v, was %+v", got, s)
	}
}

func testTermOnce(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 2)
	f.mustFill("idle", 1)
	idle := f.mustState("idle")
	if !f.lose() {
		return
	}
	f.mustFill("a", 1)
	epoch := f.mustState("a").Epoch
	f.mustFill("a", 3)
	if s := f.mustState("a"); s.Epoch != epoch || len(s.Forks) != 1 {
		t.Errorf("epoch %s became %s with forks %v; want one fork per term", epoch, s.Epoch, s.Forks)
	}
	if s := f.mustState("idle"); s.Epoch != idle.Epoch || len(s.Forks) != 0 {
		t.Errorf("a log that nothing was appended to forked: %+v", s)
	}
}

func testForksBounded(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 1)
	var epochs []string
	for range broker.MaxForks + 2 {
		epochs = append(epochs, f.mustState("a").Epoch)
		if !f.lose() {
			return
		}
		f.mustFill("a", 1)
	}
	s := f.mustState("a")
	if len(s.Forks) != broker.MaxForks {
		t.Fatalf("%d forks are remembered, want %d", len(s.Forks), broker.MaxForks)
	}
	for i, fork := range s.Forks {
		if want := epochs[i+2]; fork.Epoch != want {
			t.Fatalf("fork %d is of %s, want %s", i, fork.Epoch, want)
		}
	}
	if _, place := s.Locate(epochs[1], 1); place != broker.Unknown {
		t.Errorf("a cursor of a forgotten fork is %v, want Unknown", place)
	}
}
