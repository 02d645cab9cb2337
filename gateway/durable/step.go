package durable

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// The rules of ownership. Each is a pure function of the state that was
// loaded and returns what to store in its place, guarded by the version: who
// lost a race loads and asks the rule again. A generation is the right to
// deliver; whatever takes that right from somebody makes another one, so that
// nothing the old owner still does can move the position. Whose generation is
// not the present one has no say, be the present one newer or, where a broker
// forgot its last writes, older.
//
//	            acquire                    release, died
//	  nobody ────────────▶ live or pull ────────────────▶ nobody, in grace
//	    ▲ │                     ▲                              │ due
//	    │ │ due, claimed        │ yielded, acquired            ▼
//	    │ └──────────────▶ callback ◀────────────────────── nobody, parked:
//	    └─────────────────────  │   ◀──── the next event ──  due with an event
//	      disabled, paused      └───── caught up ──────────────▶

// Why a rule refuses.
var (
	// ErrHeld: another consumer is attached; stand by.
	ErrHeld = errors.New("another consumer is attached")
	// ErrYield: a callback is being called. Tell its owner to yield, wait a
	// little for it to release, then ask again with force.
	ErrYield = errors.New("a callback is in flight")
	// ErrAlways: nobody can attach where the callback is always called.
	ErrAlways = errors.New("the subscription delivers by callback always")
	// ErrNotDue: there is nothing to do for a subscription that was due.
	ErrNotDue = errors.New("not due")
	// ErrFenced: the caller owns the subscription no longer.
	ErrFenced = broker.ErrFenced
)

// YieldTime is how long a callback in flight gets to end at a handover.
const YieldTime = 2 * time.Second

// skew is how far apart the clocks of nodes and broker may be.
const skew = time.Minute

// Env is what a rule knows besides the state.
type Env struct {
	Now   time.Time
	Alive func(node string) bool // false once a node's lease ended
	// Next makes a generation that never was. nil: NextGeneration.
	Next func(generation uint64) uint64
}

// NextGeneration follows a generation: it counts, for people to read in order,
// and it is random, so that no two are ever the same, not those that two owners
// were given because a broker forgot the first, nor those of a name that was
// deleted and made again.
func NextGeneration(generation uint64) uint64 {
	return (generation>>32+1)<<32 | uint64(rand.Uint32())
}

func (e Env) next(generation uint64) uint64 {
	if e.Next == nil {
		return NextGeneration(generation)
	}
	return e.Next(generation)
}

// Right is the right to deliver as whoever has it knows it. Only with it can it
// be given up.
type Right struct {
	Generation       uint64
	Node, Connection string
}

func (r Right) of(s State) bool {
	return s.Owner != nil && s.Generation == r.Generation && s.Owner.Node == r.Node && s.Owner.Connection == r.Connection
}

// Change is what a rule makes of a state.
type Change struct {
	Record     Record
	Generation uint64
	Set        event.Position // cursors to place, also back
	Forget     []string       // channels whose cursors go
	Delete     bool           // the subscription goes
	Undivided  bool           // its partitions go
	Least      bool           // and Set reaches the least of them, see broker.Update
	Durable    bool           // somebody was promised that it stays
	// Tell is for the node of the owner there was before; Op "" is nothing.
	Tell Message
	// To is that node.
	To string
}

// Acquire attaches a connection, or somebody who pulls. The owner it had gets
// no more say: a callback is asked to yield first (ErrYield, then force), the
// same consumer's older connection is told that it was taken over.
func Acquire(s State, o Owner, force bool, env Env) (Change, error) {
	if cb := s.Definition.Callback; cb != nil && cb.Mode == Always && !s.Disabled {
		return Change{}, ErrAlways
	}
	if s.Definition.Group != nil {
		return Change{}, ErrGroup
	}
	c := s.change()
	if old := s.Owner; old != nil {
		switch alive := env.Alive(old.Node); {
		case alive && old.Kind == Call && !force:
			return Change{}, ErrYield
		case alive && old.Kind != Call && old.Consumer != o.Consumer:
			return Change{}, ErrHeld
		}
		c.tell(old, Message{Op: OpEnd, Code: codeTakenOver, Reason: "another connection of this consumer attached"})
	}
	c.own(o, env)
	return c, nil
}

