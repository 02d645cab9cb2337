package session

import (
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// A session that is a member of a group owns some of its partitions, each by an
// ownership of its own, and reads each channel once for each of them: a
// partition goes at its own pace, so that a stuck key holds up nothing else.
//
//	assigned ──▶ acquired ──▶ delivered ──▶ leaving: nothing new ──▶ released
//	   ▲  held by who has to release it yet       2 s for what is out

// group is what a session is besides that is a member of one: guarded by its
// session's mu.
type group struct {
	membership *durable.Membership // nil: not joined at present
	state      durable.State       // as it was told last
	mine       []int               // that are assigned to it
	told       []int               // as the client knows
	stoodBy    bool                // the client was told that there is none for it
	parts      map[int]*part       // acquired
	settling   bool                // a goroutine acquires
	wake       chan struct{}       // ends its wait
	sent       uint64              // how many events were delivered
	turn       int                 // which reader comes first
	moved      []movedAway         // delivered, and unacknowledged when their partition moved away
}

var (
	_ durable.Member    = (*member)(nil)
	_ durable.Acker     = (*member)(nil)
	_ durable.Settler   = (*member)(nil)
	_ durable.Holder    = (*part)(nil)
	_ durable.Deliverer = (*part)(nil)
	_ durable.Committer = (*part)(nil)
)

func (s *Session) shared() bool { return s.durable != nil && s.durable.group != nil }

// checkGroup refuses what can't be attached to a group.
func checkGroup(state durable.State, a Attachment) error {
	if state.Definition.Group == nil {
		return nil
	}
	if a.Rounds {
		return needsManual(a.Name)
	}
	other := !slices.ContainsFunc(state.Members, func(m durable.Owner) bool { return m.Consumer == a.Consumer })
	if other && len(state.Members) >= durable.MaxMembers {
		return wire.RateLimited(5*time.Second, "subscription %q: %v", a.Name, durable.ErrFull)
	}
	return nil
}

func needsManual(name string) error {
	return wire.BadRequest("subscription %q is shared by a group: over SSE it wants ack=manual, since a Last-Event-ID can't say what of each partition was received", name)
}

// join makes the session a member.
func (s *Session) join(claim durable.Claim) error {
	d := s.durable
	if d.rounds {
		return needsManual(d.name)
	}
	s.mu.Lock()
	if d.group == nil {
		d.group = &group{parts: make(map[int]*part), wake: make(chan struct{}, 1)}
		s.leaveFeedsLocked()
		d.channels, d.outstanding = nil, 0
	}
	s.mu.Unlock()
	m, err := s.hub.opts.Manager.Join(d.ctx, d.name, claim, (*member)(s))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.ending {
		m.Leave()
		return broker.ErrClosed
	}
	d.group.membership, d.ownership = m, m.Group
	d.group.moved = nil
	s.regroupLocked()
	return nil
}

// member is a session as a group knows it.
type member Session

// Assigned implements durable.Member.
func (m *member) Assigned(state durable.State) {
	s := (*Session)(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable.group.state = state
	s.regroupLocked()
	s.push()
}

// Ended implements durable.Member.
func (m *member) Ended(code wire.CloseCode, reason string) { (*holder)(m).Ended(code, reason) }

// Suspended implements durable.Member. The client drops what it has and begins
// anew with what it gets.
func (m *member) Suspended() {
	s := (*Session)(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.durable
	s.tellPartitionsLocked(nil, 0)
	d.group.membership, d.ownership, d.group.state = nil, nil, durable.State{}
	if !s.over && !s.ending {
		s.hub.spawn(s.attach)
	}
	s.push()
}

// Rejected implements durable.Settler, as for who has a subscription alone.
func (m *member) Rejected(c event.Cursor) { (*holder)(m).Rejected(c) }

// Settled implements durable.Settler: of a group nobody is told so.
func (m *member) Settled(p event.Position) { (*holder)(m).Settled(p) }

// regroupLocked makes of the session what the group says: it tells the client,
// gives up what isn't its own any longer, and has acquired what is.
func (s *Session) regroupLocked() {
	d := s.durable
	g := d.group
	if g.membership == nil || g.state.Definition.Group == nil || s.over || s.ending {
		return
	}
	if d.greeted && !d.placed.Equal(g.state.Placed) {
		s.endLocked(wire.CloseRestart, "the position was moved", 0)
		return
	}
	def := g.state.Definition
	d.paused = g.state.Paused
	if d.window = d.asked; d.window == 0 || d.window > def.Window {
		d.window = def.Window
	}
	g.mine = g.state.PartitionsOf(d.consumer)
	switch {
	case d.greeted:
		s.tellPartitionsLocked(g.mine, def.Group.Partitions)
	case len(g.mine) > 0:
		s.greetMemberLocked()
	case !g.stoodBy:
		g.stoodBy = true
		s.sayLocked(wire.Control{Op: wire.OpStandby}, "")
	}
	for _, p := range g.parts {
		switch mine := slices.Contains(g.mine, p.partition); {
		case mine && p.leaving:
			// The client knows that it went, dropped what it had not begun, and
			// takes it for a new one: so it begins where it is acknowledged.
			s.releasePartLocked(p)
		case !mine && !p.leaving:
			p.leaving = true
			s.settleLeavingLocked(p)
			time.AfterFunc(durable.YieldTime, p.leave)
		}
	}
	if g.state.Redriving > 0 {
		s.hub.spawn(s.fetchRedrives)
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
	if !g.settling {
		g.settling = s.hub.spawn(s.acquireParts)
	}
}

func (s *Session) greetMemberLocked() {
	d := s.durable
	g := d.group
	d.greeted, d.placed, g.told = true, g.state.Placed, g.mine
	recovered := true
	s.sayLocked(wire.Control{
		Op: wire.OpHello, Connection: s.ID(), Node: s.hub.opts.Node, Session: wire.SessionDurable, Subscription: d.name,
		Cursor: g.state.Position.String(), Recovered: &recovered, Window: d.window, HeartbeatMS: s.hub.opts.Heartbeat.Milliseconds(),
		Expires: event.FormatTime(s.grant.Expires()), Placed: event.FormatTime(g.state.Placed), Partitions: &g.mine, Of: g.state.Definition.Group.Partitions,
	}, "")
}

// tellPartitionsLocked tells the client which partitions are its own from now
// on, if that is another answer than before.
func (s *Session) tellPartitionsLocked(mine []int, of int) {
	g := s.durable.group
	if !s.durable.greeted || slices.Equal(mine, g.told) {
		return
	}
	if g.told = mine; of == 0 {
		of = g.state.Definition.Group.Partitions
	}
	list := append([]int{}, mine...)
	s.sayLocked(wire.Control{Op: wire.OpPartitions, Partitions: &list, Of: of, Members: len(g.state.Members)}, "")
}

// leaveGroupLocked gives everything up: the session is over.
func (s *Session) leaveGroupLocked() {
	g := s.durable.group
	for _, p := range g.parts {
		if p.ownership != nil {
			h := p.ownership
			p.delivered, p.ownership = s.durable.delivered(p), nil
			h.Release(p.delivered, 0)
		}
	}
	g.parts = map[int]*part{}
	if m := g.membership; m != nil {
		g.membership = nil
		m.Leave()
	}
}

// owns tells whether an event is of a partition that the session delivers.
func (g *group) owns(item *feed.Item) bool {
	if g.state.Definition.Group == nil {
		return false
	}
	p := g.parts[item.Partition(g.state.Definition.Group.Partitions)]
	return p != nil && !p.leaving
}

// firstReader is which reader comes first in a batch: of a group each in turn,
// so that one that always has something doesn't keep the others from the window.
func (s *Session) firstReader() int {
	if !s.shared() || len(s.readers) == 0 {
		return 0
	}
	g := s.durable.group
	for _, p := range g.parts {
		p.batched = 0
	}
	g.turn++
	return g.turn % len(s.readers)
}

// roomIn is how many events a batch may take from a reader. One partition fills
// at most half of the window, unless it is the only one.
func (s *Session) roomIn(b *batch, i int) int {
	if !s.shared() {
		return b.room
	}
	p := s.durable.channels[i].part
	if p.leaving {
		return 0
	}
	return min(b.room, s.durable.share()-p.outstanding-p.batched)
}

// share is how much of the window a partition may fill.
func (d *durableState) share() int {
	if len(d.group.mine) == 1 {
		return d.window
	}
	return max(1, d.window/2)
}
