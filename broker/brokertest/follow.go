package brokertest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// ear is a follower that remembers what it heard.
type ear struct {
	mu    sync.Mutex
	busy  bool
	heard []broker.Announcement
	wrong string
}

func (e *ear) Announce(a broker.Announcement) {
	e.mu.Lock()
	if e.busy {
		e.wrong = "two announcements at once"
	}
	e.busy = true
	e.mu.Unlock()

	a.Items = slices.Clone(a.Items) // the array is the broker's
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy = false
	for i, item := range a.Items {
		if i > 0 && item.Offset != a.Items[i-1].Offset+1 {
			e.wrong = fmt.Sprintf("announced items have a hole: %d follows %d", item.Offset, a.Items[i-1].Offset)
		}
		if item.Offset > a.Head {
			e.wrong = fmt.Sprintf("announced item %d lies beyond the head %d", item.Offset, a.Head)
		}
	}
	e.heard = append(e.heard, a)
}

func (e *ear) all() ([]broker.Announcement, string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard), e.wrong
}

// wantItems says what is wrong with the data announced so far.
func (e *ear) wantItems(want ...string) string {
	all, wrong := e.all()
	if wrong != "" {
		return wrong
	}
	var got []string
	for _, a := range all {
		for _, item := range a.Items {
			got = append(got, string(item.Data))
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Sprintf("announced %s, want %s", brief(got), brief(want))
	}
	return ""
}

func testFollow(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 2)
	e := &ear{}
	s, err := f.Follow(f.ctx, "a", e)
	if err != nil {
		t.Fatal(err)
	}
	if s.Head != 2 || s.Epoch == "" {
		t.Fatalf("state at the start: %+v, want head 2", s)
	}
	f.mustAppend("a", text("e3"))
	f.mustAppend("a", text("e4"), text("e5"))
	f.mustAppend("b", text("not this"))
	f.eventually(func() string { return e.wantItems("e3", "e4", "e5") })
	all, _ := e.all()
	last := all[len(all)-1]
	if last.Epoch != s.Epoch || last.Head != 5 {
		t.Errorf("last announcement is of %s at %d, want %s at 5", last.Epoch, last.Head, s.Epoch)
	}
	page := f.mustRead("a", 2, broker.Limit{})
	i := 0
	for _, a := range all {
		for _, item := range a.Items {
			if got := page.Items[i]; got.Offset != item.Offset || !got.Time.Equal(item.Time) {
				t.Errorf("announced %d of %v, the log has %d of %v", item.Offset, item.Time, got.Offset, got.Time)
			}
			i++
		}
	}

	f.Unfollow("a", e)
	f.mustAppend("a", text("e6"))
	other := &ear{}
	if _, err := f.Follow(f.ctx, "a", other); err != nil {
		t.Fatal(err)
	}
	f.mustAppend("a", text("e7"))
	f.eventually(func() string { return other.wantItems("e7") })
	if wrong := e.wantItems("e3", "e4", "e5"); wrong != "" {
		t.Errorf("after Unfollow: %s", wrong)
	}
}

// The first subscriber makes the channel, so that its position is a cursor.
func testFollowCreates(t *testing.T, f *fixture) {
	f.start()
	e := &ear{}
	s, err := f.Follow(f.ctx, "new", e)
	if err != nil {
		t.Fatal(err)
	}
	if s.Epoch == "" || s.Head != 0 || s.First != 1 {
		t.Fatalf("state of a new channel: %+v, want offsets 1 to 0", s)
	}
	if got := f.mustState("new"); got.Epoch != s.Epoch || got.Head != 0 || got.First != 1 {
		t.Errorf("state %+v, want that of Follow: %+v", got, s)
	}
	if p := f.mustRead("new", 0, broker.Limit{}); len(p.Items) != 0 || p.State.Epoch != s.Epoch {
		t.Errorf("page %+v, want an empty one of epoch %s", p, s.Epoch)
	}
	if offset, err := f.OffsetAt(f.ctx, "new", f.clock.Now()); err != nil || offset != 0 {
		t.Errorf("offset at a time: %d, %v, want 0", offset, err)
	}
	if got := f.mustAppend("new", text("e1")); got[0].Epoch != s.Epoch || got[0].Offset != 1 {
		t.Errorf("first place %+v, want offset 1 of %s", got[0], s.Epoch)
	}
	f.reopen()
	if got := f.mustState("new"); got.Epoch != s.Epoch {
		t.Errorf("epoch %s became %s", s.Epoch, got.Epoch)
	}
}