// Due decides what becomes of a subscription that the broker handed out as
// due: it is claimed for a callback by o, given up for a dead owner, or
// expired. ErrNotDue means that there is nothing to do: its ticket is served.
// ErrHeld means that its time has not quite come: the ticket is to come back.
func Due(s State, o Owner, env Env) (Change, error) {
	if s.held() {
		return Died(s, env)
	}
	if t := s.expiry(); !t.IsZero() && !env.Now.Before(t) {
		c := s.change()
		c.Delete = true
		return c, nil
	}
	if !s.calls() {
		if t := s.expiry(); t.IsZero() || t.Sub(env.Now) > skew {
			return Change{}, ErrNotDue
		}
		return Change{}, ErrHeld
	}
	if env.Now.Before(s.Grace) {
		return Change{}, ErrHeld
	}
	c := s.change()
	c.own(o, env)
	return c, nil
}

// Release gives a right up. handed is how far beyond the position events were
// delivered, doubt that more may have been; after is when a callback's owner
// wants the callback's turn to be, where it was one.
func Release(s State, r Right, handed event.Position, doubt bool, after time.Duration, env Env) (Change, error) {
	if !r.of(s) {
		return Change{}, ErrFenced
	}
	c := s.change()
	c.leave(env)
	c.Record.DeliveredUpTo, c.Record.Unclear, c.Record.Scattered = handed.String(), doubt, doubt && s.Scattered
	if s.Owner.Kind == Call && c.Record.calls() {
		c.Record.Grace = env.Now.Add(after)
	}
	return c, nil
}

// Withdraw gives up a right that may never come to be: whether its store, in
// place of the version replaced, took effect is not known. Where it didn't, the
// state moves on, so that it never will.
func Withdraw(s State, r Right, replaced uint64, handed event.Position, doubt bool, env Env) (Change, error) {
	if s.Version == replaced {
		return s.change(), nil
	}
	return Release(s, r, handed, doubt, 0, env)
}

// Park ends the ownership of a callback that has caught up: nobody needs to
// look until there is another event. Where dead letters were put back since it
// last looked, its next turn is at once.
func Park(s State, r Right, env Env) (Change, error) {
	if !r.of(s) {
		return Change{}, ErrFenced
	}
	c := s.change()
	c.leave(env)
	c.Record.Grace, c.Record.Parked = time.Time{}, c.Record.calls()
	if c.Record.Parked && s.Redriving > 0 {
		c.Record.Grace, c.Record.Parked = env.Now, false
	}
	return c, nil
}

// Disable ends the ownership of a callback whose endpoint is gone.
func Disable(s State, r Right, env Env) (Change, error) {
	if !r.of(s) {
		return Change{}, ErrFenced
	}
	c := s.change()
	c.Record.Disabled, c.Durable = true, true
	c.leave(env)
	return c, nil
}

// Died gives up the ownership of a node whose lease ended. A callback's turn
// is at once, since the node has stopped its calls before; a client gets the
// grace to come back.
func Died(s State, env Env) (Change, error) {
	if len(s.Members) > 0 {
		return Leave(s, func(m Owner) bool { return !env.Alive(m.Node) }, env)
	}
	if s.Owner == nil || env.Alive(s.Owner.Node) {
		return Change{}, ErrNotDue
	}
	c := s.change()
	c.leave(env)
	c.Record.Unclear = true
	if s.Owner.Kind == Call && c.Record.calls() {
		c.Record.Grace = env.Now
	}
	return c, nil
}

