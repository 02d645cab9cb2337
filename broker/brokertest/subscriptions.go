package brokertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Durable is a broker with everything that durable subscriptions need.
type Durable interface {
	broker.Log
	broker.Tail
	broker.Durable
}

// TestSubscriptions holds a broker to the contract of durable subscriptions.
// open returns an empty broker that closes with the test.
func TestSubscriptions(t *testing.T, open func(t *testing.T) Durable) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, b Durable)
	}{
		{"a record changes only from the version that was read", storeComparesVersions},
		{"a name that is deleted and made again is not the old one", deleteBesideCreate},
		{"of many writers each builds on the one before", storeIsSerial},
		{"the position moves forward, for its generation only", advanceIsFenced},
		{"a store places and forgets cursors and leaves the others", storePlacesCursors},
		{"subscriptions are listed page by page", listPages},
		{"partitions move by themselves, hidden, and go with their subscription", partitionsGoWithTheirs},
		{"what is due is handed out once and comes back unless served", dueOnce},
		{"no two nodes are handed the same subscription", dueToOne},
		{"who waits is due with the next event", waitForAppend},
		{"who waits for what has come already is due at once", waitTooLate},
		{"who waits is due when the log is dropped", waitForDrop},
		{"an append beside a store that waits is never missed", waitRaces},
		{"one event wakes many, in pieces", manyWait},
		{"a change while many are woken wakes again", changedWhileWoken},
		{"a node's subscriptions are known by the node", ownedByNode},
		{"what somebody created is known by who did", createdBySomebody},
		{"a dead letter is kept once, with the move", buryOnce},
		{"dead letters are bounded", buryBounded},
		{"dead letters are bounded in bytes", buryBytes},
		{"many dead letters are marked in pieces", redriveMany},
		{"dead letters are marked to come again, and removed", redriveRemove},
		{"attempts are read from the newest on, and go with the subscription", attemptsNewestFirst},
		{"attempts are bounded", attemptsBounded},
		{"a note is its owner's", noteIsFenced},
		{"a lease that ended stays ended", leaseEnds},
		{"signals reach a node or all, in order", signalsArrive},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func storeComparesVersions(t *testing.T, b Durable) {
	ctx := t.Context()
	if _, err := b.Load(ctx, "crm"); !errors.Is(err, broker.ErrNotFound) {
		t.Fatalf("load of nothing: got %v, want ErrNotFound", err)
	}
	first := broker.Update{Name: "crm", Generation: 1, Record: []byte("one"), Channels: []string{"a"}, Due: broker.Never, Durable: true}
	mustStore(t, b, first)
	if err := b.Store(ctx, first); !errors.Is(err, broker.ErrConflict) {
		t.Errorf("create twice: got %v, want ErrConflict", err)
	}
	one := mustLoad(t, b, "crm").Version
	second := first
	second.Version, second.Generation, second.Record = one, 2, []byte("two")
	mustStore(t, b, second)
	if err := b.Store(ctx, second); !errors.Is(err, broker.ErrConflict) {
		t.Errorf("store from an old version: got %v, want ErrConflict", err)
	}
	got := mustLoad(t, b, "crm")
	if got.Name != "crm" || got.Version <= one || got.Generation != 2 || string(got.Record) != "two" {
		t.Errorf("got %+v, want a version after %d, generation 2, record two", got, one)
	}
	two := got.Version
	if err := b.Delete(ctx, "crm", one); !errors.Is(err, broker.ErrConflict) {
		t.Errorf("delete of an old version: got %v, want ErrConflict", err)
	}
	if err := b.Delete(ctx, "crm", two); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if err := b.Delete(ctx, "crm", two); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("delete twice: got %v, want ErrNotFound", err)
	}
	missing := broker.Update{Name: "crm", Version: two, Generation: 3, Due: broker.Never}
	if err := b.Store(ctx, missing); !errors.Is(err, broker.ErrConflict) {
		t.Errorf("store to what was deleted: got %v, want ErrConflict", err)
	}
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Due: broker.Never})
	if got := mustLoad(t, b, "crm"); got.Version <= two || len(got.Record) != 0 {
		t.Errorf("created anew: got %+v, want a version after %d and no record", got, two)
	}
}

