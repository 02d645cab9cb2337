package brokertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
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
	deadline := time.Now().Add(time.Minute) // a busy machine's
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func sameStandings(a, b []broker.Progress) bool {
	return slices.EqualFunc(a, b, func(x, y broker.Progress) bool {
		return x.Generation == y.Generation && (len(x.Position) == 0 && len(y.Position) == 0 || reflect.DeepEqual(x.Position, y.Position))
	})
}
