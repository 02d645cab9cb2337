package cursor

import (
	"context"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/feed"
)

// Times finds where a channel stood at a time; see broker.Log.
type Times interface {
	OffsetAt(ctx context.Context, channel string, t time.Time) (uint64, error)
}

// Open returns a reader of a channel from since on, and the move by which it
// begins elsewhere than was asked for, or nil. The log is asked unless the
// node's ring holds what follows.
func Open(ctx context.Context, feeds *feed.Feeds, channel string, filter *Filter, since Since, times Times) (Reader, *Move, error) {
	f, err := feeds.Open(ctx, channel)
	if err != nil {
		return Reader{}, nil, err
	}
	r := Reader{feed: f, filter: filter}
	m, err := r.place(ctx, since, times)
	if err == nil {
		err = r.endAt(ctx)
	}
	if err != nil {
		f.Release()
		return Reader{}, nil, err
	}
	r.followed = f.State().Head <= r.offset
	return r, m, nil
}

func (r *Reader) place(ctx context.Context, since Since, times Times) (*Move, error) {
	asked, resumed := since.Position.Of(r.Channel())
	if resumed {
		r.epoch, r.offset = asked.Epoch, asked.Offset
		if r.feed.Holds(r.epoch, r.offset) {
			return nil, nil
		}
	} else if !since.Earliest && since.Time.IsZero() {
		state := r.feed.State()
		r.epoch, r.offset = state.Epoch, state.Head
		return nil, nil
	}
	var at uint64
	if !since.Time.IsZero() && !resumed {
		var err error
		if at, err = times.OffsetAt(ctx, r.Channel(), since.Time); err != nil {
			return nil, err
		}
	}
	state, err := r.feed.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	if resumed {
		return r.relocate(state), nil
	}
	r.epoch, r.offset = state.Epoch, min(max(at, max(state.First, 1)-1), state.Head)
	return nil, nil
}

// endAt gives the reader the end that its filter has for the channel. An epoch
// that the node doesn't know may be newer than what it knows, so the log is asked.
func (r *Reader) endAt(ctx context.Context) error {
	if r.filter == nil {
		return nil
	}
	end, ok := r.filter.until.Of(r.Channel())
	if !ok {
		return nil
	}
	state := r.feed.State()
	offset, place := state.Locate(end.Epoch, end.Offset)
	if place != broker.Here {
		var err error
		if state, err = r.feed.Fresh(ctx); err != nil {
			return err
		}
		offset, _ = state.Locate(end.Epoch, end.Offset)
	}
	r.end = &event.Cursor{Channel: end.Channel, Epoch: state.Epoch, Offset: offset}
	return nil
}

// Ahead returns the cursor of the n-th event after the reader's position that
// its filter takes, or where the log ends before that: the log itself, as of
// some moment after the call began, since the node may not have heard yet of
// what another one delivered. The reader stays.
func (r *Reader) Ahead(ctx context.Context, n int) (event.Cursor, error) {
	state, err := r.agree(ctx)
	if err != nil {
		return event.Cursor{}, err
	}
	ahead := r.Alone()
	var items []*feed.Item
	for n > 0 {
		step, err := ahead.Read(ctx, &items, aheadEvents, aheadBytes)
		if err != nil {
			return event.Cursor{}, err
		}
		if len(step.Items) == 0 && step.Move == nil {
			if ahead.epoch != state.Epoch || ahead.offset >= state.Head {
				break
			}
			before := ahead.offset
			if err := ahead.beyond(ctx); err != nil {
				return event.Cursor{}, err
			}
			if ahead.page == nil && ahead.offset == before {
				break // gone meanwhile
			}
			continue
		}
		for _, item := range step.Items {
			ahead.Advance(item.Offset)
			if ahead.Match(item) {
				if n--; n == 0 {
					break
				}
			}
		}
	}
	return ahead.Cursor(), nil
}

// agree returns the log's state as of some moment after the call began, once the
// node knows the log's epoch: a reader moves on into it then.
func (r *Reader) agree(ctx context.Context) (broker.State, error) {
	for {
		// Each look begins once the node was brought up to the one before.
		state, err := r.feed.Fresh(ctx)
		if err != nil || r.feed.State().Epoch == state.Epoch {
			return state, err
		}
	}
}

// beyond reads what the log has after the reader's position, though the node
// hasn't heard of it.
func (r *Reader) beyond(ctx context.Context) error {
	q := r.Ask()
	page, err := q.Answer(ctx)
	if err != nil {
		r.Forget(q)
		return err
	}
	r.Settle(q, page)
	return nil
}

// Redelivered returns up to where events after the reader's position may have
// been delivered before, and whether there are any: up to known, or, where it is
// unclear what was delivered, the window'th event at most. The log may have been
// forked since it was at that position: the node may not have heard of that, but
// whoever delivered may.
func (r *Reader) Redelivered(ctx context.Context, known event.Position, unclear bool, window int) (upTo event.Cursor, any bool, err error) {
	last, told := known.Of(r.Channel())
	state := r.feed.State()
	if unclear || told && last.Epoch != state.Epoch {
		if state, err = r.agree(ctx); err != nil {
			return r.Cursor(), false, err
		}
	}
	here := Locator{Epoch: state.Epoch, Forks: state.Forks}
	at, _, ok := here.Locate(r.Cursor())
	if !ok {
		at = event.Cursor{Channel: r.Channel(), Epoch: state.Epoch} // another log took its place
	}
	switch upTo = at; {
	case unclear && window == Everything:
		upTo.Offset = max(upTo.Offset, state.Head)
	case unclear:
		if upTo, err = r.Ahead(ctx, window); err != nil {
			return upTo, false, err
		}
	}
	if told {
		if last, _, ok = here.Locate(last); ok && last.Epoch == upTo.Epoch && last.Offset > upTo.Offset {
			upTo = last
		}
	}
	return upTo, upTo != at, nil
}

// Everything is the window of who may have delivered all that is in the log.
const Everything = -1

// How much Ahead looks at in one step.
const (
	aheadEvents = 1024
	aheadBytes  = 1 << 20
)

// Locator says where cursors of older epochs are in a log that was forked.
type Locator struct {
	Epoch string
	Forks []broker.Fork
}

// Locate returns where a cursor is: the same place, or, where it lies beyond a
// fork, the fork. ok is false for a cursor of an unknown epoch.
func (l Locator) Locate(c event.Cursor) (at event.Cursor, kept, ok bool) {
	offset, place := broker.State{Epoch: l.Epoch, Head: ^uint64(0), Forks: l.Forks}.Locate(c.Epoch, c.Offset)
	at = event.Cursor{Channel: c.Channel, Epoch: l.Epoch, Offset: offset}
	return at, place == broker.Here, place != broker.Unknown
}
