package longline

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestTrackerAcknowledgesContiguousPrefix(t *testing.T) {
	l := newAckTracker()
	l.stepAll("a@k-10,b@k-0")
	a11, a12, b1, a13 := l.add("a", "a@k-11"), l.add("a", "a@k-12"), l.add("b", "b@k-1"), l.add("a", "a@k-13")
	wantDue := func(when, want string, refused ...string) {
		t.Helper()
		rejects, _, got := l.due()
		if got != want {
			t.Errorf("%s: got %q due, want %q", when, got, want)
		}
		if len(rejects) != len(refused) {
			t.Errorf("%s: got rejects %v, want %v", when, rejects, refused)
			return
		}
		for i, r := range rejects {
			if r.cursor != refused[i] {
				t.Errorf("%s: got reject of %s, want %s", when, r.cursor, refused[i])
			}
		}
	}
	wantDue("nothing is done", "")
	a12.finish()
	wantDue("the second before the first", "")
	b1.finish()
	wantDue("another channel goes its own way", "b@k-1")
	a11.finish()
	wantDue("the first, and with it the second", "a@k-12")
	a11.finish()
	wantDue("again", "")
	a13.reject("no such contact")
	wantDue("a refusal is done too", "a@k-13", "a@k-13")
	if got, want := l.done(), "a@k-13,b@k-1"; got != want {
		t.Errorf("got %s done, want %s", got, want)
	}
}

func TestTrackerStepsOverWhatWontCome(t *testing.T) {
	l := newAckTracker()
	l.step("a", "a@k-5")
	if got := l.done(); got != "a@k-5" {
		t.Errorf("a step with nothing open: got %s done, want a@k-5", got)
	}
	e := l.add("a", "a@k-6")
	l.step("a", "a@k-9")
	if got := l.done(); got != "a@k-5" {
		t.Errorf("a step behind an open event: got %s done, want a@k-5", got)
	}
	if got := l.received(); got != "a@k-9" {
		t.Errorf("got %s received, want a@k-9", got)
	}
	e.finish()
	if got := l.done(); got != "a@k-9" {
		t.Errorf("got %s done, want a@k-9", got)
	}
	if _, _, got := l.due(); got != "a@k-6" {
		t.Errorf("got %s due, want the event a@k-6, for only what was delivered is acknowledged", got)
	}
}

func TestTrackerTellsWhenThereIsRoom(t *testing.T) {
	l := newAckTracker()
	first, second := l.add("a", "a@k-1"), l.add("a", "a@k-2")
	room := l.full(2)
	if room == nil {
		t.Fatal("got room for a third of two")
	}
	second.finish()
	select {
	case <-room:
		t.Fatal("got room while the first is open: the prefix is what counts")
	default:
	}
	first.finish()
	<-room
	if l.full(2) != nil {
		t.Error("got no room in an empty tracker")
	}
}

// A dead letter comes again, from behind: it neither moves the position back
// nor is covered by what comes after.
func TestTrackerAcknowledgesDeadLettersOnTheirOwn(t *testing.T) {
	l := newAckTracker()
	l.step("a", "a@k-99")
	old := l.add("a", "a@k-5")
	hundred := l.add("a", "a@k-100")
	older := l.add("a", "a@k-20")
	fork := l.add("a", "a@other-7")
	for _, e := range []*entry{old, hundred, older} {
		e.finish()
	}
	_, singles, position := l.due()
	if len(singles) != 2 || singles[0] != "a@k-5" || singles[1] != "a@k-20" || position != "a@k-100" {
		t.Errorf("got %v and %s", singles, position)
	}
	fork.finish()
	if _, _, position := l.due(); position != "a@other-7" {
		t.Errorf("another epoch: got %s", position)
	}
	if l.full(1) != nil {
		t.Error("got no room in an empty tracker")
	}
}

// Whatever the order in which events are finished: what is acknowledged never
// runs ahead of one that is open, and ends at the last.
func TestTrackerInAnyOrder(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := newAckTracker()
		const n = 200
		entries := make([]*entry, n)
		for i := range entries {
			entries[i] = l.add("a", fmt.Sprintf("a@k-%d", i+1))
		}
		finished := make([]bool, n+1)
		acked := 0
		for _, i := range r.Perm(n) {
			entries[i].finish()
			finished[i] = true
			if _, _, position := l.due(); position != "" {
				if _, err := fmt.Sscanf(position, "a@k-%d", &acked); err != nil {
					t.Fatal(err)
				}
			}
			want := 0
			for finished[want] {
				want++
			}
			if acked != want {
				t.Fatalf("seed %d: got %d acknowledged, want %d", seed, acked, want)
			}
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory(3)
	id := func(n int) identity { return identity{channel: "a", id: fmt.Sprint(n)} }
	for n := range 10 {
		m.put(id(n), past{handled: true})
		m.put(id(n), past{tries: n})
	}
	if len(m.of) != 3 || len(m.ring) != 3 {
		t.Errorf("got %d and %d remembered, want 3", len(m.of), len(m.ring))
	}
	for n, want := range map[int]int{6: 0, 7: 7, 8: 8, 9: 9} {
		if got := m.get(id(n)).tries; got != want {
			t.Errorf("event %d: got %d tries, want %d", n, got, want)
		}
	}
}
