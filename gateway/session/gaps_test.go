package session_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/session"
)

// numbers are the words from … to.
func numbers(from, to int) string {
	var words []string
	for i := from; i <= to; i++ {
		words = append(words, fmt.Sprint(i))
	}
	return strings.Join(words, " ")
}

// append appends events whose data are the numbers from … to.
func (n node) append(from, to int) {
	n.log.Append("a", "t", "", strings.Fields(numbers(from, to))...)
}

func TestAReadThatBeganBeforeItsAskerProvesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{Feeds: feed.Options{RingEvents: 2}})
		n.append(1, 12)
		release := n.log.Hold()
		_, first := n.attach(t, asks{channels: "a", since: "a@e1-9"}, plenty)
		synctest.Wait() // it reads the page that ends at 12
		n.append(13, 36)
		synctest.Wait()
		_, second := n.attach(t, asks{channels: "a", since: "a@e1-12"}, plenty)
		synctest.Wait() // it wants what comes after 12, and joins that read
		release()
		first.wants(t, "hello:a@e1-9:true "+numbers(10, 36))
		second.wants(t, "hello:a@e1-12:true "+numbers(13, 36))
	})
}

func TestAnAnswerIsDroppedWhoseAskerWasReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{Feeds: feed.Options{RingEvents: 2}})
		n.append(1, 600)
		release := n.log.Hold()
		s, p := n.attach(t, asks{channels: "a", since: "a@e1-512"}, plenty)
		p.wants(t, "hello:a@e1-512:true") // it waits for 513
		if err := s.Unsubscribe([]string{"a"}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Subscribe(context.Background(), []string{"a"}, cursor.Selection{}, cursor.Since{Earliest: true}, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		release()
		p.wants(t, numbers(1, 600))
	})
}

func TestANodeThatLagsTellsNoGap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		n.append(1, 2)
		_, other := n.attach(t, asks{channels: "a"}, plenty)
		other.wants(t, "hello:a@e1-2:false")
		n.log.Silence(true) // published at another node; this one hears of it late
		at := n.log.Append("a", "t", "", "3")
		_, p := n.attach(t, asks{channels: "a", since: at}, plenty)
		p.wants(t, "hello:a@e1-3:true")
		n.log.Silence(false)
		n.append(4, 4)
		p.wants(t, "4")
		other.wants(t, "3 4")
		n.log.Silence(true)
		n.append(5, 5)
		_, p = n.attach(t, asks{channels: "a", since: "a@e1-9"}, plenty)
		p.wants(t, "hello:a@e1-5:false gap:reset(a@e1-9,a@e1-5]") // that is beyond the log itself
	})
}

func TestHelloSaysRecoveredOnlyIfNoGapFollows(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{Feeds: feed.Options{RingEvents: 2}})
		n.append(1, 5)
		n.attach(t, asks{channels: "a"}, plenty) // opens the feed, which has the log's state as of now
		n.append(6, 6)
		n.log.Trim("a", 4)
		_, p := n.attach(t, asks{channels: "a", since: "a@e1-1"}, plenty)
		p.wants(t, "hello:a@e1-3:false gap:retention(a@e1-1,a@e1-3] 4 5 6")
		_, p = n.attach(t, asks{channels: "a", since: "earliest"}, plenty)
		p.wants(t, "hello:a@e1-3:false 4 5 6")
	})
}

