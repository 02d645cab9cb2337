package callback

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
)

func pageOf(epoch string, offsets ...uint64) Page {
	var p Page
	for _, offset := range offsets {
		c := event.Cursor{Channel: "a", Epoch: epoch, Offset: offset}
		p.Events = append(p.Events, Event{Cursor: c, ID: fmt.Sprint(offset), Key: fmt.Sprint("key", offset), JSON: []byte("{}")})
		p.Position = event.Position{c}
	}
	return p
}

// sent takes all units that may be sent now.
func sent(q *queue) (units []*unit, ids string) {
	var list []string
	for {
		u, _ := q.pick(time.Now(), false)
		if u == nil {
			return units, strings.Join(list, " ")
		}
		units = append(units, u)
		for _, it := range u.items {
			list = append(list, it.ev.ID)
		}
	}
}

func TestAfterALosslessForkNothingThatWasDeliveredIsSentAgain(t *testing.T) {
	q := newQueue(event.Position{{Channel: "a", Epoch: "e1", Offset: 0}}, 100, 1, 0, true)
	q.add(pageOf("e1", 1, 2, 3), time.Now())
	units, ids := sent(q)
	if ids != "1 2 3" {
		t.Fatalf("sent %q", ids)
	}
	q.finish(units[1])
	q.finish(units[2])
	q.again(units[0], time.Now().Add(time.Hour)) // the first one fails, the others passed
	q.sleep()
	p := pageOf("e2", 1, 2, 3, 4)
	p.Forked = []Forked{{"a", cursor.Locator{Epoch: "e2", Forks: []broker.Fork{{Epoch: "e1", Head: 3}}}}}
	q.add(p, time.Now())
	if _, ids := sent(q); ids != "4" {
		t.Errorf("sent %q after the fork, want only what is new", ids)
	}
	if got := q.position().String(); got != "a@e2-0" {
		t.Errorf("position %s, want a@e2-0: the first event is still out", got)
	}
}
