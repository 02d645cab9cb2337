package durable

import (
	"context"
	"time"

	"github.com/longline-push/longline/event"
)

// Jump is a move of the position past events that were not delivered for it, or
// back: kept so that it can be told what became of an event.
type Jump struct {
	Time time.Time `json:"time"`
	Kind JumpKind  `json:"kind"`
	From string    `json:"from,omitempty"` // position; none of Start
	To   string    `json:"to"`             // position
}

// JumpKind says why a position jumped.
type JumpKind string

// The kinds of jumps.
const (
	Start   JumpKind = "start" // the subscription, or a channel of it, began there
	Sought  JumpKind = "seek"
	Missing JumpKind = "gap" // the events between are gone
)

// maxJumps is how many jumps a record keeps: the last ones, and the first, which
// is where the subscription began.
const maxJumps = 16

// jump notes a jump. The slice of the record it came from is left as it was.
func (c *Change) jump(j Jump) {
	old := c.Record.Jumps
	if len(old) >= maxJumps {
		old = append([]Jump{old[0]}, old[len(old)-maxJumps+2:]...)
	}
	c.Record.Jumps = append(old[:len(old):len(old)], j)
}

// Jumped is the last jump over an event, at c of the channel's present epoch; ok
// false if it was delivered, or is to be, as far as is remembered. present says
// what a cursor of any epoch is in the present one.
func (r *Record) Jumped(c event.Cursor, present func(event.Cursor) uint64) (over Jump, ok bool) {
	for _, j := range r.Jumps {
		to, named := cursorOf(j.To, c.Channel)
		if !named {
			continue
		}
		from := uint64(0)
		if at, named := cursorOf(j.From, c.Channel); named {
			if from = present(at); j.Kind == Missing && at.Epoch != to.Epoch {
				from = 0 // what was in the log before is another's place now
			}
		}
		switch end := present(to); {
		case c.Offset > from && c.Offset <= end:
			over, ok = j, true
		case c.Offset > end && end < from:
			over, ok = Jump{}, false // back before it: it comes again
		}
	}
	return over, ok
}

func cursorOf(position, channel string) (event.Cursor, bool) {
	p, err := event.ParsePosition(position)
	if err != nil {
		return event.Cursor{}, false
	}
	return p.Of(channel)
}

// Gap tells of a gap that the consumer gets or the callback met, and notes it.
func (h *Ownership) Gap(channel, from, to, reason string) {
	h.Publish("gap", map[string]string{"channel": channel, "from": from, "to": to, "reason": reason})
	h.k.running.Go(func() { h.k.o.Guard.Do("gap", func() { h.noteGap(from, to) }) })
}

func (h *Ownership) noteGap(from, to string) {
	ctx, cancel := context.WithTimeout(context.Background(), h.k.o.TTL/2)
	defer cancel()
	err := h.k.Change(ctx, h.Name, func(s State, _ bool, env Env) (Change, error) {
		if s.Version == 0 || s.Generation != h.Generation {
			return Change{}, ErrFenced // the next owner meets it again
		}
		c := s.change()
		c.jump(Jump{Time: env.Now, Kind: Missing, From: from, To: to})
		return c, nil
	})
	if err != nil {
		h.k.o.Logger.Debug("note a gap", "subscription", h.Name, "error", err)
	}
}
