package longline

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// dispatcher is where events wait for the handler, whatever brought them: one
// lane per key, worked on by at most concurrency goroutines, which exist only
// while there is work. Safe for concurrent use.
//
//	session ──add──▶ lane "alice"  ▇▇▇ ─┐
//	session ──add──▶ lane "bob"    ▇    ├─ ready ─▶ up to N calls of the handler ─▶ settle
//	callback ─add──▶ lane "carol"  ▇▇  ─┘                      └─ failed: lane backs off, then ready again
//
// A lane that has events is in one of three places: among the ready, in a
// call, or backing off; whatever ends a stay in one of them puts the lane into
// another or forgets it (queueLocked). So nothing that was added is left
// behind: it is handled, or tried again, or dropped by who brought it.
type dispatcher struct {
	// static after construction
	concurrency int
	batch       int           // most events in a call
	wait        time.Duration // how long a call waits to be filled
	retry       Retry
	pace        *pace
	store       Store // or nil
	dedupe      bool  // know events that come again
	handle      func(context.Context, []Event) error
	onReject    func(Event, error)
	log         *slog.Logger
	trouble     *rarely // tells that the handler fails

	mu      sync.Mutex
	lanes   map[string]*lane   // by key
	ready   []*lane            // those with work and no call, in order
	away    map[*lane]struct{} // those in a call or backing off
	waiting int                // jobs in ready lanes
	timer   *time.Timer        // until a call need not be filled any more, or the handler's pause is over
	running int                // goroutines
	jobs    map[identity]*job  // queued or in a call, if dedupe
	past    *memory
	health  health
	failing int             // jobs that failed and stay
	busy    int             // calls in progress
	window  int             // of a durable subscription, or 0
	crowded func() bool     // it is nearly used up; nil: it never is
	live    context.Context // of calls with events of a subscription; nil between runs, and while one ends
	calls   int             // with events of a subscription
	quiet   chan struct{}   // closed when calls is 0; nil while nobody waits
}

type lane struct {
	key        string
	shared     bool // stands in dispatcher.lanes
	jobs       []*job
	taken      int         // of jobs, in a call now
	backingOff *time.Timer // until the next try
	obeys      bool        // it backs off for as long as the handler said
	ready      bool        // stands in dispatcher.ready
	probing    int         // where the job came from that is tried before the head; 0: none is
	probed     bool        // since the head was tried
}

// job is an event to be handled.
type job struct {
	event   Event
	id      identity
	lane    *lane
	since   time.Time // when it came, if there are batches
	again   bool      // announced as possibly handled before
	live    bool      // brought by a subscription, whose tries are counted
	origin  origin
	history history
	failing bool // it failed, and stays
	entry   *entry
	callers []chan<- verdict
}

// origin is by what an event came.
type origin struct {
	transport Transport
	replay    bool
}

// addLive takes an event from a subscription; entry is settled when it is
// done. again says that it may have been handled before. While a run ends
// nothing is taken: what came before may have been dropped, and order is order.
func (d *dispatcher) addLive(e Event, en *entry, again bool, from origin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live == nil {
		return
	}
	j, p := d.admitLocked(e, again, from)
	switch {
	case p.handled:
		en.finish()
	case p.refused != "":
		en.reject(p.refused, p.tries)
	default:
		en.twin = j.entry
		j.entry, j.live = en, true
		d.startLocked()
	}
}

// addCall takes an event from a callback; verdicts gets what became of it.
// There must be room in it.
func (d *dispatcher) addCall(e Event, again, replay bool, verdicts chan<- verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if rest := d.health.pause(time.Now()); rest > 0 {
		// The gateway waits better than we do: it can call somebody else.
		verdicts <- verdict{failed: RetryAfter(errPausing, rest)}
		return
	}
	j, p := d.admitLocked(e, again, origin{transport: Callback, replay: replay})
	switch {
	case p.handled:
		verdicts <- verdict{handled: true}
	case p.refused != "":
		verdicts <- verdict{refused: refusal(p.refused)}
	default:
		j.callers = append(j.callers, verdicts)
		d.startLocked()
	}
}

// admitLocked returns the event's job, a new one at the end of its lane or
// the one it already has, or else what became of it before.
func (d *dispatcher) admitLocked(e Event, again bool, from origin) (*job, past) {
	j := &job{event: e, again: again, origin: from}
	if d.dedupe {
		j.id = identify(&e)
		if known := d.jobs[j.id]; known != nil {
			return known, past{}
		}
		p := d.past.get(j.id)
		if again && (p.handled || p.refused != "") {
			return nil, p
		}
		j.history = p.history
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
		return &lane{}
	}
	l := d.lanes[key]
	if l == nil {
		l = &lane{key: key, shared: true}
		d.lanes[key] = l
	}
	return l
}

