// Package cursor takes a position in a channel to what its subscriber is told
// next: events of the node's ring, events of the log, that some are gone, or
// where the position is in a log that was begun anew. It is the one place that
// does, for sessions, callbacks, pull and whoever else reads a channel.
//
// What this node knows is a hint, since it may lag behind the log. That
// something is gone is said only on the log's own word: by what can't be
// undone (it once had later events but not this one; its epoch was forked
// there), or by an answer to a question that was asked since.
package cursor

import (
	"context"
	"errors"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// Reader is a subscriber's progress in one channel. It is used by one
// goroutine at a time, under its owner's lock; only a Question may be answered
// beside that. A copy of one that hasn't asked anything reads on by itself.
type Reader struct {
	feed   *feed.Feed
	filter *Filter
	part   int32 // of those of a group, which the reader is kept to
	of     int32 // how many there are; 0: it takes all
	epoch  string
	offset uint64        // everything up to here was handed over or left out
	end    *event.Cursor // what lies beyond is left out; nil: nothing is. Never written to
	page   *feed.Page    // of the log, while behind the ring
	asked  *Question     // of the log, or nil
	// followed: it has been at the head, so that being behind now is lagging.
	followed bool
}

// Move says that a reader goes on elsewhere: at To instead of From. With a
// Reason the events between, after From up to and including To, won't come;
// without, From means the same place in a log that was forked since.
type Move struct {
	From, To event.Cursor
	Reason   string        // of wire's gaps, or ""
	Forks    []broker.Fork // of the log of To
}

// Gap is the move as a control message, or nil if nothing is lost by it.
func (m *Move) Gap() *wire.Control {
	if m == nil || m.Reason == "" {
		return nil
	}
	return &wire.Control{Op: wire.OpGap, Channel: m.To.Channel, From: m.From.String(), To: m.To.String(), Reason: m.Reason}
}

// Locator locates cursors in the log of To.
func (m *Move) Locator() Locator { return Locator{Epoch: m.To.Epoch, Forks: m.Forks} }

// Step is what comes next. At most one of its parts is set; none if there is
// nothing for now.
type Step struct {
	// Items follow the reader's offset without a hole, those that its filter
	// leaves out included. They are shared; Advance moves over them.
	Items []*feed.Item
	More  bool // behind Items there are more
	// Move was made.
	Move *Move
	// Behind: only the log can say; Ask it. Head is the newest event's offset
	// as far as the node knows, 0 if it doesn't know the reader's log.
	Behind bool
	Head   uint64
}

// Channel is the reader's channel.
func (r *Reader) Channel() string { return r.feed.Channel() }

// Cursor is the reader's position.
func (r *Reader) Cursor() event.Cursor {
	return event.Cursor{Channel: r.feed.Channel(), Epoch: r.epoch, Offset: r.offset}
}

// Offset is the offset of Cursor.
func (r *Reader) Offset() uint64 { return r.offset }

// Behind is how many events lie beyond the position, as far as the feed knows;
// 0 where it isn't known.
func (r *Reader) Behind() uint64 {
	state := r.feed.State()
	offset, _ := state.Locate(r.epoch, r.offset)
	return state.Head - min(offset, state.Head)
}

// Match tells whether the reader takes an event: its filter does, it is of the
// partition that the reader is kept to, and not beyond the reader's end.
func (r *Reader) Match(item *feed.Item) bool {
	return (r.of == 0 || item.Partition(int(r.of)) == int(r.part)) && (r.end == nil || item.Offset <= r.end.Offset) && r.filter.Match(item)
}

// Keep keeps the reader to one partition of a group that has so many.
func (r *Reader) Keep(partition, of int) { r.part, r.of = int32(partition), int32(of) }

// bound says where the reader's end is in the log that the reader is in, whose
// state is given: where the log was forked before it, and where another log took
// the place of the whole, what is there now lies beyond it.
func (r *Reader) bound(state broker.State) {
	if r.end == nil || r.end.Epoch == state.Epoch || state.Epoch != r.epoch {
		return
	}
	offset, _ := state.Locate(r.end.Epoch, r.end.Offset)
	r.end = &event.Cursor{Channel: r.end.Channel, Epoch: state.Epoch, Offset: offset}
}

// Advance moves the reader forward to an offset: what lies before it was
// handed over or left out.
func (r *Reader) Advance(offset uint64) { r.offset = max(r.offset, offset) }

// Followed tells whether the reader was at the head and Unfollow didn't forget
// it since.
func (r *Reader) Followed() bool { return r.followed }

// Elsewhere tells whether the node knows the channel's log to be in another epoch
// than the reader, which has not asked about it: Next, once it Rests, moves it
// there or has it ask.
func (r *Reader) Elsewhere() bool { return r.asked == nil && r.feed.State().Epoch != r.epoch }

// Unfollow forgets that the reader was at the head.
func (r *Reader) Unfollow() { r.followed = false }

// Rest lets go of what the log was read for and isn't handed over yet.
func (r *Reader) Rest() { r.page = nil }

// Join has the feed wake m whenever there may be a next step.
func (r *Reader) Join(m feed.Member) { r.feed.Join(m) }

// Leave undoes Join.
func (r *Reader) Leave(m feed.Member) { r.feed.Leave(m) }

// Close gives the feed back. Every reader that Open returned needs it once.
func (r *Reader) Close() { r.feed.Release() }

// Next returns what comes next, at most events and about bytes of them,
// without waiting for anything. Items of the ring are put in *into, which is
// used again. While the log is asked there is nothing.
func (r *Reader) Next(into *[]*feed.Item, events, bytes int) Step {
	if r.asked != nil {
		return Step{}
	}
	if page := r.page; page != nil {
		if page.State.Epoch == r.epoch {
			items, unreadable := page.After(r.offset)
			if len(items) > 0 {
				return Step{Items: items, More: true}
			}
			if unreadable > 0 {
				return Step{Move: r.pass(r.offset+unreadable, wire.GapCorrupt)}
			}
		}
		r.page = nil
	}
	items, view := r.feed.Take((*into)[:0], r.epoch, r.offset, events, bytes)
	*into = items
	switch {
	case view.State.Epoch != r.epoch:
		if _, place := view.State.Locate(r.epoch, r.offset); place == broker.Unknown {
			return Step{Behind: true} // one of the two isn't the log's any longer
		}
		return Step{Move: r.relocate(view.State)}
	case view.Behind:
		return Step{Behind: true, Head: view.State.Head}
	}
	r.followed = true
	r.bound(view.State)
	if len(items) == 0 {
		if view.Corrupt > 0 {
			return Step{Move: r.pass(r.offset+view.Corrupt, wire.GapCorrupt)}
		}
		return Step{}
	}
	return Step{Items: items, More: items[len(items)-1].Offset < view.State.Head}
}

// pass moves over events of the same log.
func (r *Reader) pass(to uint64, reason string) *Move {
	m := &Move{From: r.Cursor(), Reason: reason}
	r.offset = to
	m.To = r.Cursor()
	return m
}

// Skip moves over everything up to offset, because of reason.
func (r *Reader) Skip(offset uint64, reason string) *Move {
	r.page = nil
	return r.pass(offset, reason)
}

// relocate places the reader in the log as state says it is. It returns nil if
// it is there already.
func (r *Reader) relocate(state broker.State) *Move {
	from := r.Cursor()
	offset, place := state.Locate(r.epoch, r.offset)
	reason := ""
	if place != broker.Here {
		reason = wire.GapReset
	}
	if first := max(state.First, 1); offset+1 < first && !r.feed.Holds(state.Epoch, offset) {
		offset = first - 1
		if reason == "" {
			reason = wire.GapRetention
		}
	}
	if reason == "" && state.Epoch == r.epoch {
		return nil
	}
	r.epoch, r.offset, r.page = state.Epoch, offset, nil
	r.bound(state)
	return &Move{From: from, To: r.Cursor(), Reason: reason, Forks: state.Forks}
}

// Question is what a reader wants to know of the log: what follows the place
// where it was when it asked.
type Question struct {
	feed   *feed.Feed
	epoch  string
	offset uint64
}

// Ask makes the question that a Step with Behind demands. The reader waits for
// the answer: Next returns nothing until Settle or Forget.
func (r *Reader) Ask() *Question {
	r.asked = &Question{feed: r.feed, epoch: r.epoch, offset: r.offset}
	return r.asked
}

// Asked tells whether the reader waits for the answer to q. A reader that took
// the place of the one that asked does not.
func (r *Reader) Asked(q *Question) bool { return r.asked == q }

// Forget gives a question up.
func (r *Reader) Forget(q *Question) {
	if r.asked == q {
		r.asked = nil
	}
}

// errUndecided: the log hasn't what the node's ring has. It forgot its tail and
// says where it goes on only with the next append.
var errUndecided = errors.New("the log is behind its own announcements")

// Answer asks the log. It may be called by any goroutine, and touches no
// reader. Any error means: not now, ask again in a while.
func (q *Question) Answer(ctx context.Context) (*feed.Page, error) {
	page, err := q.feed.Page(ctx, q.epoch, q.offset)
	if err != nil {
		return nil, err
	}
	if s := page.State; s.Epoch == q.epoch && s.Head == q.offset && !q.feed.Holds(q.epoch, q.offset) {
		return nil, errUndecided
	}
	return page, nil
}

// Settle takes the answer to q, unless the reader waits for none or has moved
// since. It returns the move that the answer makes, or nil.
func (r *Reader) Settle(q *Question, page *feed.Page) *Move {
	if r.asked != q {
		return nil
	}
	r.asked = nil
	switch {
	case r.epoch != q.epoch || r.offset != q.offset:
		return nil
	case page.State.Epoch != r.epoch || page.State.Head < r.offset:
		return r.relocate(page.State)
	}
	r.bound(page.State)
	next := page.Next(r.offset)
	if len(page.Items) == 0 {
		// A live-only channel's log is empty: what there is is in the ring.
		if oldest := r.feed.Oldest(r.epoch); oldest > r.offset {
			next = min(next, oldest)
		}
	} else if next > 0 {
		r.page = page
	}
	if next > r.offset+1 {
		return r.pass(next-1, wire.GapRetention)
	}
	return nil
}

// Read is Next for those who can wait: it asks the log where it must. It
// doesn't wait for events.
func (r *Reader) Read(ctx context.Context, into *[]*feed.Item, events, bytes int) (Step, error) {
	for {
		step := r.Next(into, events, bytes)
		if !step.Behind {
			return step, nil
		}
		q := r.Ask()
		page, err := q.Answer(ctx)
		switch {
		case errors.Is(err, errUndecided), errors.Is(err, broker.ErrNotFound):
			r.Forget(q)
			return Step{}, nil // the feed learns of it soon, and wakes its members
		case err != nil:
			r.Forget(q)
			return Step{}, err
		}
		if m := r.Settle(q, page); m != nil {
			return Step{Move: m}, nil
		}
	}
}

// Alone returns a reader at the same place that nothing else moves or closes.
// It is good for as long as the one that it was made of isn't closed.
func (r *Reader) Alone() Reader {
	alone := *r
	alone.page, alone.asked = nil, nil
	return alone
}

// From is Alone at another cursor of the channel.
func (r *Reader) From(c event.Cursor) Reader {
	alone := r.Alone()
	alone.epoch, alone.offset = c.Epoch, c.Offset
	return alone
}

// At returns the event at a cursor of the reader's channel, nil if the log
// doesn't have it or it can't be read. The reader stays where it is.
func (r *Reader) At(ctx context.Context, c event.Cursor) (*feed.Item, error) {
	page, err := r.feed.Page(ctx, c.Epoch, c.Offset-1)
	if err != nil || page.State.Epoch != c.Epoch {
		return nil, err
	}
	if items, _ := page.After(c.Offset - 1); len(items) > 0 && items[0].Offset == c.Offset {
		return items[0], nil
	}
	return nil, nil
}

// Present locates cursors in the log as the node knows it, wherever the reader is.
func (r *Reader) Present() Locator {
	state := r.feed.State()
	return Locator{Epoch: state.Epoch, Forks: state.Forks}
}

// Locator locates cursors in the reader's log, as far as the node knows its
// forks.
func (r *Reader) Locator() Locator {
	l := Locator{Epoch: r.epoch}
	if state := r.feed.State(); state.Epoch == r.epoch {
		l.Forks = state.Forks
	}
	return l
}
