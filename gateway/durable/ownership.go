package durable

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/wire"
)

// Ownership is the ownership of a subscription by this node, for one holder. Its
// exported fields are static. Its methods may be called by any goroutine.
type Ownership struct {
	Name       string
	Generation uint64
	State      State          // as it was acquired
	Position   event.Position // what was acknowledged then
	// What lies up to DeliveredUpTo may have been delivered before. Doubt: and so may
	// Reach events past Position, or cursor.Everything: two windows, since an owner
	// may have one window unacknowledged and another acknowledged and not committed. Only Announced changes them; the holder
	// reads them before it calls that.
	Doubt         bool
	Reach         int
	DeliveredUpTo event.Position

	k      *Manager
	holder Holder
	node   string
	parts  []*Ownership // of a group that was gathered; static after Gather

	// guarded by k.mu
	stored bool // the broker has it, and has had it since this was set
	gone   bool
	left   bool           // a partition that is being given up
	next   event.Position // to be committed
	acks   int            // events that next acknowledges

	owing   atomic.Int64 // events acknowledged whose commit has not returned
	waiting atomic.Bool  // for that, a Committer
}

// Owing is how many events were acknowledged whose commit has not returned.
func (h *Ownership) Owing() int {
	if h == nil {
		return 0
	}
	return int(h.owing.Load())
}

// Hurry has what is owed committed now, and a holder that is a Committer told
// then; or it returns true: nothing is owed any more.
func (h *Ownership) Hurry() (done bool) {
	h.waiting.Store(true)
	if h.owing.Load() == 0 {
		return true
	}
	h.k.hurry()
	return false
}

// hurry has what was acknowledged committed now.
func (k *Manager) hurry() {
	select {
	case k.flushNow <- struct{}{}:
	default:
	}
}

func (h *Ownership) right() Right {
	return Right{Generation: h.Generation, Node: h.State.Owner.Node, Connection: h.State.Owner.Connection}
}

// Acks are committed this often, or when so many have come.
const (
	commitWait = 50 * time.Millisecond
	maxCommit  = 100
)

// Advance acknowledges: it is committed with others', soon. A channel's cursor
// never goes back. n is how many events it acknowledges.
func (h *Ownership) Advance(c event.Cursor, n int) {
	k := h.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.gone {
		return
	}
	if len(h.next) == 0 {
		k.dirty = append(k.dirty, h)
	}
	h.next = merge(h.next, c)
	h.acks += n
	h.owing.Add(int64(n))
	before := k.open
	if k.open += n; before < maxCommit && k.open >= maxCommit {
		k.hurry()
	}
}

// merge puts a cursor into a position: a later one of its channel, or one of
// another epoch, takes the place of what is there.
func merge(p event.Position, c event.Cursor) event.Position {
	for i := range p {
		if p[i].Channel == c.Channel {
			if p[i].Epoch != c.Epoch || p[i].Offset < c.Offset {
				p[i] = c
			}
			return p
		}
	}
	return append(p, c)
}

// flush commits what was acknowledged.
func (k *Manager) flush(ctx context.Context) {
	k.mu.Lock()
	dirty := k.dirty
	k.dirty, k.open = nil, 0
	moves := make([]broker.Move, 0, len(dirty))
	acks := make([]int, 0, len(dirty))
	owners := dirty[:0]
	for _, h := range dirty {
		if len(h.next) > 0 && !h.gone {
			moves = append(moves, broker.Move{Name: h.Name, Generation: h.Generation, Position: h.next})
			owners, acks = append(owners, h), append(acks, h.acks)
		}
		h.next, h.acks = nil, 0
	}
	k.mu.Unlock()
	for len(moves) > 0 {
		n := min(len(moves), 1000)
		fenced, err := k.o.Broker.Advance(ctx, moves[:n])
		if err != nil {
			k.again(owners, moves, acks)
			return
		}
		for _, i := range fenced {
			h := owners[i]
			k.running.Go(func() { k.o.Guard.Do("reload", h.reload) })
		}
		for i, h := range owners[:n] {
			if slices.Contains(fenced, i) {
				continue // still owed: what isn't acknowledged opens no window
			}
			h.committed(acks[i])
			if h.State.reaches(moves[i].Position) {
				k.replayMoved(h.Name)
			}
		}
		moves, owners, acks = moves[n:], owners[n:], acks[n:]
	}
}

