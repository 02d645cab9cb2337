package durable

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
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
	// Publish tells of what happens to subscriptions, for the gateway's own
	// channel; it must not block. nil: nobody is told.
	Publish func(kind, name string, data any)
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
	h       *Ownership
	handed  event.Position
	reached event.Position // how far this one got; no further than it was delivered
	doubt   bool           // more than handed may have been delivered
	after   time.Duration
	how     func(State, Env) (Change, error) // nil: Release
	quiet   bool                             // nobody was told that it attached
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
	if o.Publish == nil {
		o.Publish = func(string, string, any) {}
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
	for before := uint64(0); ; {
		stored, err := k.o.Broker.Load(ctx, name)
		if err != nil {
			return State{}, err
		}
		s, err := Decode(stored)
		if err != nil || !s.divided() {
			return s, err
		}
		own := s.Position
		whole, err := k.Complete(ctx, &s)
		if err != nil || whole {
			return s, err
		}
		if s.Version == before {
			// Its partitions are no longer there, and not since it was divided in
			// another way: the broker forgot them. See Mend.
			s.Parts, s.Position = nil, own
			return s, nil
		}
		before = s.Version
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
			k.o.Publish("attached", name, map[string]string{"consumer": c.Consumer, "transport": c.Transport, "connection": c.Connection})
		}
		return h, err
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
		// One that is parked may be due for an event: then it is at once again.
		parked := s.Parked && change.Record.Owner != nil && env.Now.Sub(s.Touched) > restTime/2
		if rest, e := Rest(s, env); e == nil && (parked || errors.Is(err, ErrNotDue)) && k.rests(ctx, s) {
			change, err = rest, nil
		}
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
			k.o.Publish("expired", name, nil)
		}
		return h, err == nil, err
	}
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

// Counts tells whether this node is the one to count a subscription in what all
// nodes count together: it owns it, or has its first member; what nobody does is
// the first node's to count.
func (k *Manager) Counts(s *State) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case s.Owner != nil:
		return s.Owner.Node == k.node
	case len(s.Members) > 0:
		return s.Members[0].Node == k.node
	}
	for other, alive := range k.known {
		if alive && other < k.node {
			return false
		}
	}
	return k.node != ""
}

func newNodeID() string { return uuid.NewString() }
