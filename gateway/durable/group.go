package durable

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// A group is a subscription that several consumers share. Its events are
// divided by key into partitions, each of which is a subscription by a name of
// its own: it has an owner, a generation and a position, by the rules of
// step.go. The group's own record says who is a member and whose each partition
// is to be; members acquire and release the partitions accordingly.
//
//	              join                              leave, died
//	  undivided ────────▶ divided, with members ──────────────────▶ divided,
//	      ▲                   │        ▲  join        the last one   in grace
//	      │ seek, another     │        └─────────────────────────────┘ │ due
//	      └ definition, ──────┴───────────────── divided, callback ◀───┘
//	        at rest
//
// Undivided, the position is the group's own; divided, it is the partitions'.
// A Division names one dividing up: partitions of another are not the group's.

// Group says into how many partitions a subscription that is shared is divided.
type Group struct {
	Partitions int `json:"partitions"`
}

// How many a group has at most.
const (
	MaxPartitions = 256
	MaxMembers    = 256
)

// Why a rule of groups refuses.
var (
	// ErrFull: a group has no room for another member.
	ErrFull = fmt.Errorf("the group has %d members, which is all it takes", MaxMembers)
	// ErrGroup: a group is joined, and its partitions are acquired.
	ErrGroup = errors.New("the subscription is shared")
	// ErrNoGroup: the subscription is not shared, or no longer.
	ErrNoGroup = errors.New("the subscription is not shared")
)

// PartitionName is the name of a group's partition p.
func PartitionName(name string, p int) string { return name + "/" + strconv.Itoa(p) }

// PartitionOf takes a partition's name apart; false if it isn't one's.
func PartitionOf(name string) (group string, p int, ok bool) {
	group, number, ok := strings.Cut(name, "/")
	if !ok {
		return name, 0, false
	}
	p, err := strconv.Atoi(number)
	return group, p, err == nil
}

func (g *Group) check() error {
	if g.Partitions < 1 || g.Partitions > MaxPartitions {
		return fmt.Errorf("group.partitions is %d, want 1 to %d", g.Partitions, MaxPartitions)
	}
	return nil
}

func sameGroup(a, b *Group) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// Join makes o a member, in place of what its consumer had attached before. A
// callback loses the group, and is asked to yield: it gives up one partition
// after the other as its calls end. The group is divided from then on: whoever
// stores the change settles it and makes the partitions before, see Settle and
// Part.
func Join(s State, o Owner, env Env) (Change, error) {
	if s.Definition.Group == nil {
		return Change{}, ErrNoGroup
	}
	c := s.change()
	if old := s.Owner; old != nil {
		if c.tell(old, Message{Op: OpEnd, Code: codeTakenOver, Reason: "a consumer attached"}); old.Kind == Call {
			c.Tell = Message{Op: OpYield}
		}
		c.Generation, c.Record.Owner = env.next(c.Generation), nil
	}
	o.Since = env.Now
	members := slices.DeleteFunc(slices.Clone(s.Members), func(m Owner) bool { return m.Consumer != o.Consumer && !env.Alive(m.Node) })
	if i := slices.IndexFunc(members, func(m Owner) bool { return m.Consumer == o.Consumer }); i >= 0 {
		members[i] = o
	} else if members = append(members, o); len(members) > MaxMembers {
		return Change{}, ErrFull
	}
	if s.Division == 0 {
		c.Record.Division, c.Record.Assigned = s.Version, nil
		c.Record.Unclear, c.Record.Scattered, c.Record.DeliveredUpTo = false, false, ""
	}
	c.assign(members)
	c.Record.Touched, c.Record.Parked, c.Record.Grace = env.Now, false, time.Time{}
	return c, nil
}

