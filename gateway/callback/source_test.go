package callback_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
	cursors "github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/feed/feedtest"
)

// newFeeds makes a node's feeds over a log in memory.
func newFeeds(t *testing.T, log *feedtest.Log) *feed.Feeds {
	t.Helper()
	feeds := feed.New(feed.Options{Broker: log, Logger: slog.New(slog.DiscardHandler)}, feed.NewReady())
	t.Cleanup(feeds.Close)
	return feeds
}

// read reads on from a position until there is nothing more, and lists what it
// found: ids, "gap from-to reason", "?" behind what may have come before.
func readAll(t *testing.T, s callback.Source, p event.Position, limit int) (string, event.Position) {
	t.Helper()
	var found []string
	for range 20_000 {
		page, err := s.Read(t.Context(), p, limit, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Events) > limit {
			t.Fatalf("read %d events, the limit is %d", len(page.Events), limit)
		}
		for _, g := range page.Gaps {
			found = append(found, fmt.Sprintf("gap %d-%d %s", g.From.Offset, g.To.Offset, g.Reason))
		}
		for _, e := range page.Events {
			text := e.Cursor.Channel + e.ID
			if e.Redelivery {
				text += "?"
			}
			found = append(found, text)
		}
		if len(page.Events)+len(page.Gaps) == 0 && page.Position.String() == p.String() {
			return strings.Join(found, " "), p
		}
		p = page.Position
	}
	t.Fatal("reading doesn't end")
	return "", nil
}

func at(t *testing.T, text string) event.Position {
	t.Helper()
	p, err := event.ParsePosition(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func filter(t *testing.T, patterns string) *cursors.Filter {
	t.Helper()
	f, err := new(cursors.Filters).Get(cursors.Selection{Types: patterns})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSourceReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := feedtest.New()
		log.Append("a", "x", "", "1", "2", "3")
		log.Append("b", "x", "", "1", "2")
		feeds := newFeeds(t, log)
		s := callback.NewFeedSource(feeds, []string{"a", "b"}, nil, at(t, "a@e1-2"), 0)
		defer s.Rest()
		got, p := readAll(t, s, at(t, "a@e1-1,b@e2-0"), 10)
		wantText(t, "backlog", got, "a2? a3 b1 b2")

		select {
		case <-s.Wake():
		default:
		}
		log.Append("b", "x", "", "3")
		<-s.Wake()
		got, p = readAll(t, s, p, 10)
		wantText(t, "after an append", got, "b3")

		s.Rest()
		time.Sleep(time.Minute)
		if n, _ := feeds.Count(); n != 0 {
			t.Errorf("%d feeds are open a minute after the source came to rest", n)
		}
		log.Append("a", "x", "", "4")
		got, _ = readAll(t, s, p, 10)
		wantText(t, "after a rest", got, "a4")
	})
}

func TestSourceSharesItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := feedtest.New()
		log.Append("long", "x", "", strings.Split(strings.Repeat("1 ", 5000), " ")[:5000]...)
		log.Append("short", "x", "", "1")
		s := callback.NewFeedSource(newFeeds(t, log), []string{"long", "short"}, nil, nil, 0)
		defer s.Rest()
		page, err := s.Read(t.Context(), at(t, "long@e1-0,short@e2-0"), 10, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if last := page.Events[len(page.Events)-1]; last.Cursor.Channel != "short" {
			t.Errorf("the short channel waits behind the long one's backlog: %v", page.Position)
		}
		got, _ := readAll(t, s, page.Position, 1)
		if n := len(strings.Fields(got)); n+len(page.Events) != 5001 {
			t.Errorf("read %d events of 5,001", n+len(page.Events))
		}
	})
}

func TestSourceLeavesOutTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := feedtest.New()
		log.Append("a", "noise", "", strings.Split(strings.Repeat("1 ", 10_000), " ")[:10_000]...)
		log.Append("a", "x", "", "1")
		log.Append("a", "noise", "", "1")
		s := callback.NewFeedSource(newFeeds(t, log), []string{"a"}, filter(t, "x"), nil, 0)
		defer s.Rest()
		got, p := readAll(t, s, at(t, "a@e1-0"), 10)
		wantText(t, "events", got, "a10001")
		wantText(t, "position", p.String(), "a@e1-10002")
	})
}

func TestSourceTellsOfGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := feedtest.New()
		log.Append("a", "x", "", "1", "2", "3", "4")
		log.Trim("a", 3)
		s := callback.NewFeedSource(newFeeds(t, log), []string{"a"}, nil, nil, 0)
		defer s.Rest()
		got, p := readAll(t, s, at(t, "a@e1-1"), 10)
		wantText(t, "behind retention", got, "gap 1-2 retention a3 a4")

		log.Fork("a", 3)
		synctest.Wait()
		log.Append("a", "x", "", "4")
		time.Sleep(time.Second)
		got, _ = readAll(t, s, p, 10)
		wantText(t, "beyond a fork", got, "gap 4-3 reset a4")

		got, _ = readAll(t, s, at(t, "a@zzz-7"), 10)
		wantText(t, "of an unknown epoch", got, "gap 7-2 reset a3 a4")
	})
}

func TestSourceMarksNoMoreThanAWindowWhereItIsUnclear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := feedtest.New()
		log.Append("a", "x", "", "1", "2", "3")
		s := callback.NewFeedSource(newFeeds(t, log), []string{"a"}, nil, nil, 2)
		defer s.Rest()
		got, p := readAll(t, s, at(t, "a@e1-0"), 10)
		log.Append("a", "x", "", "3")
		more, _ := readAll(t, s, p, 10)
		wantText(t, "events", got+" "+more, "a1? a2? a3 a4")
	})
}

// What a partition acknowledged before a fork is left out after it too.
func TestSourceSkipsWhatWasAcknowledgedBeforeAFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := feedtest.New()
		log.Append("a", "x", "", "1", "2", "3")
		log.Fork("a", 3)
		log.Append("a", "x", "", "4")
		s := callback.NewFeedSource(newFeeds(t, log), []string{"a"}, nil, nil, 0)
		defer s.Rest()
		s.Skip([]event.Position{at(t, "a@e1-2")}, []int{0})
		got, _ := readAll(t, s, at(t, "a@e1-0"), 10)
		wantText(t, "after a fork", got, "a3 a4")
	})
}
