package durable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/guard"
	"github.com/longline-push/longline/gateway/wire"
)

// Options of a Manager. Zero values take the defaults.
type Options struct {
	Broker broker.Durable
	Logs   Stater       // where a group's partitions are of different epochs; nil: Broker, if it is one
	Logger *slog.Logger // slog.Default()
	Node   string       // the node's name, for people
	Guard  *guard.Guard // notes panics; may be nil
	// TTL (10 s) is how long the node's lease lasts without renewal.
	TTL time.Duration
	// Tell tells of what happens to subscriptions, for the gateway's own
	// channel; it must not block. nil: nobody is told.
	Tell func(kind, name string, data any)
}

// Holder is who delivers the events of a subscription that the node owns. Its
// methods are called by the manager, one at a time, and must not block nor call
// the manager back, except from a goroutine of their own.
type Holder interface {
	// Ended: the ownership is gone; nothing the holder does counts any more.
	// A connection is closed with the code and reason.
	Ended(code wire.CloseCode, reason string)
	// Yield asks a callback's owner to release within YieldTime.
	Yield()
	// Changed gives the definition as it is now.
	Changed(s State)
	// Acked: this was acknowledged, elsewhere too. It may be no news.
	Acked(p event.Position)
	// Redrive: dead letters wait to be delivered again.
	Redrive()
	// Suspended: the node lost its broker. Nothing may be delivered, calls in
	// flight are cancelled. The Ownership is gone; what was held may be acquired
	// anew once Manager.Ready says so.
	Suspended()
}

// Deliverer is a Holder that can say what it has delivered.
type Deliverer interface {
	// Delivered is how far events were delivered that may not be committed as
	// acknowledged. Called after Ended, by which the holder delivers no more.
	Delivered() event.Position
}

// Committer is a Holder that waits for what it acknowledged.
type Committer interface {
	// Committed: some of what Hurry was called for is.
	Committed()
}

// Settler is a Holder whose client may say by requests of their own, on
// whatever node, what became of single events.
type Settler interface {
	// Settled: a client acknowledged this just now, and so the dead letters
	// delivered again that it covers. Acked follows.
	Settled(p event.Position)
	// Rejected: the event at c is a dead letter now.
	Rejected(c event.Cursor)
}

// Manager is a node's part in the ownership of subscriptions: it holds the
// node's lease, the subscriptions it owns and their acknowledgements, and says
// what became of those of nodes that died. All methods may be called by many
// goroutines at once; Run must run beside them.
type Manager struct {
	o    Options
	seed maphash.Seed

	taking [256]sync.Mutex // by a hash of the subscription's name; locked before mu

	mu         sync.Mutex
	node       string // this incarnation; "" while there is none
	ready      chan struct{}
	known      map[string]bool // other nodes: whether they are alive
	names      map[string]string
	ownerships map[string]*Ownership
	groups     map[string]*groupState
	asked      map[string]chan Message    // answers that are waited for
	standing   map[string][]chan struct{} // who stands by for a subscription here
	looks      uint64
	lostAfter  string       // where lookForLost goes on
	quiet      time.Time    // nothing is claimed before
	dirty      []*Ownership // with moves to commit
	open       int          // acks among them
	leaving    []releaseRequest

	flushNow chan struct{}
	looking  atomic.Bool
	running  sync.WaitGroup
	life     context.Context // until all that the node owned is given up
	endLife  context.CancelFunc
}

// releaseRequest is a release that is to be stored.
type releaseRequest struct {
	h      *Ownership
	handed event.Position
	doubt  bool // more than handed may have been delivered
	after  time.Duration
	how    func(State, Env) (Change, error) // nil: Release
	quiet  bool                             // nobody was told that it attached
}

// New makes a manager, which owns nothing until Run has joined.
func New(o Options) *Manager {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Logs == nil {
		o.Logs, _ = o.Broker.(Stater)
	}
	if o.TTL == 0 {
		o.TTL = 10 * time.Second
	}
	if o.Tell == nil {
		o.Tell = func(string, string, any) {}
	}
	life, end := context.WithCancel(context.Background())
	return &Manager{
		o: o, life: life, endLife: end, seed: maphash.MakeSeed(), ready: make(chan struct{}), known: make(map[string]bool), names: make(map[string]string),
		ownerships: make(map[string]*Ownership), groups: make(map[string]*groupState), asked: make(map[string]chan Message), standing: make(map[string][]chan struct{}),
		flushNow: make(chan struct{}, 1),
	}
}