// Seek moves the position to where to says, for the channels it names. A live
// owner is sent away to come back from there.
func Seek(s State, to event.Position, force bool, env Env) (Change, error) {
	c := s.change()
	if err := c.interrupt(s, force, env, Message{Op: OpEnd, Code: codeRestart, Reason: "the position was moved"}); err != nil {
		return Change{}, err
	}
	c.Set, c.Durable = to, true
	if c.Record.Placed = env.Now; env.Now.Sub(s.Placed) < time.Millisecond {
		c.Record.Placed = s.Placed.Add(time.Millisecond)
	}
	c.jump(Jump{Time: env.Now, Kind: Sought, From: s.Position.String(), To: to.String()})
	c.undivide(s, env)
	return c, nil
}

// Create makes a subscription that starts at the given position. Whoever made
// it may be about to attach, so its callback's grace counts from now.
func Create(name string, r Record, start event.Position, env Env) (State, Change) {
	r.Created, r.Placed, r.Touched = env.Now, env.Now, env.Now
	if r.calls() {
		grace := time.Duration(r.Definition.Callback.Grace)
		if r.Parked = grace == 0; grace > 0 {
			r.Grace = env.Now.Add(grace)
		}
	}
	c := Change{Record: r, Generation: env.next(0), Set: start, Durable: true}
	c.jump(Jump{Time: env.Now, Kind: Start, To: start.String()})
	return State{Name: name}, c
}

// Define gives the subscription another definition. Channels that are new
// start at added. A change of channels, types or filter is to the owner what a seek
// is; of everything else it is only told. A callback that is disabled stays so:
// see Enabled.
func Define(s State, d Definition, sealed []byte, added event.Position, force bool, env Env) (Change, error) {
	c := s.change()
	old := s.Definition
	c.Record.Definition, c.Record.Sealed = d, sealed
	c.Set, c.Durable, c.Record.Touched = added, true, env.Now
	if len(added) > 0 {
		c.jump(Jump{Time: env.Now, Kind: Start, To: added.String()})
	}
	for _, cursor := range s.Position {
		if !slices.Contains(d.Channels, cursor.Channel) {
			c.Forget = append(c.Forget, cursor.Channel)
		}
	}
	for _, channel := range old.Channels {
		c.Record.Narrowed = c.Record.Narrowed || !slices.Contains(d.Channels, channel)
	}
	restart := !sameSet(old.Channels, d.Channels) || !sameSet(old.Types, d.Types) || old.Filter != d.Filter || !sameGroup(old.Group, d.Group)
	if o := s.Owner; o != nil && o.Kind == Call {
		restart = restart || d.Callback == nil
	} else if o != nil {
		restart = restart || d.Callback != nil && d.Callback.Mode == Always
	}
	if restart {
		if err := c.interrupt(s, force, env, Message{Op: OpEnd, Code: codeRestart, Reason: "the subscription was changed"}); err != nil {
			return Change{}, err
		}
		c.undivide(s, env)
		c.Least = c.Undivided
		return c, nil
	}
	c.tell(s.Owner, Message{Op: OpChanged})
	c.turn(env)
	return c, nil
}

// Enabled returns s with its callback enabled: it was defined anew.
func (s State) Enabled() State {
	s.Disabled = false
	return s
}

// Pause holds delivery. A connection stays and gets nothing.
func Pause(s State, force bool, env Env) (Change, error) {
	c := s.change()
	c.Record.Paused, c.Durable = true, true
	if s.Owner != nil && s.Owner.Kind == Call {
		if err := c.interrupt(s, force, env, Message{Op: OpEnd, Reason: "the subscription was paused"}); err != nil {
			return Change{}, err
		}
		return c, nil
	}
	c.tell(s.Owner, Message{Op: OpChanged})
	c.turn(env)
	return c, nil
}

// Resume ends a pause.
func Resume(s State, env Env) Change {
	c := s.change()
	c.Record.Paused, c.Durable = false, true
	c.tell(s.Owner, Message{Op: OpChanged})
	c.turn(env)
	return c
}

// Reseal replaces the secrets. Whoever signs with them reads them again.
func Reseal(s State, sealed []byte) Change {
	c := s.change()
	c.Record.Sealed, c.Durable = sealed, true
	c.tell(s.Owner, Message{Op: OpChanged})
	return c
}

