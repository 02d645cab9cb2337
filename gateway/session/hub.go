package session

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/guard"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/trace"
	"github.com/longline-push/longline/gateway/wire"
)

// Options of NewHub. Zero values take the defaults.
type Options struct {
	Broker feed.Broker
	// OffsetAt is the broker's, for since a time.
	Times cursor.Times
	// Manager owns durable subscriptions; nil: there are none.
	Manager *durable.Manager
	// Revocations are asked when a session is registered or renewed; nil:
	// nothing is ever revoked.
	Revocations *auth.Revocations
	Feeds       feed.Options // its Broker, Logger, Guard and OnCorrupt are set from here
	Logger      *slog.Logger
	Node        string // this node's name, in hello
	// Heartbeat (25 s) is how often a quiet line is kept alive.
	Heartbeat time.Duration
	// WriteTimeout (30 s) is how long a peer may take nothing.
	WriteTimeout time.Duration
	// MessageTimeout (conn.MessageTimeout) is how long a peer may take over a
	// message.
	MessageTimeout time.Duration
	// MaxChannels (1,000) a session may have.
	MaxChannels int
	// MaxAddress is how many sessions an address may have; 0: any.
	MaxAddress int
	Metrics    *Metrics // nil: not registered
	// Guard notes panics; nil: the default logger does.
	Guard *guard.Guard
	// Budget is what sessions are charged to; nil: one without limits.
	Budget *quota.Budget
	// Trace traces deliveries; nil: none.
	Trace *trace.Tracer
	// Writers is how many goroutines send; one per processor.
	Writers int
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 25 * time.Second
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = 30 * time.Second
	}
	if o.MaxChannels == 0 {
		o.MaxChannels = 1000
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Budget == nil {
		o.Budget = quota.New(quota.Limits{}, nil)
	}
	if o.Writers == 0 {
		o.Writers = runtime.GOMAXPROCS(0)
	}
	o.Feeds.Broker, o.Feeds.Logger, o.Feeds.Guard, o.Feeds.OnCorrupt = o.Broker, o.Logger, o.Guard, o.Metrics.corrupt.Inc
	return o
}

// Hub holds a node's sessions, the writers that send for them, and the clock
// that keeps them alive. All methods may be called by any goroutine.
type Hub struct {
	opts    Options
	made    time.Time
	ready   *feed.Ready
	feeds   *feed.Feeds
	poller  conn.Poller
	filters cursor.Filters

	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu          sync.Mutex
	draining    bool
	sessions    map[uint64]*Session
	entries     []entry            // dense, for the sweep
	subjects    map[string]int     // connections
	addresses   map[netip.Addr]int // connections, by what hostOf tells; empty without MaxAddress
	watched     map[*Session]int64 // closed at that time, as now has it, unless they move
	connects    int                // since memory was last given back
	lastConnect int64              // as now has it
}

// entry is what the sweep looks at each second without touching the session.
type entry struct {
	session *Session
	beat    int64 // of the next heartbeat, as now has it
	ends    int64 // Unix ms at which the grant ends: tokens go by the clock on the wall
}

// NewHub starts a hub; Close ends it.
func NewHub(opts Options) *Hub {
	opts = opts.withDefaults()
	h := &Hub{
		opts: opts, made: time.Now(), ready: feed.NewReady(),
		sessions: make(map[uint64]*Session), subjects: make(map[string]int), addresses: make(map[netip.Addr]int), watched: make(map[*Session]int64),
	}
	h.feeds = feed.New(opts.Feeds, h.ready)
	h.filters.OnCutOff = func(s cursor.Selection, item *feed.Item, first bool) {
		opts.Metrics.cutOff.Inc()
		if !first {
			return
		}
		opts.Logger.Warn("a filter was cut off and takes no such event: it costs too much", "filter", s.Filter, "bytes", len(item.JSON()))
	}
	h.poller.MessageTimeout = opts.MessageTimeout
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for i := range opts.Writers {
		h.wait.Go(func() { h.write(i == 0) })
	}
	h.wait.Go(h.sweep)
	return h
}

