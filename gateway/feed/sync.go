package feed

import (
	"context"
	"errors"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// What a feed knows is a hint, since it may lag behind its log. Here it is
// compared with the log: when an announcement doesn't fit, and for those who
// must know what the log says now.

// fetch is a look at the log's state that several wait for.
type fetch struct {
	done  chan struct{} // closed once state and err are set
	state broker.State
	err   error
}

// Fresh returns the log's state as of some moment after the call began. Those
// who ask before a look begins share it. The feed is brought up to it soon.
func (f *Feed) Fresh(ctx context.Context) (broker.State, error) {
	f.mu.Lock()
	if f.asked == nil {
		f.asked = &fetch{done: make(chan struct{})}
	}
	asked := f.asked
	f.syncLocked()
	f.mu.Unlock()
	select {
	case <-asked.done:
		return asked.state, asked.err
	case <-ctx.Done():
		return broker.State{}, ctx.Err()
	case <-f.feeds.ctx.Done():
		return broker.State{}, broker.ErrClosed
	}
}

// suspect has the feed compared with the log.
func (f *Feed) suspect() {
	f.mu.Lock()
	f.syncLocked()
	f.mu.Unlock()
}

// syncLocked has the feed compared with the log.
func (f *Feed) syncLocked() {
	f.stale = true
	if f.syncing || !f.live {
		return
	}
	f.syncing = true
	if !f.feeds.spawn(f.sync) {
		f.syncing = false
	}
}

// sync reads from the log what announcements left out, until nothing is
// missing, however often it has to try.
func (f *Feed) sync(ctx context.Context) {
	again := newBackoff()
	for {
		f.mu.Lock()
		asked := f.asked
		if !f.stale {
			f.syncing = false
			f.mu.Unlock()
			return
		}
		f.stale, f.asked = false, nil
		f.mu.Unlock()
		state, err := f.look(ctx)
		if asked != nil {
			asked.state, asked.err = state, err
			close(asked.done)
		}
		if err == nil {
			err = f.compare(ctx, state)
		}
		if err == nil {
			again = newBackoff()
			continue
		}
		f.feeds.logger.Debug("comparing with the log failed", "channel", f.channel, "error", err)
		f.mu.Lock()
		f.stale = true
		f.mu.Unlock()
		if !again.wait(ctx) {
			f.mu.Lock()
			f.syncing = false
			f.mu.Unlock()
			return
		}
	}
}

// look asks the log for its state.
func (f *Feed) look(ctx context.Context) (state broker.State, err error) {
	defer f.feeds.opts.Guard.Contain("sync", func() { err = errPanicked })
	if err := f.feeds.reads.Acquire(ctx, 1); err != nil {
		return broker.State{}, err
	}
	defer f.feeds.reads.Release(1)
	state, err = f.feeds.opts.Broker.State(ctx, f.channel)
	if errors.Is(err, broker.ErrNotFound) {
		// Dropped, or emptied from outside: following anew makes a new log.
		f.feeds.opts.Broker.Unfollow(f.channel, f)
		state, err = f.feeds.opts.Broker.Follow(ctx, f.channel, f)
	}
	return state, err
}

// compare brings the feed up to the log, which is at state.
func (f *Feed) compare(ctx context.Context, state broker.State) (err error) {
	defer f.feeds.opts.Guard.Contain("sync", func() { err = errPanicked })
	if err := f.feeds.reads.Acquire(ctx, 1); err != nil {
		return err
	}
	defer f.feeds.reads.Release(1)
	for {
		have, missing := f.adopt(state)
		if missing == 0 {
			return nil
		}
		page, err := f.feeds.opts.Broker.Read(ctx, f.channel, have, broker.Limit{Events: missing})
		if err != nil {
			return err
		}
		if page.State.Epoch == state.Epoch && len(page.Items) == 0 {
			// Trimmed meanwhile; live-only channels keep nothing.
			page.State.Head = max(page.State.Head, state.Head)
			f.skip(page.State)
			return nil
		}
		state = page.State // perhaps begun anew
		f.fill(page)
	}
}

// fill takes over what was read from the log.
func (f *Feed) fill(page broker.Page) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, stored := range page.Items {
		if stored.Offset <= f.state.Head || f.state.Epoch != page.State.Epoch {
			continue // came by an announcement meanwhile
		}
		if stored.Offset != f.state.Head+1 {
			f.resetLocked()
		}
		f.pushLocked(f.item(f.state.Epoch, stored))
	}
	f.feeds.ready.wake(f.members)
}

// adopt takes over what the log says of itself. It returns the offset to read
// on from and how many events to read, 0 if nothing is missing or if more is
// than a ring holds: sessions then read the log themselves.
func (f *Feed) adopt(state broker.State) (have uint64, missing int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if state.Epoch != f.state.Epoch {
		at, place := state.Locate(f.state.Epoch, f.state.Head)
		head := state.Head
		if place == broker.Here && at == f.state.Head {
			state.Head = at // the fork lost nothing of what the ring holds
			f.moveLocked(state.Epoch)
		} else {
			f.resetLocked()
		}
		f.state = state
		state.Head = head
	}
	f.state.First = max(f.state.First, state.First)
	behind := uint64(0)
	if state.Head > f.state.Head {
		behind = state.Head - f.state.Head
	}
	if behind > uint64(f.feeds.opts.RingEvents) {
		f.resetLocked()
		f.state.Head, behind = state.Head, 0
	}
	have = f.state.Head
	f.feeds.ready.wake(f.members)
	return have, int(behind)
}

// moveLocked takes what the ring holds into a new epoch. Sessions may be sending
// the items as they were: the ring is another one from here on.
func (f *Feed) moveLocked(epoch string) {
	from, to := event.Cursor{Channel: f.channel, Epoch: f.state.Epoch}, event.Cursor{Channel: f.channel, Epoch: epoch}
	was := f.ring
	f.resetLocked()
	for _, item := range was {
		moved := item.in(from, to)
		f.ring = append(f.ring, moved)
		f.bytes += moved.Size()
	}
	f.feeds.ringBytes.Add(int64(f.bytes))
}

// skip gives up what the log doesn't hold; whoever wants it asks the log.
func (f *Feed) skip(state broker.State) {
	f.mu.Lock()
	if state.Epoch != f.state.Epoch || state.Head > f.state.Head {
		f.resetLocked()
		f.state = state
	}
	f.feeds.ready.wake(f.members)
	f.mu.Unlock()
}
