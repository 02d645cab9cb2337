package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/feed/feedtest"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a line whose other end takes as many frames as a test lets it.
type peer struct {
	wake func()

	mu     sync.Mutex
	got    []string
	room   int  // frames that it still takes
	full   bool // it didn't take all, and nothing since
	closed bool
}

func (p *peer) Send(bufs [][]byte, stride int) (int, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, false, errors.New("closed")
	}
	if p.full {
		return 0, true, nil
	}
	n := min(len(bufs)/stride, p.room)
	for i := range n {
		p.got = append(p.got, string(bufs[i*stride]))
	}
	p.room -= n
	p.full = n < len(bufs)/stride
	return n, p.full, nil
}

func (p *peer) Finish()      { p.Close() }
func (p *peer) Close() error { p.mu.Lock(); defer p.mu.Unlock(); p.closed = true; return nil }

func (p *peer) takes(frames int) {
	p.mu.Lock()
	p.room, p.full = frames, false
	p.mu.Unlock()
	p.wake()
}

// told returns what came since it was last asked, one word or data a frame.
func (p *peer) told(t *testing.T) string {
	t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	said := strings.Join(p.got, " ")
	p.got = nil
	return said
}

func (p *peer) wants(t *testing.T, want string) {
	t.Helper()
	if got := p.told(t); got != want {
		t.Errorf("peer got  %q\nwant %q", got, want)
	}
}

// shorthand is a codec for people.
type shorthand struct{ pings bool }

func (c shorthand) Traits() session.Traits { return session.Traits{Stride: 1, Pings: c.pings} }
func (shorthand) AppendEvent(bufs [][]byte, scratch []byte, item *feed.Item, _ []byte) ([][]byte, []byte) {
	_, data, _ := strings.Cut(string(item.JSON()), `"data":`)
	return append(bufs, []byte(strings.TrimSuffix(data, "}"))), scratch
}
func (shorthand) Control(c wire.Control, _ string) []byte {
	switch c.Op {
	case wire.OpGap:
		return fmt.Appendf(nil, "gap:%s(%s,%s]", c.Reason, c.From, c.To)
	case wire.OpHello:
		return fmt.Appendf(nil, "hello:%s:%v", c.Cursor, *c.Recovered)
	case wire.OpBye:
		return fmt.Appendf(nil, "bye:%d", c.Code)
	}
	return []byte(c.Op)
}
func (shorthand) Heartbeat(position string) []byte { return []byte("beat:" + position) }
func (shorthand) Close(wire.CloseCode, string) []byte {
	return []byte("close")
}

// node is a hub on a log in memory.
type node struct {
	*session.Hub
	log *feedtest.Log
}

func newNode(t *testing.T, o session.Options) node {
	t.Helper()
	log := feedtest.New()
	o.Broker, o.Times = log, log
	hub := session.NewHub(o)
	t.Cleanup(hub.Close)
	return node{hub, log}
}

func grant(t *testing.T, sub string, ttl time.Duration) *auth.Grant {
	t.Helper()
	return authtest.Grant(t, auth.Mintage{Subject: sub, Subscribe: []string{"**"}, TTL: ttl})
}

type asks struct {
	channels, types, filter, since string
	lag                            session.Lag
	pings                          bool
}

// attach starts a session for a peer that takes room frames.
func (n node) attach(t *testing.T, a asks, room int) (*session.Session, *peer) {
	t.Helper()
	since, err := cursor.ParseSince("since", a.since)
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.New(context.Background(), session.Config{
		Grant: grant(t, "ann", time.Hour), Codec: shorthand{a.pings},
		Channels: strings.Split(a.channels, ","), Select: cursor.Selection{Types: a.types, Filter: a.filter}, Since: since, Lag: a.lag,
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{wake: s.Wake, room: room}
	s.Start(p)
	return s, p
}

const plenty = 1 << 30

func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestEventsArriveLiveAndOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		n.log.Append("a", "t", "", "0")
		_, p := n.attach(t, asks{channels: "a"}, plenty)
		p.wants(t, "hello:a@e1-1:false")
		n.log.Append("a", "t", "", "1", "2")
		n.log.Append("a", "t", "", "3")
		p.wants(t, "1 2 3")
	})
}

