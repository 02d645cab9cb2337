package feed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/feed/feedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnItemIsFramedOnceForAllTransports(t *testing.T) {
	for _, size := range []int{0, 1, 100, 125, 126, 60_000, 70_000} {
		f := event.Fields{ID: "1", Source: "/s", Type: `a"b`, Key: "k", Data: []byte(`"` + strings.Repeat("x", size) + `"`)}
		item, err := feed.NewItem("acct-42", "e1", broker.Item{Offset: 7, Data: f.AppendStored(nil)})
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(item.JSON()) || item.Type() != `a"b` || item.Key() != "k" || item.ID() != "1" {
			t.Errorf("size %d: %.80s, type %q, key %q", size, item.JSON(), item.Type(), item.Key())
		}
		stream := string(item.Prefix()) + string(item.Rest())
		if want := "id: acct-42@e1-7\ndata: " + string(item.JSON()) + "\n\n"; stream != want {
			t.Errorf("size %d: stream %.80q", size, stream)
		}
		frame := item.Frame()
		if frame[0] != 0x81 {
			t.Fatalf("size %d: first byte %x", size, frame[0])
		}
		n, head := int(frame[1]), 2
		switch n {
		case 126:
			n, head = int(binary.BigEndian.Uint16(frame[2:])), 4
		case 127:
			n, head = int(binary.BigEndian.Uint64(frame[2:])), 10
		}
		if n != len(item.JSON()) || !bytes.Equal(frame[head:], item.JSON()) {
			t.Errorf("size %d: frame of %d bytes, JSON of %d", size, n, len(item.JSON()))
		}
	}
	if _, err := feed.NewItem("a", "e", broker.Item{Offset: 1, Data: []byte("damaged")}); err == nil {
		t.Error("damaged bytes became an item")
	}
}

func TestFramingAllocatesWhatIsKept(t *testing.T) {
	f := event.Fields{ID: "1", Source: "/s", Type: "t", Data: []byte(`{"n":1}`)}
	stored := broker.Item{Offset: 7, Data: f.AppendStored(nil)}
	if n := testing.AllocsPerRun(100, func() { feed.NewItem("acct-42", "e1", stored) }); n > 2 {
		t.Errorf("%v allocations, want the item and its bytes", n)
	}
}

type node struct {
	*feed.Feeds
	log *feedtest.Log
}

func newNode(t *testing.T, o feed.Options) node {
	t.Helper()
	log := feedtest.New()
	o.Broker = log
	fs := feed.New(o, feed.NewReady())
	t.Cleanup(fs.Close)
	return node{fs, log}
}

func (n node) open(t *testing.T, channel string) *feed.Feed {
	t.Helper()
	f, err := n.Open(context.Background(), channel)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func offsets(items []*feed.Item) string {
	var b strings.Builder
	for _, i := range items {
		fmt.Fprintf(&b, "%d ", i.Offset)
	}
	return strings.TrimSpace(b.String())
}

func TestARingIsBoundedAndEmptiesWithTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, feed.Options{RingEvents: 3})
		f := n.open(t, "a")
		defer f.Release()
		for i := range 5 {
			n.log.Append("a", "t", "", fmt.Sprint(i))
		}
		items, v := f.Take(nil, "e1", 2, 10, 1<<20)
		if offsets(items) != "3 4 5" || v.Behind {
			t.Errorf("after 2: %s, %+v", offsets(items), v)
		}
		if items, v = f.Take(nil, "e1", 1, 10, 1<<20); len(items) != 0 || !v.Behind || v.Oldest != 3 {
			t.Errorf("after 1: %s, %+v", offsets(items), v)
		}
		if items, _ = f.Take(nil, "e1", 2, 2, 1<<20); offsets(items) != "3 4" {
			t.Errorf("two at most: %s", offsets(items))
		}
		if items, _ = f.Take(nil, "other", 2, 2, 1<<20); len(items) != 0 {
			t.Errorf("of another epoch: %s", offsets(items))
		}
		time.Sleep(20 * time.Second)
		if _, bytes := n.Count(); bytes != 0 {
			t.Errorf("%d bytes in rings that nobody needs", bytes)
		}
		if _, v = f.Take(nil, "e1", 4, 10, 1<<20); !v.Behind {
			t.Error("an empty ring has what comes after 4")
		}
		n.log.Append("a", "t", "", "5")
		if items, _ = f.Take(nil, "e1", 5, 10, 1<<20); offsets(items) != "6" {
			t.Errorf("after 5: %s", offsets(items))
		}
	})
}

// What a node sends after a fork has cursors of the new epoch, however long it
// has had it: a client compares them with what hello and redelivery say.
func TestARingMovesIntoTheNewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, feed.Options{})
		f := n.open(t, "a")
		defer f.Release()
		n.log.Append("a", "with \"quotes\"", "k1", `","channel":"a","cursor":"a@e1-1"`, "2")
		n.log.Append("a", "t", "", "3")
		before, _ := f.Take(nil, "e1", 0, 10, 1<<20)
		n.log.Fork("a", 3)
		synctest.Wait()
		after, v := f.Take(nil, "e2", 0, 10, 1<<20)
		if len(before) != 3 || len(after) != 3 || v.Behind {
			t.Fatalf("the ring had %s, has %s after a fork that lost nothing", offsets(before), offsets(after))
		}
		page, err := f.Page(t.Context(), "e2", 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range page.Items {
			got := after[i]
			if !bytes.Equal(got.Frame(), want.Frame()) || !bytes.Equal(got.Prefix(), want.Prefix()) || !bytes.Equal(got.Rest(), want.Rest()) {
				t.Errorf("the ring has %s%s, want %s%s", got.Prefix(), got.Rest(), want.Prefix(), want.Rest())
			}
			if got.Type() != want.Type() || got.Key() != want.Key() || got.ID() != want.ID() || got.Partition(16) != want.Partition(16) {
				t.Errorf("the ring has type %q, key %q, id %q; want %q, %q, %q", got.Type(), got.Key(), got.ID(), want.Type(), want.Key(), want.ID())
			}
		}
		n.log.Append("a", "t", "", "4")
		synctest.Wait()
		if _, held := n.Count(); held <= 0 {
			t.Errorf("%d bytes in the ring", held)
		}
		time.Sleep(20 * time.Second)
		if _, held := n.Count(); held != 0 {
			t.Errorf("%d bytes in a ring that nobody needs", held)
		}
	})
}

func TestAFeedLingersAndIsThenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, feed.Options{})
		f := n.open(t, "a")
		f.Release()
		time.Sleep(5 * time.Second)
		if again := n.open(t, "a"); again != f {
			t.Error("a feed just left was opened anew")
		}
		f.Release()
		time.Sleep(15 * time.Second)
		if open, _ := n.Count(); open != 0 || n.log.Followers("a") != 0 {
			t.Errorf("%d feeds open, %d followers", open, n.log.Followers("a"))
		}
	})
}

func TestAFeedThatCantBeOpenedIsTriedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, feed.Options{})
		n.log.Fail(broker.ErrUnavailable)
		for range 3 {
			if _, err := n.Open(context.Background(), "a"); !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		}
		n.log.Fail(nil)
		n.open(t, "a").Release()
	})
}

func after(p *feed.Page, offset uint64) []*feed.Item {
	items, _ := p.After(offset)
	return items
}

func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, feed.Options{})
		for i := range 600 {
			n.log.Append("a", "t", "", fmt.Sprint(i))
		}
		f := n.open(t, "a")
		defer f.Release()
		for _, tt := range []struct {
			after, first uint64
			reads        int // in all so far
		}{{0, 1, 1}, {100, 101, 1}, {255, 256, 1}, {256, 257, 2}, {599, 600, 3}, {550, 551, 3}} {
			page, err := f.Page(t.Context(), "e1", tt.after)
			if err != nil {
				t.Fatal(err)
			}
			if items, _ := page.After(tt.after); items[0].Offset != tt.first || n.log.Reads() != tt.reads {
				t.Errorf("after %d: %d first, %d reads; want %d, %d", tt.after, items[0].Offset, n.log.Reads(), tt.first, tt.reads)
			}
		}
		n.log.Append("a", "t", "", "600")
		if page, err := f.Page(t.Context(), "e1", 600); err != nil || offsets(after(page, 600)) != "601" {
			t.Errorf("the last page did not grow: %v", err)
		}
		n.log.Trim("a", 300)
		if page, err := f.Page(t.Context(), "e1", 601); err != nil || len(after(page, 601)) != 0 {
			t.Errorf("something after the head: %v", err)
		}
	})
}

func TestAFeedIsSeenOnlyOnceItsStateIsKnown(t *testing.T) {
	n := newNode(t, feed.Options{})
	var unknown atomic.Int32
	for i := range 3000 {
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				f, err := n.Open(context.Background(), fmt.Sprint("c", i))
				if err != nil {
					t.Error(err)
					return
				}
				if f.State().Epoch == "" {
					unknown.Add(1)
				}
				f.Release()
			})
		}
		wait.Wait()
	}
	if got := unknown.Load(); got > 0 {
		t.Errorf("%d of 24,000 saw a feed without a state", got)
	}
}

func TestThoseWhoAskAtOnceShareALookAtTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, feed.Options{})
		f := n.open(t, "a")
		defer f.Release()
		n.log.Silence(true)
		n.log.Append("a", "t", "", "1", "2")
		n.log.Slow(time.Millisecond)
		var wait sync.WaitGroup
		for range 1000 {
			wait.Go(func() {
				if state, err := f.Fresh(t.Context()); err != nil || state.Head != 2 {
					t.Errorf("the log is at %d, %v", state.Head, err)
				}
			})
		}
		wait.Wait()
		synctest.Wait()
		if got := f.State().Head; got != 2 || n.log.Looks() > 4 {
			t.Errorf("the feed is at %d after %d looks at the log", got, n.log.Looks())
		}
		n.log.Fail(broker.ErrUnavailable)
		if _, err := f.Fresh(t.Context()); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("asked a log that is away: %v", err)
		}
	})
}

// stumbling is a log whose State panics as often as it is told to.
type stumbling struct {
	*feedtest.Log
	panics atomic.Int32
}

func (s *stumbling) State(ctx context.Context, channel string) (broker.State, error) {
	if s.panics.Add(-1) >= 0 {
		panic("a mistake")
	}
	return s.Log.State(ctx, channel)
}

func TestAPanicWhileComparingWithTheLogIsATryThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &stumbling{Log: feedtest.New()}
		fs := feed.New(feed.Options{Broker: log}, feed.NewReady())
		defer fs.Close()
		f, err := fs.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Release()
		log.Silence(true)
		log.Append("a", "t", "", "1")
		log.panics.Store(1)
		if _, err := f.Fresh(t.Context()); err == nil {
			t.Error("a look that panicked was answered")
		}
		if state, err := f.Fresh(t.Context()); err != nil || state.Head != 1 {
			t.Errorf("the log is at %d, %v; want 1", state.Head, err)
		}
		time.Sleep(time.Minute)
		if got := f.State().Head; got != 1 {
			t.Errorf("the feed is at %d, want 1", got)
		}
	})
}
