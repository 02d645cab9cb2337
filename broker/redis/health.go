package redis

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	firstRetry = 25 * time.Millisecond
	lastRetry  = time.Second
	// patience is how long a failure may last before calls no longer wait for
	// its end.
	patience = 1800 * time.Millisecond
)

// health is what is known of a connection's state: it spaces out attempts to
// connect and logs only when the state changes. Its methods may be called by
// many goroutines at once.
type health struct {
	log  *slog.Logger
	what string

	mu    sync.Mutex
	err   error // why it is down; nil if it is not
	since time.Time
	next  time.Time // no attempt before
	delay time.Duration
}

// failed notes an attempt that failed.
func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.err == nil {
		h.since, h.delay = now, firstRetry
		h.log.Warn("redis lost", "what", h.what, "error", err)
	} else {
		h.delay = min(2*h.delay, lastRetry)
	}
	h.err, h.next = err, now.Add(jitter(h.delay))
}

// worked notes that it is up.
func (h *health) worked() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		h.log.Info("redis back", "what", h.what, "after", time.Since(h.since).Round(time.Millisecond))
		h.err = nil
	}
}

// wait is how long to hold the next attempt back.
func (h *health) wait() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		return 0
	}
	return max(0, time.Until(h.next))
}

// refuse returns an error if it has been down for so long that a call had
// better fail at once, and nobody is about to try.
func (h *health) refuse() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.err != nil && now.Sub(h.since) > patience && now.Before(h.next) {
		return h.err
	}
	return nil
}

// cause is why it is down, or nil.
func (h *health) cause() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// jitter spreads d over d/2 to d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}