func TestAnEventThatCantBeReadIsAGap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var logged bytes.Buffer
		n := newNode(t, session.Options{Feeds: feed.Options{RingEvents: 4}, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		n.append(1, 8)
		for _, damaged := range []uint64{1, 4, 5, 7} {
			n.log.Damage("a", damaged)
		}
		_, behind := n.attach(t, asks{channels: "a", since: "a@e1-0"}, plenty)
		want := "gap:corrupt(a@e1-0,a@e1-1] 2 3 gap:corrupt(a@e1-3,a@e1-5] 6 gap:corrupt(a@e1-6,a@e1-7] 8"
		behind.wants(t, "hello:a@e1-0:true "+want)
		n.log.Silence(true) // so that it is read rather than announced
		n.append(9, 10)
		n.log.Damage("a", 9)
		n.log.Hint("a")
		behind.wants(t, "gap:corrupt(a@e1-8,a@e1-9] 10")
		_, again := n.attach(t, asks{channels: "a", since: "a@e1-0"}, plenty)
		again.wants(t, "hello:a@e1-0:true "+want+" gap:corrupt(a@e1-8,a@e1-9] 10")
		if got := strings.Count(logged.String(), "can't be read"); got != 5 {
			t.Errorf("logged %d times, want once for each of 5:\n%s", got, &logged)
		}
	})
}

func TestAForkFoundWhileTheFeedCatchesUpIsTheOnlyOneTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{})
		n.append(1, 20)
		_, p := n.attach(t, asks{channels: "a"}, plenty)
		p.wants(t, "hello:a@e1-20:false")
		release := n.log.Hold()
		n.log.Silence(true)
		n.append(21, 22)
		n.log.Hint("a") // the feed reads 21 and 22 …
		synctest.Wait()
		n.log.Fork("a", 10) // … which are forgotten meanwhile
		release()
		p.wants(t, "gap:reset(a@e1-20,a@e2-10]")
		n.log.Silence(false)
		n.append(23, 24)
		p.wants(t, "23 24")
	})
}

func TestSubscribeWithoutLagKeepsIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{Feeds: feed.Options{RingEvents: 4}})
		s, p := n.attach(t, asks{channels: "a", lag: session.LagLatest}, 2)
		n.append(1, 1)
		n.log.Append("b", "t", "", "1", "2")
		n.log.Trim("b", 2)
		synctest.Wait()
		since, _ := cursor.ParseSince("since", "a@e1-9,b@e2-1")
		if _, err := s.Subscribe(context.Background(), []string{"a", "b"}, cursor.Selection{}, since, nil); err != nil {
			t.Fatal(err)
		}
		for i := 2; i <= 9; i++ {
			n.append(i, i)
			synctest.Wait()
		}
		p.wants(t, "hello:a@e1-0:false 1")
		p.takes(plenty)
		// Nothing of a@e1-9, which is beyond the head: a keeps its place.
		p.wants(t, "gap:lag(a@e1-1,a@e1-9] 2")
	})
}

// background is a line that can only be written to with waiting, as TLS in
// process: it takes all it is given and is blocked until that is written.
type background struct {
	*peer
	takes time.Duration
}

func (b background) Send(bufs [][]byte, stride int) (int, bool, error) {
	frames, _, err := b.peer.Send(bufs, stride)
	time.AfterFunc(b.takes, b.wake)
	return frames, true, err
}

func TestAPeerThatKeepsUpIsNotConflatedWhateverItsLine(t *testing.T) {
	for _, tt := range []struct {
		takes time.Duration
		want  string
	}{
		{time.Millisecond, "hello:a@e1-0:false 1 2 3"},
		{time.Second, "hello:a@e1-0:false gap:conflated(a@e1-0,a@e1-2] 3"},
	} {
		inBubble(t, func(t *testing.T) {
			n := newNode(t, session.Options{})
			s, err := n.New(t.Context(), session.Config{
				Grant: grant(t, "ann", time.Hour), Codec: shorthand{}, Channels: []string{"a"}, Lag: session.LagConflate,
			})
			if err != nil {
				t.Fatal(err)
			}
			p := &peer{wake: s.Wake, room: plenty}
			s.Start(background{p, tt.takes})
			synctest.Wait()
			n.log.Append("a", "t", "ann", "1", "2", "3") // while hello is written
			time.Sleep(5 * time.Second)
			p.wants(t, tt.want)
		})
	}
}
