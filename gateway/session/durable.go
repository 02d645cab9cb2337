package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// Attachment is what a durable session is to be.
type Attachment struct {
	Grant    *auth.Grant
	Address  netip.Addr // of the client; zero: not known
	Codec    Codec
	Name     string // of the subscription
	Consumer string // "": the grant's subject
	Window   int    // 0: the subscription's
	// Check refuses channels that the transport can't serve; nil: any will do.
	Check func(channels []string) error
	// Rounds ends the session whenever its window is full: the peer's way to
	// acknowledge is to come back (Last-Event-ID).
	Rounds bool
}

// durableState is what a durable session is besides: guarded by its session's
// mu, but for what is static.
type durableState struct {
	name     string // static, as all up to cancel
	consumer string
	asked    int // the window that was asked for, 0 if none
	rounds   bool
	ctx      context.Context // ends with the session
	cancel   context.CancelFunc

	ownership   *durable.Ownership // nil: standing by, or suspended
	greeted     bool               // hello was said
	paused      bool
	placed      time.Time // when the position was last put there by hand, as hello said
	window      int
	outstanding int            // delivered and not acknowledged, dead letters too
	channels    []channelState // as the readers
	untold      bool           // some channel's gap is yet to be handed over
	group       *group         // where it is shared; then ownership is the group's own

	redriveAsked    bool        // before it was attached
	redrivePending  []*redriven // to be delivered again
	redriveInFlight []*redriven // those that were, until acknowledged
}

// Attach makes a session for a durable subscription, or says why not. It does
// nothing until Start; then it acquires the subscription, standing by while
// another consumer is attached.
func (h *Hub) Attach(ctx context.Context, a Attachment) (*Session, error) {
	state, err := h.Subscription(ctx, a.Grant, a.Name)
	if err != nil {
		return nil, err
	}
	if a.Check != nil {
		if err := a.Check(state.Definition.Channels); err != nil {
			return nil, err
		}
	}
	if a.Consumer == "" {
		a.Consumer = a.Grant.Subject
	}
	if cb := state.Definition.Callback; cb != nil && cb.Mode == durable.Always && !state.Disabled {
		return nil, alwaysCalled(a.Name)
	}
	if err := checkGroup(state, a); err != nil {
		return nil, err
	}
	s := &Session{hub: h, codec: a.Codec, grant: a.Grant, address: a.Address, since: time.Now().UnixMilli()}
	s.durable = &durableState{name: a.Name, consumer: a.Consumer, asked: a.Window, rounds: a.Rounds, window: a.Window}
	s.durable.ctx, s.durable.cancel = context.WithCancel(h.ctx)
	s.mu.Lock() // whoever finds it may end it at once
	defer s.mu.Unlock()
	err = s.holdChannelsLocked(len(state.Definition.Channels))
	if err == nil {
		if err = h.add(s); err == nil {
			return s, nil
		}
		s.holdChannelsLocked(0)
	}
	s.durable.cancel()
	return nil, err
}

func alwaysCalled(name string) error {
	return wire.Conflict("subscription %q delivers by callback always (mode %q); nobody can attach to it", name, durable.Always)
}

// Subscription loads a durable subscription that g may attach to and change.
func (h *Hub) Subscription(ctx context.Context, g *auth.Grant, name string) (durable.State, error) {
	if h.opts.Manager == nil {
		return durable.State{}, wire.NotFound("this gateway has no durable subscriptions")
	}
	if err := durable.CheckUsed(name); err != nil {
		return durable.State{}, wire.BadRequest("%v", err)
	}
	if err := access.Name(g, name); err != nil {
		return durable.State{}, err
	}
	state, err := h.opts.Manager.Load(ctx, name)
	if errors.Is(err, broker.ErrNotFound) && durable.IsReplay(name) {
		return state, wire.NotFound("there is no replay %.160q any longer: it is complete, or was deleted", name)
	}
	if errors.Is(err, broker.ErrNotFound) {
		return state, wire.NotFound("there is no subscription %.128q; PUT /v1/subscriptions/%.128s makes it", name, name)
	}
	if err != nil {
		return state, err
	}
	return state, access.Subscription(g, name, state.Definition.Channels)
}