// One deletes, another makes the same name anew: what is kept by name and
// version is the new one's in the end.
func deleteBesideCreate(t *testing.T, b Durable) {
	at := mustAppendCursor(t, b, "a")
	for round := range 100 {
		name := fmt.Sprint("crm-", round)
		u := broker.Update{Name: name, Generation: 1, Creator: "ann", Channels: []string{"a"}, Set: event.Position{at}, Wait: event.Position{at}, Due: broker.Never}
		mustStore(t, b, u)
		u.Creator = "bob"
		old := mustLoad(t, b, name).Version
		var both sync.WaitGroup
		both.Go(func() {
			if err := b.Delete(t.Context(), name, old); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
		both.Go(func() {
			for {
				err := b.Store(t.Context(), u)
				if err == nil {
					return
				}
				if !errors.Is(err, broker.ErrConflict) {
					t.Errorf("store: %v", err)
					return
				}
			}
		})
		both.Wait()
	}
	if ann, bob := mustCreated(t, b, "ann"), mustCreated(t, b, "bob"); len(ann) != 0 || len(bob) != 100 {
		t.Errorf("%d are listed as what the first created and %d as what the second did, want none and 100", len(ann), len(bob))
	}
	mustAppendCursor(t, b, "a")
	due := make(map[string]bool)
	eventually(t, "all that were made anew and wait are due", func() bool {
		tickets, _, err := b.Due(t.Context(), nil, 200, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, ticket := range tickets {
			due[ticket.Name] = true
		}
		return len(due) == 100
	})
}

func storeIsSerial(t *testing.T, b Durable) {
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Due: broker.Never})
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				s, err := b.Load(t.Context(), "crm")
				if err != nil {
					t.Error(err)
					return
				}
				err = b.Store(t.Context(), broker.Update{Name: "crm", Version: s.Version, Generation: s.Generation + 1, Due: broker.Never})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, broker.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := mustLoad(t, b, "crm"); got.Generation != writers*each+1 {
		t.Errorf("got generation %d, want %d", got.Generation, writers*each+1)
	}
}

func advanceIsFenced(t *testing.T, b Durable) {
	mustStore(t, b, broker.Update{Name: "crm", Generation: 7, Record: []byte("r"), Due: broker.Never,
		Channels: []string{"a", "b"}, Set: position(t, "a@x-5,b@y-0")})
	version := mustLoad(t, b, "crm").Version
	for _, test := range []struct {
		story      string
		name       string
		generation uint64
		move       string
		fenced     bool
		want       string
	}{
		{"forward", "crm", 7, "a@x-8", false, "a@x-8,b@y-0"},
		{"an older cursor does nothing", "crm", 7, "a@x-6", false, "a@x-8,b@y-0"},
		{"two channels", "crm", 7, "b@y-2,a@x-9", false, "a@x-9,b@y-2"},
		{"an older generation", "crm", 6, "a@x-20", true, "a@x-9,b@y-2"},
		{"a generation yet to come", "crm", 8, "a@x-20", true, "a@x-9,b@y-2"},
		{"a channel goes on in another epoch", "crm", 7, "a@z-3", false, "a@z-3,b@y-2"},
		{"a subscription that doesn't exist", "erp", 1, "a@x-20", true, "a@z-3,b@y-2"},
	} {
		fenced, err := b.Advance(t.Context(), []broker.Move{{Name: test.name, Generation: test.generation, Position: position(t, test.move)}})
		if err != nil {
			t.Fatalf("%s: %v", test.story, err)
		}
		if got := len(fenced) > 0; got != test.fenced {
			t.Errorf("%s: got fenced %v, want %v", test.story, got, test.fenced)
		}
		if got := mustLoad(t, b, "crm"); got.Position.String() != test.want || got.Version != version {
			t.Errorf("%s: got %s at version %d, want %s at version %d", test.story, got.Position, got.Version, test.want, version)
		}
	}

	mustStore(t, b, broker.Update{Name: "erp", Generation: 1, Due: broker.Never, Channels: []string{"a"}, Set: position(t, "a@x-0")})
	fenced, err := b.Advance(t.Context(), []broker.Move{
		{Name: "erp", Generation: 2, Position: position(t, "a@x-1")},
		{Name: "erp", Generation: 1, Position: position(t, "a@x-2")},
		{Name: "none", Generation: 1, Position: position(t, "a@x-3")},
		{Name: "crm", Generation: 7, Position: position(t, "b@y-9")},
		{Name: "erp", Generation: 1, Position: position(t, "a@x-4")},
	})
	if err != nil || !slices.Equal(fenced, []int{0, 2}) {
		t.Errorf("a mixed batch: got %v, %v, want moves 0 and 2 fenced", fenced, err)
	}
	progresses, err := b.Look(t.Context(), []string{"erp", "none", "crm"})
	if err != nil {
		t.Fatal(err)
	}
	want := []broker.Progress{
		{Generation: 1, Position: position(t, "a@x-4")}, {}, {Generation: 7, Position: position(t, "a@z-3,b@y-9")},
	}
	if !sameStandings(progresses, want) {
		t.Errorf("look: got %v, want %v", progresses, want)
	}
}

func storePlacesCursors(t *testing.T, b Durable) {
	u := broker.Update{Name: "crm", Generation: 1, Due: broker.Never, Channels: []string{"a", "b"}, Set: position(t, "a@x-5,b@y-5")}
	mustStore(t, b, u)
	advance(t, b, "crm", 1, "a@x-9,b@y-9")
	u = broker.Update{Name: "crm", Generation: 2, Due: broker.Never, Channels: []string{"a", "b", "c"}, Set: position(t, "a@x-2,c@z-0")}
	mustReplace(t, b, u)
	if got, want := mustLoad(t, b, "crm").Position.String(), "a@x-2,b@y-9,c@z-0"; got != want {
		t.Errorf("after a seek and an added channel: got %s, want %s", got, want)
	}
	u = broker.Update{Name: "crm", Generation: 2, Due: broker.Never, Channels: []string{"a", "c"}, Forget: []string{"b"}}
	mustReplace(t, b, u)
	if got, want := mustLoad(t, b, "crm").Position.String(), "a@x-2,c@z-0"; got != want {
		t.Errorf("after a channel was taken out: got %s, want %s", got, want)
	}
}

func listPages(t *testing.T, b Durable) {
	for _, name := range []string{"crm-2", "erp-1", "crm-10", "crm-1", "crm"} {
		mustStore(t, b, broker.Update{Name: name, Generation: 1, Record: []byte(name), Due: broker.Never})
	}
	for _, test := range []struct {
		prefix string
		limit  int
		want   []string
	}{
		{"", 10, []string{"crm", "crm-1", "crm-10", "crm-2", "erp-1"}},
		{"", 1, []string{"crm", "crm-1", "crm-10", "crm-2", "erp-1"}},
		{"crm-", 2, []string{"crm-1", "crm-10", "crm-2"}},
		{"x", 10, nil},
	} {
		var got []string
		for after, more := "", true; more; {
			page, err := b.List(t.Context(), test.prefix, after, test.limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > test.limit {
				t.Errorf("asked for %d, got %d", test.limit, len(page))
			}
			for _, s := range page {
				got, after = append(got, s.Name), s.Name
				if string(s.Record) != s.Name || s.Version == 0 {
					t.Errorf("listed %s as %+v", s.Name, s)
				}
			}
			more = len(page) > 0
		}
		if slices.Sort(got); !slices.Equal(got, test.want) {
			t.Errorf("list %q by %d: got %q, want %q", test.prefix, test.limit, got, test.want)
		}
	}
}

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

func ownedByNode(t *testing.T, b Durable) {
	for i := range 5 {
		mustStore(t, b, broker.Update{Name: fmt.Sprint("s", i), Generation: 1, Node: "one", Due: broker.Never})
	}
	mustReplace(t, b, broker.Update{Name: "s1", Generation: 2, Node: "two", Due: broker.Never})
	mustReplace(t, b, broker.Update{Name: "s2", Generation: 2, Due: broker.Never})
	if err := b.Delete(t.Context(), "s3", mustLoad(t, b, "s3").Version); err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string][]string{"one": {"s0", "s4"}, "two": {"s1"}, "three": nil} {
		var got []string
		for after := ""; ; {
			page, err := b.Owned(t.Context(), node, after, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			after = page[len(page)-1]
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("owned by %s: got %q, want %q", node, got, want)
		}
	}
}

func buryOnce(t *testing.T, b Durable) {
	mustStore(t, b, broker.Update{Name: "crm", Generation: 2, Due: broker.Never, Channels: []string{"a"}, Set: position(t, "a@x-5")})
	version := mustLoad(t, b, "crm").Version
	now := time.Now().UTC().Truncate(time.Millisecond)
	bury := func(generation uint64, move string, ids ...string) error {
		t.Helper()
		burial := broker.Burial{Name: "crm", Generation: generation, Position: position(t, move)}
		for _, id := range ids {
			burial.Letters = append(burial.Letters, broker.Letter{Cursor: id, Time: now, Data: []byte(id + move)})
		}
		_, err := b.Bury(t.Context(), burial)
		return err
	}
	if err := bury(2, "a@x-6", "e6"); err != nil {
		t.Fatal(err)
	}
	if err := bury(1, "a@x-7", "e7"); !errors.Is(err, broker.ErrFenced) {
		t.Errorf("by an older owner: got %v, want ErrFenced", err)
	}
	if err := bury(2, "", "e9"); err != nil {
		t.Errorf("without a move: %v", err)
	}
	if err := bury(2, "a@x-9", "e9", "e8"); err != nil {
		t.Error(err)
	}
	s := mustLoad(t, b, "crm")
	if s.Dead != 3 || s.Position.String() != "a@x-9" || s.Version != version {
		t.Errorf("got %d dead at %s, version %d, want 3 at a@x-9, version %d", s.Dead, s.Position, s.Version, version)
	}
	wantDead(t, b, "crm", "e6", "e9", "e8")
	page, err := b.Dead(t.Context(), "crm", 0, 2)
	if err != nil || len(page) != 2 || string(page[1].Data) != "e9a@x-9" || !page[0].Time.Equal(now) {
		t.Fatalf("first page: got %+v, %v, want e6 and the later e9", page, err)
	}
	page, err = b.Dead(t.Context(), "crm", page[1].Seq, 2)
	if err != nil || len(page) != 1 || page[0].Cursor != "e8" {
		t.Errorf("second page: got %+v, %v, want e8", page, err)
	}
	if err := b.Delete(t.Context(), "crm", mustLoad(t, b, "crm").Version); err != nil {
		t.Fatal(err)
	}
	wantDead(t, b, "crm")
}

func buryBounded(t *testing.T, b Durable) {
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Due: broker.Never})
	long := time.Now().Add(-broker.MaxDeadAge - time.Minute)
	dropped, err := b.Bury(t.Context(), broker.Burial{Name: "crm", Generation: 1, Letters: []broker.Letter{{Cursor: "old", Time: long}}})
	if err != nil {
		t.Fatal(err)
	}
	total := dropped
	for from := 0; from < broker.MaxDeadLetters+10; from += 1001 {
		letters := make([]broker.Letter, 1001)
		for i := range letters {
			letters[i] = broker.Letter{Cursor: fmt.Sprint("e", from+i), Time: time.Now()}
		}
		dropped, err := b.Bury(t.Context(), broker.Burial{Name: "crm", Generation: 1, Letters: letters})
		if err != nil {
			t.Fatal(err)
		}
		total += dropped
	}
	if got := mustLoad(t, b, "crm").Dead; got != broker.MaxDeadLetters || total != 11 {
		t.Errorf("got %d letters and %d dropped, want %d and 11", got, total, broker.MaxDeadLetters)
	}
	page, err := b.Dead(t.Context(), "crm", 0, 1)
	if err != nil || len(page) != 1 || page[0].Cursor != "e10" {
		t.Errorf("the oldest left: got %v, %v, want e10", page, err)
	}
}

