// Package feed holds, per channel and node, the tail of the log: a ring of
// recent events that all sessions share, and who is to be woken when it moves.
package feed

import (
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
	live    bool   // the state is known
	syncing bool   // a goroutine compares with the log
	stale   bool   // something didn't fit, or somebody asks: compare (again)
	asked   *fetch // that has not begun, or nil
	warm    bool   // on the list of feeds with a ring
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
	// Corrupt is how many events after those taken can't be read.
	Corrupt uint64
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
	rest := f.ring[offset+1-oldest:]
	for i, item := range rest {
		if events--; events < 0 || bytes <= 0 {
			break
		}
		if item.Corrupt() {
			v.Corrupt = corrupt(rest[i:])
			break
		}
		bytes -= len(item.buf)
		dst = append(dst, item)
	}
	return dst, v
}

// Holds tells whether the feed itself knows what follows offset of epoch: the
// ring has it, or it is the newest event there is here. No log need be asked.
func (f *Feed) Holds(epoch string, offset uint64) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return epoch == f.state.Epoch && offset <= f.state.Head && offset >= f.state.Head-uint64(len(f.ring))
}

// Oldest is the offset of the oldest event of epoch in the ring, of the one that
// comes next if it is empty, or 0 if the feed is in another epoch.
func (f *Feed) Oldest(epoch string) uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if epoch != f.state.Epoch {
		return 0
	}
	return f.state.Head - uint64(len(f.ring)) + 1
}

// Announce implements broker.Follower.
func (f *Feed) Announce(a broker.Announcement) {
	defer f.feeds.opts.Guard.Contain("announce", f.suspect)
	items := make([]*Item, 0, len(a.Items))
	for _, stored := range a.Items {
		items = append(items, f.item(a.Epoch, stored))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
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
