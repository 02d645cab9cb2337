// Package callback delivers a subscription's events by HTTP POST.
//
// Whoever claimed a subscription hands it to the Engine, which runs a Worker
// for it:
//
//	Source ─ read ─▶ queue ─ pick ─▶ call ─ answer ─▶ settle ─▶ queue ─ position ─▶ Progress
//	                   ▲   breaker, rate, slow start     │
//	                   └── again, split ─────────────────┘
//
// The worker reads what its window takes (queue.go, pick.go: order, lanes, batches,
// poison), sends one unit after another (exchange.go), waits as
// the endpoint's health demands (health.go), and acknowledges the contiguous
// prefix (commit.go). Nothing is shared between workers but connections and a
// budget for parallel calls, so that no endpoint waits for another's.
package callback

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/guard"
	"github.com/longline-push/longline/gateway/shape"
	"github.com/longline-push/longline/gateway/trace"
	"golang.org/x/time/rate"
)

// Subscription is a claimed subscription: all that its worker must know. It
// is not changed once given; a change of definition is a new claim.
type Subscription struct {
	Name     string
	Position event.Position // acknowledged, for every channel
	Window   int            // events read past the contiguous prefix; 0: 256

	Target
	Rate        float64       // calls a second; 0: as fast as answered
	ByKey       bool          // order by key, else by channel
	Partitions  int           // of a group; 0: it is none
	Concurrency int           // calls in flight where ByKey; 0: 1
	MaxEvents   int           // of a batch; 0 or 1: no batches
	MaxWait     time.Duration // for a batch to fill
	Timeout     time.Duration // of a whole exchange; 0: 15 s
}

// Patience is how long a call in flight may take when the subscription goes
// to another owner.
const Patience = 2 * time.Second

// Options of an Engine.
type Options struct {
	// Dialing says what may be connected to. The zero value: public addresses.
	Dialing Dialing
	// Transport replaces the one that Dialing makes.
	Transport http.RoundTripper
	// Linger is how long a worker that has nothing more to deliver follows its
	// channels before it is done. 0: 10 s.
	Linger time.Duration
	// MaxSockets bounds the connections of all calls together, those that are
	// kept for the next one included. A call that finds none free in time was
	// not made, and is no failure of its endpoint. 0: any number.
	MaxSockets int
	// MaxActive is how many workers may be active at once before Room says
	// that there is none; those that wait out a backoff don't count. 0: 4,096,
	// or four times MaxSockets if that is less: most wait for events, not for
	// answers.
	MaxActive int
	// MaxParallel bounds the calls in flight beyond each worker's first, which
	// it always may make; workers share it evenly. 0: 2,048, or half of
	// MaxSockets if that is less.
	MaxParallel int
	// MaxBytes bounds the events that are held to be sent, beyond each worker's
	// next; workers share it evenly. 0: 64 MiB.
	MaxBytes int
	History  *History      // of attempts; nil: none is kept
	Logger   *slog.Logger  // nil: none
	Metrics  *Metrics      // nil: none
	Guard    *guard.Guard  // notes panics; may be nil
	Trace    *trace.Tracer // traces calls; nil: none
}

// Engine runs the callbacks of a node. All methods may be called by many
// goroutines at once.
type Engine struct {
	opt   Options
	via   http.RoundTripper
	pool  *http.Transport // via, if it is ours to close
	quota *quota          // of calls
	bytes *quota          // of events at hand

	sockets *sockets // of via and certificates; nil: any number

	tokens       *shape.Tokens
	certificates *lru.Cache[[sha256.Size]byte, *http.Transport] // by client certificate

	mu      sync.Mutex
	workers map[*Worker]struct{}
	active  int
	closed  bool
	running sync.WaitGroup // one per worker, asleep ones included
}

// ErrClosed: the engine takes no more subscriptions.
var ErrClosed = errors.New("callback engine is closed")