// Close closes all lines and waits for everything under way.
func (h *Hub) Close() {
	h.mu.Lock()
	h.draining = true
	h.mu.Unlock()
	for _, s := range h.Sessions() {
		s.Gone()
	}
	h.cancel()
	h.ready.Close()
	h.feeds.Close()
	h.wait.Wait()
	h.poller.Close()
}

// Poller watches the lines of this hub's sessions.
func (h *Hub) Poller() *conn.Poller { return &h.poller }

// Feeds are the hub's feeds.
func (h *Hub) Feeds() *feed.Feeds { return h.feeds }

// Node is this node's name.
func (h *Hub) Node() string { return h.opts.Node }

// Filters are the hub's, to be shared by whoever filters events of its feeds.
func (h *Hub) Filters() *cursor.Filters { return &h.filters }

func (h *Hub) spawn(f func(context.Context)) bool {
	if h.ctx.Err() != nil {
		return false
	}
	h.wait.Go(func() {
		defer h.opts.Guard.Contain("session", nil)
		f(h.ctx)
	})
	return true
}

// write is a shared writer: it gives each ready session its turn.
//
// One of the writers rests now and then when there is no end of work. Their
// system calls never block, so they could keep every processor busy, and then
// the runtime looks for what came in from the network only every 10 ms: a
// publish, which takes several such looks, would wait for a fan-out to end
// rather than join it.
func (h *Hub) write(rests bool) {
	var b batch
	members := make([]feed.Member, 32)
	turns := 0 // since the list was empty, or since the rest before
	for {
		n, waited := h.ready.Pop(members)
		if n == 0 {
			return
		}
		if waited {
			turns = 0
		}
		for i, m := range members[:n] {
			s := m.(*Session)
			if s.send(&b) {
				s.push() // behind the others
			}
			members[i] = nil
		}
		b.reset()
		if turns += n; rests && turns >= restFrom {
			turns -= restAfter
			time.Sleep(rest)
		}
	}
}

// A rest is as long as it takes the runtime to look at the network, which at
// most is its shortest wait there, 1 ms; restAfter turns take about as long. A
// fan-out that is over in some milliseconds isn't worth one.
const (
	restFrom  = 1024
	restAfter = 128
	rest      = 50 * time.Microsecond
)

// now is the time in ms since the hub was made, which no change of the clock
// moves.
func (h *Hub) now() int64 { return time.Since(h.made).Milliseconds() }

// add registers a session, unless a limit or a revocation says no. A token may
// have been revoked since it was verified: asked once the session can be found
// by EndWhere, no revocation slips between.
func (h *Hub) add(s *Session) error {
	if err := h.register(s); err != nil {
		return err
	}
	if err := h.opts.Revocations.Check(s.grant); err != nil {
		h.remove(s)
		return err
	}
	return nil
}

// Holds asks whether a grant that was good when its request began still is.
func (h *Hub) Holds(g *auth.Grant) error { return h.opts.Revocations.Check(g) }

func (h *Hub) register(s *Session) error {
	g := s.grant
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return wire.Unavailable(retrySpread(), "the node is draining")
	}
	if err := h.opts.Budget.TokenConnection(g, h.subjects[g.Subject]); err != nil {
		return err
	}
	if limit := h.opts.MaxAddress; limit > 0 && s.address.IsValid() {
		host := hostOf(s.address)
		if h.addresses[host] >= limit {
			h.opts.Budget.RefusedAddress()
			return wire.RateLimited(5*time.Second, "%d connections from the address %s, which is what one may have", limit, s.address)
		}
		h.addresses[host]++
	}
	for s.id == 0 || h.sessions[s.id] != nil {
		s.id = rand.Uint64()
	}
	h.sessions[s.id] = s
	h.subjects[g.Subject]++
	s.index = int32(len(h.entries))
	now := h.now()
	h.entries = append(h.entries, entry{
		session: s,
		// Spread, so that ten thousand that came at once don't beat at once.
		beat: now + rand.N(h.opts.Heartbeat).Milliseconds() + 1,
		ends: g.Ends().UnixMilli(),
	})
	h.connects++
	h.lastConnect = now
	return nil
}

