package longline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// dispatcher is where events wait for the handler, whatever brought them: one lane
// per key, worked on by at most concurrency goroutines, which exist only
// while there is work. Safe for concurrent use.
//
//	session ──add──▶ lane "alice"  ▇▇▇ ─┐
//	session ──add──▶ lane "bob"    ▇    ├─ ready ─▶ up to N calls of the handler ─▶ settle
//	callback ─add──▶ lane "carol"  ▇▇  ─┘                      └─ failed: lane backingOff, then ready again
type dispatcher struct {
	// static after construction
	concurrency int
	batch       int           // most events in a call
	wait        time.Duration // how long a call waits to be filled
	tries       int           // calls per event, negative: no end
	least, most time.Duration // backoff between them
	pace        *pace
	store       Store // or nil
	dedupe      bool  // know events that come again
	handle      func(context.Context, []Event) error
	onReject    func(Event, error)
	log         *slog.Logger

	mu      sync.Mutex
	lanes   map[string]*lane
	ready   []*lane // those with work and no call, in order
	waiting int     // jobs in ready lanes
	timer   *time.Timer
	running int
	jobs    map[identity]*job // queued or in a call, if dedupe
	past    *memory
	live    context.Context // of calls with events of a subscription; nil between runs
	calls   int             // with events of a subscription
	round   int             // counts clear; a lane of another round is void
	quiet   chan struct{}   // closed when calls is 0; nil while nobody waits
}

type lane struct {
	key        string
	shared     bool // stands in dispatcher.lanes
	jobs       []*job
	taken      int         // of jobs, in a call now
	backingOff *time.Timer // until the next try
	ready      bool        // stands in dispatcher.ready
	round      int         // the dispatcher's when the lane was made
}

// job is an event to be handled.
type job struct {
	event   Event
	id      identity
	lane    *lane
	since   time.Time
	tries   int
	again   bool // announced as possibly handled before
	live    bool // brought by a subscription, whose tries are counted
	entry   *entry
	callers []chan<- verdict
}

// verdict is what became of an event.
type verdict struct {
	handled bool
	refused error // rejected
	failed  error // to be tried again
}

// addLive takes an event from a subscription; entry is settled when it is done. again
// says that it may have been handled before.
func (d *dispatcher) addLive(e Event, en *entry, again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j, p := d.admitLocked(e, again)
	switch {
	case p.handled:
		en.finish()
	case p.refused != "":
		en.reject(p.refused)
	default:
		en.twin = j.entry
		j.entry, j.live = en, true
		d.startLocked()
	}
}

// addCall takes an event from a callback; verdicts gets what became of it.
// There must be room in it.
func (d *dispatcher) addCall(e Event, again bool, verdicts chan<- verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j, p := d.admitLocked(e, again)
	switch {
	case p.handled:
		verdicts <- verdict{handled: true}
	case p.refused != "":
		verdicts <- verdict{refused: errors.New(p.refused)}
	default:
		j.callers = append(j.callers, verdicts)
		d.startLocked()
	}
}

// admitLocked returns the event's job, a new one at the end of its lane or
// the one it already has, or else what became of it before.
func (d *dispatcher) admitLocked(e Event, again bool) (*job, past) {
	j := &job{event: e, again: again}
	if d.dedupe {
		j.id = identify(&e)
		if known := d.jobs[j.id]; known != nil {
			return known, past{}
		}
		p := d.past.get(j.id)
		if again && (p.handled || p.refused != "") {
			return nil, p
		}
		j.tries = p.tries
		d.jobs[j.id] = j
	}
	if d.batch > 1 {
		j.since = time.Now()
	}
	j.lane = d.laneLocked(&e)
	j.lane.jobs = append(j.lane.jobs, j)
	if j.lane.ready {
		d.waiting++
	} else {
		d.queueLocked(j.lane)
	}
	return j, past{}
}

// laneLocked returns the lane for an event. With one call at a time all go
// through one lane, in the order of the log; with more, events without a key
// have a lane each.
func (d *dispatcher) laneLocked(e *Event) *lane {
	key := e.Key
	if d.concurrency == 1 {
		key = ""
	} else if key == "" {
		return &lane{round: d.round}
	}
	l := d.lanes[key]
	if l == nil {
		l = &lane{key: key, shared: true, round: d.round}
		d.lanes[key] = l
	}
	return l
}

// queueLocked puts a lane among the ready ones, if it is.
func (d *dispatcher) queueLocked(l *lane) {
	if l.ready || l.taken > 0 || l.backingOff != nil {
		return
	}
	if len(l.jobs) == 0 {
		if l.shared {
			delete(d.lanes, l.key)
		}
		return
	}
	l.ready = true
	d.ready = append(d.ready, l)
	d.waiting += len(l.jobs)
}

// startLocked sees to it that somebody works if there is work.
func (d *dispatcher) startLocked() {
	if d.running < d.concurrency && len(d.ready) > 0 && d.filledLocked() {
		d.running++
		go d.work()
	}
}

