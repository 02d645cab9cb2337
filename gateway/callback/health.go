package callback

import (
	"math/rand/v2"
	"time"
)

// What an endpoint in trouble is given.
const (
	breakAfter   = 5 // failures in a row
	backoffFirst = time.Second
	backoffSoon  = 15 * time.Second // at most, while trouble is young
	backoffLong  = 10 * time.Minute // at most, later
	troubleYoung = 10 * time.Minute
	maxRefused   = 5 // events in a row, with no 2xx between
	rampSteps    = 24
	rampGap      = 50 * time.Millisecond
)

// health is what a worker knows of its endpoint: the breaker, the time of the
// next call, and the slow start after it recovered. gobreaker would do for the
// counting, but opens for a fixed time, where ours opens for a backoff or
// for what the endpoint asked. Called under the worker's lock.
type health struct {
	failures int       // in a row; breakAfter and more: the breaker is not closed
	since    time.Time // of the first of them
	next     time.Time // no call before
	opened   int       // counts openings, so that calls from before one count once
	refused  int       // events refused in a row
	stalls   int       // calls in a row that did not get to the endpoint
	ramp     int       // 2xx since it recovered; rampSteps: in full
	rampNext time.Time // no call before, in slow start
}

func (h *health) open() bool { return h.failures >= breakAfter }

// breaker names the state, as Status shows it.
func (h *health) breaker(now time.Time) string {
	switch {
	case !h.open():
		return "closed"
	case now.Before(h.next):
		return "open"
	}
	return "half_open"
}

// fail counts a failure and tells whether the breaker opened by it. opened is
// h.opened when the call began: ten calls that hit an outage together are one
// reason to open the breaker, not ten reasons to back off longer.
func (h *health) fail(now time.Time, asked time.Duration, opened int) (opens bool) {
	if asked > 0 {
		h.next = later(h.next, now.Add(asked))
	}
	if h.open() && opened != h.opened {
		return false
	}
	if h.failures == 0 {
		h.since = now
	}
	h.failures++
	if !h.open() {
		return false
	}
	h.opened++
	h.next = later(h.next, now.Add(backoff(h.failures, h.since, now)))
	return h.failures == breakAfter
}

// stall notes that a call did not get to the endpoint, which is not to blame:
// calls wait a while, and the breaker stays as it is.
func (h *health) stall(now time.Time) {
	h.stalls++
	h.next = later(h.next, now.Add(backoff(h.stalls, now, now)))
}

// ok counts a 2xx and tells whether it closed the breaker.
func (h *health) ok(now time.Time) (recovered bool) {
	recovered = h.open()
	h.failures, h.refused, h.stalls = 0, 0, 0
	if recovered {
		h.ramp, h.next = 0, time.Time{}
	} else if h.ramp < rampSteps {
		h.ramp++
	}
	return recovered
}

// start notes that a call begins.
func (h *health) start(now time.Time) {
	if h.ramp < rampSteps {
		h.rampNext = now.Add(rampGap >> (h.ramp / 4))
	}
}

// mayStart says when the next call may start, at the earliest; ok if now, with
// so many in flight.
func (h *health) mayStart(now time.Time, inFlight int) (at time.Time, ok bool) {
	if now.Before(h.next) {
		return h.next, false
	}
	if h.open() { // half open: one real event
		return time.Time{}, inFlight == 0
	}
	if h.ramp < rampSteps {
		if now.Before(h.rampNext) {
			return h.rampNext, false
		}
		return time.Time{}, inFlight <= h.ramp
	}
	return time.Time{}, true
}

// backoff is how long to wait after the n-th failure in a row: 1 s·2ⁿ⁻¹ with
// full jitter, capped by the trouble's age.
func backoff(n int, since, now time.Time) time.Duration {
	most := backoffSoon
	if now.Sub(since) >= troubleYoung {
		most = backoffLong
	}
	if n < 12 { // beyond, the shift alone exceeds both caps
		most = min(most, backoffFirst<<max(n-1, 0))
	}
	return time.Duration(rand.Int64N(int64(most)) + 1)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sooner returns the earlier one, where zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
