package callback

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"golang.org/x/time/rate"
)

// Outcome says why a worker ended.
type Outcome int

const (
	// CaughtUp: all there is was delivered and acknowledged.
	CaughtUp Outcome = iota
	// Yielded: as Yield demanded; what was acknowledged is committed.
	Yielded
	// Fenced: the subscription has another owner, or is gone.
	Fenced
	// Disabled: the receiver answered 410.
	Disabled
	// Halted: as Halt demanded.
	Halted
	// Broken: the worker panicked. Nothing more was committed.
	Broken
	working // not yet
)

// Result is what a worker leaves behind.
type Result struct {
	Outcome       Outcome
	Position      event.Position // committed; of CaughtUp also: nothing is behind it
	DeliveredUpTo event.Position // events up to here may have been delivered; nil: none beyond Position
	Attempts      []Attempt      // the last ones, oldest first
	Status        Status
}

// napAfter is how long a wait must be for the worker to give up its goroutine
// and the events it read: 100,000 endpoints may be down at once.
const napAfter = 2 * time.Second

var (
	errYielded = errors.New("the subscription goes to another owner")
	errFenced  = errors.New("the subscription has another owner")
	errHalted  = errors.New("the node lost its broker")
)

// Worker delivers one claimed subscription's events. Its methods may be called
// by many goroutines at once.
type Worker struct {
	// static
	e        *Engine
	sub      Subscription
	to       *receiver
	source   Source
	progress Progress
	ended    func(Result)
	limiter  *rate.Limiter // nil: none
	results  chan result   // nil: calls are made in line
	done     chan struct{} // closed at the end
	poke     chan struct{} // 1: something in mu's domain changed

	ctx         context.Context // ended by Halt
	stop        context.CancelCauseFunc
	calls       context.Context // of ctx; ended by impatience and fencing too
	cancelCalls context.CancelCauseFunc

	// owned by run
	atHead    bool      // the source had nothing more
	readAfter time.Time // not before, the broker is in trouble
	busy      time.Time // when there was something to do

	mu        sync.Mutex
	q         *queue
	h         health
	log       attempts
	status    int    // of the last call
	lastError string // of the last call, "" if it went well
	inFlight  int
	reserved  int     // of the engine's bytes
	over      Outcome // not working: why to end
	yielded   chan struct{}
	alarm     *time.Timer // asleep: wakes it
	released  []bool      // of a group: the partitions that were given up
	commits   committer
}

// result is what came of a call in a goroutine of its own.
type result struct {
	u *unit
	a answer
}

// Yield makes the worker start no new call, give the one in flight so long to
// end, commit, and end. It doesn't wait; see Done.
func (w *Worker) Yield(patience time.Duration) {
	w.finishAs(Yielded, patience)
}

// Fence makes the worker end at once: the subscription has another owner.
func (w *Worker) Fence() { w.finishAs(Fenced, 0) }

// Acknowledged tells the worker that everything up to p is done, by somebody
// else's word.
func (w *Worker) Acknowledged(p event.Position) {
	w.mu.Lock()
	w.q.acknowledged(p)
	w.mu.Unlock()
	w.nudge()
}

// Halt makes the worker end at once, committing nothing.
func (w *Worker) Halt() {
	w.stop(errHalted)
	w.finishAs(Halted, 0)
}

// Done is closed when the worker touches nothing any more.
func (w *Worker) Done() <-chan struct{} { return w.done }

// Name is the subscription's.
func (w *Worker) Name() string { return w.sub.Name }

// Calls counts the calls that were answered or failed, so that a look tells
// whether there is anything new.
func (w *Worker) Calls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.count
}

// Status tells how the callback is doing.
func (w *Worker) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.statusLocked(time.Now())
}