// buryBytes: what is kept is bounded in bytes too, but for the newest letter.
func buryBytes(t *testing.T, b Durable) {
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Due: broker.Never})
	const size = broker.MaxDeadBytes/16 - 1024 // sixteen fit
	data := make([]byte, size)
	dropped := 0
	for i := range 20 {
		n, err := b.Bury(t.Context(), broker.Burial{Name: "crm", Generation: 1,
			Letters: []broker.Letter{{Cursor: fmt.Sprint("e", i), Time: time.Now(), Data: data}}})
		if err != nil {
			t.Fatal(err)
		}
		dropped += n
		if i == 2 {
			if n, err := b.Redrive(t.Context(), "crm", nil); n != 3 || err != nil {
				t.Errorf("redrive: got %d, %v, want 3", n, err)
			}
		}
	}
	if s := mustLoad(t, b, "crm"); s.Dead != 16 || s.Redriving != 0 || dropped != 4 {
		t.Errorf("got %d letters, %d redriving, %d dropped, want 16, 0 and 4", s.Dead, s.Redriving, dropped)
	}
	if n, err := b.Remove(t.Context(), "crm", []string{"e7", "e8", "e0"}); n != 2 || err != nil {
		t.Errorf("remove: got %d, %v, want 2", n, err)
	}
	for i := range 2 {
		n, err := b.Bury(t.Context(), broker.Burial{Name: "crm", Generation: 1,
			Letters: []broker.Letter{{Cursor: fmt.Sprint("later", i), Time: time.Now(), Data: data}}})
		if n != 0 || err != nil {
			t.Errorf("there is room again: %d fell out, %v", n, err)
		}
	}
}

