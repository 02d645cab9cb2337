package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// Attachment is what a durable session is to be.
type Attachment struct {
	Grant    *auth.Grant
	Codec    Codec
	Name     string // of the subscription
	Consumer string // "": the grant's subject
	Window   int    // 0: the subscription's
	// Rounds ends the session whenever its window is full: the peer's way to
	// acknowledge is to come back (Last-Event-ID).
	Rounds bool
}

// held is what a durable session is besides: guarded by its session's mu.
type held struct {
	name     string
	consumer string
	asked    int // the window that was asked for, 0 if none
	window   int
	rounds   bool
	ctx      context.Context // ends with the session
	cancel   context.CancelFunc

	ownership *durable.Ownership // nil: standing by, or suspended
	greeted   bool               // hello was said
	paused    bool
	unacked   int
	lanes     []lane   // as the tracks
	redrive   bool     // asked for before it was attached
	again     []*again // dead letters to be delivered again
	twice     []*again // those that were, until acknowledged
}

// lane is what was delivered in a channel and is not acknowledged.
type lane struct {
	channel, epoch string
	sent           uint64   // everything up to here was delivered or left out
	out            []uint64 // delivered, oldest first
	acked          uint64   // committed or about to be
}

// again is a dead letter that was put back.
type again struct {
	item   *feed.Item
	id     string
	cursor event.Cursor
	after  uint64 // what the lane had delivered when it was
}

// done is how far everything is done.
func (l *lane) done() uint64 {
	if len(l.out) > 0 {
		return l.out[0] - 1
	}
	return l.sent
}

// Attach makes a session for a durable subscription, or says why not. It does
// nothing until Start; then it acquires the subscription, standing by while
// another consumer is attached.
func (h *Hub) Attach(ctx context.Context, a Attachment) (*Session, error) {
	state, err := h.Subscription(ctx, a.Grant, a.Name)
	if err != nil {
		return nil, err
	}
	if a.Consumer == "" {
		a.Consumer = a.Grant.Subject
	}
	if cb := state.Definition.Callback; cb != nil && cb.Mode == durable.Always && !state.Disabled {
		return nil, alwaysCalled(a.Name)
	}
	s := &Session{hub: h, codec: a.Codec, grant: a.Grant, since: time.Now().UnixMilli()}
	s.held = &held{name: a.Name, consumer: a.Consumer, asked: a.Window, rounds: a.Rounds, window: a.Window}
	s.held.ctx, s.held.cancel = context.WithCancel(h.ctx)
	if err := h.add(s); err != nil {
		s.held.cancel()
		return nil, err
	}
	return s, nil
}

func alwaysCalled(name string) error {
	return wire.Conflict("subscription %q delivers by callback always (mode %q); nobody can attach to it", name, durable.Always)
}

// Subscription loads a durable subscription that g may attach to and change.
func (h *Hub) Subscription(ctx context.Context, g *auth.Grant, name string) (durable.State, error) {
	if h.opts.Manager == nil {
		return durable.State{}, wire.NotFound("this gateway has no durable subscriptions")
	}
	if err := access.Name(g, name); err != nil {
		return durable.State{}, err
	}
	state, err := h.opts.Manager.Load(ctx, name)
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
	if err := h.opts.Manager.Ack(ctx, state, to, ""); !errors.Is(err, broker.ErrFenced) {
		return err
	}
	return nil // somebody else took over since: it comes again
}

// attach acquires the subscription, however long it takes. One runs for a
// session at a time.
func (s *Session) attach(context.Context) {
	d := s.held
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
		if err == nil {
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
				s.mu.Lock()
				if d.greeted { // it was suspended, and another one came first
					s.endLocked(wire.CloseTakenOver, "another consumer attached", 0)
				}
				s.sayLocked(wire.Control{Op: wire.OpStandby}, "")
				s.mu.Unlock()
				s.push()
			}
			manager.Await(d.ctx, d.name)
			continue
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
	d, def := s.held, h.State.Definition
	ctx, cancel := context.WithTimeout(d.ctx, engageTimeout)
	defer cancel()
	tracks, gaps, _, err := s.hub.open(ctx, s.Grant(), def.Channels, strings.Join(def.Types, ","), Since{Position: h.Position})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.ending {
		release(tracks)
		return broker.ErrClosed
	}
	d.ownership, d.paused, d.again, d.twice = h, h.State.Paused, nil, nil
	if h.State.Redriving > 0 || d.redrive {
		d.redrive = false
		s.hub.spawn(s.fetchAgain)
	}
	if d.window = d.asked; d.window == 0 || d.window > def.Window {
		d.window = def.Window
	}
	if d.greeted {
		gaps = s.rejoinLocked(tracks, gaps)
	}
	s.leaveFeedsLocked()
	s.tracks = tracks
	d.lanes, d.unacked = nil, 0
	for i := range tracks {
		t := &tracks[i]
		l := lane{channel: t.feed.Channel(), epoch: t.epoch, sent: t.offset}
		if at, ok := h.Position.Of(l.channel); ok && at.Epoch == t.epoch {
			l.acked = at.Offset
		} else if l.sent == 0 {
			h.Advance(t.cursor(), 0) // of a new epoch, from its beginning
		}
		d.lanes = append(d.lanes, l)
	}
	s.greetLocked(gaps, h)
	for i := range s.tracks {
		s.tracks[i].feed.Join(s)
	}
	s.push()
	return nil
}

const engageTimeout = 15 * time.Second

