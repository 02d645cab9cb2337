package longline

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestTrackerAcknowledgesContiguousPrefix(t *testing.T) {
	l := newAckTracker()
	l.stepAll("a@k-10,b@k-0")
	a11, a12, b1, a13 := l.add("a", noPartition, "a@k-11"), l.add("a", noPartition, "a@k-12"), l.add("b", noPartition, "b@k-1"), l.add("a", noPartition, "a@k-13")
	wantDue := func(when, want string, refused ...string) {
		t.Helper()
		rejects, got := due(l)
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
	a13.reject("no such contact", 1)
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
	e := l.add("a", noPartition, "a@k-6")
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
	if _, got := due(l); got != "a@k-6" {
		t.Errorf("got %s due, want the event a@k-6, for only what was delivered is acknowledged", got)
	}
}

// What is done makes room, also behind what is not: it costs a stretch, however
// much it is.
func TestTrackerHoldsWhatIsOpen(t *testing.T) {
	l := newAckTracker()
	first := l.add("a", noPartition, "a@k-1")
	for n := 2; n <= 1000; n++ {
		e := l.add("a", noPartition, fmt.Sprintf("a@k-%d", n))
		room := l.full(2)
		if room == nil {
			t.Fatal("got room for a third of two")
		}
		e.reject("no such contact", 1)
		<-room
	}
	held := 0
	for e := l.byName[trackName{"a", noPartition}].head; e != nil; e = e.next {
		held++
	}
	if held != 2 {
		t.Errorf("got %d entries held, want the open one and the stretch behind it", held)
	}
	if _, position := due(l); position != "" {
		t.Errorf("got %s due, want nothing: the first is open", position)
	}
	first.finish()
	if _, position := due(l); position != "a@k-1000" {
		t.Errorf("got %s due, want all", position)
	}
}

// In a group each partition has a prefix of its own, and one that is another's
// meanwhile begins anew.
func TestTrackerGoesByPartition(t *testing.T) {
	l := newAckTracker()
	stuck, other, late := l.add("a", 0, "a@k-1"), l.add("a", 1, "a@k-2"), l.add("a", 0, "a@k-3")
	other.finish()
	late.finish()
	_, acks := l.due()
	wantEqual(t, "while 0 is stuck", acks, []ack{{"a@k-2", 1, false}})
	l.gain(0)
	again := l.add("a", 0, "a@k-1")
	stuck.finish()
	_, acks = l.due()
	wantEqual(t, "of the partition as it was", acks, nil)
	again.finish()
	_, acks = l.due()
	wantEqual(t, "as it is", acks, []ack{{"a@k-1", 0, false}})
}

// A dead letter comes again, from behind: it neither moves the position back
// nor is covered by what comes after.
func TestTrackerAcknowledgesDeadLettersOnTheirOwn(t *testing.T) {
	l := newAckTracker()
	l.step("a", "a@k-99")
	old := l.add("a", noPartition, "a@k-5")
	hundred := l.add("a", noPartition, "a@k-100")
	older := l.add("a", noPartition, "a@k-20")
	fork := l.add("a", noPartition, "a@other-7")
	for _, e := range []*entry{old, hundred, older} {
		e.finish()
	}
	_, acks := l.due()
	want := []ack{{"a@k-5", noPartition, true}, {"a@k-20", noPartition, true}, {"a@k-100", noPartition, false}}
	wantEqual(t, "acknowledged", acks, want)
	fork.finish()
	if _, position := due(l); position != "a@other-7" {
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
			entries[i] = l.add("a", noPartition, fmt.Sprintf("a@k-%d", i+1))
		}
		finished := make([]bool, n+1)
		acked := 0
		for _, i := range r.Perm(n) {
			entries[i].finish()
			finished[i] = true
			if _, position := due(l); position != "" {
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
		m.put(id(n), past{history: history{tries: n}})
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