// Claim is what somebody who wants to own a subscription says of himself.
type Claim struct {
	Connection string
	Consumer   string
	Kind       Kind
	Transport  string
}

// ErrSuspended: the node has no lease at present and owns nothing.
var ErrSuspended = fmt.Errorf("the node has lost its lease: %w", broker.ErrUnavailable)

// Ready returns a channel that is closed while the node may own something.
func (k *Manager) Ready() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ready
}

// Node returns the ID of the node's present incarnation, "" if it has none.
func (k *Manager) Node() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.node
}

// NodeName is a node's name for people, or its ID if that isn't known.
func (k *Manager) NodeName(id string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if id == k.node {
		return k.o.Node
	}
	if name := k.names[id]; name != "" {
		return name
	}
	return id
}

// Load returns a subscription as it is now; broker.ErrNotFound.
func (k *Manager) Load(ctx context.Context, name string) (State, error) {
	for {
		stored, err := k.o.Broker.Load(ctx, name)
		if err != nil {
			return State{}, err
		}
		s, err := Decode(stored)
		if err != nil || !s.divided() {
			return s, err
		}
		whole, err := k.Complete(ctx, &s)
		if err != nil || whole {
			return s, err
		}
	}
}

// Complete reads how far the partitions are of a group that was loaded, if it
// is one and divided. whole is false if it isn't so any longer.
func (k *Manager) Complete(ctx context.Context, s *State) (whole bool, err error) {
	if !s.divided() {
		return true, nil
	}
	names := make([]string, s.Definition.Group.Partitions)
	for p := range names {
		names[p] = PartitionName(s.Name, p)
	}
	if s.Parts, err = k.o.Broker.Look(ctx, names); err != nil {
		return false, err
	}
	for _, part := range s.Parts {
		if part.Generation == 0 {
			return false, nil
		}
	}
	for _, channel := range s.Definition.Channels {
		if k.o.Logs == nil || s.agreed(channel) {
			continue
		}
		state, err := k.o.Logs.State(ctx, channel)
		if err != nil {
			return false, err
		}
		located(s.Parts, channel, state)
	}
	s.Position = s.least()
	return true, nil
}