// A channel to which nothing is appended goes when nobody follows it any more: no
// follower, and no subscription, for whom its epoch stands.
func testFollowLeavesNothing(t *testing.T, f *fixture) {
	f.start()
	durable, ok := f.Broker.(Durable)
	if !ok {
		return
	}
	e := &ear{}
	for _, channel := range []string{"followed", "subscribed", "left"} {
		if _, err := f.Follow(f.ctx, channel, e); err != nil {
			t.Fatal(err)
		}
	}
	at := f.mustState("subscribed")
	cursor := event.Position{{Channel: "subscribed", Epoch: at.Epoch}}
	u := broker.Update{Name: "crm", Generation: 1, Channels: []string{"subscribed"}, Set: cursor, Due: broker.Never, Durable: true}
	mustStore(t, durable, u)
	f.Unfollow("subscribed", e)
	f.Unfollow("left", e)
	f.wantCollected("left")
	for range 3 {
		f.trim()
		f.clock.Move(time.Hour)
	}
	if got := f.mustState("subscribed"); got.Epoch != at.Epoch {
		t.Errorf("epoch %s, to which a subscription's cursor belongs, became %s", at.Epoch, got.Epoch)
	}
	if got := f.mustState("followed"); got.Head != 0 {
		t.Errorf("state of what is followed: %+v", got)
	}
	if err := durable.Delete(f.ctx, "crm", mustLoad(t, durable, "crm").Version); err != nil {
		t.Fatal(err)
	}
	f.wantCollected("subscribed")
}

// wantCollected lets time pass until a channel is gone.
func (f *fixture) wantCollected(channel string) {
	f.t.Helper()
	eventually(f.t, channel+" is gone", func() bool {
		f.trim()
		f.clock.Move(time.Hour)
		names, err := f.Channels(f.ctx, channel, "", 1)
		if err != nil {
			f.t.Fatal(err)
		}
		return len(names) == 0
	})
}

// Whoever follows while others append knows every event: by the state that
// Follow returned, by announcements, and by the log where they leave a hole.
func testFollowNoHole(t *testing.T, f *fixture) {
	f.start()
	const appenders, each, followers = 8, 60, 12
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for range appenders {
		wg.Go(func() {
			<-begin
			for range each {
				if _, err := f.Append(f.ctx, "a", []broker.Entry{text("x"), text("y")}); err != nil {
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	type follower struct {
		ear   *ear
		start broker.State
	}
	joined := make(chan follower, followers)
	for range followers {
		wg.Go(func() {
			<-begin
			e := &ear{}
			s, err := f.Follow(f.ctx, "a", e)
			if err != nil {
				t.Errorf("follow: %v", err)
			}
			joined <- follower{e, s}
		})
	}
	close(begin)
	wg.Wait()
	close(joined)
	const total = appenders * each * 2
	for follower := range joined {
		f.eventually(func() string {
			all, wrong := follower.ear.all()
			if wrong != "" {
				return wrong
			}
			known := follower.start.Head
			for _, a := range all {
				if a.Head <= known {
					continue
				}
				if len(a.Items) == 0 || a.Items[0].Offset > known+1 {
					// A hole: the log knows.
					p := f.mustRead("a", known, broker.Limit{Events: 10_000})
					if len(p.Items) == 0 || p.Items[0].Offset != known+1 {
						return fmt.Sprintf("the log has no %d", known+1)
					}
				}
				known = a.Head
			}
			if known != total {
				return fmt.Sprintf("a follower from %d on knows of %d events, want %d", follower.start.Head, known, total)
			}
			return ""
		})
	}
}

func testFollowers(t *testing.T, f *fixture) {
	f.start()
	ears := []*ear{{}, {}, {}}
	for _, e := range ears {
		if _, err := f.Follow(f.ctx, "a", e); err != nil {
			t.Fatal(err)
		}
	}
	// One follower may follow several channels.
	if _, err := f.Follow(f.ctx, "b", ears[0]); err != nil {
		t.Fatal(err)
	}
	f.mustAppend("a", text("e1"))
	for _, e := range ears {
		f.eventually(func() string { return e.wantItems("e1") })
	}
	f.Unfollow("a", ears[1])
	f.Unfollow("a", ears[1])
	f.Unfollow("nowhere", ears[1])
	f.mustAppend("a", text("e2"))
	f.eventually(func() string { return ears[2].wantItems("e1", "e2") })
	f.mustAppend("b", text("f1"))
	f.eventually(func() string { return ears[0].wantItems("e1", "e2", "f1") })
	if wrong := ears[1].wantItems("e1"); wrong != "" {
		t.Errorf("after Unfollow: %s", wrong)
	}
}

func testFollowDrop(t *testing.T, f *fixture) {
	f.start()
	f.mustFill("a", 3)
	e := &ear{}
	s, err := f.Follow(f.ctx, "a", e)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Drop(f.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	f.eventually(func() string {
		all, wrong := e.all()
		if wrong != "" || len(all) > 0 && all[len(all)-1].Epoch != s.Epoch {
			return wrong
		}
		return "nothing was said of a drop"
	})
	got := f.mustAppend("a", text("f1"))
	f.eventually(func() string {
		all, wrong := e.all()
		if last := all[len(all)-1]; wrong != "" || last.Epoch == got[0].Epoch && last.Head == 1 {
			return wrong
		}
		return "the new log's first event was not announced"
	})
}