// New returns an engine.
func New(o Options) *Engine {
	if o.Linger == 0 {
		o.Linger = 10 * time.Second
	}
	sockets := o.MaxSockets
	if sockets == 0 {
		sockets = math.MaxInt
	}
	if o.MaxActive == 0 {
		o.MaxActive = min(4096, 4*min(sockets, 1024))
	}
	if o.MaxParallel == 0 {
		o.MaxParallel = min(2048, sockets/2)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	e := &Engine{bytes: &quota{total: o.MaxBytes}, opt: o, via: o.Transport, quota: &quota{total: o.MaxParallel}, workers: map[*Worker]struct{}{}}
	e.sockets = newSockets(o.MaxSockets, e.closeIdle)
	if e.via == nil {
		e.pool = o.Dialing.transport(e.sockets)
		e.via = e.pool
	}
	e.tokens = shape.NewTokens(e.via)
	e.certificates, _ = lru.NewWithEvict(maxCertified, func(_ [sha256.Size]byte, t *http.Transport) { t.CloseIdleConnections() })
	return e
}

// Room says how many more subscriptions the node should claim.
func (e *Engine) Room() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return 0
	}
	return max(e.opt.MaxActive-e.active, 0)
}

// Deliver starts to deliver a claimed subscription's events. ended is called
// once, when the worker will touch nothing any more, from a goroutine of the
// worker's.
func (e *Engine) Deliver(sub Subscription, from Source, to Progress, ended func(Result)) (*Worker, error) {
	receiver, err := e.receiver(&sub.Target)
	if err != nil {
		return nil, fmt.Errorf("callback of %q: %w", sub.Name, err)
	}
	if sub.Window <= 0 {
		sub.Window = 256
	}
	if sub.Timeout <= 0 {
		sub.Timeout = 15 * time.Second
	}
	if sub.Concurrency < 1 || !sub.ByKey {
		sub.Concurrency = 1
	}
	w := &Worker{
		e: e, sub: sub, to: receiver, source: from, progress: to, ended: ended,
		q:       newQueue(sub.Position, sub.Window, sub.MaxEvents, sub.MaxWait, sub.ByKey),
		h:       health{ramp: rampSteps},
		over:    working,
		commits: committer{at: slices.Clone(sub.Position)},
		yielded: make(chan struct{}), done: make(chan struct{}), poke: make(chan struct{}, 1),
	}
	if sub.Rate > 0 {
		w.limiter = rate.NewLimiter(rate.Limit(sub.Rate), max(int(sub.Rate), 1))
	}
	if sub.Concurrency > 1 {
		w.results = make(chan result, sub.Concurrency)
	}
	w.ctx, w.stop = context.WithCancelCause(context.Background())
	w.calls, w.cancelCalls = context.WithCancelCause(w.ctx)

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	e.workers[w] = struct{}{}
	e.active++
	e.running.Add(1)
	e.opt.Metrics.Active.Inc()
	e.bytes.join()
	if sub.Concurrency > 1 {
		e.quota.join()
	}
	go w.run()
	return w, nil
}

// Halt ends all workers now: calls in flight are cancelled and nothing more is
// committed. It is for a node that lost its broker. It waits for their end.
func (e *Engine) Halt() {
	for _, w := range e.all() {
		w.Halt()
	}
	for _, w := range e.all() {
		<-w.done
	}
}

// Drain takes no more subscriptions and lets all workers yield: no new call
// starts, and those in flight may end until ctx nearly does. What then is
// still in flight is cut off, so that what was answered is committed in time.
// It doesn't wait; Close does.
func (e *Engine) Drain(ctx context.Context) {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	patience := Patience
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline) * 8 / 10
	}
	for _, w := range e.all() {
		w.Yield(patience)
	}
}

// Close drains, and waits for the workers' end.
func (e *Engine) Close(ctx context.Context) {
	e.Drain(ctx)
	ended := make(chan struct{})
	go func() { e.running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		e.Halt()
		<-ended
	}
	if e.pool != nil {
		e.pool.CloseIdleConnections()
		e.certificates.Purge()
	}
}

func (e *Engine) all() []*Worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*Worker, 0, len(e.workers))
	for w := range e.workers {
		all = append(all, w)
	}
	return all
}

// setActive notes that a worker fell asleep or woke.
func (e *Engine) setActive(by int) {
	e.mu.Lock()
	e.active += by
	e.mu.Unlock()
	e.opt.Metrics.Active.Add(float64(by))
}

func (e *Engine) leave(w *Worker) {
	e.mu.Lock()
	delete(e.workers, w)
	e.mu.Unlock()
	e.setActive(-1)
	e.bytes.leave()
	if w.sub.Concurrency > 1 {
		e.quota.leave()
	}
	e.running.Done()
}
