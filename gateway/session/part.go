package session

import (
	"context"
	"slices"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

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
