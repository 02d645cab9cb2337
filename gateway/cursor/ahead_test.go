package cursor_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/feed/feedtest"
)

// What another node delivered this one may not have heard of yet: how far that
// may have gone is for the log to say.
func TestAheadEndsWhereTheLogDoes(t *testing.T) {
	log := feedtest.New()
	log.Append("a", "t", "", "1")
	feeds := feed.New(feed.Options{Broker: log, Logger: slog.New(slog.DiscardHandler)}, feed.NewReady())
	defer feeds.Close()
	r, _, err := cursor.Open(context.Background(), feeds, "a", nil, cursor.Since{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	log.Append("a", "t", "", "2", "3")
	log.Silence(true)
	log.Append("a", "t", "", "4", "5", "6", "7")
	from := r.From(event.Cursor{Channel: "a", Epoch: "e1", Offset: 1})
	for n, want := range map[int]string{1: "a@e1-2", 5: "a@e1-6", 32: "a@e1-7"} {
		if got, err := from.Ahead(context.Background(), n); err != nil || got.String() != want {
			t.Errorf("%d ahead of 1: %s, %v; want %s", n, got, err, want)
		}
	}
}

// A log was forked, and another node delivered what came then, which this one has
// not heard of: what it is told was delivered is announced all the same.
func TestRedeliveredBeyondAForkThatTheNodeHasNotHeardOf(t *testing.T) {
	log := feedtest.New()
	log.Append("a", "t", "", "1", "2")
	feeds := feed.New(feed.Options{Broker: log, Logger: slog.New(slog.DiscardHandler)}, feed.NewReady())
	defer feeds.Close()
	r, _, err := cursor.Open(context.Background(), feeds, "a", nil, cursor.Since{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	log.Silence(true)
	log.Fork("a", 2)
	log.Append("a", "t", "", "3", "4", "5")
	for _, c := range []struct {
		story string
		from  uint64
		known string
		doubt int
		want  string
	}{
		{"it said how far it delivered", 1, "a@e2-4", 0, "a@e2-4"},
		{"it didn't say", 1, "", 3, "a@e2-4"},
		{"it may have delivered anything", 1, "", cursor.Everything, "a@e2-5"},
		{"it delivered nothing beyond the position", 2, "a@e2-2", 0, ""},
	} {
		known, err := event.ParsePosition(c.known)
		if err != nil {
			t.Fatal(err)
		}
		from := r.From(event.Cursor{Channel: "a", Epoch: "e1", Offset: c.from})
		upTo, any, err := from.Redelivered(context.Background(), known, c.doubt != 0, c.doubt)
		if got := upTo.String(); err != nil || any != (c.want != "") || any && got != c.want {
			t.Errorf("%s: %s, %v, %v; want %s", c.story, got, any, err, c.want)
		}
	}
}
