package chaos

import (
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// A log is forked after a line was told up to where events may come twice: they
// come with cursors of the epoch that follows, and the offsets tell, as they do to
// the SDKs. What another partition announces takes nothing of that back.
func TestAnAnnouncementIsGoodPastAFork(t *testing.T) {
	book := oracle.NewBook(&oracle.World{}, "crm", func(oracle.Published) bool { return true })
	give := func(l *line, cursor string) {
		t.Helper()
		if at := l.take(&message{ID: cursor[len("a@e1-"):], Cursor: cursor}); at == (event.Cursor{}) {
			t.Fatalf("%s is no cursor", cursor)
		}
	}
	first := &line{book: book, by: "first", since: time.Now(), announced: map[string]event.Cursor{}}
	for _, cursor := range []string{"a@e1-1", "a@e1-2", "a@e1-3"} {
		give(first, cursor)
	}
	next := &line{book: book, by: "next", announced: map[string]event.Cursor{}}
	for _, m := range []message{{Op: "hello", Cursor: "a@e1-0"}, {Op: "redelivery", Cursor: "a@e1-2"}, {Op: "redelivery", Cursor: "a@e2-1"}} {
		if err := next.control(m.Op, &m); err != nil {
			t.Fatal(err)
		}
	}
	give(next, "a@e2-1")
	give(next, "a@e2-2")
	if broken := book.Balance().Broken; len(broken) > 0 {
		t.Errorf("announced, and said not to be: %q", broken)
	}
	give(next, "a@e2-3")
	if broken := book.Balance().Broken; len(broken) != 1 {
		t.Errorf("%q, want one: it lies beyond what was announced", broken)
	}
}