// Settle takes the right to move the position from whoever has it or had it, before
// a group is divided: its partitions begin where it is, so it must not move on
// meanwhile. A callback is asked to yield first (ErrYield, then force).
func Settle(s State, force bool, env Env) (Change, error) {
	c := s.change()
	if o := s.Owner; o != nil {
		if o.Kind == Call && !force && env.Alive(o.Node) {
			return Change{}, ErrYield
		}
		c.tell(o, Message{Op: OpEnd, Code: codeTakenOver, Reason: "a consumer attached"})
		c.leave(env)
		c.Record.Unclear, c.Record.DeliveredUpTo = true, ""
	}
	c.Generation = env.next(c.Generation)
	return c, nil
}

// Leave takes the members off that have gone; ErrNotDue if there are none. The
// last one leaves the group in grace.
func Leave(s State, gone func(Owner) bool, env Env) (Change, error) {
	members := slices.DeleteFunc(slices.Clone(s.Members), gone)
	if len(members) == len(s.Members) {
		return Change{}, ErrNotDue
	}
	c := s.change()
	if c.assign(members); len(members) == 0 {
		c.leave(env)
	}
	return c, nil
}

// assign gives the members their partitions.
func (c *Change) assign(members []Owner) {
	r := &c.Record
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.Consumer
	}
	before := make([]string, r.Definition.Group.Partitions)
	copy(before, r.Assigned)
	r.Members, r.Assigned = members, Assign(names, before)
}

// undivide makes the position the group's own again, the least of its
// partitions', and ends its members' sessions. What lies done beyond comes
// again, announced.
func (c *Change) undivide(s State, env Env) {
	if !s.divided() {
		return
	}
	c.Undivided = true
	if len(s.Members) > 0 {
		c.leave(env)
	}
	c.Record.Division, c.Record.Members, c.Record.Assigned = 0, nil, nil
	c.Set = place(s.Position, c.Set, c.Forget)
	c.Record.Unclear, c.Record.Scattered, c.Record.DeliveredUpTo = true, true, s.furthest().String()
}

// restTime is when it is seen whether a group rests, after its last member left or
// its callback had caught up.
const restTime = time.Minute

// Rest makes the position the group's own again where nobody has the group, and
// what it is of each partition is the same: nothing comes again by it, and what
// nobody uses costs one record. Whoever asks has seen that the partitions are at
// rest too. ErrNotDue where they are not even.
func Rest(s State, env Env) (Change, error) {
	if !s.idles() || !s.even() {
		return Change{}, ErrNotDue
	}
	c := s.change()
	c.Generation = env.next(c.Generation)
	c.Record.Division, c.Record.Members, c.Record.Assigned = 0, nil, nil
	c.Set, c.Undivided, c.Least = s.Position, true, true
	c.Record.Unclear, c.Record.Scattered, c.Record.DeliveredUpTo = false, false, ""
	return c, nil
}

// idles tells whether the group is divided, and nobody has it or is to have it
// before there is another event.
func (r *Record) idles() bool {
	return r.Division != 0 && r.Definition.Group != nil && !r.held() && (!r.calls() || r.Parked)
}

// rests tells whether a partition has no owner, and nothing to tell the next one.
func (s *State) rests() bool {
	delivered, err := event.ParsePosition(s.DeliveredUpTo)
	for _, c := range delivered {
		at, ok := s.Position.Of(c.Channel)
		if !ok || at.Epoch != c.Epoch || at.Offset < c.Offset {
			return false
		}
	}
	return s.Owner == nil && !s.Unclear && (err == nil || s.DeliveredUpTo == "")
}

// even tells whether all partitions of a group that is divided have the same
// position.
func (s *State) even() bool {
	for _, part := range s.Parts {
		if !slices.Equal(part.Position, s.Parts[0].Position) {
			return false
		}
	}
	return s.divided()
}

// least is what a group that is divided has acknowledged: some partitions may
// have got further.
func (s *State) least() event.Position {
	return s.over(func(a, b event.Cursor) bool { return a.Offset < b.Offset })
}

func (s *State) furthest() event.Position {
	return s.over(func(a, b event.Cursor) bool { return a.Offset > b.Offset })
}

