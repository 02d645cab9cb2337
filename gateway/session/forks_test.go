package session

import (
	"fmt"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/wire"
)

// newForked is a durable session that was given the events up to 12 of a, of
// which its client acknowledged those up to 4.
func newForked() (*Session, *durableState) {
	d := &durableState{window: 100, channels: []channelState{{channel: "a", Locator: cursor.Locator{Epoch: "e1"}, deliveredUpTo: 4, acked: 4}}}
	for offset := uint64(5); offset <= 12; offset++ {
		d.handed(0, offset)
	}
	return &Session{durable: d}, d
}

func at(epoch string, offset uint64) event.Cursor {
	return event.Cursor{Channel: "a", Epoch: epoch, Offset: offset}
}

func TestAForkDropsOnlyWhatItForgotFromWhatIsOut(t *testing.T) {
	for _, tt := range []struct {
		name string
		move cursor.Move
		want string // unacknowledged, how far all is done, how many are out
	}{
		{"it forgot three", cursor.Move{From: at("e1", 12), To: at("e2", 9), Reason: wire.GapReset, Forks: []broker.Fork{{Epoch: "e1", Head: 9}}}, "[5 6 7 8 9] 4 5"},
		{"it forgot nothing", cursor.Move{From: at("e1", 12), To: at("e2", 12), Forks: []broker.Fork{{Epoch: "e1", Head: 12}}}, "[5 6 7 8 9 10 11 12] 4 8"},
		{"the log is another", cursor.Move{From: at("e1", 12), To: at("e2", 0), Reason: wire.GapReset}, "[] 0 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, d := newForked()
			s.placedLocked(0, &tt.move)
			c := &d.channels[0]
			if got := fmt.Sprint(c.unacked, c.done(), d.outstanding); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestWhatWasDeliveredBeforeAForkIsAcknowledgedAndRejectedByItsOldCursor(t *testing.T) {
	s, d := newForked()
	s.placedLocked(0, &cursor.Move{From: at("e1", 12), To: at("e2", 9), Reason: wire.GapReset, Forks: []broker.Fork{{Epoch: "e1", Head: 9}}})
	c := &d.channels[0]
	want := func(after, want string) {
		t.Helper()
		if got := fmt.Sprint(c.unacked, d.outstanding); got != want {
			t.Errorf("after %s: got %s, want %s", after, got, want)
		}
	}
	if err := s.Ack(event.Position{at("e1", 5)}, AllPartitions); err != nil {
		t.Error(err)
	}
	want("an ack of 5", "[6 7 8 9] 4")
	s.rejectedLocked(at("e1", 7))
	want("a reject of 7", "[6 8 9] 3")
	s.rejectedLocked(at("e1", 11))
	want("a reject of what the fork forgot", "[6 8 9] 3")
	if err := s.Ack(event.Position{at("e1", 12)}, AllPartitions); err != nil {
		t.Error(err)
	}
	want("an ack of all that was delivered", "[] 0")
}
