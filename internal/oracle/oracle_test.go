package oracle_test

import (
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// TestOracleSeesWhatIsBroken breaks each promise once: an oracle that can't
// find fault proves nothing.
func TestOracleSeesWhatIsBroken(t *testing.T) {
	begun := time.Now()
	at := func(offset uint64) event.Cursor { return event.Cursor{Channel: "a", Epoch: "e", Offset: offset} }
	give := func(b *oracle.Book, offset uint64, by string, announced bool) {
		id := string(rune('0' + offset))
		b.Given(oracle.Delivery{ID: id, Key: "k" + id, Cursor: at(offset), By: by, Since: time.Now(), Announced: announced})
		b.Done(id)
	}
	for _, c := range []struct {
		name string
		does func(b *oracle.Book)
		lost int
		want string // of the broken promise
	}{
		{"all is well", func(b *oracle.Book) { give(b, 1, "x", false); give(b, 2, "x", false); give(b, 3, "x", false) }, 0, ""},
		{"one never comes", func(b *oracle.Book) { give(b, 1, "x", false); give(b, 3, "x", false) }, 1, ""},
		{"it comes, but nobody is done with it", func(b *oracle.Book) {
			give(b, 1, "x", false)
			give(b, 2, "x", false)
			b.Given(oracle.Delivery{ID: "3", Cursor: at(3)})
		}, 1, ""},
		{"a gap is told", func(b *oracle.Book) { give(b, 1, "x", false); b.Gap("a@e-1", "a@e-3") }, 0, ""},
		{"a gap is too short", func(b *oracle.Book) { give(b, 1, "x", false); b.Gap("a@e-1", "a@e-2") }, 1, ""},
		{"a tail is lost, and told", func(b *oracle.Book) { give(b, 1, "x", false); b.Gap("a@e-9", "a@f-1") }, 0, ""},
		{"less is lost than doesn't come", func(b *oracle.Book) { give(b, 1, "x", false); b.Gap("a@e-9", "a@f-2") }, 1, ""},
		{"the rest is set aside", func(b *oracle.Book) { give(b, 1, "x", false); b.Dead("2"); b.Dead("3") }, 0, ""},
		{"somebody skips it", func(b *oracle.Book) { b.Skip(begun.Add(time.Second)) }, 0, ""},
		{"somebody skips too little", func(b *oracle.Book) { b.Skip(begun.Add(-time.Second)) }, 3, ""},
		{"a repeat is announced", func(b *oracle.Book) {
			for n := range uint64(3) {
				give(b, n+1, "x", false)
			}
			give(b, 3, "y", true)
		}, 0, ""},
		{"a repeat is not", func(b *oracle.Book) {
			for n := range uint64(3) {
				give(b, n+1, "x", false)
			}
			give(b, 3, "y", false)
		}, 0, "twice without a word"},
		{"what was forgotten is made again in the same place", func(b *oracle.Book) {
			give(b, 1, "x", false)
			give(b, 2, "x", false)
			give(b, 3, "x", false)
			b.Gap("a@e-3", "a@f-2")
			b.Given(oracle.Delivery{ID: "3", Key: "k3", Cursor: event.Cursor{Channel: "a", Epoch: "f", Offset: 3}, By: "y"})
		}, 0, ""},
		{"what a fork kept comes again", func(b *oracle.Book) {
			give(b, 1, "x", false)
			give(b, 2, "x", false)
			give(b, 3, "x", false)
			b.Gap("a@e-3", "a@f-2")
			b.Given(oracle.Delivery{ID: "2", Key: "k2", Cursor: event.Cursor{Channel: "a", Epoch: "f", Offset: 2}, By: "y"})
		}, 0, "twice without a word"},
		{"order is lost", func(b *oracle.Book) { give(b, 2, "x", false); give(b, 1, "x", false); give(b, 3, "x", false) }, 0, "first came after"},
		{"order of keys is enough", func(b *oracle.Book) {
			b.ByKey = true
			give(b, 2, "x", false)
			give(b, 1, "x", false)
			give(b, 3, "x", false)
		}, 0, ""},
		{"an acknowledgement is taken back", func(b *oracle.Book) {
			give(b, 1, "x", false)
			b.Acked(at(2))
			give(b, 2, "y", true)
			give(b, 3, "y", false)
		}, 0, "answered as acknowledged"},
		{"a position is shown and taken back", func(b *oracle.Book) {
			give(b, 1, "x", false)
			give(b, 2, "x", false)
			give(b, 3, "x", false)
			b.Acked(at(2))
			b.Shown(event.Position{at(1)}, time.Now().Add(time.Second))
		}, 0, "shown at"},
		{"somebody else's event comes", func(b *oracle.Book) {
			give(b, 1, "x", false)
			give(b, 2, "x", false)
			give(b, 3, "x", false)
			b.Given(oracle.Delivery{ID: "9", Cursor: event.Cursor{Channel: "b", Epoch: "e", Offset: 9}})
		}, 0, "isn't of this subscription"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &oracle.World{}
			for n := range uint64(3) {
				w.Published(oracle.Published{ID: string(rune('1' + n)), Cursor: at(n + 1), Begun: begun})
			}
			b := oracle.NewBook(w, "crm", func(p oracle.Published) bool { return p.Cursor.Channel == "a" })
			c.does(b)
			a := b.Balance()
			if len(a.Lost) != c.lost {
				t.Errorf("lost %v, want %d", a.Lost, c.lost)
			}
			if got := strings.Join(a.Broken, "; "); c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("broken: %q, want %q", got, c.want)
			}
		})
	}
}