func TestWhereASessionStarts(t *testing.T) {
	for _, tt := range []struct{ since, want string }{
		{"", "hello:a@e1-5:false"},
		{"latest", "hello:a@e1-5:false"},
		{"earliest", "hello:a@e1-2:false 3 4 5"}, // 1 and 2 are trimmed
		{"a@e1-4", "hello:a@e1-4:true 5"},
		{"a@e1-5", "hello:a@e1-5:true"},
		{"a@e1-1", "hello:a@e1-2:false gap:retention(a@e1-1,a@e1-2] 3 4 5"},
		{"a@e1-9", "hello:a@e1-5:false gap:reset(a@e1-9,a@e1-5]"},
		{"a@zz-4", "hello:a@e1-2:false gap:reset(a@zz-4,a@e1-2] 3 4 5"},
		{"1999-12-31T00:00:00Z", "hello:a@e1-2:true 3 4 5"},
		{"2999-12-31T00:00:00Z", "hello:a@e1-5:true"},
	} {
		inBubble(t, func(t *testing.T) {
			n := newNode(t, session.Options{})
			n.log.Append("a", "t", "", "1", "2", "3", "4", "5")
			n.log.Trim("a", 3)
			_, p := n.attach(t, asks{channels: "a", since: tt.since}, plenty)
			p.wants(t, tt.want)
			n.log.Append("a", "t", "", "6")
			p.wants(t, "6")
		})
	}
}

func TestTypesAreFilteredAndThePositionMovesOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		s, p := n.attach(t, asks{channels: "a", types: "email.*,x"}, plenty)
		p.wants(t, "hello:a@e1-0:false")
		n.log.Append("a", "email.opened", "", "1")
		n.log.Append("a", "email.opened.twice", "", "2")
		n.log.Append("a", "x", "", "3")
		n.log.Append("a", "y", "", "4")
		p.wants(t, "1 3")
		if got, want := s.Position(), "a@e1-4"; got != want {
			t.Errorf("position %s, want %s", got, want)
		}
		time.Sleep(25 * time.Second)
		if got := p.told(t); !strings.Contains(got, "beat:a@e1-4") {
			t.Errorf("peer got %q, want a heartbeat with the position", got)
		}
	})
}

func TestALostAnnouncementIsAHoleThatIsFilled(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		_, p := n.attach(t, asks{channels: "a"}, plenty)
		p.told(t)
		n.log.Append("a", "t", "", "1")
		n.log.Silence(true)
		n.log.Append("a", "t", "", "2", "3")
		n.log.Silence(false)
		n.log.Append("a", "t", "", "4")
		p.wants(t, "1 2 3 4")
		n.log.Silence(true)
		n.log.Append("a", "t", "", "5")
		n.log.Hint("a")
		p.wants(t, "5")
	})
}

func TestABrokerThatIsAwayIsWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		_, p := n.attach(t, asks{channels: "a"}, plenty)
		p.told(t)
		n.log.Silence(true)
		n.log.Append("a", "t", "", "1")
		n.log.Fail(broker.ErrUnavailable)
		n.log.Hint("a")
		time.Sleep(time.Minute)
		p.told(t)
		n.log.Fail(nil)
		time.Sleep(5 * time.Second)
		p.wants(t, "1")
	})
}

func TestForks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		_, within := n.attach(t, asks{channels: "a"}, 3) // hello, 1, 2
		_, beyond := n.attach(t, asks{channels: "a"}, plenty)
		n.log.Append("a", "t", "", "1", "2", "3")
		within.wants(t, "hello:a@e1-0:false 1 2")
		beyond.wants(t, "hello:a@e1-0:false 1 2 3")
		n.log.Fork("a", 2)
		beyond.wants(t, "gap:reset(a@e1-3,a@e2-2]")
		within.takes(plenty)
		n.log.Append("a", "t", "", "4")
		within.wants(t, "4") // it lost nothing and is told nothing
		beyond.wants(t, "4")
		n.log.Drop("a")
		n.log.Append("a", "t", "", "5")
		within.wants(t, "gap:reset(a@e2-3,a@e3-0] 5")
	})
}

func TestASlowPeerReadsOnFromTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{Feeds: feed.Options{RingEvents: 4}})
		_, slow := n.attach(t, asks{channels: "a"}, 2)
		_, quick := n.attach(t, asks{channels: "a"}, plenty)
		var want []string
		for i := range 600 {
			n.log.Append("a", "t", "", fmt.Sprint(i))
			want = append(want, fmt.Sprint(i))
			synctest.Wait()
		}
		quick.wants(t, "hello:a@e1-0:false "+strings.Join(want, " "))
		slow.wants(t, "hello:a@e1-0:false 0")
		for _, frames := range []int{1, 10, 300} {
			slow.takes(frames)
			slow.wants(t, strings.Join(want[1:1+frames], " "))
			want = want[frames:]
		}
		slow.takes(plenty)
		n.log.Append("a", "t", "", `"live"`)
		slow.wants(t, strings.Join(want[1:], " ")+` "live"`)
	})
}

// Whoever takes nothing costs nothing but its place: neither heartbeats nor what
// it asks have the log read for it.
func TestAPeerThatTakesNothingHasNothingRead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{Feeds: feed.Options{RingEvents: 4}, WriteTimeout: time.Hour})
		deaf, p := n.attach(t, asks{channels: "a"}, 2)
		for i := range 600 {
			n.log.Append("a", "t", "", fmt.Sprint(i))
			synctest.Wait()
		}
		p.wants(t, "hello:a@e1-0:false 0")
		before := n.log.Reads()
		for range 8 {
			time.Sleep(25 * time.Second)
			deaf.Say(wire.Control{Op: wire.OpOK})
			n.log.Append("a", "t", "", `"live"`)
			synctest.Wait()
		}
		if reads := n.log.Reads() - before; reads > 0 {
			t.Errorf("the log was read %d times for a peer that takes nothing", reads)
		}
		p.takes(plenty)
		want := strings.Repeat("ok ", 8)
		for i := range 599 {
			want += fmt.Sprint(i+1, " ")
		}
		got := strings.ReplaceAll(p.told(t), "beat: ", "")
		if want += strings.TrimSpace(strings.Repeat(`"live" `, 8)); got != want {
			t.Errorf("once it reads again it got %.80q… of %d bytes, want %d", got, len(got), len(want))
		}
	})
}

func TestLag(t *testing.T) {
	for _, tt := range []struct {
		name string
		lag  session.Lag
		want string
	}{
		{"latest", session.LagLatest, "gap:lag(a@e1-1,a@e1-9] 10"},
		{"close", session.LagClose, "bye:4408 close"},
		{"catchup", session.LagCatchUp, "2 3 4 5 6 7 8 9 10"},
	} {
		inBubble(t, func(t *testing.T) {
			n := newNode(t, session.Options{Feeds: feed.Options{RingEvents: 4}})
			_, p := n.attach(t, asks{channels: "a", lag: tt.lag}, 2)
			for i := 1; i <= 9; i++ {
				n.log.Append("a", "t", "", fmt.Sprint(i))
				synctest.Wait()
			}
			p.wants(t, "hello:a@e1-0:false 1")
			p.takes(plenty)
			synctest.Wait()
			n.log.Append("a", "t", "", "10")
			p.wants(t, tt.want)
		})
	}
}

func TestConflationKeepsTheNewestPerKeyAndTellsWhatItLeftOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		_, p := n.attach(t, asks{channels: "a", lag: session.LagConflate}, 2)
		n.log.Append("a", "t", "ann", "1")
		synctest.Wait()
		for i, key := range []string{"ann", "bob", "ann", "", "bob", "ann"} {
			n.log.Append("a", "t", key, fmt.Sprint(i+2))
			synctest.Wait()
		}
		p.wants(t, "hello:a@e1-0:false 1")
		p.takes(plenty)
		p.wants(t, "gap:conflated(a@e1-1,a@e1-4] 5 6 7")
		n.log.Append("a", "t", "ann", "8")
		n.log.Append("a", "t", "ann", "9")
		p.wants(t, "8 9") // it keeps up again
	})
}

func TestAPeerThatTakesNothingIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{WriteTimeout: 30 * time.Second})
		_, p := n.attach(t, asks{channels: "a"}, 1)
		n.log.Append("a", "t", "", "1")
		time.Sleep(20 * time.Second)
		p.takes(1)
		n.log.Append("a", "t", "", "2")
		time.Sleep(29 * time.Second)
		if n.Count() != 1 {
			t.Fatal("closed although it had taken something meanwhile")
		}
		time.Sleep(5 * time.Second)
		if n.Count() != 0 {
			t.Error("still there after the write time-out")
		}
	})
}

func TestPingsThatAreNotAnsweredEndTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		s, p := n.attach(t, asks{channels: "a", pings: true}, plenty)
		for range 10 {
			time.Sleep(20 * time.Second)
			s.Heard()
		}
		if n.Count() != 1 {
			t.Fatal("closed although it answered")
		}
		p.told(t)
		time.Sleep(2 * time.Minute)
		if got := p.told(t); !strings.HasSuffix(got, "bye:4408 close") {
			t.Errorf("peer got %q, want a bye 4408", got)
		}
	})
}

func TestAnExpiredTokenEndsTheSessionUnlessRenewed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		s, p := n.attach(t, asks{channels: "a"}, plenty)
		time.Sleep(50 * time.Minute)
		if err := s.Renew(grant(t, "bob", time.Hour)); err == nil {
			t.Error("renewed with another sub's token")
		}
		if err := s.Renew(grant(t, "ann", time.Hour)); err != nil {
			t.Error(err)
		}
		time.Sleep(59 * time.Minute)
		if n.Count() != 1 {
			t.Fatal("ended although it was renewed")
		}
		time.Sleep(2 * time.Minute)
		if got := p.told(t); !strings.HasSuffix(got, "bye:4401 close") {
			t.Errorf("peer got %q, want a bye 4401", got)
		}
	})
}

func TestSubscribeAddsChannelsAndUnsubscribeTakesThemOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{MaxChannels: 3})
		s, p := n.attach(t, asks{channels: "a"}, plenty)
		n.log.Append("b", "t", "", "1", "2")
		since, _ := cursor.ParseSince("since", "b@e2-1")
		position, err := s.Subscribe(context.Background(), []string{"b", "c"}, cursor.Selection{}, since, nil)
		if err != nil || position.String() != "b@e2-1,c@e3-0" {
			t.Errorf("got %s, %v", position, err)
		}
		p.wants(t, "hello:a@e1-0:false 2")
		if _, err := s.Subscribe(context.Background(), []string{"d"}, cursor.Selection{}, cursor.Since{}, nil); wire.From(err).Code != wire.CodeTooLarge {
			t.Errorf("a fourth channel: %v", err)
		}
		if err := s.Unsubscribe([]string{"c", "zz"}); err == nil {
			t.Error("unsubscribed from what it doesn't have")
		}
		if err := s.Unsubscribe([]string{"a", "c"}); err != nil {
			t.Error(err)
		}
		n.log.Append("a", "t", "", "3")
		n.log.Append("b", "t", "", "4")
		p.wants(t, "4")
		if got := s.Position(); got != "b@e2-3" {
			t.Errorf("position %s", got)
		}
	})
}

func TestTenThousandWhoComeBackReadTheLogOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		for i := range 500 {
			n.log.Append("a", "t", "", fmt.Sprint(i))
		}
		peers := make([]*peer, 2000)
		for i := range peers {
			_, peers[i] = n.attach(t, asks{channels: "a", since: fmt.Sprintf("a@e1-%d", 100+i%400)}, plenty)
		}
		for i, p := range peers {
			if got := len(strings.Fields(p.told(t))); got != 1+400-i%400 {
				t.Fatalf("peer %d got %d frames, want %d", i, got, 1+400-i%400)
			}
		}
		if reads := n.log.Reads(); reads > 10 {
			t.Errorf("the log was read %d times", reads)
		}
	})
}

func TestDrainSpreadsByes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		var peers []*peer
		for range 100 {
			_, p := n.attach(t, asks{channels: "a"}, plenty)
			peers = append(peers, p)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		began := time.Now()
		n.Drain(ctx, 5*time.Second, time.Second)
		if took := time.Since(began); took < 4*time.Second || took > 15*time.Second {
			t.Errorf("took %v", took)
		}
		for _, p := range peers {
			p.wants(t, "hello:a@e1-0:false bye:1012 close")
		}
		if _, err := n.New(ctx, session.Config{Grant: grant(t, "ann", time.Hour), Codec: shorthand{}}); wire.From(err).Code != wire.CodeUnavailable {
			t.Errorf("a new session while draining: %v", err)
		}
	})
}