// over picks each channel's cursor from those of the partitions.
func (s *State) over(better func(a, b event.Cursor) bool) (p event.Position) {
	for _, channel := range s.Definition.Channels {
		var best event.Cursor
		for _, part := range s.Parts {
			if c, ok := part.Position.Of(channel); ok && (best.Channel == "" || better(c, best)) {
				best = c
			}
		}
		if best.Channel != "" {
			p = append(p, best)
		}
	}
	return p
}

// Part makes of a partition, or of none that is at version 0, one of the
// division that the group's record at its present version begins. done: it is
// one already.
func Part(group, s State, env Env) (c Change, done bool) {
	if s.Version != 0 && s.Division >= group.Version {
		return Change{}, true
	}
	d := group.Definition
	c.Record = Record{
		Definition: Definition{Channels: d.Channels, Window: d.Window},
		Created:    env.Now, Touched: env.Now, Division: group.Version,
		Unclear: group.Doubt(), Scattered: group.Scattered, DeliveredUpTo: group.DeliveredUpTo,
	}
	c.Generation, c.Set = env.next(s.Generation), group.Position
	return c, false
}

// Mend makes a group whole whose partitions are not all of its division: between
// making them and storing that it is divided the broker forgot some. It begins at
// the least position, as after a seek, and whoever was attached comes back. division
// is the one that was found wanting; ErrNotDue if the group's is another by now.
func Mend(s State, division uint64, env Env) (Change, error) {
	if !s.divided() || s.Division != division {
		return Change{}, ErrNotDue
	}
	c := s.change()
	if err := c.interrupt(s, true, env, Message{Op: OpEnd, Code: codeRestart, Reason: "the group is divided anew"}); err != nil {
		return Change{}, err
	}
	c.undivide(s, env)
	c.turn(env)
	return c, nil
}

// Has tells whether a connection is a member's.
func (r *Record) Has(connection string) bool { return r.member(connection) != nil }

func (r *Record) member(connection string) *Owner {
	for i := range r.Members {
		if r.Members[i].Connection == connection {
			return &r.Members[i]
		}
	}
	return nil
}

// MemberOf is the member that a consumer is; nil if it is none.
func (r *Record) MemberOf(consumer string) *Owner {
	for i := range r.Members {
		if r.Members[i].Consumer == consumer {
			return &r.Members[i]
		}
	}
	return nil
}

// PartitionsOf are those that a consumer is to have, in order.
func (r *Record) PartitionsOf(consumer string) []int {
	list := []int{}
	for p, c := range r.Assigned {
		if c == consumer {
			list = append(list, p)
		}
	}
	return list
}

// nodes are the nodes of a group's members, each once.
func (r *Record) nodes() (list []string) {
	for _, m := range r.Members {
		if !slices.Contains(list, m.Node) {
			list = append(list, m.Node)
		}
	}
	return list
}

// divided tells whether the position is the partitions'.
func (s *State) divided() bool { return s.Division != 0 && s.Definition.Group != nil }

// agreed tells whether the partitions are in one epoch of a channel.
func (s *State) agreed(channel string) bool {
	epoch := ""
	for _, part := range s.Parts {
		if c, ok := part.Position.Of(channel); ok {
			if epoch != "" && epoch != c.Epoch {
				return false
			}
			epoch = c.Epoch
		}
	}
	return true
}

// located brings each channel's cursors of the partitions into the epoch that
// its log has now, where they differ.
func located(parts []broker.Progress, channel string, state broker.State) {
	for _, part := range parts {
		for i := range part.Position {
			c := &part.Position[i]
			if c.Channel != channel || c.Epoch == state.Epoch {
				continue
			}
			offset, place := state.Locate(c.Epoch, c.Offset)
			if place == broker.Unknown {
				offset = 0 // that log is gone: its successor is read from the start
			}
			c.Epoch, c.Offset = state.Epoch, offset
		}
	}
}