// greetLocked says hello, or, where that was said, only what is new.
func (s *Session) greetLocked(gaps []*wire.Control, h *durable.Ownership) {
	d := s.held
	position := string(s.appendPosition(nil))
	recovered := len(gaps) == 0
	if !d.greeted {
		d.greeted = true
		s.sayLocked(wire.Control{
			Op: wire.OpHello, Connection: s.ID(), Node: s.hub.opts.Node, Session: wire.SessionDurable, Subscription: d.name,
			Cursor: position, Recovered: &recovered, Window: d.window, HeartbeatMS: s.hub.opts.Heartbeat.Milliseconds(),
			Expires: event.FormatTime(s.grant.Expires()),
		}, position)
	}
	p := s.redeliveryLocked(h)
	if len(p) > 0 {
		s.sayLocked(wire.Control{Op: wire.OpRedelivery, Cursor: p.String()}, "")
	}
	h.Announced(p)
	for _, g := range gaps {
		s.sayLocked(*g, position)
		h.Tell("gap", gapNotice(g))
	}
	s.movedLocked() // also behind gaps
}

// redeliveryLocked is how far what comes may have come before.
func (s *Session) redeliveryLocked(h *durable.Ownership) (p event.Position) {
	for i := range s.tracks {
		c := s.tracks[i].cursor()
		if h.Doubt {
			if head := s.tracks[i].feed.State(); head.Epoch == c.Epoch && head.Head > c.Offset {
				p = append(p, event.Cursor{Channel: c.Channel, Epoch: c.Epoch, Offset: head.Head})
			}
		} else if at, ok := h.Handed.Of(c.Channel); ok && at.Epoch == c.Epoch && at.Offset > c.Offset {
			p = append(p, at)
		}
	}
	return p
}

// rejoinLocked goes on with a session that had been suspended: what its client
// acknowledged meanwhile counts, the rest is announced and sent again.
func (s *Session) rejoinLocked(tracks []track, gaps []*wire.Control) []*wire.Control {
	for i := range tracks {
		t := &tracks[i]
		for j := range s.held.lanes {
			l := &s.held.lanes[j]
			if l.channel != t.feed.Channel() || l.epoch != t.epoch || l.done() <= t.offset {
				continue
			}
			gaps = slices.DeleteFunc(gaps, func(g *wire.Control) bool { return g.Channel == l.channel })
			t.offset = l.done()
			s.held.ownership.Advance(t.cursor(), 0)
		}
	}
	return gaps
}

func (s *Session) leaveFeedsLocked() {
	for i := range s.tracks {
		s.tracks[i].feed.Leave(s)
		s.tracks[i].feed.Release()
	}
	s.tracks = nil
}

// lettersAgain are the dead letters that were put back.
func (h *Hub) lettersAgain(ctx context.Context, ownership *durable.Ownership) (all []*again) {
	letters, err := ownership.LettersAgain(ctx)
	if err != nil {
		h.opts.Logger.Warn("read dead letters that were put back", "subscription", ownership.Name, "error", err)
		return nil
	}
	for _, l := range letters {
		c, err := event.ParseCursor(l.Cursor)
		if err != nil {
			continue
		}
		all = append(all, &again{item: feed.Remade(c, l.Event, l.Type, l.Key), id: l.ID, cursor: c})
	}
	return all
}

// room is how many more events may be delivered now.
func (s *Session) room() int {
	d := s.held
	switch {
	case d == nil:
		return 1 << 30
	case d.ownership == nil || d.paused:
		return 0
	}
	return d.window - d.unacked
}

// holder is a session as its manager knows it.
type holder Session

var (
	_ durable.Holder  = (*holder)(nil)
	_ durable.Settler = (*holder)(nil)
)

// Ended implements durable.Holder.
func (h *holder) Ended(code wire.CloseCode, reason string) {
	s := (*Session)(h)
	s.mu.Lock()
	s.held.ownership = nil
	retry := time.Duration(0)
	if code == wire.CloseRestart || code == wire.CloseGoingAway {
		retry = rand.N(200 * time.Millisecond)
	}
	s.endLocked(code, reason, retry)
	s.mu.Unlock()
	s.push()
}

// Yield implements durable.Holder: connections yield to nobody.
func (h *holder) Yield() {}

// Changed implements durable.Holder.
func (h *holder) Changed(state durable.State) {
	s := (*Session)(h)
	s.mu.Lock()
	if d := s.held; d.ownership != nil && d.ownership.Generation == state.Generation {
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
		s.held.ackAgain(s.hub, c)
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
	}
	s.mu.Unlock()
	s.push()
}

// Redrive implements durable.Holder.
func (h *holder) Redrive() {
	s := (*Session)(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held.ownership == nil {
		s.held.redrive = true
		return
	}
	s.hub.spawn(s.fetchAgain)
}

// fetchAgain reads the dead letters that were put back and has them sent.
func (s *Session) fetchAgain(ctx context.Context) {
	s.mu.Lock()
	ownership := s.held.ownership
	s.mu.Unlock()
	if ownership == nil {
		return
	}
	letters := s.hub.lettersAgain(ctx, ownership)
	s.mu.Lock()
	if d := s.held; d.ownership == ownership {
		for _, a := range letters {
			same := func(b *again) bool { return a.id == b.id }
			if !slices.ContainsFunc(d.again, same) && !slices.ContainsFunc(d.twice, same) {
				d.again = append(d.again, a)
			}
		}
	}
	s.mu.Unlock()
	s.push()
}

// Suspended implements durable.Holder.
func (h *holder) Suspended() {
	s := (*Session)(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held.ownership = nil; !s.over && !s.ending {
		s.hub.spawn(s.attach)
	}
}