// queueLocked puts a lane where it belongs when it is neither in a call nor
// backing off any more, or got its first job.
func (d *dispatcher) queueLocked(l *lane) {
	if l.ready || l.taken > 0 || l.backingOff != nil {
		return
	}
	delete(d.away, l)
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
	if d.running < d.health.limit(d.concurrency) && len(d.ready) > 0 && d.dueLocked() {
		d.running++
		go d.work()
	}
}

// dueLocked tells whether a call is to be made: the handler is not left in
// peace, and the call would be full, or its first event has waited long
// enough. Otherwise it sees to it that somebody looks again.
func (d *dispatcher) dueLocked() bool {
	now := time.Now()
	rest := d.health.pause(now)
	if d.batch > 1 && d.waiting < d.batch {
		rest = max(rest, d.wait-now.Sub(d.ready[0].jobs[0].since))
	}
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
		jobs = jobs[:0]
		if d.running <= d.health.limit(d.concurrency) && len(d.ready) > 0 && d.dueLocked() {
			jobs = d.takeLocked(jobs)
		}
		if len(jobs) == 0 {
			d.running--
			d.mu.Unlock()
			return
		}
		d.startLocked()
		ctx, live := d.contextLocked(jobs)
		d.busy++
		d.mu.Unlock()

		err := d.call(ctx, jobs)

		d.mu.Lock()
		d.busy--
		refused := d.settleLocked(jobs, err, ctx.Err() != nil)
		if len(refused) > 0 && d.onReject != nil {
			d.mu.Unlock()
			for _, r := range refused {
				d.onReject(r.event, r.err)
			}
			d.mu.Lock()
		}
		if live {
			if d.calls--; d.calls == 0 && d.quiet != nil {
				close(d.quiet)
				d.quiet = nil
			}
		}
		d.startLocked() // more may be allowed than before
	}
}

// takeLocked takes the next call's events, as many as may be together.
func (d *dispatcher) takeLocked(jobs []*job) []*job {
	room := d.batch
	if d.sparingLocked() {
		if room = 1; !d.witnessLocked() {
			return jobs
		}
	}
	for len(d.ready) > 0 && len(jobs) < room {
		l := d.ready[0]
		if len(jobs) == 0 {
			d.probeLocked(l)
		}
		n := 0
		for ; n < len(l.jobs) && l.probing*n == 0; n++ {
			together := min(room, d.company(l.jobs[n]))
			if len(jobs)+n >= together {
				break
			}
			room = together
		}
		if n == 0 {
			break
		}
		jobs = append(jobs, l.jobs[:n]...)
		d.waiting -= len(l.jobs)
		l.taken, l.ready = n, false
		d.away[l] = struct{}{}
		d.ready[0] = nil
		d.ready = d.ready[1:]
		if l.probing > 0 {
			break
		}
	}
	return jobs
}

// witnesses are events that are left untried for as long as others fail, or
// may, and the window is nearly used up: without any, nobody could tell a
// poisonous event, behind which all the window is done, from a handler in
// trouble.
const witnesses = 8

// sparingLocked tells whether that is so. Where one call is made at a time,
// all behind the failing event is untried; a window that is small for so many
// calls is not made smaller.
func (d *dispatcher) sparingLocked() bool {
	ample := d.window >= 4*(d.concurrency*d.batch+witnesses)
	if d.failing == 0 && !(d.busy > 0 && ample) || d.concurrency == 1 || d.crowded == nil || !d.crowded() {
		return false
	}
	untried := 0
	for _, l := range d.ready {
		if l.jobs[0].history.tries == 0 {
			untried += len(l.jobs)
		}
	}
	return untried < witnesses+d.batch
}

// witnessLocked brings to the front what is to be tried although events are
// spared: one that failed, or before a suspect, a witness.
func (d *dispatcher) witnessLocked() bool {
	tried := func(l *lane) bool { return l.jobs[0].history.tries > 0 }
	i := slices.IndexFunc(d.ready, tried)
	if i < 0 {
		return false
	}
	if l := d.ready[i]; !l.probed && d.suspectLocked(l.jobs[0]) {
		if w := slices.IndexFunc(d.ready, func(l *lane) bool { return !tried(l) }); w >= 0 {
			l.probed, i = true, w
		}
	} else {
		l.probed = false
	}
	l := d.ready[i]
	copy(d.ready[1:i+1], d.ready[:i])
	d.ready[0] = l
	return true
}

