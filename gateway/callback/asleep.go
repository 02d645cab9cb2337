package callback

import (
	"github.com/longline-push/longline/event"
)

// tries is what is kept of the attempts of an event that is let go of.
type tries struct {
	at                        placement
	attempts, fails, refusals int
}

// maxTries bounds them: each is an event that was tried besides a suspect.
const maxTries = 8

// relocate names events by their place in a log that was forked since, so that
// they are met again when they are read again. Those that the fork forgot are
// done with before what took their place.
func (q *queue) relocate(f Forked) {
	locate := func(c event.Cursor) (event.Cursor, bool) {
		if c.Channel != f.Channel || c.Epoch == f.Epoch {
			return c, true
		}
		at, kept, _ := f.Locate(c)
		return at, kept
	}
	if len(q.held) > 0 {
		held := make(map[placement]*item, len(q.held))
		for _, it := range q.held {
			if at, kept := locate(it.ev.Cursor); kept {
				it.ev.Cursor = at
				held[it.place()] = it
			}
		}
		q.held = held
	}
	for i, c := range q.sent {
		q.sent[i], _ = locate(c)
	}
	var kept []tries
	for _, t := range q.tries {
		if at, ok := locate(event.Cursor{Channel: t.at.channel, Epoch: t.at.epoch, Offset: t.at.offset}); ok {
			t.at = placement{channel: at.Channel, epoch: at.Epoch, offset: at.Offset}
			kept = append(kept, t)
		}
	}
	q.tries = kept
	for _, it := range q.items {
		if it.ev.Redriven {
			continue
		}
		at, kept := locate(it.ev.Cursor)
		if !kept {
			at.Offset++
		}
		it.ev.Cursor = at
	}
}

// sleep lets go of what needn't be kept for a long wait: every event that can
// be read again and is not under way.
func (q *queue) sleep() {
	for _, c := range q.handed() {
		q.sent = further(q.sent, c)
	}
	q.read = q.position()
	if q.held == nil {
		q.held = map[placement]*item{}
	}
	var kept []*item
	for _, it := range q.items {
		switch {
		case it.ev.Redriven:
			kept = append(kept, it)
			continue
		case it.state != waiting:
			q.held[it.place()] = it
		case it.alone != nil && it.alone.attempts+it.alone.fails > 0 && len(q.tries) < maxTries:
			u := it.alone
			q.tries = append(q.tries, tries{it.place(), u.attempts, u.fails, u.refusals})
		}
		if it.state == waiting {
			q.idle--
			q.bytes -= len(it.ev.JSON)
		}
		it.in = false
	}
	q.items = kept
}