// redriveMany: more than one piece are marked, once.
func redriveMany(t *testing.T, b Durable) {
	const many = 1201
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Due: broker.Never})
	letters := make([]broker.Letter, many)
	for i := range letters {
		letters[i] = broker.Letter{Cursor: fmt.Sprint("e", i), Time: time.Now()}
	}
	if _, err := b.Bury(t.Context(), broker.Burial{Name: "crm", Generation: 1, Letters: letters}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{many, 0} {
		if n, err := b.Redrive(t.Context(), "crm", nil); n != want || err != nil {
			t.Errorf("redrive all: got %d, %v, want %d", n, err, want)
		}
	}
	if s := mustLoad(t, b, "crm"); s.Dead != many || s.Redriving != many {
		t.Errorf("got %d dead and %d redriving, want %d of both", s.Dead, s.Redriving, many)
	}
}

func redriveRemove(t *testing.T, b Durable) {
	ctx := t.Context()
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Due: broker.Never})
	letters := []broker.Letter{{Cursor: "e1", Time: time.Now()}, {Cursor: "e2", Time: time.Now()}, {Cursor: "e3", Time: time.Now()}}
	if _, err := b.Bury(ctx, broker.Burial{Name: "crm", Generation: 1, Letters: letters}); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Redrive(ctx, "crm", []string{"e2", "e9"}); n != 1 || err != nil {
		t.Errorf("redrive of one that is there: got %d, %v, want 1", n, err)
	}
	if n, err := b.Redrive(ctx, "crm", nil); n != 2 || err != nil {
		t.Errorf("redrive of the rest: got %d, %v, want 2", n, err)
	}
	if s := mustLoad(t, b, "crm"); s.Dead != 3 || s.Redriving != 3 {
		t.Errorf("got %d dead and %d redriving, want 3 and 3", s.Dead, s.Redriving)
	}
	// Refused once more.
	if _, err := b.Bury(ctx, broker.Burial{Name: "crm", Generation: 1, Letters: letters[:1]}); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Remove(ctx, "crm", []string{"e2", "e2", "e9"}); n != 1 || err != nil {
		t.Errorf("remove: got %d, %v, want 1", n, err)
	}
	if s := mustLoad(t, b, "crm"); s.Dead != 2 || s.Redriving != 1 {
		t.Errorf("got %d dead and %d redriving, want 2 and 1", s.Dead, s.Redriving)
	}
	page, err := b.Dead(ctx, "crm", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range page {
		if want := l.Cursor == "e3"; l.Redrive != want {
			t.Errorf("%s: got redrive %v, want %v", l.Cursor, l.Redrive, want)
		}
	}
	if n, err := b.Remove(ctx, "crm", nil); n != 2 || err != nil {
		t.Errorf("remove all: got %d, %v, want 2", n, err)
	}
	if s := mustLoad(t, b, "crm"); s.Dead != 0 || s.Redriving != 0 {
		t.Errorf("got %d dead and %d redriving, want none", s.Dead, s.Redriving)
	}
}