// suspectLocked tells whether an event failed over and over, and none passed
// since.
func (d *dispatcher) suspectLocked(j *job) bool {
	return j.history.tries >= suspectAfter && j.history.passes == d.health.passes
}

// probeLocked puts another event before the lane's head, if that is suspect:
// whether that one passes tells a poisonous event from a handler in trouble.
// It has another key, and none of its own before it, so that each key's order
// stands. Where there are many lanes, the others are the probe.
func (d *dispatcher) probeLocked(l *lane) {
	head := l.jobs[0]
	if d.concurrency > 1 {
		return
	}
	if l.probed || !d.suspectLocked(head) {
		l.probed = false
		return
	}
	seen := map[string]bool{head.event.Key: head.event.Key != ""}
	var others []int
	for i, j := range l.jobs[1:] {
		if key := j.event.Key; key == "" || !seen[key] {
			seen[key] = key != ""
			others = append(others, i+1)
		}
	}
	if len(others) == 0 {
		return
	}
	// Any of them, since that one may be poisonous, too.
	at := others[rand.IntN(len(others))]
	j := l.jobs[at]
	copy(l.jobs[1:at+1], l.jobs[:at])
	l.jobs[0] = j
	l.probing, l.probed = at, true
}

// company is how many events a call with this one may have: an event goes
// alone on its last try, and with ever fewer where others pass meanwhile, so
// that it pays for nobody else's fault.
func (d *dispatcher) company(j *job) int {
	switch h := &j.history; {
	case d.batch > 1 && d.retry.Attempts > 0 && h.tries > 0 && h.tries+1 >= d.retry.Attempts:
		return 1
	case h.company > 0:
		return h.company
	}
	return d.batch
}

func (d *dispatcher) contextLocked(jobs []*job) (ctx context.Context, live bool) {
	if d.live == nil {
		return context.Background(), false
	}
	for _, j := range jobs {
		if j.entry != nil {
			d.calls++
			return d.live, true
		}
	}
	return context.Background(), false
}

// drop forgets what a subscription brought, or those of it that which says,
// and no call has begun. It is for when the connection is gone or going, or a
// partition: what is not acknowledged comes again. Calls in progress go on;
// orphan says that what they settle can't be acknowledged any more.
func (d *dispatcher) drop(orphan bool, which func(*entry) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ready := d.ready
	d.ready, d.waiting = nil, 0
	for _, l := range ready {
		l.ready = false
		d.dropFromLocked(l, orphan, which)
	}
	for l := range d.away {
		d.dropFromLocked(l, orphan, which)
	}
	d.startLocked()
}

func (d *dispatcher) dropFromLocked(l *lane, orphan bool, which func(*entry) bool) {
	kept := make([]*job, 0, l.taken)
	for i, j := range l.jobs {
		mine := j.entry != nil && (which == nil || which(j.entry))
		switch {
		case !mine:
			kept = append(kept, j)
		case i < l.taken:
			if orphan {
				j.entry = nil
			}
			kept = append(kept, j)
		case len(j.callers) > 0:
			j.entry = nil
			kept = append(kept, j)
		default:
			j.entry = nil
			d.leaveLocked(j)
			if d.dedupe {
				delete(d.jobs, j.id)
				if j.history.tries > 0 {
					d.past.put(j.id, past{history: j.history})
				}
			}
		}
	}
	l.jobs = kept
	if len(kept) == 0 && l.backingOff != nil {
		l.backingOff.Stop()
		l.backingOff = nil
	}
	d.queueLocked(l)
}

// leaveLocked is for a job that stays no longer.
func (d *dispatcher) leaveLocked(j *job) {
	if j.failing {
		j.failing = false
		d.failing--
	}
}

// forget has events that come again handled again.
func (d *dispatcher) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.past = newMemory(d.past.most)
}

// narrow tells the window, and how to ask how many of its events are not
// acknowledged.
func (d *dispatcher) narrow(window int, unacknowledged func() int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	spare := min(witnesses, window/2)
	d.window, d.crowded = window, func() bool { return unacknowledged() >= window-spare }
}

// begin takes events of a subscription; calls with them use ctx.
func (d *dispatcher) begin(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live = ctx
}

// end takes no more events of a subscription, and drops those that no call has
// begun. It returns a channel that is closed once no call with such an event
// is in progress.
func (d *dispatcher) end() <-chan struct{} {
	d.mu.Lock()
	d.live = nil
	d.mu.Unlock()
	d.drop(false, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.quiet == nil {
		d.quiet = make(chan struct{})
	}
	q := d.quiet
	if d.calls == 0 {
		close(q)
		d.quiet = nil
	}
	return q
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
