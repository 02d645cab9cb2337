package longline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
)

// Handler handles one event. The event is done when it returns nil; other
// errors have it called again later, but for Reject. It is called by several
// goroutines at once if Concurrency allows, never for two events of one key.
type Handler func(ctx context.Context, e Event) error

// BatchHandler handles several events, all or, by Reject with ids, some.
type BatchHandler func(ctx context.Context, events []Event) error

// SubscriptionOptions say how a subscription's events are handled. One of Handler and
// BatchHandler must be set, or the subscription be read by Events.
type SubscriptionOptions struct {
	Handler      Handler
	BatchHandler BatchHandler
	// BatchSize is the most events a BatchHandler gets at once. Default: 100.
	BatchSize int
	// BatchWait is how long an event waits for company. Default: 0, so that a
	// batch is what came while the handler was busy.
	BatchWait time.Duration

	// Concurrency is how many calls of the handler there may be at once.
	// Default: 1, and then all events come in order. With more, the events of
	// one key (CloudEvents' partitionkey) still come in order, one at a time;
	// those without a key in any order.
	Concurrency int
	// Rate is how many calls of the handler may begin per second, in bursts of
	// one second's worth at most. Default: no limit.
	Rate float64
	// Tries is how often an event is handed to the handler before it is
	// rejected. Negative: until it passes. Default: 8, which takes about two
	// minutes. A batch's events go alone on their last try.
	Tries int
	// MinBackoff and MaxBackoff bound the waits between tries, which double
	// and are jittered. Other keys go on meanwhile. Defaults: 1 s, 1 min.
	MinBackoff, MaxBackoff time.Duration

	// Window is how many events may be received and not done: it bounds
	// memory. On a durable subscription, the default is the subscription's own; below
	// 100 it also bounds throughput, since acknowledgements are sent 20 times a
	// second or for 100 events. On an ephemeral subscription the default is 1024.
	Window int
	// Consumer names who attaches. A second subscription of the same consumer takes
	// the subscription over and ends the first with ErrTakenOver; one of
	// another consumer stands by until the first is gone. Default: one of its
	// own for each subscription, so that more processes stand by for the first. Durable
	// lines only.
	Consumer string
	// Grace is how long handlers may go on when Run's context has ended,
	// before theirs ends too. Default: 10 s.
	Grace time.Duration

	// Secrets are the callback's, "whsec_…": any of them may have signed.
	Secrets []string
	// Remember is how many events are remembered as done, so that what is
	// announced as possibly coming twice is handled once. Default: 10000.
	// Durable lines only, as is Store.
	Remember int
	// Store, if set, remembers beyond this process.
	Store Store

	// OnState is told how the subscription is, OnGap what won't come. They are called
	// by one goroutine and hold up the subscription.
	OnState func(State)
	OnGap   func(Gap)
	// OnReject is told which events were rejected and why; on an ephemeral
	// subscription nobody else is. It may be called by several goroutines at once.
	OnReject func(Event, error)
}

// Store remembers handled events, for those who run several processes or
// want to know across restarts. Its methods may be called by several
// goroutines at once; an error from Handled counts as one of the handler.
type Store interface {
	// Handled tells whether MarkHandled was called for the key. It is asked
	// only for events announced as possibly coming twice.
	Handled(ctx context.Context, key string) (bool, error)
	MarkHandled(ctx context.Context, key string) error
}

// Selection says what an ephemeral subscription brings.
type Selection struct {
	Channels []string
	Types    []string // patterns; none: all
	// Since is a cursor or position (exclusive), "earliest", "latest" (the
	// default), or an RFC 3339 time.
	Since string
	// Lag says what happens when the subscription can't keep up: "catchup" (the
	// default) reads on from the log, "conflate" keeps the newest event per
	// key, "latest" skips to the head, "close" closes.
	Lag string
}

// Gap tells that the events after From up to and including To, both cursors
// of Channel, won't come.
type Gap struct {
	Channel, From, To string
	Reason            string // "retention", "reset", "conflated" or "lag"
}

// Phase is what a subscription is doing.
type Phase string

// The phases of a subscription.
const (
	Connecting Phase = "connecting"
	Live       Phase = "live"    // events come
	Standby    Phase = "standby" // another consumer is attached; this is next
	Waiting    Phase = "waiting" // disconnected, will connect again after Retry
	Closed     Phase = "closed"  // Run is about to return
)

// State is how a subscription is.
type State struct {
	Phase      Phase
	Transport  Transport     // when Live or Standby
	Connection string        // the gateway's name for it, when Live
	Recovered  bool          // when Live: nothing was missed since last time
	Err        error         // when Waiting or Closed: why
	Retry      time.Duration // when Waiting
}

