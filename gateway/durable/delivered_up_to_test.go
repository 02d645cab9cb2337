package durable

import (
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
)

// What an owner was told may come twice, and what it delivered itself, is told
// to the next one in the epoch that the log has by then.
func TestWhatWasDeliveredIsTakenOverAFork(t *testing.T) {
	at := func(epoch string, offset uint64) event.Position {
		return event.Position{{Channel: "a", Epoch: epoch, Offset: offset}}
	}
	fork := cursor.Locator{Epoch: "e2", Forks: []broker.Fork{{Epoch: "e1", Head: 150}}}
	for _, c := range []struct {
		name            string
		told, delivered event.Position
		forks           []cursor.Locator
		want            string
	}{
		{"no fork", at("e1", 102), at("e1", 120), nil, "a@e1-120"},
		{"no fork, not as far as it was told", at("e1", 102), at("e1", 101), nil, "a@e1-102"},
		{"delivered beyond the fork", at("e1", 102), at("e2", 160), []cursor.Locator{fork}, "a@e2-160"},
		{"told further than it delivered", at("e1", 140), at("e2", 120), []cursor.Locator{fork}, "a@e2-140"},
		{"told of what the fork forgot", at("e1", 170), at("e2", 120), []cursor.Locator{fork}, "a@e2-150"},
		{"it delivered nothing", at("e1", 140), nil, []cursor.Locator{fork}, "a@e2-140"},
		{"the log is another", at("e1", 140), at("e3", 2), []cursor.Locator{{Epoch: "e3"}}, "a@e3-2"},
		{"nobody said that it was forked", at("e1", 140), at("e2", 2), nil, "a@e2-2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &Ownership{k: &Manager{}, Position: at("e1", 100), DeliveredUpTo: c.told}
			for _, l := range c.forks {
				h.Forked("a", l)
			}
			if got := h.handed(c.delivered).String(); got != c.want {
				t.Errorf("handed over is %s, want %s", got, c.want)
			}
		})
	}
}