func (w *Worker) statusLocked(now time.Time) Status {
	s := Status{Breaker: w.h.breaker(now), LastStatus: w.status, LastError: w.lastError, InFlight: w.inFlight}
	next := w.h.next.UTC()
	for _, u := range w.q.retry {
		if !w.q.byKey && !w.h.open() {
			next = later(next, u.notBefore.UTC())
		}
	}
	if next.After(now) {
		s.NextAttempt = &next
	}
	return s
}

// Attempts returns the last calls, oldest first.
func (w *Worker) Attempts() []Attempt {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.list()
}

// run is the worker's goroutine: it delivers until the end, or until there is
// nothing to do for long, and then leaves it to a timer to start it again.
func (w *Worker) run() {
	defer w.e.opt.Guard.Contain("callback", func() {
		w.finishAs(Broken, 0)
		w.end()
	})
	var timer = time.NewTimer(0)
	defer timer.Stop()
	w.busy = time.Now()
	for {
		w.read()
		u, at, deaf := w.next()
		if u != nil {
			w.busy = time.Now()
			w.send(u)
			continue
		}
		if w.ending() {
			break
		}
		now := time.Now()
		if w.readsMore(now) {
			continue
		}
		if deaf && at.Sub(now) > napAfter {
			if w.nap(at) {
				return
			}
			at = now.Add(napAfter)
		}
		if w.idle() {
			at = w.busy.Add(w.e.opt.Linger)
			if !now.Before(at) {
				if w.flush() {
					w.finishAs(CaughtUp, 0)
				} else {
					w.busy = now // what isn't committed isn't done
				}
				continue
			}
		}
		if w.readAfter.After(now) {
			at = sooner(at, w.readAfter)
		}
		w.wait(timer, at)
	}
	w.end()
}

// wait returns when something may have changed, or at the time at if it isn't
// zero.
func (w *Worker) wait(timer *time.Timer, at time.Time) {
	var wake <-chan struct{}
	if w.atHead {
		wake = w.source.Wake()
	}
	var alarm <-chan time.Time
	if !at.IsZero() {
		timer.Reset(time.Until(at))
		alarm = timer.C
	}
	select {
	case <-wake:
		w.atHead = false
	case <-alarm:
	case r := <-w.results:
		w.settle(r.u, &r.a)
	case <-w.poke:
	case <-w.yielded:
	}
}

// readsMore tells whether read would read something now.
func (w *Worker) readsMore(now time.Time) bool {
	if w.atHead || now.Before(w.readAfter) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.over == working && w.q.hungry(w.h.open()) > 0 && !(w.q.tight && w.q.idle > 0)
}

