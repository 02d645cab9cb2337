package pull

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// answer is a page of events as JSON.
type answer struct {
	bytes []byte
	count int
	at    event.Position // past all that is in it, and what was left out
	again event.Position // the last events in it that were delivered before
	gaps  []gap
}

// gap is a gap as an answer has it: events after From up to To won't come. It
// is told until it is acknowledged, as an event is: the position stays before
// it until then, and the next pull meets it again.
type gap struct {
	Channel string `json:"channel"`
	From    string `json:"from"`
	To      string `json:"to"`
	Reason  string `json:"reason"`
}

// held tells whether the subscription stays whose events these are.
func (a *answer) held(q request) bool { return q.hold > 0 && (a.count > 0 || len(a.gaps) > 0) }

// end completes the answer's JSON.
func (a *answer) end(q request) error {
	a.bytes = append(a.bytes, `],"cursor":"`...)
	a.bytes = append(a.at.Append(a.bytes), '"')
	if len(a.gaps) > 0 {
		gaps, err := json.Marshal(a.gaps)
		if err != nil {
			return err
		}
		a.bytes = append(append(a.bytes, `,"gaps":`...), gaps...)
	}
	if len(a.again) > 0 {
		a.bytes = append(a.bytes, `,"redelivery":{"cursor":"`...)
		a.bytes = append(a.again.Append(a.bytes), `"}`...)
	}
	if a.held(q) {
		a.bytes = append(a.bytes, `,"held_until":"`...)
		a.bytes = append(time.Now().Add(q.hold).UTC().AppendFormat(a.bytes, time.RFC3339), '"')
	}
	a.bytes = append(a.bytes, "}\n"...)
	return nil
}

// pull reads what follows the acknowledged position, waiting for something if
// there is nothing.
func (l *pullLease) pull(ctx context.Context, q request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, q.wait+readTime)
	defer cancel()
	enough := time.NewTimer(q.wait)
	defer enough.Stop()
	for {
		a, err := l.read(ctx, q.max)
		if err != nil {
			return a, err
		}
		if a.count == 0 && len(a.gaps) == 0 && q.wait > 0 {
			select {
			case <-l.wake:
				continue
			case <-l.over:
			case <-l.p.draining:
			case <-enough.C:
			case <-ctx.Done():
			}
		}
		if err := a.end(q); err != nil {
			return a, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ended {
			return a, wire.Conflict("subscription %q was taken over by another connection of this consumer, or changed; pull again", l.name)
		}
		for _, c := range a.at {
			if before, ok := l.given.Of(c.Channel); a.count > 0 && (!ok || before.Epoch != c.Epoch || before.Offset < c.Offset) {
				l.given = put(slices.Clone(l.given), c)
			}
		}
		return a, nil
	}
}

// readTime bounds what reading takes, beside the wait for an event.
const readTime = 5 * time.Second

// read reads one page, dead letters that were put back first.
func (l *pullLease) read(ctx context.Context, limit int) (answer, error) {
	l.mu.Lock()
	a := answer{bytes: []byte(`{"events":[`), at: slices.Clone(l.at)}
	paused := l.state.Paused
	l.told = 0
	if !paused {
		for _, letter := range l.again[:min(limit, len(l.again))] {
			a.add(letter.Event)
			l.told++
		}
	}
	l.mu.Unlock()
	if paused {
		return a, nil
	}
	for i := range l.readers {
		if err := l.readChannel(ctx, &l.readers[i], &a, limit); err != nil {
			return a, err
		}
	}
	l.mu.Lock()
	l.toldAt = slices.Clone(a.at)
	l.mu.Unlock()
	return a, nil
}

func (a *answer) add(text []byte) {
	if a.count++; a.count > 1 {
		a.bytes = append(a.bytes, ',')
	}
	a.bytes = append(a.bytes, text...)
}

// readChannel appends what follows the position in a channel: events and gaps.
func (l *pullLease) readChannel(ctx context.Context, reader *cursor.Reader, a *answer, limit int) error {
	at, _ := a.at.Of(reader.Channel())
	r := reader.From(at)
	l.mu.Lock()
	given, _ := l.given.Of(reader.Channel())
	l.mu.Unlock()
	var items []*feed.Item
	told := a.count + len(a.gaps)
	for a.count < limit && len(a.bytes) < maxBytes {
		step, err := r.Read(ctx, &items, limit, maxBytes)
		if err != nil {
			return err
		}
		if g := step.Move.Gap(); g != nil {
			a.gaps = append(a.gaps, gap{g.Channel, g.From, g.To, g.Reason})
			l.tell(g, step.Move.To)
		}
		if len(step.Items) == 0 && step.Move == nil {
			break
		}
		before, _, _ := r.Locator().Locate(given)
		for _, item := range step.Items {
			if a.count == limit || len(a.bytes) >= maxBytes {
				break
			}
			if r.Advance(item.Offset); !r.Match(item) {
				continue
			}
			if a.add(item.JSON()); given.Epoch != "" && item.Offset <= before.Offset {
				a.again = put(a.again, r.Cursor())
			}
		}
	}
	a.at = put(a.at, r.Cursor())
	if a.count+len(a.gaps) == told {
		l.moved(r.Cursor()) // over what the filter left out
	}
	return nil
}

// put puts a cursor into a position, in place of its channel's.
func put(p event.Position, c event.Cursor) event.Position {
	for i := range p {
		if p[i].Channel == c.Channel {
			p[i] = c
			return p
		}
	}
	return append(p, c)
}

// tell tells the gateway's own channel of a gap, once.
func (l *pullLease) tell(g *wire.Control, end event.Cursor) {
	l.mu.Lock()
	last, _ := l.gaps.Of(end.Channel)
	l.gaps = put(l.gaps, end)
	l.mu.Unlock()
	if last != end {
		l.ownership.Gap(g.Channel, g.From, g.To, g.Reason)
	}
}

// moved commits a cursor that neither an event nor a gap stands before.
func (l *pullLease) moved(c event.Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, _ := l.at.Of(c.Channel); at != c && c.Offset > 0 {
		l.at = put(l.at, c)
		l.ownership.Advance(c, 0)
	}
}