// hostOf is what one client has addresses of: an IPv4 address, or the /64 of an
// IPv6 one, in which a client takes whichever it likes.
func hostOf(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

func (h *Hub) remove(s *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[s.id] != s {
		return
	}
	delete(h.sessions, s.id)
	delete(h.watched, s)
	if h.subjects[s.grant.Subject]--; h.subjects[s.grant.Subject] <= 0 {
		delete(h.subjects, s.grant.Subject)
	}
	if host := hostOf(s.address); h.addresses[host] > 1 {
		h.addresses[host]--
	} else {
		delete(h.addresses, host)
	}
	last := len(h.entries) - 1
	h.entries[s.index] = h.entries[last]
	h.entries[s.index].session.index = s.index
	h.entries[last] = entry{}
	h.entries = h.entries[:last]
}

func (h *Hub) renewed(s *Session, g *auth.Grant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[s.id] == s {
		h.entries[s.index].ends = g.Ends().UnixMilli()
	}
}

// watch closes a session after d unless it moves on before.
func (h *Hub) watch(s *Session, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[s.id] == s {
		h.watched[s] = h.now() + d.Milliseconds()
	}
}

// sweep is the hub's clock: heartbeats, ends of grants, lines that stand
// still.
func (h *Hub) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
		}
		now, clock := h.now(), time.Now().UnixMilli()
		var beats, ended, stuck []*Session
		h.mu.Lock()
		for i := range h.entries {
			e := &h.entries[i]
			if e.ends <= clock {
				ended = append(ended, e.session)
			} else if e.beat <= now {
				e.beat = now + h.opts.Heartbeat.Milliseconds()
				beats = append(beats, e.session)
			}
		}
		for s, at := range h.watched {
			if at <= now {
				delete(h.watched, s)
				stuck = append(stuck, s)
			}
		}
		surged := h.surgedLocked(now)
		h.mu.Unlock()
		for _, s := range ended {
			s.swept(func() { s.End(wire.CloseUnauthorized, "the token expired", 0) })
		}
		for _, s := range beats {
			s.swept(s.beat)
		}
		for _, s := range stuck {
			s.swept(func() { s.stuck(now) })
		}
		if surged {
			giveBack()
		}
	}
}

// swept does what the sweep found to be due for the session.
func (s *Session) swept(f func()) {
	defer s.Contain("sweep")
	f()
}

const sweepEvery = 500 * time.Millisecond

// beat keeps the line alive and notices a peer that doesn't answer.
func (s *Session) beat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.ending {
		return
	}
	heard := s.heard.Swap(false)
	pings := s.codec.Traits().Pings
	if heard {
		s.unponged = 0
	} else if s.unponged++; pings && s.unponged > 2 {
		s.endLocked(wire.CloseTimeout, "two pings were not answered", time.Second)
		s.push()
		return
	}
	if s.said && !s.moved && !pings {
		s.said = false // it is alive as it is
		return
	}
	s.movedLocked()
	position := ""
	if s.moved {
		position = s.positionLocked()
	}
	s.moved, s.said = false, false
	if b := s.codec.Heartbeat(position); b != nil && len(s.control) < maxWaiting {
		s.control = append(s.control, b)
	}
	s.push()
}

// stuck closes a session that didn't move for too long.
func (s *Session) stuck(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
	case s.ending:
		s.goneLocked()
	case s.blocked.Load():
		if left := s.hub.opts.WriteTimeout - time.Duration(now-s.blockedAt)*time.Millisecond; left > 0 {
			s.hub.watch(s, left) // it moved meanwhile
			return
		}
		s.hub.opts.Metrics.timeouts.Inc()
		s.goneLocked()
	}
}
