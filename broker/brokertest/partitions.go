package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

func partitionsGoWithTheirs(t *testing.T, b Durable) {
	ctx := t.Context()
	at := mustAppendCursor(t, b, "a")
	next := mustAppendCursor(t, b, "a")
	for _, name := range []string{"crm", "crm.eu", "crm-2", "crm0"} {
		mustStore(t, b, broker.Update{Name: name, Generation: 1, Record: []byte(name), Channels: []string{"a"}, Due: broker.Never})
	}
	divide := func() {
		t.Helper()
		for p := range 3 {
			mustStore(t, b, broker.Update{
				Name: fmt.Sprint("crm/", p), Generation: uint64(10 + p), Record: []byte("part"), Channels: []string{"a"},
				Set: event.Position{at}, Node: "n1", Due: broker.Never,
			})
		}
	}
	divide()

	fenced, err := b.Advance(ctx, []broker.Move{
		{Name: "crm/0", Generation: 10, Position: event.Position{next}},
		{Name: "crm/1", Generation: 10, Position: event.Position{next}},
	})
	if err != nil || !slices.Equal(fenced, []int{1}) {
		t.Fatalf("advance: refused %v (%v), want the move of the wrong generation", fenced, err)
	}
	for name, want := range map[string]event.Cursor{"crm/0": next, "crm/1": at} {
		if c, _ := mustLoad(t, b, name).Position.Of("a"); c != want {
			t.Errorf("%s is at %s, want %s", name, c, want)
		}
	}
	if owned, err := b.Owned(ctx, "n1", "", 10); err != nil || len(owned) != 3 {
		t.Errorf("n1 owns %v (%v), want the three partitions", owned, err)
	}

	wantListed := func(limit int) {
		t.Helper()
		var names []string
		for after := ""; ; {
			page, err := b.List(ctx, "crm", after, limit)
			if err != nil {
				t.Fatalf("list: %v", err)
			}
			if len(page) == 0 {
				break
			}
			for _, s := range page {
				names, after = append(names, s.Name), s.Name
			}
		}
		slices.Sort(names)
		if want := []string{"crm", "crm-2", "crm.eu", "crm0"}; !slices.Equal(names, want) {
			t.Errorf("listed by %d: %v, want %v", limit, names, want)
		}
	}
	wantListed(1)
	wantListed(100)

	version := mustLoad(t, b, "crm/2").Version
	mustStore(t, b, broker.Update{Name: "crm", Version: mustLoad(t, b, "crm").Version, Generation: 2, Undivided: true, Due: broker.Never})
	wantNoPartitions(ctx, t, b)
	if fenced, err := b.Advance(ctx, []broker.Move{{Name: "crm/0", Generation: 10, Position: event.Position{next}}}); err != nil || len(fenced) != 1 {
		t.Errorf("a move of a partition that is gone: refused %v (%v), want it fenced", fenced, err)
	}

	divide()
	if got := mustLoad(t, b, "crm/2").Version; got <= version {
		t.Errorf("a partition made anew has version %d, want one after %d", got, version)
	}
	leaveTheLeast(t, b, at, next)
	divide()
	version = mustLoad(t, b, "crm/2").Version
	if err := b.Delete(ctx, "crm", mustLoad(t, b, "crm").Version); err != nil {
		t.Fatalf("delete: %v", err)
	}
	wantNoPartitions(ctx, t, b)
	defer func() {
		// Made again it is whole: nothing of the old one stands in its place.
		mustStore(t, b, broker.Update{Name: "crm", Generation: 20, Channels: []string{"a"}, Due: broker.Never})
		divide()
		if got := mustLoad(t, b, "crm/2").Version; got <= version {
			t.Errorf("a partition of one made again has version %d, want one after %d", got, version)
		}
		if _, err := b.Bury(ctx, broker.Burial{Name: "crm", Generation: 20, Letters: []broker.Letter{{Cursor: "a@e-1", Time: time.Now(), Data: []byte("x")}}}); err != nil {
			t.Fatalf("bury: %v", err)
		}
		if n, err := b.Redrive(ctx, "crm", nil); n != 1 || err != nil {
			t.Errorf("redrive: %d, %v; want the one letter", n, err)
		}
	}()
	if owned, err := b.Owned(ctx, "n1", "", 10); err != nil || len(owned) != 0 {
		t.Errorf("n1 owns %v (%v) once all is deleted, want nothing", owned, err)
	}
	for _, name := range []string{"crm.eu", "crm-2", "crm0"} {
		mustLoad(t, b, name)
	}
}

func wantNoPartitions(ctx context.Context, t *testing.T, b Durable) {
	t.Helper()
	for p := range 3 {
		if _, err := b.Load(ctx, fmt.Sprint("crm/", p)); !errors.Is(err, broker.ErrNotFound) {
			t.Errorf("partition %d: got %v, want ErrNotFound", p, err)
		}
	}
}

// leaveTheLeast has partitions acknowledge after they were read: what all have
// acknowledged by the time they go stays so, where it is wanted.
func leaveTheLeast(t *testing.T, b Durable, at, next event.Cursor) {
	t.Helper()
	other := event.Cursor{Channel: "a", Epoch: "elsewhere", Offset: next.Offset}
	all := []string{"crm/0", "crm/2", "crm/1"}
	advance := func(names ...string) {
		t.Helper()
		for _, name := range names {
			s := mustLoad(t, b, name)
			if fenced, err := b.Advance(t.Context(), []broker.Move{{Name: name, Generation: s.Generation, Position: event.Position{next}}}); err != nil || len(fenced) > 0 {
				t.Fatalf("advance %s: refused %v (%v)", name, fenced, err)
			}
		}
	}
	for _, row := range []struct {
		story     string
		ahead     []string
		set, want event.Cursor
		least     bool
	}{
		{"some have", all[:2], at, at, true},
		{"all have", all, at, next, true},
		{"all have, and it is placed there", all, at, at, false},
		{"all have, of another epoch", all, other, other, true},
	} {
		for p := range 3 {
			name := fmt.Sprint("crm/", p)
			u := broker.Update{Name: name, Generation: uint64(30 + p), Channels: []string{"a"}, Set: event.Position{at}, Due: broker.Never}
			if s, err := b.Load(t.Context(), name); err == nil {
				u.Version = s.Version
			}
			mustStore(t, b, u)
		}
		advance(row.ahead...)
		mustStore(t, b, broker.Update{Name: "crm", Version: mustLoad(t, b, "crm").Version, Generation: 3, Channels: []string{"a"}, Set: event.Position{row.set},
			Undivided: true, Least: row.least, Due: broker.Never})
		if got, _ := mustLoad(t, b, "crm").Position.Of("a"); got != row.want {
			t.Errorf("%s acknowledged what follows %s: the position is %s, want %s", row.story, row.set, got, row.want)
		}
		wantNoPartitions(t.Context(), t, b)
	}
}
