package callback

import (
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
)

// A worker that waits long lets go of most of what it tried, reads it again and
// says then that it may have come before, also over a fork.
func TestWhatWasTriedBeforeALongWaitIsAnnounced(t *testing.T) {
	q := newQueue(event.Position{{Channel: "a", Epoch: "e1", Offset: 0}}, 100, 2*maxTries, 0, true)
	var offsets []uint64
	for n := range uint64(2 * maxTries) {
		offsets = append(offsets, n+1)
	}
	q.add(pageOf("e1", offsets...), time.Now())
	units, _ := sent(q)
	for _, u := range units {
		for _, it := range u.items {
			it.tried = true
		}
		u.attempts++
		q.split(u, 0)
	}
	q.sleep()
	p := pageOf("e2", append(offsets, 2*maxTries+1)...)
	p.Forked = []Forked{{"a", cursor.Locator{Epoch: "e2", Forks: []broker.Fork{{Epoch: "e1", Head: 100}}}}}
	q.add(p, time.Now())
	units, _ = sent(q)
	for _, u := range units {
		for _, it := range u.items {
			announced, tried := it.ev.Redelivery || u.attempts > 0, it.ev.Cursor.Offset <= 2*maxTries
			if announced != tried {
				t.Errorf("%s: announced %v, want %v", it.ev.Cursor, announced, tried)
			}
		}
	}
	if at, ok := q.handed().Of("a"); !ok || at.String() != "a@e2-16" {
		t.Errorf("whoever is next is told of %s, want a@e2-16", at)
	}
}
