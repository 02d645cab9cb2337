package session

import (
	"context"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
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

// AllPartitions is the partition of an acknowledgement that names none.
const AllPartitions = durable.AllPartitions

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

// movedAway is an event whose partition is somebody else's now.
type movedAway struct {
	at        event.Cursor
	partition int
}

// lost tells whether an event was out when its partition moved away.
func (g *group) lost(c event.Cursor) bool {
	return slices.ContainsFunc(g.moved, func(e movedAway) bool { return e.at == c })
}

// part is a partition as its manager knows it: its owner is the session.
type part struct {
	s         *Session
	partition int // static

	// guarded by the session's mu
	ownership   *durable.Ownership
	outstanding int            // delivered and not acknowledged
	batched     int            // in the batch that is being filled
	leaving     bool           // it is to be released
	delivered   event.Position // how far, once it is over
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

// AckAside implements durable.Acker.
func (m *member) AckAside(p event.Position, partition int) (moves []broker.Move, err error) {
	s := (*Session)(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ackGroupLocked(p, partition); err != nil {
		return nil, err
	}
	for i := range s.durable.channels {
		c := &s.durable.channels[i]
		if _, named := p.Of(c.channel); !named || c.part.ownership == nil || c.elsewhere {
			continue
		}
		moves = append(moves, broker.Move{
			Name: c.part.ownership.Name, Generation: c.part.ownership.Generation,
			Position: event.Position{{Channel: c.channel, Epoch: c.Epoch, Offset: c.acked}},
		})
	}
	return moves, nil
}

// regroupLocked makes of the session what the group says: it tells the client,
// gives up what isn't its own any longer, and has acquired what is.
func (s *Session) regroupLocked() {
	d := s.durable
	g := d.group
	if g.membership == nil || g.state.Definition.Group == nil || s.over || s.ending {
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
	d.greeted, g.told = true, g.mine
	recovered := true
	s.sayLocked(wire.Control{
		Op: wire.OpHello, Connection: s.ID(), Node: s.hub.opts.Node, Session: wire.SessionDurable, Subscription: d.name,
		Cursor: g.state.Position.String(), Recovered: &recovered, Window: d.window, HeartbeatMS: s.hub.opts.Heartbeat.Milliseconds(),
		Expires: event.FormatTime(s.grant.Expires()), Partitions: &g.mine, Of: g.state.Definition.Group.Partitions,
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

// acquireParts acquires what is assigned to the session, however long others
// take to release it. One runs for a session at a time.
func (s *Session) acquireParts(context.Context) {
	d := s.durable
	s.mu.Lock()
	m := d.group.membership
	s.mu.Unlock()
	err := m.Pursue(d.ctx, d.group.wake, func() []int { return s.missingParts(m) }, func(p int) error { return s.acquirePart(m, p) })
	if e := wire.From(err); err != nil {
		s.End(e.Close(), e.Detail, 0)
	}
}

// missingParts are the partitions that are assigned to the session as that
// member and not acquired. With none, whoever acquires them is done.
func (s *Session) missingParts(m *durable.Membership) (missing []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.durable.group
	if m != nil && g.membership == m && !s.over && !s.ending {
		for _, p := range g.mine {
			if g.parts[p] == nil {
				missing = append(missing, p)
			}
		}
	}
	if len(missing) == 0 {
		g.settling = false
		if now := g.membership; now != nil && now != m && !s.over && !s.ending {
			g.settling = s.hub.spawn(s.acquireParts) // it is a member anew
		}
	}
	return missing
}

// acquirePart begins to deliver a partition.
func (s *Session) acquirePart(m *durable.Membership, number int) error {
	d := s.durable
	g := d.group
	p := &part{s: s, partition: number}
	h, err := m.Acquire(d.ctx, number, p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	def := g.state.Definition
	s.mu.Unlock()
	opened, redelivery, err := s.openPart(h, def, number)
	if err != nil {
		h.Release(nil, 0)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.ending || g.membership != m || g.parts[number] != nil || !slices.Contains(g.mine, number) || p.delivered != nil {
		release(opened)
		h.Release(nil, 0)
		return nil
	}
	p.ownership, g.parts[number] = h, p
	g.moved = slices.DeleteFunc(g.moved, func(e movedAway) bool { return e.partition == number }) // it is back
	from := len(s.readers)
	for i := range opened {
		c := s.trackFrom(&opened[i], h)
		c.part = p
		s.readers, d.channels = append(s.readers, opened[i].reader), append(d.channels, c)
	}
	if len(redelivery) > 0 {
		s.sayLocked(wire.Control{Op: wire.OpRedelivery, Cursor: redelivery.String()}, "")
	}
	h.Announced(redelivery)
	for i := range opened {
		if gap := opened[i].move.Gap(); gap != nil {
			s.sayLocked(*gap, "")
			d.ownership.Gap(gap.Channel, gap.From, gap.To, gap.Reason)
		}
	}
	s.movedLocked()
	for i := range s.readers[from:] {
		s.readers[from+i].Join(s)
	}
	s.push()
	return nil
}

func (s *Session) openPart(h *durable.Ownership, def durable.Definition, number int) ([]opening, event.Position, error) {
	ctx, cancel := context.WithTimeout(s.durable.ctx, engageTimeout)
	defer cancel()
	opened, err := s.openRecord(ctx, &durable.Record{Definition: def}, cursor.Since{Position: h.Position})
	if err != nil {
		return nil, nil, err
	}
	for i := range opened {
		opened[i].reader.Keep(number, def.Group.Partitions)
	}
	redelivery, err := redeliveryOf(ctx, h, opened)
	if err != nil {
		release(opened)
	}
	return opened, redelivery, err
}

// settleLeavingLocked releases a partition that is to be, once nothing of it is
// out.
func (s *Session) settleLeavingLocked(p *part) {
	if p != nil && p.leaving && p.outstanding == 0 && p.ownership != nil {
		s.releasePartLocked(p)
	}
}

// leave releases the partition if it is still to be: what was out had its time.
func (p *part) leave() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.leaving && p.ownership != nil {
		p.s.releasePartLocked(p)
	}
}

func (s *Session) releasePartLocked(p *part) {
	s.movedLocked()
	h := p.ownership
	s.dropPartLocked(p)
	h.Release(p.delivered, 0)
}

// dropPartLocked delivers nothing of a partition any longer. What was delivered
// stays as it was the first time.
func (s *Session) dropPartLocked(p *part) {
	if p.delivered != nil {
		return
	}
	d := s.durable
	p.delivered = append(event.Position{}, d.delivered(p)...)
	p.ownership = nil
	if d.group.parts[p.partition] == p {
		delete(d.group.parts, p.partition)
	}
	readers, channels := s.readers[:0], d.channels[:0]
	for i, c := range d.channels {
		if c.part != p {
			channels = append(channels, c)
			if i < len(s.readers) {
				readers = append(readers, s.readers[i])
			}
			continue
		}
		for _, offset := range c.unacked {
			d.group.moved = append(d.group.moved, movedAway{event.Cursor{Channel: c.channel, Epoch: c.Epoch, Offset: offset}, p.partition})
		}
		d.outstanding -= len(c.unacked)
		if i < len(s.readers) {
			s.readers[i].Leave(s)
			s.readers[i].Close()
		}
	}
	clear(s.readers[len(readers):])
	clear(d.channels[len(channels):])
	s.readers, d.channels = readers, channels
	if over := len(d.group.moved) - d.window; over > 0 {
		d.group.moved = slices.Delete(d.group.moved, 0, over)
	}
	if len(s.readers) == 0 {
		s.readers = nil
	}
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

// Ended implements durable.Holder: the session stays, and asks the group.
func (p *part) Ended(wire.CloseCode, string) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropPartLocked(p)
	if m := s.durable.group.membership; m != nil && !s.over && !s.ending {
		s.hub.spawn(func(context.Context) { m.Check() })
	}
	s.push()
}

// Delivered implements durable.Deliverer.
func (p *part) Delivered() event.Position {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.delivered
}

// Suspended implements durable.Holder: the member's own follows.
func (p *part) Suspended() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.dropPartLocked(p)
}

// Acked implements durable.Holder.
func (p *part) Acked(to event.Position) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.durable.channels {
		c := &s.durable.channels[i]
		if c.part != p {
			continue
		}
		if at, ok := to.Of(c.channel); ok {
			s.ackedInLocked(i, at)
		}
	}
	s.settleLeavingLocked(p)
	s.push()
}

// Yield implements durable.Holder: the group's assignment says who yields.
func (p *part) Yield() {}

// Committed implements durable.Committer.
func (p *part) Committed() { p.s.push() }

// Changed implements durable.Holder: the definition is the group's.
func (p *part) Changed(durable.State) {}

// Redrive implements durable.Holder: dead letters are the group's.
func (p *part) Redrive() {}

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
	return min(b.room, s.durable.share()-p.outstanding-p.batched-p.ownership.Owing())
}

// share is how much of the window a partition may fill.
func (d *durableState) share() int {
	if len(d.group.mine) == 1 {
		return d.window
	}
	return max(1, d.window/2)
}

// ackGroupLocked acknowledges what was sent on this connection in each channel
// named before and including the event at its cursor, with offsets up to its
// own; with a partition only what belongs to that.
func (s *Session) ackGroupLocked(p event.Position, partition int) error {
	d := s.durable
	if of := d.group.state.Definition.Group; partition != AllPartitions && (of == nil || partition < 0 || partition >= of.Partitions) {
		return wire.BadRequest("ack: partition is %d; want one of hello's", partition)
	}
	for _, c := range p {
		if !slices.Contains(d.group.state.Definition.Channels, c.Channel) {
			return wire.BadRequest("ack: channel %q is not of this subscription", c.Channel)
		}
		if err := s.checkAckLocked(c, partition); err != nil {
			return err
		}
	}
	full := d.ahead() >= d.window
	for _, c := range p {
		d.ackRedriven(s.hub, c)
		upTo := d.group.sent
		if partition == AllPartitions {
			i := d.trackOf(c)
			if i < 0 {
				continue
			}
			at := d.channels[i].at(c)
			if at < 0 {
				continue // it is acknowledged
			}
			upTo = d.channels[i].sent[at]
		}
		var touched []*part
		for i := range d.channels {
			state := &d.channels[i]
			if state.channel != c.Channel || partition != AllPartitions && state.part.partition != partition {
				continue
			}
			located, _, ok := state.Locate(c)
			n := 0
			for ok && n < len(state.unacked) && state.unacked[n] <= located.Offset && state.sent[n] <= upTo {
				n++
			}
			full = full || state.part.outstanding+state.part.ownership.Owing() >= d.share()
			d.forget(state, 0, n)
			s.advanceLocked(i, n)
			if state.part.leaving {
				touched = append(touched, state.part)
			}
		}
		for _, p := range touched {
			s.settleLeavingLocked(p)
		}
	}
	if full || len(d.redrivePending) > 0 {
		s.push()
	}
	return nil
}

// checkAckLocked refuses an acknowledgement of what was not delivered, or is
// somebody else's by now.
func (s *Session) checkAckLocked(c event.Cursor, partition int) error {
	d := s.durable
	if d.group.lost(c) || partition != AllPartitions && d.group.parts[partition] == nil {
		return wire.Conflict("ack: %s is of a partition that moved to another consumer; nothing was acknowledged", c)
	}
	for i := range d.channels {
		state := &d.channels[i]
		if state.channel == c.Channel && (partition == AllPartitions || state.part.partition == partition) &&
			(state.Epoch != c.Epoch || c.Offset <= state.deliveredUpTo) {
			return nil
		}
	}
	if d.redriven(c) != nil {
		return nil
	}
	return wire.BadRequest("ack: %s was not delivered yet", c)
}