// AckReceived acknowledges what a client says it received last. What it can't
// have received, or what is of a log that is gone, does nothing.
func (h *Hub) AckReceived(ctx context.Context, g *auth.Grant, name, last string) error {
	if last == "" {
		return nil
	}
	p, err := event.ParsePosition(last)
	if err != nil {
		return wire.BadRequest("Last-Event-ID: %v", err)
	}
	state, err := h.Subscription(ctx, g, name)
	if err != nil {
		return err
	}
	to, err := state.Located(ctx, h.opts.Broker, p)
	if err != nil {
		return err
	}
	if len(to) == 0 {
		return nil
	}
	if err := h.opts.Manager.Ack(ctx, state, p, to, ""); !errors.Is(err, broker.ErrFenced) && !errors.Is(err, durable.ErrGroup) && !errors.Is(err, durable.ErrLate) {
		return err
	}
	return nil // somebody else took over since, or moved the position: it comes again
}

// behind tells a session that stands by who is attached.
func behind(o *durable.Owner) wire.Control {
	c := wire.Control{Op: wire.OpStandby}
	if o != nil {
		c.Consumer, c.Transport = o.Consumer, o.Transport
	}
	return c
}

// attach acquires the subscription, however long it takes. One runs for a
// session at a time.
func (s *Session) attach(context.Context) {
	d := s.durable
	manager := s.hub.opts.Manager
	claim := durable.Claim{Connection: s.ID(), Consumer: d.consumer, Kind: durable.Live, Transport: s.codec.Traits().Name}
	wait, stoodBy := 50*time.Millisecond, false
	for {
		select {
		case <-manager.Ready():
		case <-d.ctx.Done():
			return
		}
		h, err := manager.Acquire(d.ctx, d.name, claim, (*holder)(s))
		if errors.Is(err, durable.ErrGroup) {
			if err = s.join(claim); err == nil {
				return
			}
		} else if err == nil {
			if err = s.engage(h); err == nil {
				return
			}
			h.Release(nil, 0)
		}
		switch {
		case d.ctx.Err() != nil:
			return
		case errors.Is(err, durable.ErrHeld):
			if !stoodBy {
				stoodBy = true
				state, _ := manager.Load(d.ctx, d.name) // to tell behind whom, if that is known
				owner := state.Owner
				s.mu.Lock()
				if d.greeted { // it was suspended, and another one came first
					s.endLocked(wire.CloseTakenOver, "another consumer attached", 0)
				}
				s.sayLocked(behind(owner), "")
				s.mu.Unlock()
				s.push()
			}
			manager.Await(d.ctx, d.name)
			continue
		case errors.Is(err, durable.ErrNoGroup):
			continue // it was one until just now
		case errors.Is(err, durable.ErrFull):
			s.End(wire.CloseRateLimited, err.Error(), 5*time.Second)
			return
		case errors.Is(err, durable.ErrAlways):
			err = alwaysCalled(d.name)
		case errors.Is(err, broker.ErrNotFound):
			err = wire.NotFound("subscription %q was deleted", d.name)
		}
		if e := wire.From(err); !Overloaded(e) {
			s.End(e.Close(), e.Detail, 0)
			return
		}
		select {
		case <-d.ctx.Done():
			return
		case <-time.After(rand.N(wait)):
			wait = min(2*wait, 2*time.Second)
		}
	}
}