// Delete ends the subscription and whoever owns it.
func Delete(s State) Change {
	c := s.change()
	c.Delete, c.Durable = true, true
	c.tell(s.Owner, Message{Op: OpEnd, Code: codeNotFound, Reason: "the subscription was deleted"})
	return c
}

func (s State) change() Change { return Change{Record: s.Record, Generation: s.Generation} }

// own makes o the owner, with a generation of its own.
func (c *Change) own(o Owner, env Env) {
	o.Since = env.Now
	c.Generation = env.next(c.Generation)
	c.Record.Owner, c.Record.Touched = &o, env.Now
	c.Record.Parked, c.Record.Grace = false, time.Time{}
	c.Record.Unclear, c.Record.DeliveredUpTo = false, ""
}

// leave ends ownership; whoever was attached has the grace to come back.
func (c *Change) leave(env Env) {
	c.Record.Owner, c.Record.Touched = nil, env.Now
	c.Record.Parked, c.Record.Grace = false, time.Time{}
	if c.Record.calls() {
		c.Record.Grace = env.Now.Add(time.Duration(c.Record.Definition.Callback.Grace))
	}
}

// interrupt takes the right to deliver from whoever has it. A callback is
// asked to yield first.
func (c *Change) interrupt(s State, force bool, env Env, m Message) error {
	if o := s.Owner; o != nil {
		if o.Kind == Call && !force && env.Alive(o.Node) {
			return ErrYield
		}
		c.tell(o, m)
		c.leave(env)
		if o.Kind == Call {
			c.Record.Grace = time.Time{}
		}
	}
	c.Generation = env.next(c.Generation)
	c.Record.Unclear, c.Record.DeliveredUpTo = true, ""
	c.turn(env)
	return nil
}

// turn sees to it that a callback which may be called will be, and no other.
func (c *Change) turn(env Env) {
	r := &c.Record
	if r.held() || !r.calls() {
		r.Parked, r.Grace = false, time.Time{}
	} else if r.Grace.IsZero() {
		r.Parked = true
	}
}

func (c *Change) tell(o *Owner, m Message) {
	if o != nil {
		c.Tell, c.To = m, o.Node
	}
}

// Update returns the change as what a broker stores in place of s.
func (c Change) Update(s State, record []byte, now time.Time) broker.Update {
	u := broker.Update{
		Name: s.Name, Version: s.Version, Generation: c.Generation, Record: record, Creator: c.Record.Creator,
		Set: c.Set, Forget: c.Forget, Channels: c.Record.Definition.Channels,
		Due: broker.Never, Durable: c.Durable, Undivided: c.Undivided, Least: c.Least,
	}
	if c.Record.Definition.Group != nil && c.Record.Division != 0 {
		u.Channels = nil // its partitions follow them
	}
	switch {
	case c.Record.Owner != nil:
		u.Node = c.Record.Owner.Node
	case len(c.Record.Members) > 0:
		// One of them: when that node dies, whoever sees to it finds the group.
		u.Node = c.Record.Members[0].Node
	}
	for _, t := range []time.Time{c.Record.Grace, c.Record.expiry()} {
		if !t.IsZero() {
			u.Due = min(u.Due, max(0, t.Sub(now)))
		}
	}
	if c.Record.idles() && (!c.Record.Parked || s.even()) {
		u.Due = min(u.Due, max(0, c.Record.Touched.Add(restTime).Sub(now)))
	}
	if c.Record.Parked {
		u.Wait = place(s.Position, c.Set, c.Forget)
	}
	return u
}

// place is p after cursors were set and forgotten.
func place(p, set event.Position, forget []string) event.Position {
	var placed event.Position
	for _, c := range p {
		if _, ok := set.Of(c.Channel); !ok && !slices.Contains(forget, c.Channel) {
			placed = append(placed, c)
		}
	}
	return append(placed, set...)
}

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, s := range a {
		if !slices.Contains(b, s) {
			return false
		}
	}
	return true
}
