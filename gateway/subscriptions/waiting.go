package subscriptions

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/gateway/durable"
)

// How often all subscriptions are looked at: so seldom that it takes a
// thousandth of the time, but for those that are so many.
const (
	lookRest = 5 * time.Second
	restMost = 10 * time.Minute
	restRate = 1000
)

// Waiting is how much waits for the subscriptions that this node counts, which
// is each on one node. It is found by looking at all of them now and then.
type Waiting struct {
	api    *API
	logger *slog.Logger
	events atomic.Uint64
	oldest atomic.Int64 // seconds
}

// NewWaiting makes a Waiting of what an API is of; Run must run. Registerer
// may be nil.
func NewWaiting(a *API, r prometheus.Registerer, logger *slog.Logger) *Waiting {
	w := &Waiting{api: a, logger: logger}
	if r != nil {
		r.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "longline_subscriptions_waiting_events", Help: "Events that wait for subscriptions, paused ones included, when they were last looked at. Each subscription is counted by one node: its owner's, or one for all that nobody owns.",
			}, func() float64 { return float64(w.events.Load()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "longline_subscriptions_oldest_seconds", Help: "How long the oldest of the events that longline_subscriptions_waiting_events counts has waited.",
			}, func() float64 { return float64(w.oldest.Load()) }),
		)
	}
	return w
}

// Run looks until ctx ends.
func (w *Waiting) Run(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		if err := w.look(ctx); err != nil {
			w.logger.Debug("what waits can't be counted", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(max(lookRest, restRate*time.Since(began)), restMost)):
		}
	}
}

// look counts anew. What it can't count stays as it was.
func (w *Waiting) look(ctx context.Context) error {
	var sum behind
	for after := ""; ; {
		page, err := w.api.o.Broker.List(ctx, "", after, 200)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		for _, one := range page {
			after = one.Name
			s, err := durable.Decode(one)
			if err != nil || !w.api.o.Manager.Counts(&s) {
				continue // whoever asks for that one is told
			}
			if _, err := w.api.o.Manager.Complete(ctx, &s); err != nil {
				return err
			}
			l, err := w.api.lag(ctx, s)
			if err != nil {
				return err
			}
			sum.Events += l.Events
			sum.Seconds = max(sum.Seconds, l.Seconds)
		}
	}
	w.events.Store(sum.Events)
	w.oldest.Store(sum.Seconds)
	return nil
}
