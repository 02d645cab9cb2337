package pull

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
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
	takes []take // of each share, in the order of their partitions
	of    int    // partitions of the group; 0: there is none
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

// take is what an answer has of one share.
type take struct {
	*share
	at, given event.Position // as the share's when the answer was begun
	read      event.Position // how far the answer got
	out       []event.Cursor // the events in it
	most      int            // how many it may have: one partition fills half of an answer

	// in the channel that is being read
	after, before uint64 // acknowledged, and perhaps delivered before, up to here
	stopped       bool   // it has its share of the answer
	last          uint64 // then: how far it got
}

// end completes the answer's JSON.
func (a *answer) end(l *lease, q request) error {
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
	if a.of > 0 {
		a.bytes = append(append(append(a.bytes, `,"connection":"`...), l.connection...), `","partitions":[`...)
		for i := range a.takes {
			if i > 0 {
				a.bytes = append(a.bytes, ',')
			}
			a.bytes = strconv.AppendInt(a.bytes, int64(a.takes[i].partition), 10)
		}
		a.bytes = strconv.AppendInt(append(a.bytes, `],"of":`...), int64(a.of), 10)
	}
	if keep := l.keeps(q, a); keep > 0 {
		a.bytes = append(a.bytes, `,"held_until":"`...)
		a.bytes = append(time.Now().Add(keep).UTC().AppendFormat(a.bytes, time.RFC3339), '"')
	}
	a.bytes = append(a.bytes, "}\n"...)
	return nil
}

// pull reads what follows the acknowledged position, waiting for something if
// there is nothing.
func (l *lease) pull(ctx context.Context, q request) (answer, error) {
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
		again, err := l.gave(&a)
		if err != nil {
			return a, err
		}
		if again {
			continue
		}
		return a, a.end(l, q)
	}
}

// gave notes what an answer gives. again: a partition of which it has events is
// somebody else's by now, so that they must not be given.
func (l *lease) gave(a *answer) (again bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false, wire.Conflict("subscription %q was taken over by another connection of this consumer, or changed; pull again", l.name)
	}
	for i := range a.takes {
		t := &a.takes[i]
		if len(t.out) > 0 && (t.share.leaving || !slices.Contains(l.shares, t.share)) {
			return true, nil
		}
	}
	l.followLocked()
	for i := range a.takes {
		t := &a.takes[i]
		t.share.read = t.read
		if a.of > 0 {
			t.share.out = t.out
		}
		for _, c := range t.out {
			if before, ok := t.share.given.Of(c.Channel); !ok || before.Epoch != c.Epoch || before.Offset < c.Offset {
				t.share.given = put(slices.Clone(t.share.given), c)
			}
		}
	}
	l.toldAt, l.answered = slices.Clone(a.at), slices.Clone(a.at)
	return false, nil
}

// readTime bounds what reading takes, beside the wait for an event.
const readTime = 5 * time.Second