func noteIsFenced(t *testing.T, b Durable) {
	ctx := t.Context()
	if err := b.SetNote(ctx, "crm", 1, []byte("x")); !errors.Is(err, broker.ErrFenced) {
		t.Errorf("note on nothing: got %v, want ErrFenced", err)
	}
	mustStore(t, b, broker.Update{Name: "crm", Generation: 3, Due: broker.Never})
	if got, err := b.Note(ctx, "crm"); got != nil || err != nil {
		t.Errorf("no note yet: got %q, %v", got, err)
	}
	for _, note := range []string{"one", "two"} {
		if err := b.SetNote(ctx, "crm", 3, []byte(note)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.SetNote(ctx, "crm", 2, []byte("three")); !errors.Is(err, broker.ErrFenced) {
		t.Errorf("by an older owner: got %v, want ErrFenced", err)
	}
	if got, err := b.Note(ctx, "crm"); string(got) != "two" || err != nil {
		t.Errorf("got %q, %v, want two", got, err)
	}
}

func leaseEnds(t *testing.T, b Durable) {
	ctx := t.Context()
	started := time.Now().UTC().Truncate(time.Second)
	for _, n := range []broker.Node{{ID: "one", Name: "host:1", Started: started}, {ID: "two", Name: "host:2", Started: started}} {
		if err := b.Join(ctx, n, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	wantNodes(t, b, "one+", "two+")
	if err := b.Renew(ctx, "one", 30*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	wantNodes(t, b, "one-", "two+")
	if err := b.Renew(ctx, "one", time.Hour); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("renew after the end: got %v, want ErrNotFound", err)
	}
	if err := b.Renew(ctx, "two", time.Hour); err != nil {
		t.Error(err)
	}
	if err := b.Renew(ctx, "three", time.Hour); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("renew of a stranger: got %v, want ErrNotFound", err)
	}
	nodes, err := b.Nodes(ctx)
	if err != nil || nodes[0].Name != "host:1" || !nodes[0].Started.Equal(started) {
		t.Errorf("got %+v, %v, want the node as it joined", nodes, err)
	}
	for range 2 {
		if err := b.Leave(ctx, "one"); err != nil {
			t.Error(err)
		}
	}
	wantNodes(t, b, "two+")
}

func signalsArrive(t *testing.T, b Durable) {
	var mu sync.Mutex
	heard := map[string][]string{}
	for _, node := range []string{"one", "two"} {
		stop, err := b.Listen(t.Context(), node, func(m []byte) {
			mu.Lock()
			heard[node] = append(heard[node], string(m))
			mu.Unlock()
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	for i := range 20 {
		for to, text := range map[string]string{"one": "to one", "two": "to two", "three": "to nobody"} {
			if err := b.Send(t.Context(), to, fmt.Appendf(nil, "%s %d", text, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.Send(t.Context(), "", []byte("to all")); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(" ", i))
	}
	eventually(t, "all signals arrive", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(heard["one"]) >= 21 && len(heard["two"]) >= 21
	})
	mu.Lock()
	defer mu.Unlock()
	for node, got := range heard {
		expected := []string{}
		for _, w := range want {
			expected = append(expected, "to "+node+w)
		}
		// What goes to all may come another way and overtake.
		got = slices.DeleteFunc(slices.Clone(got), func(m string) bool { return m == "to all" })
		if !slices.Equal(got, expected) {
			t.Errorf("node %s heard %q, want %q", node, got, expected)
		}
	}
}

func position(t *testing.T, text string) event.Position {
	t.Helper()
	p, err := event.ParsePosition(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustStore(t *testing.T, b Durable, u broker.Update) {
	t.Helper()
	if err := b.Store(t.Context(), u); err != nil {
		t.Fatalf("store %s at version %d: %v", u.Name, u.Version, err)
	}
}

// mustReplace stores u in place of what there is.
func mustReplace(t *testing.T, b Durable, u broker.Update) {
	t.Helper()
	u.Version = mustLoad(t, b, u.Name).Version
	mustStore(t, b, u)
}

func mustLoad(t *testing.T, b Durable, name string) broker.Subscription {
	t.Helper()
	s, err := b.Load(t.Context(), name)
	if err != nil {
		t.Fatalf("load %s: %v", name, err)
	}
	return s
}

func advance(t *testing.T, b Durable, name string, generation uint64, to string) {
	t.Helper()
	fenced, err := b.Advance(t.Context(), []broker.Move{{Name: name, Generation: generation, Position: position(t, to)}})
	if err != nil || len(fenced) > 0 {
		t.Fatalf("advance %s to %s: fenced %v, %v", name, to, fenced, err)
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

func wantDead(t *testing.T, b Durable, name string, ids ...string) {
	t.Helper()
	page, err := b.Dead(t.Context(), name, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, l := range page {
		got = append(got, l.Cursor)
	}
	if !slices.Equal(got, ids) && len(got)+len(ids) > 0 {
		t.Errorf("dead letters: got %q, want %q", got, ids)
	}
}

// wantNodes waits until the nodes are as said: an ID and + for alive, - for
// dead.
func wantNodes(t *testing.T, b Durable, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("nodes are %q", want), func() bool {
		nodes, err := b.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range nodes {
			mark := "-"
			if n.Alive {
				mark = "+"
			}
			got = append(got, n.ID+mark)
		}
		return slices.Equal(got, want)
	})
}

// mustAppendCursor appends an event and returns the cursor behind it.
func mustAppendCursor(t *testing.T, b Durable, channel string) event.Cursor {
	t.Helper()
	done, err := b.Append(context.WithoutCancel(t.Context()), channel, []broker.Entry{{Data: []byte("event")}})
	if err != nil || len(done) != 1 {
		t.Errorf("append to %s: got %v, %v", channel, done, err)
		return event.Cursor{}
	}
	return event.Cursor{Channel: channel, Epoch: done[0].Epoch, Offset: done[0].Offset}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func sameStandings(a, b []broker.Progress) bool {
	return slices.EqualFunc(a, b, func(x, y broker.Progress) bool {
		return x.Generation == y.Generation && (len(x.Position) == 0 && len(y.Position) == 0 || reflect.DeepEqual(x.Position, y.Position))
	})
}