// Subscription brings events to a handler. Make one by Client.Subscribe or
// Client.Attach.
type Subscription struct {
	// static after construction
	client     *Client
	name       string // of the durable subscription, or ""
	selection  Selection
	options    SubscriptionOptions
	secrets    [][]byte
	dispatcher *dispatcher
	moved      moved
	// open connects by one transport and reads the first frame.
	open func(context.Context, Transport, string) (conn, frame, error)

	mu      sync.Mutex
	running bool
	tracker *ackTracker // of the present or last connection
	pulled  chan pulled // to Events, while it runs

	// owned by Run
	wsFailures int // in a row
}

// Subscribe makes an ephemeral subscription: whatever of the selection appears while
// Run is running. Its place in the channels is kept in memory across
// connections; keep Position to go on from there another time.
func (c *Client) Subscribe(s Selection, o SubscriptionOptions) (*Subscription, error) {
	if len(s.Channels) == 0 {
		return nil, &Error{Code: ErrBadRequest.Code, Detail: "no channels to subscribe to"}
	}
	for _, channel := range s.Channels {
		if err := event.CheckChannel(channel); err != nil {
			return nil, &Error{Code: ErrBadRequest.Code, cause: err}
		}
	}
	for _, t := range s.Types {
		if _, err := event.ParsePattern(t); err != nil {
			return nil, &Error{Code: ErrBadRequest.Code, cause: err}
		}
	}
	switch s.Lag {
	case "", "catchup", "conflate", "latest", "close":
	default:
		return nil, &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("lag is %q, want catchup, conflate, latest or close", s.Lag)}
	}
	return c.subscription("", s, o)
}

// Attach makes a subscription of the durable subscription with that name, which must
// exist. What is handled is acknowledged; what is not comes again.
func (c *Client) Attach(name string, o SubscriptionOptions) (*Subscription, error) {
	if name == "" {
		return nil, &Error{Code: ErrBadRequest.Code, Detail: "no name of a subscription"}
	}
	return c.subscription(name, Selection{}, o)
}

func (c *Client) subscription(name string, s Selection, o SubscriptionOptions) (*Subscription, error) {
	bad := func(format string, args ...any) (*Subscription, error) {
		return nil, &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf(format, args...)}
	}
	if o.Handler != nil && o.BatchHandler != nil {
		return bad("both Handler and BatchHandler are set, want one")
	}
	if math.IsNaN(o.Rate) || o.Rate < 0 || o.Window < 0 || o.Concurrency < 0 || o.BatchSize < 0 {
		return bad("Rate, Window, Concurrency and BatchSize must not be negative")
	}
	secrets, err := parseSecrets(o.Secrets)
	if err != nil {
		return nil, err
	}
	fill(&o.Concurrency, 1)
	if o.Tries == 0 {
		o.Tries = 8
	}
	if o.BatchHandler == nil {
		o.BatchSize = 1
	}
	fill(&o.BatchSize, 100)
	fill(&o.MinBackoff, time.Second)
	fill(&o.MaxBackoff, time.Minute)
	fill(&o.Grace, 10*time.Second)
	fill(&o.Remember, 10000)
	if name == "" {
		fill(&o.Window, 1024)
	} else if o.Consumer == "" {
		o.Consumer = newID()
	}
	l := &Subscription{client: c, name: name, selection: s, options: o, secrets: secrets, tracker: newAckTracker()}
	l.tracker.mute = name == ""
	l.open = l.dial
	l.dispatcher = &dispatcher{
		concurrency: o.Concurrency, batch: o.BatchSize, wait: o.BatchWait, tries: o.Tries,
		least: o.MinBackoff, most: o.MaxBackoff, pace: newPace(o.Rate),
		store: o.Store, dedupe: name != "", handle: l.handle, onReject: o.OnReject, log: c.log,
		lanes: make(map[string]*lane), jobs: make(map[identity]*job), past: newMemory(o.Remember),
	}
	return l, nil
}

// handle calls whichever handler there is.
func (l *Subscription) handle(ctx context.Context, events []Event) error {
	if l.options.BatchHandler != nil {
		return l.options.BatchHandler(ctx, events)
	}
	if t := l.client.options.TraceContext; t != nil {
		ctx = t.Extract(ctx, carrier{&events[0]})
	}
	if l.options.Handler != nil {
		return l.options.Handler(ctx, events[0])
	}
	return l.pull(ctx, events[0])
}