// Acquire attaches a client to a subscription for holder. A callback that owns
// it is asked to yield, which may take YieldTime. ErrHeld if another consumer
// is attached, ErrAlways if nobody can be, ErrSuspended, broker errors.
func (k *Manager) Acquire(ctx context.Context, name string, c Claim, holder Holder) (*Ownership, error) {
	var deadline time.Time // of a yield
	for {
		env, node, err := k.env(ctx)
		if err != nil {
			return nil, err
		}
		s, err := k.Load(ctx, name)
		if err != nil {
			return nil, err
		}
		if s.Owner != nil {
			k.refresh(ctx, s.Owner.Node)
		}
		o := Owner{Node: node, Connection: c.Connection, Consumer: c.Consumer, Kind: c.Kind, Transport: c.Transport}
		force := !deadline.IsZero() && env.Now.After(deadline)
		change, err := Acquire(s, o, force, env)
		if errors.Is(err, ErrYield) {
			if deadline.IsZero() {
				deadline = env.Now.Add(YieldTime)
				k.send(ctx, s.Owner.Node, Message{Op: OpYield, Name: name, Generation: s.Generation})
			}
			if err := k.awaitFree(ctx, yieldLook, name); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		h, err := k.take(ctx, s, change, holder, node)
		if errors.Is(err, broker.ErrConflict) {
			continue
		}
		if err == nil {
			k.o.Tell("attached", name, map[string]string{"consumer": c.Consumer, "transport": c.Transport, "connection": c.Connection})
		}
		return h, err
	}
}

// yieldLook is how often a subscription is looked at whose callback yields.
const yieldLook = 100 * time.Millisecond

// Await returns when it may be worth to acquire one of some held subscriptions
// again.
func (k *Manager) Await(ctx context.Context, names ...string) error {
	return k.awaitFree(ctx, time.Second+rand.N(time.Second), names...)
}

func (k *Manager) awaitFree(ctx context.Context, most time.Duration, names ...string) error {
	free, stop := k.Watch(names...)
	defer stop()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-free:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Watch returns a channel that gets a value when somebody gives one of some
// subscriptions up, as far as this node hears of it, until stop is called.
func (k *Manager) Watch(names ...string) (freed <-chan struct{}, stop func()) {
	free := make(chan struct{}, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range names {
		k.standing[name] = append(k.standing[name], free)
	}
	return free, func() { k.unstand(names, free) }
}

func (k *Manager) unstand(names []string, free chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range names {
		list := slices.DeleteFunc(k.standing[name], func(c chan struct{}) bool { return c == free })
		if len(list) == 0 {
			delete(k.standing, name)
		} else {
			k.standing[name] = list
		}
	}
}

func (k *Manager) freed(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.standing[name] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Due decides about a subscription that the broker handed out as due. It
// returns a Ownership where it was claimed for a callback, for holder to serve;
// served says that its ticket is done with.
func (k *Manager) Due(ctx context.Context, name string, holder func(State) Holder) (h *Ownership, served bool, err error) {
	for {
		env, node, err := k.env(ctx)
		if err != nil {
			return nil, false, err
		}
		s, err := k.Load(ctx, name)
		if errors.Is(err, broker.ErrNotFound) {
			return nil, true, nil
		}
		if err != nil {
			return nil, false, err
		}
		if s.Owner != nil {
			k.refresh(ctx, s.Owner.Node)
		}
		change, err := Due(s, Owner{Node: node, Kind: Call, Transport: "callback"}, env)
		switch {
		case errors.Is(err, ErrHeld):
			return nil, false, nil
		case err != nil:
			return nil, true, nil
		case change.Record.Owner == nil:
			err = k.Store(ctx, s, change)
		default:
			h, err = k.take(ctx, s, change, holder(s), node)
		}
		if errors.Is(err, broker.ErrConflict) {
			continue
		}
		if change.Delete && err == nil {
			k.o.Tell("expired", name, nil)
		}
		return h, err == nil, err
	}
}

func (k *Manager) hash(name string) uint64 { return maphash.String(k.seed, name) }

// take stores a change that makes this node the owner. One take of a
// subscription is under way at a time: each ends the ownership it replaced before
// its own begins, so that what that one delivered is known by then.
func (k *Manager) take(ctx context.Context, s State, c Change, holder Holder, node string) (*Ownership, error) {
	turn := &k.taking[k.hash(s.Name)%uint64(len(k.taking))]
	turn.Lock()
	defer turn.Unlock()
	h := &Ownership{
		k: k, Name: s.Name, Generation: c.Generation, Doubt: s.Doubt(), holder: holder, node: node,
		Position: append(event.Position(nil), s.Position...), State: s,
	}
	h.State.Record, h.State.Generation = c.Record, c.Generation
	if h.Reach = s.Definition.Window; s.Scattered {
		h.Reach = cursor.Everything
	}
	if p, err := event.ParsePosition(s.Handed); err == nil {
		h.Handed = p
	}
	// Known before it is stored, so that no message about it is missed.
	k.mu.Lock()
	if k.node != node {
		k.mu.Unlock()
		return nil, ErrSuspended
	}
	before := k.ownerships[s.Name]
	k.ownerships[s.Name] = h
	k.mu.Unlock()
	if err := k.Store(ctx, s, c); err != nil {
		k.mu.Lock()
		if k.ownerships[s.Name] == h {
			if delete(k.ownerships, s.Name); before != nil && !before.gone {
				k.ownerships[s.Name] = before
			}
		}
		k.mu.Unlock()
		if !errors.Is(err, broker.ErrConflict) {
			// It may have taken effect, or be about to: then nobody would serve it
			// until this incarnation ends.
			k.queueRelease(releaseRequest{h: h, quiet: true, how: func(now State, env Env) (Change, error) {
				return Withdraw(now, h.right(), s.Version, h.handed(nil), h.Doubt, env)
			}})
		}
		return nil, err
	}
	if before != nil {
		before.end(wire.CloseTakenOver, "another connection of this consumer attached")
		if d, ok := before.holder.(Deliverer); ok && before.Generation == s.Generation && s.Owner != nil {
			h.Doubt, h.Handed = before.unclear(), before.handed(d.Delivered())
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.node != node {
		return nil, ErrSuspended
	}
	h.stored = true
	if s.Replay != nil {
		k.replayMoved(s.Name) // whoever had it may have died before that was seen to
	}
	return h, nil
}

// Store stores a change and sends what it has to tell. broker.ErrConflict: the
// state was not the present one.
func (k *Manager) Store(ctx context.Context, s State, c Change) error {
	if c.Delete {
		if err := k.o.Broker.Delete(ctx, s.Name, s.Version); err != nil && !errors.Is(err, broker.ErrNotFound) {
			return err
		}
		if s.Replay == nil {
			k.dropReplays(ctx, s.Name)
		}
	} else {
		record, err := json.Marshal(c.Record)
		if err != nil {
			return fmt.Errorf("encode subscription %s: %w", s.Name, err)
		}
		if err := k.o.Broker.Store(ctx, c.Update(s, record, time.Now())); err != nil {
			return err
		}
	}
	if c.Tell.Op != "" {
		c.Tell.Name, c.Tell.Generation = s.Name, s.Generation
		k.send(ctx, c.To, c.Tell)
	}
	if s.held() && !c.Record.held() {
		k.freed(s.Name)
		if broker.IsPartition(s.Name) {
			k.send(ctx, "", Message{Op: OpFree, Name: s.Name}) // its next owner waits, on whatever node
		}
	}
	for _, node := range (&Record{Members: slices.Concat(s.Members, c.Record.Members)}).nodes() {
		k.send(ctx, node, Message{Op: OpChanged, Name: s.Name})
	}
	return nil
}

// Change loads a subscription, asks the rule what to make of it, and stores
// that, as often as it takes. The rule is asked with force once a callback in
// flight had its time to yield.
func (k *Manager) Change(ctx context.Context, name string, rule func(s State, force bool, env Env) (Change, error)) error {
	var deadline time.Time
	for {
		env, _, err := k.env(ctx)
		if err != nil {
			return err
		}
		s, err := k.Load(ctx, name)
		if errors.Is(err, broker.ErrNotFound) {
			s = State{Name: name}
		} else if err != nil {
			return err
		}
		if s.Owner != nil {
			k.refresh(ctx, s.Owner.Node)
		}
		c, err := rule(s, !deadline.IsZero() && env.Now.After(deadline), env)
		if errors.Is(err, ErrYield) {
			if deadline.IsZero() {
				deadline = env.Now.Add(YieldTime)
				k.send(ctx, s.Owner.Node, Message{Op: OpYield, Name: name, Generation: s.Generation})
			}
			if err := k.awaitFree(ctx, yieldLook, name); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := k.Store(ctx, s, c); !errors.Is(err, broker.ErrConflict) {
			return err
		}
	}
}

// Ack acknowledges for whoever owns the subscription, on whatever node. With a
// connection it counts only while that one does: broker.ErrFenced if not. It
// returns once that is as durable as a publish is. ErrGroup where it is shared. said
// is the client's position, to what that is in the logs as they are now. The
// owner is told what the client said: it may not have come to a fork yet, and
// with its window full it never would, if it didn't know the cursor.
func (k *Manager) Ack(ctx context.Context, s State, said, to event.Position, connection string) error {
	if s.Definition.Group != nil {
		return ErrGroup
	}
	if connection != "" && (s.Owner == nil || s.Owner.Connection != connection) {
		return broker.ErrFenced
	}
	fenced, err := k.o.Broker.Advance(ctx, []broker.Move{{Name: s.Name, Generation: s.Generation, Position: to, Durable: true}})
	if err != nil {
		return err
	}
	if len(fenced) > 0 {
		return broker.ErrFenced
	}
	if s.Owner != nil {
		k.send(ctx, s.Owner.Node, Message{Op: OpAcked, Name: s.Name, Generation: s.Generation, Position: said.String()})
	}
	if s.reaches(to) {
		if err := k.endReplay(ctx, s.Name); err != nil && !errors.Is(err, ErrNotDue) && !errors.Is(err, broker.ErrNotFound) {
			k.o.Logger.Debug("end a replay", "subscription", s.Name, "error", err)
		}
	}
	return nil
}

// ErrUnattached: no connection is attached, so nothing is being delivered.
var ErrUnattached = errors.New("no connection is attached")

// Reject makes a dead letter of an event, at c, for the consumer that owns the
// subscription on whatever node, which goes on without it: ErrUnattached if
// none does. connection is as for Ack; of a group it says which member is
// meant. Who pulls is given the event until it is acknowledged.
func (k *Manager) Reject(ctx context.Context, s State, c event.Cursor, dead DeadLetter, connection string) error {
	owner := s.Owner
	if s.Definition.Group != nil {
		owner = s.member(connection)
	}
	switch {
	case connection != "" && (owner == nil || owner.Connection != connection):
		return broker.ErrFenced
	case owner == nil || owner.Kind != Live && owner.Kind != Pull:
		return ErrUnattached
	}
	// A letter that is there already takes its place: rejecting twice is once.
	if err := k.bury(ctx, s.Name, s.Generation, []DeadLetter{dead}); err != nil {
		return err
	}
	k.send(ctx, owner.Node, Message{Op: OpRejected, Name: s.Name, Generation: s.Generation, Connection: owner.Connection, Position: c.String()})
	return nil
}

// rejected tells whoever holds the subscription that an event is a dead letter
// now: of a group the member by that connection.
func (k *Manager) rejected(m Message) {
	c, err := event.ParseCursor(m.Position)
	if err != nil {
		return
	}
	var holder any
	k.mu.Lock()
	if h := k.ownerships[m.Name]; h != nil && h.Generation == m.Generation {
		holder = h.holder
	}
	if g := k.groups[m.Name]; g != nil {
		for _, one := range g.members {
			if one.owner.Connection == m.Connection {
				holder = one.member
			}
		}
	}
	k.mu.Unlock()
	if s, ok := holder.(Settler); ok {
		s.Rejected(c)
	}
}

// Redriven tells a subscription's owner that dead letters were put back. Where
// nobody owns it, a callback that is parked is woken.
func (k *Manager) Redriven(ctx context.Context, name string) error {
	return k.Change(ctx, name, func(s State, _ bool, env Env) (Change, error) {
		if s.Version == 0 {
			return Change{}, broker.ErrNotFound
		}
		c := s.change()
		if c.tell(s.Owner, Message{Op: OpRedrive}); s.Owner == nil && s.Parked {
			c.Record.Parked, c.Record.Grace = false, env.Now
		}
		return c, nil
	})
}

// env is what a rule is asked with, and this incarnation.
func (k *Manager) env(ctx context.Context) (Env, string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.node == "" {
		return Env{}, "", ErrSuspended
	}
	if err := ctx.Err(); err != nil {
		return Env{}, "", err
	}
	return Env{Now: time.Now(), Alive: k.alive}, k.node, nil
}

func (k *Manager) alive(node string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return node == k.node || k.known[node]
}

// refresh learns of a node that this one hasn't heard of. A new node must not
// be taken for a dead one.
func (k *Manager) refresh(ctx context.Context, node string) {
	k.mu.Lock()
	_, known := k.known[node]
	known = known || node == k.node
	k.mu.Unlock()
	if known {
		return
	}
	nodes, err := k.o.Broker.Nodes(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.known[node] = true // for now; the heartbeat finds out
		return
	}
	k.learnLocked(nodes)
	if _, known := k.known[node]; !known {
		k.known[node] = false
	}
}

func (k *Manager) learnLocked(nodes []broker.Node) {
	clear(k.known)
	clear(k.names)
	for _, n := range nodes {
		k.known[n.ID], k.names[n.ID] = n.Alive, n.Name
	}
}

// send sends a message to a node; to this one it goes directly.
func (k *Manager) send(ctx context.Context, to string, m Message) {
	if to == k.Node() {
		k.receive(m)
		return
	}
	if err := k.o.Broker.Send(ctx, to, m.encode()); err != nil {
		k.o.Logger.Debug("message to another node", "op", m.Op, "subscription", m.Name, "error", err)
	}
}

// listen takes what other nodes send.
func (k *Manager) listen(b []byte) {
	var m Message
	if json.Unmarshal(b, &m) == nil {
		k.o.Guard.Do("message", func() { k.receive(m) })
	}
}

func (k *Manager) receive(m Message) {
	switch m.Op {
	case OpFree:
		k.freed(m.Name)
		return
	case OpAck:
		k.running.Go(func() { k.o.Guard.Do("aside", func() { k.answer(m) }) })
		return
	case OpAnswer:
		k.answered(m)
		return
	case OpRejected:
		k.rejected(m)
		return
	}
	k.mu.Lock()
	h := k.ownerships[m.Name]
	g := k.groups[m.Name]
	member := g != nil && (len(g.members) > 0 || g.joining > 0)
	k.mu.Unlock()
	if m.Op == OpChanged && member {
		k.readGroup(m.Name)
	} else if m.Op == OpChanged && h == nil {
		k.running.Go(func() { k.o.Guard.Do("group", func() { k.lookAt(m.Name) }) })
	}
	if h == nil || h.Generation != m.Generation {
		return
	}
	switch m.Op {
	case OpEnd:
		h.end(m.Code, m.Reason)
	case OpYield:
		h.holder.Yield()
	case OpRedrive:
		h.holder.Redrive()
	case OpAcked:
		if p, err := event.ParsePosition(m.Position); err == nil {
			if s, ok := h.holder.(Settler); ok {
				s.Settled(p)
			}
			h.holder.Acked(p)
		}
	case OpChanged:
		k.running.Go(func() { k.o.Guard.Do("reload", h.reload) })
	}
}

func newNodeID() string { return uuid.NewString() }