// filledLocked tells whether a call is worth making: it would be full, or its
// first event has waited long enough.
func (d *dispatcher) filledLocked() bool {
	if d.batch <= 1 || d.waiting >= d.batch {
		return true
	}
	rest := d.wait - time.Since(d.ready[0].jobs[0].since)
	if rest <= 0 {
		return true
	}
	if d.timer == nil {
		d.timer = time.AfterFunc(rest, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.timer = nil
			d.startLocked()
		})
	}
	return false
}

// work makes calls until there is nothing to do.
func (d *dispatcher) work() {
	var jobs []*job
	d.mu.Lock()
	for {
		jobs = d.takeLocked(jobs[:0])
		if len(jobs) == 0 {
			d.running--
			d.mu.Unlock()
			return
		}
		d.startLocked()
		ctx, live := d.contextLocked(jobs)
		d.mu.Unlock()

		err := d.call(ctx, jobs)

		d.mu.Lock()
		refused := d.settleLocked(jobs, err, ctx.Err() != nil)
		if len(refused) > 0 && d.onReject != nil {
			d.mu.Unlock()
			for _, j := range refused {
				d.onReject(j.event, err)
			}
			d.mu.Lock()
		}
		if live {
			if d.calls--; d.calls == 0 && d.quiet != nil {
				close(d.quiet)
				d.quiet = nil
			}
		}
	}
}

// takeLocked takes the next call's events. An event on its last try goes
// alone, so that it pays for nobody else's fault.
func (d *dispatcher) takeLocked(jobs []*job) []*job {
	if len(d.ready) == 0 || !d.filledLocked() {
		return nil
	}
	for len(d.ready) > 0 && len(jobs) < d.batch {
		l := d.ready[0]
		n := min(len(l.jobs), d.batch-len(jobs))
		if last := slices.IndexFunc(l.jobs[:n], d.lastTry); last == 0 {
			if len(jobs) > 0 {
				break
			}
			d.unqueueLocked(l, 1)
			return append(jobs, l.jobs[0])
		} else if last > 0 {
			n = last
		}
		jobs = append(jobs, l.jobs[:n]...)
		d.unqueueLocked(l, n)
	}
	return jobs
}

// unqueueLocked takes the first ready lane, of which n jobs go into a call.
func (d *dispatcher) unqueueLocked(l *lane, n int) {
	d.waiting -= len(l.jobs)
	l.taken, l.ready = n, false
	d.ready[0] = nil
	d.ready = d.ready[1:]
}

func (d *dispatcher) lastTry(j *job) bool {
	return d.batch > 1 && d.tries > 0 && j.tries > 0 && j.tries+1 >= d.tries
}

func (d *dispatcher) contextLocked(jobs []*job) (ctx context.Context, live bool) {
	if d.live == nil || !slices.ContainsFunc(jobs, func(j *job) bool { return j.entry != nil }) {
		return context.Background(), false
	}
	d.calls++
	return d.live, true
}

// call hands the events to the handler, but for those which the store knows.
func (d *dispatcher) call(ctx context.Context, jobs []*job) error {
	if wait := d.pace.take(time.Now()); wait > 0 && !sleep(ctx, wait) {
		return ctx.Err()
	}
	events := make([]Event, 0, len(jobs))
	for _, j := range jobs {
		if d.store != nil && j.again {
			handled, err := d.store.Handled(ctx, j.id.String())
			if err != nil {
				return fmt.Errorf("ask store: %w", err)
			}
			if handled {
				continue
			}
		}
		events = append(events, j.event)
	}
	if len(events) == 0 {
		return nil
	}
	err := d.guarded(ctx, events)
	if d.store == nil {
		return err
	}
	for _, e := range events {
		if v := judge(err, e.ID); v.failed == nil {
			if err := d.store.MarkHandled(ctx, identify(&e).String()); err != nil {
				// The event is done; at worst it is handled once more.
				d.log.Warn("event not marked as handled", "id", e.ID, "error", err)
			}
		}
	}
	return err
}