// engage begins to deliver what was acquired.
func (s *Session) engage(h *durable.Ownership) error {
	d, def := s.durable, h.State.Definition
	ctx, cancel := context.WithTimeout(d.ctx, engageTimeout)
	defer cancel()
	opened, err := s.openRecord(ctx, &h.State.Record, cursor.Since{Position: h.Position})
	if err != nil {
		return err
	}
	redelivery, err := redeliveryOf(ctx, h, opened)
	if err != nil {
		release(opened)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.ending {
		release(opened)
		return broker.ErrClosed
	}
	if err := s.holdChannelsLocked(len(opened)); err != nil { // there may be more by now
		release(opened)
		return err
	}
	d.ownership, d.paused, d.redrivePending, d.redriveInFlight = h, h.State.Paused, nil, nil
	if h.State.Redriving > 0 || d.redriveAsked {
		d.redriveAsked = false
		s.hub.spawn(s.fetchRedrives)
	}
	if d.window = d.asked; d.window == 0 || d.window > def.Window {
		d.window = def.Window
	}
	if d.greeted && !d.placed.Equal(h.State.Placed) {
		release(opened)
		s.endLocked(wire.CloseRestart, "the position was moved", 0) // while it was suspended
		s.push()
		return broker.ErrClosed
	}
	if d.placed = h.State.Placed; d.greeted {
		s.rejoinLocked(opened)
	}
	s.leaveFeedsLocked()
	s.readers = readersOf(opened)
	d.channels, d.outstanding, d.untold = nil, 0, false
	for i := range s.readers {
		d.channels = append(d.channels, s.trackFrom(&opened[i], h))
	}
	s.greetLocked(opened, redelivery)
	for i := range s.readers {
		s.readers[i].Join(s)
	}
	s.push()
	return nil
}

// trackFrom is what a channel's state is to begin with.
func (s *Session) trackFrom(o *opening, h *durable.Ownership) channelState {
	r := &o.reader
	c := channelState{channel: r.Channel(), Locator: r.Locator(), deliveredUpTo: r.Offset()}
	if m := o.move; m != nil {
		c.Forks, c.untold = m.Forks, m.Reason != ""
		s.durable.untold = s.durable.untold || c.untold
	}
	if at, ok := h.Position.Of(c.channel); ok && at.Epoch == c.Epoch {
		c.acked = at.Offset
	} else {
		c.elsewhere = true
	}
	return c
}

const engageTimeout = 15 * time.Second

// openRecord opens a subscription's channels.
func (s *Session) openRecord(ctx context.Context, r *durable.Record, since cursor.Since) ([]opening, error) {
	opened, _, err := s.hub.open(ctx, s.Grant(), r.Definition.Channels, r.Selection(), since)
	return opened, err
}

// greetLocked says hello, or, where that was said, only what is new.
func (s *Session) greetLocked(opened []opening, redelivery event.Position) {
	d := s.durable
	position := string(s.appendPosition(nil))
	recovered := true
	for _, o := range opened {
		recovered = recovered && o.move.Gap() == nil
	}
	if !d.greeted {
		d.greeted = true
		s.sayLocked(wire.Control{
			Op: wire.OpHello, Replay: d.ownership.State.Replay != nil, Connection: s.ID(), Node: s.hub.opts.Node, Session: wire.SessionDurable, Subscription: d.name,
			Cursor: position, Recovered: &recovered, Window: d.window, HeartbeatMS: s.hub.opts.Heartbeat.Milliseconds(),
			Expires: event.FormatTime(s.grant.Expires()), Placed: event.FormatTime(d.placed),
		}, position)
	}
	if len(redelivery) > 0 {
		s.sayLocked(wire.Control{Op: wire.OpRedelivery, Cursor: redelivery.String()}, "")
	}
	d.ownership.Announced(redelivery)
	for _, o := range opened {
		if gap := o.move.Gap(); gap != nil {
			s.sayLocked(*gap, position)
			d.ownership.Gap(gap.Channel, gap.From, gap.To, gap.Reason)
		}
	}
	s.movedLocked()
}

// redeliveryOf is how far what comes may have come before: exactly, or, where
// an owner ended without saying what it had delivered, as many events past the
// acknowledged position as the window let it deliver at most.
func redeliveryOf(ctx context.Context, h *durable.Ownership, opened []opening) (p event.Position, err error) {
	for i := range opened {
		r := &opened[i].reader
		at, any, err := r.Redelivered(ctx, h.DeliveredUpTo, h.Doubt, h.Reach)
		if err != nil {
			return nil, err
		}
		if any {
			p = append(p, at)
		}
	}
	return p, nil
}

// rejoinLocked goes on with a session that had been suspended: what its client
// acknowledged meanwhile counts, the rest is announced and sent again.
func (s *Session) rejoinLocked(opened []opening) {
	for i := range opened {
		o := &opened[i]
		at := s.durable.indexOf(o.reader.Channel())
		if at < 0 {
			continue
		}
		c := &s.durable.channels[at]
		if c.Epoch != o.reader.Cursor().Epoch || c.done() <= o.reader.Offset() {
			continue
		}
		o.reader.Advance(c.done())
		o.move = nil
		s.durable.ownership.Advance(o.reader.Cursor(), 0)
	}
}

func (s *Session) leaveFeedsLocked() {
	for i := range s.readers {
		s.readers[i].Leave(s)
		s.readers[i].Close()
	}
	s.readers = nil
}

// room is how many more events may be delivered now.
func (s *Session) room() int {
	d := s.durable
	switch {
	case d == nil:
		return 1 << 30
	case d.ownership == nil || d.paused || d.group != nil && !d.greeted:
		return 0
	}
	return d.window - d.ahead()
}

// holder is a session as its manager knows it.
type holder Session

var (
	_ durable.Holder    = (*holder)(nil)
	_ durable.Settler   = (*holder)(nil)
	_ durable.Deliverer = (*holder)(nil)
	_ durable.Committer = (*holder)(nil)
	_ durable.Acker     = (*holder)(nil)
)

// Committed implements durable.Committer: there is room in the window.
func (h *holder) Committed() { (*Session)(h).push() }

// Ended implements durable.Holder.
func (h *holder) Ended(code wire.CloseCode, reason string) {
	s := (*Session)(h)
	s.mu.Lock()
	s.durable.ownership = nil
	retry := time.Duration(0)
	if code == wire.CloseRestart || code == wire.CloseGoingAway {
		retry = rand.N(200 * time.Millisecond)
	}
	s.endLocked(code, reason, retry)
	s.mu.Unlock()
	s.push()
}

// Delivered implements durable.Deliverer.
func (h *holder) Delivered() event.Position {
	s := (*Session)(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable.delivered(nil)
}

// Yield implements durable.Holder: connections yield to nobody.
func (h *holder) Yield() {}

// Changed implements durable.Holder.
func (h *holder) Changed(state durable.State) {
	s := (*Session)(h)
	s.mu.Lock()
	if d := s.durable; d.ownership != nil && d.ownership.Generation == state.Generation {
		d.paused = state.Paused
		if d.window = d.asked; d.window == 0 || d.window > state.Definition.Window {
			d.window = state.Definition.Window
		}
	}
	s.mu.Unlock()
	s.push()
}

// Settled implements durable.Settler. Acked doesn't do this: it tells of the
// position too, which says nothing of dead letters from before it.
func (h *holder) Settled(p event.Position) {
	s := (*Session)(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range p {
		s.durable.ackRedriven(s.hub, c)
	}
}

// Rejected implements durable.Settler.
func (h *holder) Rejected(c event.Cursor) {
	s := (*Session)(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejectedLocked(c)
	s.push()
}

// Acked implements durable.Holder.
func (h *holder) Acked(p event.Position) {
	s := (*Session)(h)
	s.mu.Lock()
	for _, c := range p {
		s.ackedLocked(c)
		s.replayedLocked(s.durable.indexOf(c.Channel))
	}
	s.mu.Unlock()
	s.push()
}

// Redrive implements durable.Holder.
func (h *holder) Redrive() {
	s := (*Session)(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable.ownership == nil {
		s.durable.redriveAsked = true
		return
	}
	s.hub.spawn(s.fetchRedrives)
}

// Suspended implements durable.Holder.
func (h *holder) Suspended() {
	s := (*Session)(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable.ownership = nil; !s.over && !s.ending {
		s.hub.spawn(s.attach)
	}
}