// read reads one page, dead letters that were put back first.
func (l *lease) read(ctx context.Context, limit int) (answer, error) {
	l.mu.Lock()
	a := answer{bytes: []byte(`{"events":[`), at: slices.Clone(l.state.Position)}
	// No more is out than the next owner would announce if this node were gone.
	limit = min(limit, l.state.Definition.Window)
	if g := l.state.Definition.Group; g != nil {
		a.of = g.Partitions
	}
	l.followLocked()
	for _, s := range l.shares {
		if !s.leaving {
			a.takes = append(a.takes, take{share: s, at: slices.Clone(s.at), given: s.given, most: limit})
		}
	}
	for i := range a.takes {
		if len(a.takes) > 1 {
			a.takes[i].most = max(1, limit/2)
		}
	}
	paused := l.state.Paused
	l.told = 0
	if !paused {
		for _, letter := range l.lettersLocked(limit) {
			a.add(letter.Event)
			l.told++
		}
	}
	l.mu.Unlock()
	if len(a.takes) > 0 {
		a.at = nil
		for _, c := range a.takes[0].at {
			a.at = append(a.at, a.least(c, l.present(c.Channel)))
		}
	}
	if paused || len(a.takes) == 0 {
		return a, nil
	}
	for i := range l.readers {
		if err := l.readChannel(ctx, &l.readers[i], &a, limit); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *answer) add(text []byte) {
	if a.count++; a.count > 1 {
		a.bytes = append(a.bytes, ',')
	}
	a.bytes = append(a.bytes, text...)
}

// least is the first of the shares' positions in a channel, c being one: one in
// another log than the present one, so that it is told that this is gone, or else
// the least.
func (a *answer) least(c event.Cursor, present string) event.Cursor {
	for i := range a.takes {
		at, ok := a.takes[i].at.Of(c.Channel)
		if ok && (at.Epoch == c.Epoch && at.Offset < c.Offset || at.Epoch != c.Epoch && c.Epoch == present) {
			c = at
		}
	}
	return c
}

// present is the epoch of a channel as the node knows it.
func (l *lease) present(channel string) string {
	for i := range l.readers {
		if l.readers[i].Channel() == channel {
			return l.readers[i].Present().Epoch
		}
	}
	return ""
}

// maxSkimmed bounds how far an answer is looked on for once a partition has its
// share of it: the rest may all be of that one.
const maxSkimmed = 8192

// readChannel appends what follows the position in a channel: events and gaps.
func (l *lease) readChannel(ctx context.Context, reader *cursor.Reader, a *answer, limit int) error {
	channel := reader.Channel()
	at, _ := a.at.Of(channel)
	r := reader.From(at)
	a.place(&r)
	var items []*feed.Item
	gaps, skimmed := len(a.gaps), 0
	for a.count < limit && len(a.bytes) < maxBytes && skimmed < maxSkimmed && !a.stopped() {
		step, err := r.Read(ctx, &items, limit, maxBytes)
		if err != nil {
			return err
		}
		if g := step.Move.Gap(); g != nil {
			a.gaps = append(a.gaps, gap{g.Channel, g.From, g.To, g.Reason})
			l.tell(g, step.Move.To)
		}
		if step.Move != nil {
			a.place(&r)
			if m := step.Move; m.From.Epoch != m.To.Epoch {
				l.forked(channel, m.Locator())
			}
		}
		if len(step.Items) == 0 && step.Move == nil {
			break
		}
		for _, item := range step.Items {
			if a.count == limit || len(a.bytes) >= maxBytes {
				break
			}
			r.Advance(item.Offset)
			t := a.takeOf(item)
			switch {
			case t == nil || item.Offset <= t.after || !r.Match(item):
				continue
			case t.stopped:
				skimmed++
				continue
			case len(t.out) == t.most:
				t.stopped, t.last = true, item.Offset-1
				continue
			}
			t.out = append(t.out, r.Cursor())
			if a.add(item.JSON()); item.Offset <= t.before {
				a.again = put(a.again, r.Cursor())
			}
		}
	}
	a.at = put(a.at, r.Cursor())
	for i := range a.takes {
		t := &a.takes[i]
		c := r.Cursor()
		if t.stopped {
			c.Offset = t.last
		}
		c.Offset = max(c.Offset, t.after)
		t.read, t.stopped = put(t.read, c), false
		given := slices.ContainsFunc(t.out, func(o event.Cursor) bool { return o.Channel == channel })
		if !given && len(a.gaps) == gaps {
			l.passed(t.share, c) // over what the filter left out
		}
	}
	return nil
}

// place says where the shares are in the log as a reader has it.
func (a *answer) place(r *cursor.Reader) {
	locate := func(p event.Position) uint64 {
		if c, ok := p.Of(r.Channel()); ok {
			if at, _, ok := r.Locator().Locate(c); ok {
				return at.Offset
			}
		}
		return 0
	}
	for i := range a.takes {
		t := &a.takes[i]
		t.after, t.before = locate(t.at), locate(t.given)
	}
}

// takeOf is whose an event is, or nil.
func (a *answer) takeOf(item *feed.Item) *take {
	if a.of == 0 {
		return &a.takes[0]
	}
	p := item.Partition(a.of)
	for i := range a.takes {
		if a.takes[i].partition == p {
			return &a.takes[i]
		}
	}
	return nil
}

// stopped tells whether each share has what it may have.
func (a *answer) stopped() bool {
	return !slices.ContainsFunc(a.takes, func(t take) bool { return !t.stopped })
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
func (l *lease) tell(g *wire.Control, end event.Cursor) {
	l.mu.Lock()
	last, _ := l.gaps.Of(end.Channel)
	l.gaps = put(l.gaps, end)
	l.mu.Unlock()
	if last != end {
		l.whole.Gap(g.Channel, g.From, g.To, g.Reason)
	}
}

// passed commits a cursor that neither an event nor a gap stands before.
func (l *lease) passed(s *share, c event.Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, _ := s.at.Of(c.Channel); at != c && c.Offset > 0 && slices.Contains(l.shares, s) {
		s.at = put(slices.Clone(s.at), c)
		s.ownership.Advance(c, 0)
	}
}