// guarded calls the handler. A panic is an error like another: else one event
// could end the process each time it comes.
func (d *dispatcher) guarded(ctx context.Context, events []Event) (err error) {
	defer func() {
		if v := recover(); v != nil {
			d.log.Error("handler panicked", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("handler panicked: %v", v)
		}
	}()
	return d.handle(ctx, events)
}

// judge says what a handler's error means for the event with that id.
func judge(err error, id string) verdict {
	if err == nil {
		return verdict{handled: true}
	}
	var r *rejection
	if !errors.As(err, &r) {
		return verdict{failed: err}
	}
	if len(r.ids) == 0 || slices.Contains(r.ids, id) {
		return verdict{refused: err}
	}
	return verdict{handled: true}
}

// settleLocked ends a call: its events are done, or their lanes are backingOff
// until the next try. A call that was told to stop counts as no try. It
// returns the events that are rejected.
func (d *dispatcher) settleLocked(jobs []*job, err error, stopped bool) (refused []*job) {
	tries := 0
	for i := 0; i < len(jobs); {
		l := jobs[i].lane
		kept := make([]*job, 0, 1)
		n := l.taken
		for _, j := range jobs[i : i+n] {
			switch v := d.finishLocked(j, judge(err, j.event.ID), stopped); {
			case v.refused != nil:
				refused = append(refused, j)
			case v.failed != nil && j.entry != nil && !stopped:
				tries = max(tries, j.tries)
				kept = append(kept, j)
			}
		}
		i += n
		l.taken = 0
		if l.round != d.round {
			continue // the run is over
		}
		if len(kept) == 0 {
			clear(l.jobs[:n])
			l.jobs = l.jobs[n:]
			d.queueLocked(l)
			continue
		}
		l.jobs = append(kept, l.jobs[n:]...)
		d.backOffLocked(l, max(jitter(d.least, d.most, tries-1), waitOf(err)))
	}
	if tries > 0 {
		d.log.Warn("handler failed, will try again", "events", len(jobs), "tries", tries, "error", err)
	}
	return refused
}

// finishLocked tells those who wait for an event what became of it, and
// returns that. Failed events of a subscription stay, to be tried again.
func (d *dispatcher) finishLocked(j *job, v verdict, stopped bool) verdict {
	if v.failed != nil && j.live && !stopped {
		j.tries++
		if j.entry != nil && d.tries > 0 && j.tries >= d.tries {
			v = verdict{refused: v.failed}
		}
	}
	for _, c := range j.callers {
		c <- v
	}
	j.callers = nil
	if v.failed != nil && j.entry != nil && !stopped {
		return v
	}
	p := past{handled: v.handled, tries: j.tries}
	if v.refused != nil {
		p.refused = v.refused.Error()
		d.log.Warn("event rejected", "id", j.event.ID, "type", j.event.Type, "cursor", j.event.Cursor, "error", v.refused)
	}
	if d.dedupe {
		delete(d.jobs, j.id)
		d.past.put(j.id, p)
	}
	switch {
	case j.entry == nil:
	case v.refused != nil:
		j.entry.reject(p.refused)
	case v.handled:
		j.entry.finish()
	}
	return v
}

func (d *dispatcher) backOffLocked(l *lane, wait time.Duration) {
	l.backingOff = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if l.backingOff == nil || l.round != d.round {
			return // dropped meanwhile
		}
		l.backingOff = nil
		d.queueLocked(l)
		d.startLocked()
	})
}

// drop forgets what a subscription brought and no call has begun. It is for when the
// connection is gone or going: what is not acknowledged comes again. Calls in
// progress go on; orphan says that what they settle can't be acknowledged on
// this connection any more. Only for a dispatcher that dedupes.
func (d *dispatcher) drop(orphan bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lanes := make(map[*lane]bool)
	for _, j := range d.jobs {
		lanes[j.lane] = true
	}
	for l := range lanes {
		if orphan {
			for _, j := range l.jobs[:l.taken] {
				j.entry = nil
			}
		}
		kept := slices.Clone(l.jobs[:l.taken])
		for _, j := range l.jobs[l.taken:] {
			j.entry = nil
			if len(j.callers) > 0 {
				kept = append(kept, j)
				continue
			}
			delete(d.jobs, j.id)
			if j.tries > 0 {
				d.past.put(j.id, past{tries: j.tries})
			}
		}
		if l.ready {
			d.waiting -= len(l.jobs) - len(kept)
		}
		l.jobs = kept
		if len(kept) > 0 {
			continue
		}
		if l.backingOff != nil {
			l.backingOff.Stop()
			l.backingOff = nil
		}
		if l.ready {
			l.ready = false
			d.ready = slices.DeleteFunc(d.ready, func(r *lane) bool { return r == l })
		}
		d.queueLocked(l)
	}
}

// forget has events that come again handled again.
func (d *dispatcher) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.past = newMemory(d.past.most)
}

// clear forgets everything no call has begun. Only for a dispatcher that does not
// dedupe.
func (d *dispatcher) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.ready {
		l.jobs, l.ready = nil, false
	}
	d.ready, d.waiting = nil, 0
	clear(d.lanes)
	d.round++
}

// begin lets calls with a subscription's events use ctx.
func (d *dispatcher) begin(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live = ctx
}

// end takes no more events: there is no run.
func (d *dispatcher) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live = nil
}

// idle returns a channel that is closed once no call with a subscription's events is
// in progress.
func (d *dispatcher) idle() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.quiet == nil {
		d.quiet = make(chan struct{})
		if d.calls == 0 {
			close(d.quiet)
			q := d.quiet
			d.quiet = nil
			return q
		}
	}
	return d.quiet
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, wait time.Duration) bool {
	if wait <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