// committed notes that so many events' acknowledgement is.
func (h *Ownership) committed(n int) {
	h.owing.Add(-int64(n))
	if h.waiting.Load() && h.waiting.Swap(false) {
		if c, ok := h.holder.(Committer); ok {
			c.Committed()
		}
	}
}

// again keeps moves that could not be committed for the next time.
func (k *Manager) again(owners []*Ownership, moves []broker.Move, acks []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, h := range owners {
		if h.gone {
			continue
		}
		if len(h.next) == 0 {
			k.dirty = append(k.dirty, h)
		}
		h.acks += acks[i]
		for _, c := range moves[i].Position {
			if newer, ok := h.next.Of(c.Channel); !ok || newer.Epoch == c.Epoch {
				h.next = merge(h.next, c)
			}
		}
	}
}

// Commit commits at once, for a callback's worker, which gathers by itself.
func (h *Ownership) Commit(ctx context.Context, to event.Position) error {
	if h.Gathered() {
		return h.commitParts(ctx, to)
	}
	if h.isGone() {
		return broker.ErrFenced
	}
	fenced, err := h.k.o.Broker.Advance(ctx, []broker.Move{{Name: h.Name, Generation: h.Generation, Position: to}})
	if err == nil && len(fenced) > 0 {
		return broker.ErrFenced
	}
	if err == nil && h.State.reaches(to) {
		h.k.replayMoved(h.Name)
	}
	return err
}

// Bury keeps dead letters and moves the position, both or neither.
func (h *Ownership) Bury(ctx context.Context, letters []broker.Letter, to event.Position) (dropped int, err error) {
	if h.isGone() {
		return 0, broker.ErrFenced
	}
	return h.k.o.Broker.Bury(ctx, broker.Burial{Name: h.Name, Generation: h.Generation, Letters: letters, Position: to})
}

// SetNote keeps what others may want to see; errors don't matter.
func (h *Ownership) SetNote(ctx context.Context, note []byte) {
	if err := h.k.o.Broker.SetNote(ctx, h.Name, h.Generation, note); err != nil && !errors.Is(err, broker.ErrFenced) {
		h.k.o.Logger.Debug("note of callback", "subscription", h.Name, "error", err)
	}
}

// Release gives the ownership up after what was acknowledged is committed. It
// doesn't wait. handed is how far events were delivered; nil if nothing is
// unacknowledged. after is when a callback's turn is to be where it was one.
func (h *Ownership) Release(handed event.Position, after time.Duration) {
	h.ReleaseAt(handed, handed, after)
}

// ReleaseAt is Release by who got further than to the last event that it delivered:
// what was left out lies before reached too.
func (h *Ownership) ReleaseAt(handed, reached event.Position, after time.Duration) {
	h.releaseParts(handed, false)
	h.leave(releaseRequest{h: h, handed: h.handed(handed), reached: reached, doubt: h.unclear(), after: after})
}

// Announced says that the consumer was told up to where events may come twice:
// that is no longer in doubt, and the next owner tells it again as far as it is
// not acknowledged by then. Called by the holder before it delivers.
func (h *Ownership) Announced(p event.Position) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	for _, c := range p {
		h.DeliveredUpTo = merge(h.DeliveredUpTo, c)
	}
	h.Doubt = false
}

// Park gives the ownership up until there is another event.
func (h *Ownership) Park() {
	h.releaseParts(nil, true)
	h.leave(releaseRequest{h: h, how: func(s State, env Env) (Change, error) { return Park(s, h.right(), env) }})
}

