package longline

import (
	"errors"
	"time"
)

// Retry says how events are tried again that the handler failed at.
type Retry struct {
	// Attempts is how often an event is handed to the handler before it is
	// rejected. Default: 0, which is without end: a CRM that is away for a
	// night costs no event. What Reject says of an event holds at once, and one
	// that fails again and again while others pass is rejected as well.
	Attempts int
	// Min and Max bound the waits between tries, which double and are
	// jittered; for the first ten minutes they are 15 s at most. Defaults: 1 s,
	// 10 min.
	Min, Max time.Duration
}

func (r *Retry) fill() {
	fill(&r.Min, time.Second)
	fill(&r.Max, 10*time.Minute)
}

// The rules that the gateway's callbacks follow, too.
const (
	// soon is how long a handler in trouble is asked every soonWait or so: one
	// call costs little, and who is well again should not have to wait.
	soon     = 10 * time.Minute
	soonWait = 15 * time.Second
	// troubleAfter failures in a row the handler is asked for one event at a
	// time.
	troubleAfter = 5
	// suspectAfter failures of one event, others are looked at: if one passes
	// and the event fails again, poisonAfter times over, the event is to blame
	// and is set aside.
	suspectAfter = 8
	poisonAfter  = 3
)

// waitFor returns the wait after so many failures, the first of them at since.
func (r *Retry) waitFor(failures int, since, now time.Time) time.Duration {
	most := r.Max
	if now.Sub(since) < soon {
		most = min(most, soonWait)
	}
	return jitter(r.Min, most, failures-1)
}

// history is what is known of an event that was tried in vain.
type history struct {
	tries   int
	since   time.Time // of the first
	passes  uint64    // health.passes at the last
	vouched int       // how often in a row another event passed between two of its failures
	company int       // how many events it may be called with; 0: any
}

// failed notes another failure, in a call of so many events, and tells whether
// the event is to blame.
func (h *history) failed(passes uint64, together int, now time.Time) bool {
	suspect, passed := h.tries >= suspectAfter, h.tries > 0 && passes != h.passes
	if h.tries++; h.tries == 1 {
		h.since = now
	}
	h.passes = passes
	switch {
	case passed && together > 1:
		h.company = together / 2
	case suspect && passed:
		h.vouched++
	case !passed:
		h.vouched = 0
	}
	return h.vouched >= poisonAfter
}

// health is how the handler is doing, by its calls' ends. Guarded by the
// dispatcher's mu.
//
//	well ─ troubleAfter failures in a row ─▶ trouble: pauses, one call between them
//	  ▲                                         │ one is answered
//	  └───── all that concurrency allows ◀── twice as many calls with each answer
type health struct {
	failures int    // in a row
	whose    string // cursor of the first that failed
	several  bool   // others did, too; one event alone says nothing of the handler
	since    time.Time
	until    time.Time // no call begins before
	passes   uint64    // events handled, ever
	allowed  int       // calls at once; 0: as many as asked for
}

var errPausing = errors.New("the handler is failing and left in peace for a while")

// answered notes a call that came to something, be it a word about an event,
// and tells whether that ends a trouble.
func (h *health) answered(concurrency int) bool {
	over := h.allowed > 0 && h.failures > 0
	h.failures, h.several = 0, false
	h.until = time.Time{}
	if h.allowed *= 2; h.allowed >= concurrency {
		h.allowed = 0
	}
	return over
}

// failed notes a call for the event at cursor that failed.
func (h *health) failed(r *Retry, cursor string, now time.Time) {
	if h.failures++; h.failures == 1 {
		h.since, h.whose = now, cursor
	}
	h.several = h.several || cursor != h.whose
	if h.failures >= troubleAfter && h.several {
		h.allowed = 1
		h.until = now.Add(r.waitFor(h.failures, h.since, now))
	}
}

// pause returns how long no call is to begin.
func (h *health) pause(now time.Time) time.Duration {
	if h.until.IsZero() {
		return 0
	}
	return max(h.until.Sub(now), 0)
}

// limit is how many calls there may be at once.
func (h *health) limit(concurrency int) int {
	if h.allowed > 0 {
		return min(h.allowed, concurrency)
	}
	return concurrency
}
