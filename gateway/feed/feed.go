// Package feed holds, per channel and node, the tail of the log: a ring of
// recent events that all sessions share, and who is to be woken when it moves.
package feed

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
)

// Member is a session on a feed.
type Member interface {
	// Mark returns true if the member was not marked: it then has to go on
	// the ready list. Called with the feed locked.
	Mark() bool
}

// Feed is a channel's tail on this node. It is opened with the first session
// and closed a while after the last.
type Feed struct {
	feeds   *Feeds
	channel string

	opened  chan struct{} // closed when open has ended; then openErr is static
	openErr error

	// guarded by feeds.mu
	refs int

	mu      sync.RWMutex
	live    bool // the state is known
	syncing bool // a goroutine compares with the log
	stale   bool // something didn't fit: compare (again)
	warm    bool // on the list of feeds with a ring
	state   broker.State
	ring    []*Item // offsets Head-len(ring)+1 … Head
	bytes   int
	members []Member
}

var _ broker.Follower = (*Feed)(nil)

// Channel is the feed's channel.
func (f *Feed) Channel() string { return f.channel }

// State returns the log's state as far as the feed knows: Epoch, Head and
// Forks are those of the last event it has; First may have moved on.
func (f *Feed) State() broker.State {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state
}

// Join adds a member and returns the state as of that moment: everything after
// its Head will wake the member.
func (f *Feed) Join(m Member) broker.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(f.members, m)
	return f.state
}

// Leave takes a member off.
func (f *Feed) Leave(m Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// A channel's ten thousand sessions seldom leave one by one in a hurry;
	// looking for the member costs no memory while nobody leaves.
	for i, member := range f.members {
		if member == m {
			last := len(f.members) - 1
			f.members[i], f.members[last] = f.members[last], nil
			f.members = f.members[:last]
			return
		}
	}
}

// View is what Take saw.
type View struct {
	State broker.State // Epoch and Head are what the items belong to
	// Behind: the events after the offset are no longer, or not yet, in the
	// ring, which begins with offset Oldest: read them with Page.
	Behind bool
	Oldest uint64
}

// Take appends to dst the events after offset, as far as they are in the ring,
// at most events and about bytes of them, and tells where the feed stands.
// epoch is the caller's: if it isn't the feed's, nothing is taken.
func (f *Feed) Take(dst []*Item, epoch string, offset uint64, events, bytes int) ([]*Item, View) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	v := View{State: f.state}
	if epoch != f.state.Epoch || offset >= f.state.Head {
		return dst, v
	}
	oldest := f.state.Head - uint64(len(f.ring)) + 1
	if offset+1 < oldest {
		v.Behind, v.Oldest = true, oldest
		return dst, v
	}
	for _, item := range f.ring[offset+1-oldest:] {
		if events--; events < 0 || bytes <= 0 {
			break
		}
		bytes -= len(item.buf)
		dst = append(dst, item)
	}
	return dst, v
}

// Announce implements broker.Follower.
func (f *Feed) Announce(a broker.Announcement) {
	items := make([]*Item, 0, len(a.Items))
	for _, stored := range a.Items {
		item, err := NewItem(f.channel, a.Epoch, stored)
		if err != nil {
			f.feeds.logger.Error("stored event can't be read", "channel", f.channel, "offset", stored.Offset, "error", err)
			continue
		}
		items = append(items, item)
	}
	f.mu.Lock()
	fits := f.live && a.Epoch == f.state.Epoch
	if fits {
		for _, item := range items {
			if item.Offset == f.state.Head+1 {
				f.pushLocked(item)
			}
		}
	}
	if !fits || a.Head > f.state.Head {
		f.syncLocked()
	}
	f.feeds.ready.wake(f.members)
	f.mu.Unlock()
}

// pushLocked appends the next event to the ring.
func (f *Feed) pushLocked(item *Item) {
	f.state.Head = item.Offset
	for len(f.ring) > 0 && (len(f.ring) >= f.feeds.opts.RingEvents || f.bytes+item.Size() > f.feeds.opts.RingBytes) {
		f.dropOldestLocked()
	}
	f.ring = append(f.ring, item)
	f.bytes += item.Size()
	f.feeds.ringBytes.Add(int64(item.Size()))
	if !f.warm {
		f.feeds.warmLocked(f, true)
	}
}