// Disable gives the ownership up for good: the endpoint said it is gone.
func (h *Ownership) Disable() {
	h.releaseParts(nil, false)
	h.leave(releaseRequest{h: h, how: func(s State, env Env) (Change, error) { return Disable(s, h.right(), env) }})
}

func (h *Ownership) leave(d releaseRequest) {
	h.k.mu.Lock()
	gone := h.gone
	h.k.mu.Unlock()
	if !gone {
		h.k.queueRelease(d)
	}
}

// handed is how far events may have been delivered by the next owner's lights:
// what this one was told is still so.
func (h *Ownership) handed(delivered event.Position) event.Position {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	all := append(event.Position(nil), delivered...)
	for _, c := range h.DeliveredUpTo {
		if d, ok := delivered.Of(c.Channel); ok && d.Epoch != c.Epoch {
			continue // of a log that is gone
		}
		if at, ok := h.Position.Of(c.Channel); !ok || at.Epoch != c.Epoch || at.Offset < c.Offset {
			all = merge(all, c)
		}
	}
	return all
}

// Forked says that the holder has followed a log into another epoch: what may
// have been delivered before is what the fork kept of it.
func (h *Ownership) Forked(channel string, to cursor.Locator) {
	h.k.mu.Lock()
	var all event.Position // whoever reads DeliveredUpTo may have the old one
	for _, c := range h.DeliveredUpTo {
		if c.Channel == channel {
			at, _, ok := to.Locate(c)
			if !ok {
				continue
			}
			c = at
		}
		all = append(all, c)
	}
	h.DeliveredUpTo = all
	h.k.mu.Unlock()
	for _, part := range h.parts {
		part.Forked(channel, to)
	}
}

// unclear tells whether its consumer wasn't told yet what is in doubt.
func (h *Ownership) unclear() bool {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	return h.Doubt
}

func (h *Ownership) isGone() bool {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	return h.gone
}

// end tells the holder that the ownership is somebody else's.
func (h *Ownership) end(code wire.CloseCode, reason string) {
	if h.drop() {
		h.holder.Ended(code, reason)
	}
}

// deleted tells the holder that there is no such subscription any more, where
// that was found before whoever deleted it told so. A replay ends by that.
func (h *Ownership) deleted() {
	if h.State.Replay != nil {
		h.end(wire.CloseNormal, "the replay is complete, or was deleted")
		return
	}
	h.end(wire.CloseNotFound, "the subscription was deleted")
}

// drop forgets the ownership and tells whether it was there.
func (h *Ownership) drop() bool {
	k := h.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.gone {
		return false
	}
	h.gone, h.next = true, nil
	if k.ownerships[h.Name] == h {
		delete(k.ownerships, h.Name)
	}
	return true
}

// reload reads the definition again.
func (h *Ownership) reload() {
	ctx, cancel := context.WithTimeout(context.Background(), h.k.o.TTL/2)
	defer cancel()
	s, err := h.k.Load(ctx, h.Name)
	switch {
	case errors.Is(err, broker.ErrNotFound):
		h.deleted()
	case err != nil:
		h.k.o.Logger.Debug("read a changed definition", "subscription", h.Name, "error", err)
	case s.Generation != h.Generation:
		h.lost(s)
	default:
		h.holder.Changed(s)
	}
}

// lost ends an ownership whose generation is not the present one. Who was not
// taken over by a connection of the same consumer is to come back and ask: the
// position was moved, or the broker forgot that it is the owner.
func (h *Ownership) lost(s State) {
	if s.Owner != nil && s.Owner.Kind != Call && s.Owner.Consumer == h.State.Owner.Consumer {
		h.end(wire.CloseTakenOver, "another connection of this consumer attached")
		return
	}
	h.end(wire.CloseRestart, "the subscription was taken or its position moved")
}
