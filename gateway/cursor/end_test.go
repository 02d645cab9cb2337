package cursor_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/feed/feedtest"
)

// taken reads all there is and names the offsets that r takes, and those of gaps.
func taken(t *testing.T, r *cursor.Reader) string {
	t.Helper()
	var items []*feed.Item
	var got []string
	for {
		step, err := r.Read(context.Background(), &items, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if step.Move == nil && len(step.Items) == 0 {
			return strings.Join(got, " ")
		}
		if step.Move != nil && step.Move.Reason != "" {
			got = append(got, step.Move.Reason)
		}
		for _, item := range step.Items {
			if r.Advance(item.Offset); r.Match(item) {
				got = append(got, r.Cursor().String())
			}
		}
	}
}

// A reader that ends at a position leaves out what lies beyond it, wherever in
// the log that place comes to be: also what took the place of events that were
// forgotten.
func TestReaderEnds(t *testing.T) {
	for _, c := range []struct {
		story string
		then  func(log *feedtest.Log)
		want  string
	}{
		{"nothing happens", func(*feedtest.Log) {}, "a@e1-3 a@e1-4"},
		{"the log is forked beyond the end", func(log *feedtest.Log) {
			log.Fork("a", 5)
			log.Append("a", "t", "", "1", "2")
		}, "a@e2-3 a@e2-4"},
		{"the log is forked before the end", func(log *feedtest.Log) {
			log.Fork("a", 3)
			log.Append("a", "t", "", "1", "2")
		}, "a@e2-3"},
		{"another log takes its place", func(log *feedtest.Log) {
			log.Drop("a")
			log.Append("a", "t", "", "1", "2", "3", "4")
		}, "reset"},
		{"the range is gone", func(log *feedtest.Log) {
			log.Trim("a", 6)
		}, "retention"},
	} {
		for _, opened := range []string{"before", "after"} {
			t.Run(c.story+", opened "+opened, func(t *testing.T) {
				log := feedtest.New()
				log.Append("a", "t", "", "1", "2", "3", "4", "5", "6")
				feeds := feed.New(feed.Options{Broker: log, Logger: slog.New(slog.DiscardHandler), RingEvents: 1}, feed.NewReady())
				defer feeds.Close()
				var filters cursor.Filters
				filter, err := filters.Get(cursor.Selection{Until: "a@e1-4"})
				if err != nil {
					t.Fatal(err)
				}
				if opened == "after" {
					c.then(log)
				}
				r, m, err := cursor.Open(context.Background(), feeds, "a", filter, cursor.Since{Position: event.Position{{Channel: "a", Epoch: "e1", Offset: 2}}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				got := ""
				if m != nil {
					got = m.Reason + " "
				}
				if opened == "before" {
					c.then(log)
				}
				if got = strings.TrimSpace(got + taken(t, &r)); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			})
		}
	}
}