func (f *Feed) dropOldestLocked() {
	f.bytes -= f.ring[0].Size()
	f.feeds.ringBytes.Add(-int64(f.ring[0].Size()))
	f.ring[0] = nil
	f.ring = f.ring[1:] // append moves it to the front again now and then
}

func (f *Feed) resetLocked() {
	f.feeds.ringBytes.Add(-int64(f.bytes))
	f.ring, f.bytes = nil, 0
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
		if !f.stale {
			f.syncing = false
			f.mu.Unlock()
			return
		}
		f.stale = false
		f.mu.Unlock()
		if err := f.compare(ctx); err != nil {
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
			continue
		}
		again = newBackoff()
	}
}

// compare brings the feed up to the log.
func (f *Feed) compare(ctx context.Context) error {
	if err := f.feeds.reads.Acquire(ctx, 1); err != nil {
		return err
	}
	defer f.feeds.reads.Release(1)
	state, err := f.feeds.opts.Broker.State(ctx, f.channel)
	if errors.Is(err, broker.ErrNotFound) {
		// Dropped, or emptied from outside: following anew makes a new log.
		f.feeds.opts.Broker.Unfollow(f.channel, f)
		state, err = f.feeds.opts.Broker.Follow(ctx, f.channel, f)
	}
	if err != nil {
		return err
	}
	for {
		have, missing := f.adopt(state)
		if missing == 0 {
			return nil
		}
		page, err := f.feeds.opts.Broker.Read(ctx, f.channel, have, broker.Limit{Events: missing})
		if err != nil {
			return err
		}
		if len(page.Items) == 0 || page.State.Epoch != state.Epoch {
			// Trimmed or begun anew meanwhile; live-only channels keep nothing.
			page.State.Head = max(page.State.Head, state.Head)
			f.skip(page.State)
			return nil
		}
		f.mu.Lock()
		for _, stored := range page.Items {
			if stored.Offset <= f.state.Head || f.state.Epoch != page.State.Epoch {
				continue // came by an announcement meanwhile
			}
			if stored.Offset != f.state.Head+1 {
				f.resetLocked()
			}
			item, err := NewItem(f.channel, f.state.Epoch, stored)
			if err != nil {
				f.resetLocked()
				f.state.Head = stored.Offset
				continue
			}
			f.pushLocked(item)
		}
		f.feeds.ready.wake(f.members)
		f.mu.Unlock()
	}
}

// adopt takes over what the log says of itself. It returns the offset to read
// on from and how many events to read, 0 if nothing is missing or if more is
// than a ring holds: sessions then read the log themselves.
func (f *Feed) adopt(state broker.State) (have uint64, missing int) {
	f.mu.Lock()
	if state.Epoch != f.state.Epoch {
		at, place := state.Locate(f.state.Epoch, f.state.Head)
		head := state.Head
		if place == broker.Here && at == f.state.Head {
			state.Head = at // the fork lost nothing of what the ring holds
		} else {
			f.resetLocked()
		}
		f.state = state
		f.state.Head = state.Head
		state.Head = head
	}
	f.state.First = state.First
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
	f.mu.Unlock()
	return have, int(behind)
}

// skip gives up what can't be read: sessions learn of it as a gap.
func (f *Feed) skip(state broker.State) {
	f.mu.Lock()
	if state.Epoch != f.state.Epoch || state.Head > f.state.Head {
		f.resetLocked()
		f.state = state
	}
	f.feeds.ready.wake(f.members)
	f.mu.Unlock()
}

// trim drops from the ring what was appended before t.
func (f *Feed) trim(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.ring) > 0 && f.ring[0].Appended.Before(t) {
		f.dropOldestLocked()
	}
	if len(f.ring) == 0 {
		f.ring = nil
		f.feeds.warmLocked(f, false)
	}
}