// Position is how far everything is done: one cursor per channel, joined by
// commas. Give it to Selection.Since to go on from there.
func (l *Subscription) Position() string { return l.current().done() }

func (l *Subscription) current() *ackTracker {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tracker
}

// Run connects, and again whenever the connection is lost, and hands events
// to the handler. It returns nil when ctx has ended: then no new events are
// handled, those in progress get Grace to end, and what is done is
// acknowledged. It returns an error only if trying again is no use:
// ErrForbidden, ErrNotFound, ErrTakenOver and the like.
func (l *Subscription) Run(ctx context.Context) error {
	l.mu.Lock()
	handled := l.options.Handler != nil || l.options.BatchHandler != nil || l.pulled != nil
	running := l.running
	l.running = true
	l.mu.Unlock()
	switch {
	case running:
		return &Error{Code: ErrConflict.Code, Detail: "subscription is running already"}
	case !handled:
		l.stopped()
		return &Error{Code: ErrBadRequest.Code, Detail: "subscription has no handler"}
	}
	defer l.stopped()

	handling, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	l.dispatcher.begin(handling)
	err := l.keep(ctx, cancel)
	if err != nil && ctx.Err() != nil && !isFinal(err) {
		err = nil
	}
	if err != nil {
		cancel(err)
	}
	l.drain(cancel, context.Cause(ctx))
	l.rewind()
	l.dispatcher.end()
	l.tell(State{Phase: Closed, Err: err})
	return err
}

// drain lets the calls in progress end, which have Grace for it, and begins
// no more.
func (l *Subscription) drain(cancel context.CancelCauseFunc, cause error) {
	if l.name != "" {
		l.dispatcher.drop(false)
	} else {
		l.dispatcher.clear()
	}
	grace := time.AfterFunc(l.options.Grace, func() { cancel(cause) })
	defer grace.Stop()
	<-l.dispatcher.idle()
}

// rewind goes back to what is done, so that another Run brings the rest.
func (l *Subscription) rewind() {
	if l.name != "" {
		return // the gateway knows
	}
	fresh := newAckTracker()
	fresh.mute = true
	fresh.stepAll(l.current().done())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tracker = fresh
}

func (l *Subscription) stopped() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
}

func (l *Subscription) tell(s State) {
	about := []any{"subscription", cmp.Or(l.name, strings.Join(l.selection.Channels, ","))}
	if s.Transport != "" {
		about = append(about, "transport", string(s.Transport), "connection", s.Connection)
	}
	if s.Err != nil {
		about = append(about, "error", s.Err)
	}
	if s.Phase == Waiting {
		about = append(about, "retry", s.Retry)
	}
	l.client.log.Info(string(s.Phase), about...)
	if l.options.OnState != nil {
		l.options.OnState(s)
	}
}

// maxMalformed is how many connections in a row may end by something that
// can't be read before the subscription gives up.
const maxMalformed = 3

// keep connects, over and over, until ctx ends or there is no use.
func (l *Subscription) keep(ctx context.Context, cancel context.CancelCauseFunc) error {
	wait := backoff{least: l.client.options.MinBackoff, most: l.client.options.MaxBackoff}
	refused, malformed := 0, 0 // in a row
	for {
		l.tell(State{Phase: Connecting})
		s, err := l.connect(ctx)
		if err == nil {
			refused = 0
			err = s.run(ctx, cancel)
			if s.useful {
				wait.reset()
				malformed = 0
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		pause := time.Duration(-1)
		var e *Error
		switch {
		case errors.Is(err, errSlow):
			if !l.catchUp(ctx) {
				return nil
			}
			pause = 0
		case errors.Is(err, ErrUnauthorized) && l.client.options.TokenFunc != nil && refused == 0:
			refused++ // a token may have expired since; ask for another, once
			pause = 0
		case errors.Is(err, ErrMalformed):
			if malformed++; malformed >= maxMalformed {
				return err
			}
		case isFinal(err):
			return err
		}
		if errors.As(err, &e) && e.RetryAfter > 0 {
			pause = e.RetryAfter
		}
		if pause < 0 {
			pause = wait.next()
		}
		l.tell(State{Phase: Waiting, Err: err, Retry: pause})
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// isFinal tells whether connecting again is no use.
func isFinal(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.final
}

// catchUp waits, without a connection, until the handler has done half a
// window, and returns whether it did before ctx ended.
func (l *Subscription) catchUp(ctx context.Context) bool {
	l.tell(State{Phase: Waiting, Err: errSlow})
	for {
		room := l.current().full(max(l.options.Window/2, 1))
		if room == nil {
			return true
		}
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
	}
}
