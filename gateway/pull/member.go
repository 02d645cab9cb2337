package pull

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// memberStays is how long who pulls of a group stays a member after an answer,
// at least: each pull would move partitions to and fro else.
const memberStays = 5 * time.Second

// grouped is what a lease is besides that is a member of a group.
type grouped struct {
	connection string        // by which it is known; "": no member
	stir       chan struct{} // what it is assigned may have changed

	// guarded by mu
	membership *durable.Membership
	mine       []int       // that are assigned to it
	pursuing   bool        // somebody acquires those that it lacks
	moved      []movedAway // given, and unacknowledged when their partition moved away
}

// movedAway is an event whose partition is somebody else's now.
type movedAway struct {
	at        event.Cursor
	partition int
}

func (l *lease) member() bool { return l.connection != "" }

// member is a lease as its group knows it.
type member lease

var (
	_ durable.Member = (*member)(nil)
	_ durable.Acker  = (*member)(nil)
)

// join makes the lease a member, and the owner of those partitions that nobody
// has to release before.
func (l *lease) join(ctx context.Context) error {
	l.connection, l.stir = uuid.NewString(), make(chan struct{}, 1)
	l.mu.Lock()
	l.pursuing = true // nobody pursues before the channels are open
	l.mu.Unlock()
	claim := durable.Claim{Connection: l.connection, Consumer: l.consumer, Kind: durable.Pull, Transport: "pull"}
	m, err := l.p.o.Manager.Join(ctx, l.name, claim, (*member)(l))
	if err != nil {
		l.mu.Lock()
		l.connection, l.pursuing = "", false
		l.mu.Unlock()
		return err
	}
	l.mu.Lock()
	l.membership, l.whole = m, m.Group
	l.mu.Unlock()
	if err := l.open(ctx, &m.Group.State.Record); err != nil {
		return err
	}
	l.mu.Lock()
	if l.state.Definition.Group == nil { // else it was told already
		l.state = m.Group.State
	}
	l.pursuing = true
	l.regroupLocked()
	l.mu.Unlock()
	for _, p := range l.missing() {
		if err := l.acquireShare(p); err != nil && !errors.Is(err, durable.ErrHeld) {
			break // whoever pursues it finds out
		}
	}
	l.spawn(l.pursue)
	if m.Group.State.Redriving > 0 {
		l.fetchAgain()
	}
	return nil
}

// Assigned implements durable.Member.
func (m *member) Assigned(state durable.State) {
	l := (*lease)(m)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
	if l.membership == nil || l.ended {
		return // join goes on with it
	}
	l.regroupLocked()
	if state.Redriving > 0 {
		l.spawn(l.fetchAgain)
	}
	l.Mark()
}

// Ended implements durable.Member.
func (m *member) Ended(wire.CloseCode, string) { (*lease)(m).spawn((*lease)(m).leave) }

// Suspended implements durable.Member.
func (m *member) Suspended() { (*lease)(m).spawn(func() { (*lease)(m).finish() }) }

// regroupLocked gives up what isn't the lease's own any longer, and has acquired
// what is.
func (l *lease) regroupLocked() {
	l.mine = l.state.PartitionsOf(l.consumer)
	for _, s := range slices.Clone(l.shares) {
		switch mine := slices.Contains(l.mine, s.partition); {
		case mine:
			s.leaving = false
			s.stopLocked()
		case !s.leaving:
			s.leaving = true
			s.settleLocked()
			if s.leaving && len(s.out) > 0 {
				l.p.running.Add(1)
				s.timer = time.AfterFunc(durable.YieldTime, func() { defer l.p.running.Done(); l.contained(s.release) })
			}
		}
	}
	select {
	case l.stir <- struct{}{}:
	default:
	}
	if !l.pursuing {
		l.pursuing = true
		l.spawn(l.pursue)
	}
}

// pursue acquires what the lease is assigned, however long others take to
// release it. One runs for a lease at a time.
func (l *lease) pursue() {
	l.mu.Lock()
	m := l.membership
	l.mu.Unlock()
	if err := m.Pursue(l.ctx, l.stir, l.missing, l.acquireShare); err != nil {
		l.leave()
	}
}

// missing are the partitions that are assigned and not acquired. With none,
// whoever pursues them is done.
func (l *lease) missing() (list []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.mine {
		if !l.ended && !slices.ContainsFunc(l.shares, func(s *share) bool { return s.partition == p }) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		l.pursuing = false
	}
	return list
}

// acquireShare begins to deliver a partition.
func (l *lease) acquireShare(p int) error {
	l.mu.Lock()
	m, of := l.membership, l.state.Definition.Group.Partitions
	l.mu.Unlock()
	s := &share{l: l, partition: p}
	h, err := m.Acquire(l.ctx, p, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(l.ctx, readTime)
	defer cancel()
	at, given, err := l.begin(ctx, h, p, of)
	if err != nil {
		h.Release(nil, 0)
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || !slices.Contains(l.mine, p) || slices.ContainsFunc(l.shares, func(o *share) bool { return o.partition == p }) {
		h.Release(nil, 0)
		return nil
	}
	s.ownership, s.at, s.given = h, at, given
	l.moved = slices.DeleteFunc(l.moved, func(e movedAway) bool { return e.partition == p }) // it is back
	l.shares = append(l.shares, s)
	slices.SortFunc(l.shares, func(a, b *share) int { return a.partition - b.partition })
	l.Mark()
	return nil
}

// settleLocked releases a partition that is to be, once nothing of it is out.
func (s *share) settleLocked() {
	if s.leaving && len(s.out) == 0 {
		s.releaseLocked()
	}
}

// release releases a partition if that is still to be: what was out had its
// time.
func (s *share) release() {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.timer = nil; s.leaving {
		s.releaseLocked()
	}
}

func (s *share) releaseLocked() {
	if s.dropLocked() {
		s.ownership.Release(s.given, 0)
	}
}

// maxMoved bounds what is remembered of partitions that moved away.
const maxMoved = 4 * maxMax

// dropLocked delivers nothing of a partition any longer; false if it didn't.
func (s *share) dropLocked() bool {
	s.stopLocked()
	i := slices.Index(s.l.shares, s)
	if i < 0 {
		return false
	}
	s.l.shares = slices.Delete(slices.Clone(s.l.shares), i, i+1)
	for _, c := range s.out {
		s.l.moved = append(s.l.moved, movedAway{c, s.partition})
	}
	if over := len(s.l.moved) - maxMoved; over > 0 {
		s.l.moved = slices.Delete(s.l.moved, 0, over)
	}
	return true
}

func (s *share) stopLocked() {
	if s.timer != nil && s.timer.Stop() {
		s.l.p.running.Done()
	}
	s.timer = nil
}
