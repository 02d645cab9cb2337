package session

import (
	"iter"
	"slices"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// channelState is what was delivered of a channel to a durable session's client
// and what of that is acknowledged.
type channelState struct {
	channel string
	cursor.Locator
	deliveredUpTo uint64   // everything up to here was delivered or left out
	unacked       []uint64 // delivered, oldest first
	aside         []uint64 // dead letters by now, behind an unacknowledged one
	refused       uint64   // the first that was refused and could not be set aside; 0: none
	sent          []uint64 // in which order, over all partitions of a group; as unacked
	part          *part    // of a group, else nil
	acked         uint64   // committed or about to be
	elsewhere     bool     // what is committed is of another epoch
	untold        bool     // a gap before deliveredUpTo is yet to be handed over
}

// done is how far everything is done.
func (c *channelState) done() uint64 {
	if len(c.unacked) > 0 {
		return c.unacked[0] - 1
	}
	return c.deliveredUpTo
}

// handed notes that an event was delivered.
func (d *durableState) handed(i int, offset uint64) {
	c := &d.channels[i]
	c.deliveredUpTo = offset
	c.unacked = append(c.unacked, offset)
	d.outstanding++
	if c.part != nil {
		d.group.sent++
		c.sent = append(c.sent, d.group.sent)
		c.part.outstanding++
	}
}

// forget takes so many events, from the index from on, off what is
// unacknowledged.
func (d *durableState) forget(c *channelState, from, n int) {
	d.outstanding -= n
	if c.part != nil {
		c.part.outstanding -= n
		c.sent = slices.Delete(c.sent, from, from+n)
	}
	if from == 0 {
		c.unacked = c.unacked[n:]
	} else {
		c.unacked = slices.Delete(c.unacked, from, from+n)
	}
	if len(c.unacked) == 0 {
		c.unacked, c.sent = nil, nil
	}
	if len(c.aside) > 0 {
		c.aside = slices.DeleteFunc(c.aside, func(offset uint64) bool { return len(c.unacked) == 0 || offset < c.unacked[0] })
	}
}

// ahead is how many events were delivered of which it isn't committed that they
// are done: at most the window of what is unacknowledged, and as much again that
// was acknowledged and is on its way to the broker, which the window needn't
// wait for. Both would come again if this node were gone now.
func (d *durableState) ahead() int {
	n := d.outstanding
	for i := range d.channels {
		n += len(d.channels[i].aside)
	}
	return n + max(0, d.owing()-d.window)
}

// owing is how many events were acknowledged whose commit has not returned.
func (d *durableState) owing() (n int) {
	for h := range d.owners() {
		n += h.Owing()
	}
	return n
}

// owners are those by which the session delivers events.
func (d *durableState) owners() iter.Seq[*durable.Ownership] {
	return func(yield func(*durable.Ownership) bool) {
		if d.group == nil && d.ownership != nil {
			yield(d.ownership)
			return
		}
		if d.group == nil {
			return
		}
		for _, p := range d.group.parts {
			if p.ownership != nil && !yield(p.ownership) {
				return
			}
		}
	}
}

// hurry has what was acknowledged committed now, if the window may wait for it,
// and tells whether some is already.
func (d *durableState) hurry() (done bool) {
	if d.owing() < d.window {
		return false // an ack makes room
	}
	for h := range d.owners() {
		if h.Owing() > 0 && h.Hurry() {
			done = true
		}
	}
	return done
}

func (d *durableState) indexOf(channel string) int {
	return slices.IndexFunc(d.channels, func(c channelState) bool { return c.channel == channel })
}

// trackOf is where an event is unacknowledged, or else a place of its channel;
// -1 if there is none.
func (d *durableState) trackOf(c event.Cursor) int {
	if d.group != nil {
		for i := range d.channels {
			if d.channels[i].at(c) >= 0 {
				return i
			}
		}
	}
	return d.indexOf(c.Channel)
}

// at is the index among what is unacknowledged of the event at a cursor, or -1.
func (c *channelState) at(at event.Cursor) int {
	if c.channel != at.Channel {
		return -1
	}
	located, kept, _ := c.Locate(at)
	if !kept {
		return -1
	}
	i, found := slices.BinarySearch(c.unacked, located.Offset)
	if !found {
		return -1
	}
	return i
}

// owner is whose acknowledgements a channel's are.
func (d *durableState) owner(c *channelState) *durable.Ownership {
	if c.part != nil {
		return c.part.ownership
	}
	return d.ownership
}

// ownsLocked tells whether what a reader comes by is the session's to tell and to
// commit.
func (s *Session) ownsLocked(i int) bool {
	d := s.durable
	if d == nil || d.paused || d.group != nil && !d.greeted {
		return false
	}
	c := &d.channels[i]
	return d.owner(c) != nil && (c.part == nil || !c.part.leaving)
}

// advanceLocked has what is done in a channel committed; n is how many events
// that acknowledges. A position doesn't move past a gap of which the client
// wasn't told.
func (s *Session) advanceLocked(i, n int) {
	d := s.durable
	c := &d.channels[i]
	owner := d.owner(c)
	if done := c.done(); (done > c.acked || c.elsewhere) && !c.untold && owner != nil {
		c.acked, c.elsewhere = done, false
		owner.Advance(event.Cursor{Channel: c.channel, Epoch: c.Epoch, Offset: done}, n)
	}
}

// toldLocked notes that all gaps that were found are handed over.
func (s *Session) toldLocked() {
	d := s.durable
	d.untold = false
	for i := range d.channels {
		d.channels[i].untold = false
		s.advanceLocked(i, 0)
	}
}

// Ack acknowledges everything up to a cursor, in each channel named; of a
// group only what belongs to the partition, unless that is AllPartitions.
func (s *Session) Ack(p event.Position, partition int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.durable
	if d == nil {
		return wire.BadRequest("ack is for durable sessions; this one is ephemeral")
	}
	if len(p) == 0 {
		return wire.BadRequest("ack needs cursor")
	}
	if d.group != nil {
		return s.ackGroupLocked(p, partition)
	}
	if partition != AllPartitions {
		return wire.BadRequest("ack: partition is for subscriptions with a group; %q has none", d.name)
	}
	for _, c := range p {
		i := d.indexOf(c.Channel)
		if i < 0 {
			return wire.BadRequest("ack: channel %q is not of this subscription", c.Channel)
		}
		if state := &d.channels[i]; c.Epoch == state.Epoch && c.Offset > state.deliveredUpTo {
			return wire.BadRequest("ack: %s was not delivered yet", c)
		}
	}
	full := d.ahead() >= d.window
	for _, c := range p {
		d.ackRedriven(s.hub, c)
		n := s.ackedLocked(c)
		s.advanceLocked(d.indexOf(c.Channel), max(n, 1))
	}
	if full || len(d.redrivePending) > 0 {
		s.push()
	}
	return nil
}

// ackedLocked forgets what is acknowledged and returns how many events. A
// cursor of before a fork acknowledges what the fork kept.
func (s *Session) ackedLocked(c event.Cursor) (n int) {
	i := s.durable.indexOf(c.Channel)
	if i < 0 {
		return 0
	}
	return s.ackedInLocked(i, c)
}

// ackedInLocked is ackedLocked in one place.
func (s *Session) ackedInLocked(i int, c event.Cursor) (n int) {
	d := s.durable
	state := &d.channels[i]
	c, _, ok := state.Locate(c)
	if !ok {
		return 0
	}
	if state.refused > 0 {
		c.Offset = min(c.Offset, state.refused-1)
	}
	for n < len(state.unacked) && state.unacked[n] <= c.Offset {
		n++
	}
	d.forget(state, 0, n)
	if c.Offset > state.deliveredUpTo && i < len(s.readers) { // by somebody else, elsewhere
		state.deliveredUpTo = c.Offset
		s.readers[i].Advance(c.Offset)
	}
	return n
}

// movedLocked commits where the position moved over events that were left out.
func (s *Session) movedLocked() {
	d := s.durable
	if d == nil || d.ownership == nil {
		return
	}
	for i := range s.readers {
		state := &d.channels[i]
		state.deliveredUpTo = max(state.deliveredUpTo, s.readers[i].Offset())
		s.advanceLocked(i, 0)
	}
}

// replayedLocked is movedLocked for a channel of a replay, which doesn't wait for
// a heartbeat: this may be its end.
func (s *Session) replayedLocked(i int) {
	if h := s.durable.ownership; h != nil && h.State.Replay != nil && i >= 0 {
		s.advanceLocked(i, 0)
	}
}

// placedLocked follows a reader that has moved: into another epoch, or over a
// gap, which is told of. What was delivered before a fork is still to be
// acknowledged; what the fork forgot can't be.
func (s *Session) placedLocked(i int, m *cursor.Move) {
	d := s.durable
	state := &d.channels[i]
	if state.Epoch != m.To.Epoch {
		before := state.Epoch
		state.Locator, state.acked, state.elsewhere = m.Locator(), 0, true
		kept := 0
		for _, offset := range state.unacked {
			if _, ok, _ := state.Locate(event.Cursor{Channel: state.channel, Epoch: before, Offset: offset}); !ok {
				break
			}
			kept++
		}
		d.forget(state, kept, len(state.unacked)-kept)
		if owner := d.owner(state); owner != nil {
			owner.Forked(state.channel, state.Locator)
		}
	}
	state.deliveredUpTo = m.To.Offset
	if m.Reason != "" {
		state.untold, d.untold = true, true
		if d.ownership != nil {
			gap := m.Gap()
			d.ownership.Gap(gap.Channel, gap.From, gap.To, gap.Reason)
		}
	}
	s.advanceLocked(i, 0)
}

// roundPause is when a peer comes back whose way to acknowledge that is.
const roundPause = 50 * time.Millisecond

// giveUpLocked gives the subscription up.
func (s *Session) giveUpLocked() {
	d := s.durable
	d.cancel()
	if d.group != nil {
		s.movedLocked()
		d.ownership = nil
		s.leaveGroupLocked()
		return
	}
	h := d.ownership
	if h == nil {
		return
	}
	s.movedLocked()
	d.ownership = nil
	h.ReleaseAt(d.delivered(nil), d.reached(), 0)
}

// reached is how far the client was taken, over what was left out too.
func (d *durableState) reached() (p event.Position) {
	for i := range d.channels {
		c := &d.channels[i]
		p = append(p, event.Cursor{Channel: c.channel, Epoch: c.Epoch, Offset: c.deliveredUpTo})
	}
	return p
}

// delivered is how far events were delivered, of a group those of one
// partition. What was acknowledged counts too: that may not be committed yet.
func (d *durableState) delivered(of *part) (p event.Position) {
	for i := range d.channels {
		c := &d.channels[i]
		if c.part != of {
			continue
		}
		last := c.acked
		if n := len(c.unacked); n > 0 {
			last = max(last, c.unacked[n-1])
		}
		if last > 0 {
			p = append(p, event.Cursor{Channel: c.channel, Epoch: c.Epoch, Offset: last})
		}
	}
	return p
}
