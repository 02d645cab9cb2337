package callback

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
)

// History gathers what the workers of a node tried and writes it in batches,
// off their path. Its methods may be called by many goroutines at once; Run must
// run for anything to be written.
type History struct {
	store  broker.Attempts
	logger *slog.Logger
	lost   prometheus.Counter
	full   chan struct{} // 1: a batch is

	mu      sync.Mutex
	waiting []tried
	bytes   int
}

// tried is an attempt that is to be written.
type tried struct {
	name string // of the subscription
	Attempt
}

// How soon attempts are written, how many at once, and how much may wait while
// that can't be done. What comes beyond is lost, and counted.
const (
	writeEvery   = 400 * time.Millisecond
	writeBatch   = 2000
	waitingMost  = 20_000
	waitingBytes = 16 << 20
)

// NewHistory makes a history that writes to store and counts in reg, if that
// isn't nil, what it had to leave out.
func NewHistory(store broker.Attempts, logger *slog.Logger, reg prometheus.Registerer) *History {
	h := &History{store: store, logger: logger, full: make(chan struct{}, 1), lost: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "longline_callback_attempts_lost_total", Help: "Callback attempts that the history lacks, because it could not be written in time."})}
	if reg != nil {
		reg.MustRegister(h.lost)
	}
	return h
}

// add takes an attempt. It doesn't block. nil takes nothing.
func (h *History) add(name string, a Attempt) {
	if h == nil {
		return
	}
	size := a.size()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) >= waitingMost || h.bytes+size > waitingBytes {
		h.lost.Inc()
		return
	}
	h.waiting = append(h.waiting, tried{name, a})
	h.bytes += size
	if len(h.waiting) == writeBatch {
		select {
		case h.full <- struct{}{}:
		default:
		}
	}
}

// size is about what an attempt holds.
func (a *Attempt) size() int {
	return 256 + len(a.Body) + len(a.Error) + len(a.URL) + 64*len(a.Cursors)
}

// Run writes until ctx ends, then what is left.
func (h *History) Run(ctx context.Context) {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushWithin)
			defer cancel()
			h.write(ctx)
			return
		case <-tick.C:
		case <-h.full:
		}
		h.write(ctx)
	}
}

// write writes what waits. What can't be written is lost: it is not worth the
// memory of an outage.
func (h *History) write(ctx context.Context) {
	h.mu.Lock()
	waiting := h.waiting
	h.waiting, h.bytes = nil, 0
	h.mu.Unlock()
	for some := range slices.Chunk(waiting, writeBatch) {
		list := make([]broker.Attempt, 0, len(some))
		for _, t := range some {
			data, err := encodeAttempt(&t.Attempt)
			if err != nil {
				h.logger.Error("encode an attempt", "subscription", t.name, "error", err)
				continue
			}
			list = append(list, broker.Attempt{Name: t.name, Time: t.Time, Data: data})
		}
		if err := h.store.Record(ctx, list); err != nil {
			h.lost.Add(float64(len(list)))
			h.logger.Debug("keep attempts", "error", err)
		}
	}
}

// encodeAttempt makes JSON that names cursors and ids as they are, so that who
// looks for one need not decode every attempt.
func encodeAttempt(a *Attempt) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(a); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