// read fills the queue, as far as it is worth it now.
func (w *Worker) read() {
	w.mu.Lock()
	want := w.q.hungry(w.h.open())
	if w.over != working || w.atHead || !w.readAfter.IsZero() && time.Now().Before(w.readAfter) {
		want = 0
	}
	bytes := 0
	if want > 0 {
		bytes = w.reserveLocked()
	}
	after := w.q.read
	w.mu.Unlock()
	if bytes == 0 {
		return
	}
	defer func() {
		w.mu.Lock()
		w.settleBytesLocked()
		w.mu.Unlock()
	}()
	page, err := w.source.Read(w.ctx, after, min(want, 512), bytes)
	switch {
	case errors.Is(err, broker.ErrFenced):
		w.finishAs(Fenced, 0)
		return
	case err != nil:
		if w.ctx.Err() == nil {
			w.e.opt.Logger.Warn("read events for callback", "subscription", w.sub.Name, "error", err)
		}
		w.readAfter = time.Now().Add(time.Second/2 + rand.N(time.Second))
		return
	}
	w.readAfter = time.Time{}
	w.atHead = len(page.Events) == 0 && len(page.Gaps) == 0 && slices.Equal(page.Position, after)
	for _, g := range page.Gaps {
		w.progress.Notify(Notice{Kind: GapFound, Status: w.Status(), Gap: g})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.q.add(page, time.Now())
	w.commitSoonLocked(0)
}

// reserveLocked returns how many bytes of events may be read now. One event is
// always allowed where nothing waits to be sent, however little is left.
func (w *Worker) reserveLocked() int {
	want := readBytes
	if w.sub.Concurrency == 1 {
		want = min(want, pageBytes-w.q.bytes) // one lane in order needs no more at hand
	}
	n := w.e.bytes.take(max(want, 0), w.reserved)
	w.reserved += n
	if w.q.tight = n == 0; w.q.tight && w.q.idle == 0 {
		n = 1
	}
	return n
}

// settleBytesLocked makes what is reserved what is held.
func (w *Worker) settleBytesLocked() {
	if n := w.reserved - w.q.bytes; n != 0 {
		w.e.bytes.put(n)
		w.reserved = w.q.bytes
	}
}

// next returns the unit to send now, or when to ask again; deaf if nothing
// that may be published meanwhile makes that any sooner.
func (w *Worker) next() (u *unit, at time.Time, deaf bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	switch {
	case w.over != working, w.q.empty(), w.inFlight >= w.sub.Concurrency, w.commits.behind(w.sub.Window):
		return nil, time.Time{}, false
	}
	if w.limiter != nil {
		if short := 1 - w.limiter.TokensAt(now); short > 0 {
			return nil, now.Add(time.Duration(short/w.sub.Rate*float64(time.Second)) + time.Microsecond), w.inFlight == 0
		}
	}
	start, well := w.h.mayStart(now, w.inFlight)
	if !well && w.inFlight == 0 {
		// Right after a suspect failed, whatever the breaker says: would
		// another one fare better? So the head is always tried first, and
		// nothing overtakes it when an outage ends.
		if u = w.q.another(); u != nil {
			w.startLocked(u, now)
			u.opened = -1 // it says nothing new about the endpoint
			return u, time.Time{}, false
		}
	}
	if !well {
		return nil, start, w.inFlight == 0
	}
	if w.inFlight > 0 && w.e.quota.take(1, w.inFlight-1) == 0 {
		return nil, now.Add(20 * time.Millisecond), false
	}
	if u = w.q.another(); u == nil {
		u, at = w.q.pick(now, w.h.open())
	}
	if u == nil {
		if w.inFlight > 0 {
			w.e.quota.put(1)
		}
		return nil, at, w.inFlight == 0 && w.q.blocked()
	}
	w.startLocked(u, now)
	return u, time.Time{}, false
}

func (w *Worker) startLocked(u *unit, now time.Time) {
	w.inFlight++
	u.opened = w.h.opened
	if u.condemned != "" {
		return
	}
	u.attempts++
	for _, it := range u.items {
		it.tried = true
	}
	w.h.start(now)
	if w.limiter != nil {
		w.limiter.AllowN(now, 1)
	}
}

// idle tells whether everything is delivered as far as the source knows.
func (w *Worker) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.atHead && w.inFlight == 0 && w.q.empty()
}

// nap ends the goroutine until a time. It returns false if there is no time
// for that.
func (w *Worker) nap(at time.Time) bool {
	if !w.flush() {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over != working {
		return false
	}
	w.q.sleep()
	w.settleBytesLocked() // what is under way is kept, and charged, through the sleep
	w.e.bytes.rest(w.reserved)
	w.source.Rest()
	w.atHead = false
	w.e.setActive(-1)
	w.alarm = time.AfterFunc(time.Until(at), w.rise)
	return true
}

func (w *Worker) rise() {
	w.mu.Lock()
	w.wakeLocked()
	w.mu.Unlock()
	w.run()
}

// wakeLocked makes the worker one of those that are awake. The caller runs it.
func (w *Worker) wakeLocked() {
	w.alarm = nil
	w.e.bytes.wake(w.reserved)
	w.e.setActive(1)
}

// nudge makes run look again.
func (w *Worker) nudge() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}
