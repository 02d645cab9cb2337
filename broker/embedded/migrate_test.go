package embedded_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
)

// letterData is a dead letter's data as the gateway writes it.
func letterData(id, cursor string) []byte {
	return fmt.Appendf(nil, `{"event":{"id":%q,"type":"t","cursor":%q},"reason":"no","attempts":1}`, id, cursor)
}

// A directory of format 1 named letters by ids and had no index of creators. All
// of that is found under today's names, also where a crash ended the first try.
func TestMigrateFromFormat1(t *testing.T) {
	b := openIn(t, t.TempDir(), embedded.FsyncAlways)
	now := time.Now().UTC().Truncate(time.Millisecond)
	write := func(name, creator string, letters ...embedded.Letter1) {
		t.Helper()
		if err := b.WriteFormat1(name, fmt.Appendf(nil, `{"channels":["a"],"creator":%q}`, creator), letters); err != nil {
			t.Fatal(err)
		}
	}
	write("crm", "ann",
		embedded.Letter1{Name: "e1", Time: now, Data: letterData("e1", "a@x-1")},
		embedded.Letter1{Name: "e2", Time: now, Data: letterData("e2", "a@x-2"), Redrive: true},
		embedded.Letter1{Name: "e3", Time: now, Data: letterData("e3", "a@x-3")},
		// A binary in between named it by its cursor already: it is the last.
		embedded.Letter1{Name: "a@x-3", Time: now, Data: letterData("e3", "a@x-3")},
		embedded.Letter1{Name: "e5", Time: now, Data: []byte("not to be read")},
	)
	write("crm-2", "bob")
	write("crm/0", "")
	write("old", "")
	if err := b.SetFormat(1); err != nil {
		t.Fatal(err)
	}
	whole, half := t.TempDir()+"/whole", t.TempDir()+"/half"
	if err := errors.Join(b.Snapshot(whole), b.LeaveHalfMigrated("crm", half)); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := embedded.Check(t.Context(), half); err != nil || r.Format != 2 {
		t.Errorf("half migrated: %+v, %v; want format 2, which an older binary refuses", r, err)
	}

	for _, dir := range []string{whole, half} {
		b := openIn(t, dir, embedded.FsyncAlways)
		for creator, want := range map[string][]string{"ann": {"crm"}, "bob": {"crm-2"}} {
			if got, err := b.Created(t.Context(), creator, "", 10); err != nil || !slices.Equal(got, want) {
				t.Errorf("created by %s: %q (%v), want %q", creator, got, err, want)
			}
		}
		wantLetters := func(want string) {
			t.Helper()
			letters, err := b.Dead(t.Context(), "crm", 0, 10)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range letters {
				text := l.Cursor
				if l.Redrive {
					text += "!"
				}
				got = append(got, text)
			}
			if got := strings.Join(got, " "); got != want {
				t.Errorf("letters: %s, want %s", got, want)
			}
		}
		wantLetters("a@x-1 a@x-2! a@x-3 e5")
		if s, err := b.Load(t.Context(), "crm"); err != nil || s.Dead != 4 || s.Redriving != 1 {
			t.Errorf("%d letters, %d of them to come again (%v), want 4 and 1", s.Dead, s.Redriving, err)
		}
		if n, err := b.Redrive(t.Context(), "crm", []string{"a@x-1", "a@x-2", "e1"}); n != 1 || err != nil {
			t.Errorf("redrive: %d, %v; want the one that had no mark", n, err)
		}
		if n, err := b.Remove(t.Context(), "crm", []string{"a@x-2", "a@x-3", "e5", "e3"}); n != 3 || err != nil {
			t.Errorf("remove: %d, %v; want the three that are there", n, err)
		}
		if _, err := b.Bury(t.Context(), broker.Burial{Name: "crm", Generation: 1, Letters: []broker.Letter{
			{Cursor: "a@x-1", Time: now, Data: letterData("e1", "a@x-1")}, {Cursor: "a@x-9", Time: now, Data: letterData("e9", "a@x-9")},
		}}); err != nil {
			t.Fatal(err)
		}
		wantLetters("a@x-1 a@x-9")
		if err := b.Delete(t.Context(), "crm", 1); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Created(t.Context(), "ann", "", 10); err != nil || len(got) != 0 {
			t.Errorf("created by ann: %q (%v) once it is deleted, want nothing", got, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if r, err := embedded.Check(t.Context(), dir); err != nil || r.Format != embedded.Format || len(r.Damaged) > 0 {
			t.Errorf("afterwards: %+v, %v", r, err)
		}
	}
}
