package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
)

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
