package simulation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

const channel = "a"

// store is a broker in memory: one log, subscriptions, a schedule, leases. What it
// was told since it last synced a crash forgets.
type store struct {
	broker.Durable // of which a Manager is asked for no more than Look here
	s              *sim
	rows           map[string]*row // replaced, never changed
	log            broker.State
	ids            []int // of the events, by offset, from 1
	leases         map[string]time.Duration
	undo           []func()
	terms, version int
	cut            uint64 // what retention took though it was needed
	manager        *durable.Manager
}

// row is a subscription.
type row struct {
	version, gen uint64
	pos          event.Position
	rec          durable.Record
	follows      bool
	node         string
	due, hidden  time.Duration
	isDue        bool
	ticket       uint64
	wait         event.Position
}

func newStore(s *sim) *store {
	b := &store{s: s, rows: map[string]*row{}, leases: map[string]time.Duration{}, ids: []int{0}}
	b.log = broker.State{Epoch: "e0", First: 1}
	b.manager = durable.New(durable.Options{Broker: b, Logs: b})
	return b
}

func at(epoch string, offset uint64) event.Position {
	return event.Position{{Channel: channel, Epoch: epoch, Offset: offset}}
}

func (b *store) put(name string, r *row) {
	old, there := b.rows[name]
	b.undo = append(b.undo, func() {
		if delete(b.rows, name); there {
			b.rows[name] = old
		}
	})
	if delete(b.rows, name); r != nil {
		b.rows[name] = r
	}
}

// changed is a copy of a row that may be changed.
func (b *store) changed(name string) *row {
	r := *b.rows[name]
	b.put(name, &r)
	return &r
}

// sync is what a crash can't undo any more.
func (b *store) sync() { b.undo = b.undo[:0] }

// crash forgets what wasn't synced. The log has another epoch from then on.
func (b *store) crash() {
	for _, f := range slices.Backward(b.undo) {
		f()
	}
	b.sync()
	b.terms++
	b.log.Forks = append(b.log.Forks, broker.Fork{Epoch: b.log.Epoch, Head: b.log.Head})
	if n := len(b.log.Forks); n > broker.MaxForks {
		b.log.Forks = b.log.Forks[n-broker.MaxForks:]
	}
	b.log.Epoch = fmt.Sprint("e", b.terms)
	for name, r := range b.rows {
		if r.wait != nil {
			b.wake(name)
		}
	}
}

func (b *store) append(id int) {
	b.log.Head++
	b.ids = append(b.ids[:b.log.Head], id)
	b.undo = append(b.undo, func() { b.log.Head-- })
	for name, r := range b.rows {
		if r.wait != nil {
			b.wake(name)
		}
	}
	if !b.s.forgetsAppends {
		b.sync()
	}
}

func (b *store) wake(name string) {
	r := b.changed(name)
	r.wait, r.isDue, r.due, r.hidden = nil, true, b.s.now, 0
	r.ticket++
}

// trim takes what every subscription has acknowledged, and with hard more.
func (b *store) trim(hard bool) {
	need := b.log.Head
	for _, r := range b.rows {
		if c, ok := r.pos.Of(channel); ok && r.follows {
			offset, _ := b.log.Locate(c.Epoch, c.Offset)
			need = min(need, offset)
		}
	}
	if hard && b.log.Head > 12 {
		need = max(need, b.log.Head-12)
		b.cut = max(b.cut, need)
	}
	b.log.First = max(b.log.First, need+1)
}

// Load is a subscription as it is now.
func (b *store) load(name string) (durable.State, error) {
	r := b.rows[name]
	if r == nil {
		return durable.State{Name: name}, broker.ErrNotFound
	}
	s := durable.State{Name: name, Version: r.version, Progress: broker.Progress{Generation: r.gen, Position: slices.Clone(r.pos)}, Record: r.rec}
	whole, err := b.manager.Complete(context.Background(), &s)
	if !whole {
		s.Parts, s.Position = nil, slices.Clone(r.pos) // they were forgotten
	}
	return s, err
}

// Look is of broker.Subscriptions.
func (b *store) Look(_ context.Context, names []string) ([]broker.Progress, error) {
	all := make([]broker.Progress, len(names))
	for i, name := range names {
		if r := b.rows[name]; r != nil {
			all[i] = broker.Progress{Generation: r.gen, Position: slices.Clone(r.pos)}
		}
	}
	return all, nil
}

// State is of broker.Log.
func (b *store) State(context.Context, string) (broker.State, error) { return b.log, nil }

func (b *store) store(s durable.State, c durable.Change) error {
	old := b.rows[s.Name]
	if old == nil && s.Version != 0 || old != nil && old.version != s.Version {
		return broker.ErrConflict
	}
	u := c.Update(s, nil, b.s.clock())
	b.version++
	r := &row{version: uint64(b.version), gen: u.Generation, rec: c.Record, node: u.Node, follows: len(u.Channels) > 0}
	if old != nil {
		r.pos, r.ticket = old.pos, old.ticket
	}
	if len(u.Set) > 0 {
		r.pos = slices.Clone(u.Set)
	}
	if u.Due < broker.Never {
		r.isDue, r.due = true, b.s.now+max(0, u.Due)
	}
	r.ticket++
	if u.Wait != nil {
		if c, ok := u.Wait.Of(channel); ok && (c.Epoch != b.log.Epoch || c.Offset < b.log.Head) {
			r.isDue, r.due = true, b.s.now
		} else {
			r.wait = slices.Clone(u.Wait)
		}
	}
	b.put(s.Name, r)
	if old == nil || old.rec.Division != c.Record.Division {
		b.s.say("%s is of division %d (version %d, generation %d), at %v, undivided %v", s.Name, c.Record.Division, r.version, r.gen, r.pos, u.Undivided)
	}
	if u.Undivided {
		for p := range partitions {
			if name := durable.PartitionName(s.Name, p); b.rows[name] != nil {
				b.put(name, nil)
			}
		}
	}
	if u.Durable && !b.s.forgetsAppends {
		b.sync()
	}
	return nil
}

func (b *store) advance(name string, gen uint64, to event.Cursor) error {
	r := b.rows[name]
	if r == nil || r.gen != gen {
		return broker.ErrFenced
	}
	if had, ok := r.pos.Of(channel); ok && had.Epoch == to.Epoch && had.Offset >= to.Offset {
		return nil
	}
	r = b.changed(name)
	r.pos = event.Position{to}
	return nil
}

// takeDue hands one out that is due, "" if there is none.
func (b *store) takeDue(hide time.Duration) (name string, ticket uint64) {
	for _, name := range slices.Sorted(maps.Keys(b.rows)) {
		if r := b.rows[name]; r.isDue && r.due <= b.s.now && r.hidden <= b.s.now {
			r = b.changed(name)
			r.hidden = b.s.now + hide
			return name, r.ticket
		}
	}
	return "", 0
}

func (b *store) served(name string, ticket uint64) {
	if r := b.rows[name]; r != nil && r.ticket == ticket && r.isDue {
		r = b.changed(name)
		r.isDue = false
	}
}

func (b *store) alive(node string) bool { return b.leases[node] > b.s.now }
