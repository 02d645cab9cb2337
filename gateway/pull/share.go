package pull

import (
	"slices"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// share is what a lease owns: a subscription, or a partition of a group.
type share struct {
	l         *lease
	partition int // static; 0 where there is no group

	// guarded by l.mu
	ownership *durable.Ownership // static once it has been set
	at        event.Position     // acknowledged, and what was left out behind that
	given     event.Position     // up to here events were given, by this lease or before it
	read      event.Position     // how far the last answer got: what can be acknowledged of a group
	out       []event.Cursor     // given by the last answer and not acknowledged, of a group
	leaving   bool               // it is to be released
	timer     *time.Timer        // by then at the latest
}

var (
	_ durable.Holder    = (*share)(nil)
	_ durable.Deliverer = (*share)(nil)
	_ durable.Acker     = (*share)(nil)
)

// Ended implements durable.Holder.
func (s *share) Ended(wire.CloseCode, string) {
	if !s.l.member() {
		s.l.spawn(func() { s.l.finish() })
		return
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.dropLocked()
	if m := s.l.membership; m != nil && !s.l.ended {
		s.l.spawn(m.Check) // why is the group's to say
	}
}

// Delivered implements durable.Deliverer.
func (s *share) Delivered() event.Position {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.given
}

// Suspended implements durable.Holder. Of a group, the member's own follows.
func (s *share) Suspended() { s.l.spawn(func() { s.l.finish() }) }

// Yield implements durable.Holder: whoever pulls yields to nobody.
func (s *share) Yield() {}

// Changed implements durable.Holder; a group's definition is the group's.
func (s *share) Changed(state durable.State) {
	if s.l.member() {
		return
	}
	s.l.mu.Lock()
	s.l.state.Record = state.Record
	s.l.mu.Unlock()
	s.l.Mark()
}

// Acked implements durable.Holder. An acknowledgement renews the hold.
func (s *share) Acked(p event.Position) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.movedLocked(p)
}

// movedLocked notes what is acknowledged.
func (s *share) movedLocked(p event.Position) {
	moved := false
	for _, c := range p {
		i := slices.IndexFunc(s.at, func(at event.Cursor) bool { return at.Channel == c.Channel })
		if i >= 0 && (s.at[i].Epoch != c.Epoch || s.at[i].Offset < c.Offset) {
			s.at = put(slices.Clone(s.at), c)
			moved = true
		}
	}
	if moved {
		s.l.renewLocked()
	}
}

// Redrive implements durable.Holder: the next pull finds them. Those of a group
// are the group's.
func (s *share) Redrive() {
	if !s.l.member() {
		s.l.spawn(s.l.fetchAgain)
	}
}
