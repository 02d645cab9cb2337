package node

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway"
)

// measured is a broker whose calls are timed and whose failures are counted, as
// the gateway sees them: waiting for a shared fsync or round trip included.
type measured struct {
	gateway.Broker
	appended                             prometheus.Histogram // events a call
	append, read, load, store, advance   prometheus.Observer
	unavailable, canceled, otherFailures *prometheus.CounterVec
}

// measure has the calls of b that events and subscriptions take measured.
func measure(b gateway.Broker, r prometheus.Registerer) gateway.Broker {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "longline_broker_seconds", Help: "Duration of calls to the broker, by operation.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
	}, []string{"operation"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "longline_broker_errors_total", Help: "Calls to the broker that failed, by operation and kind: unavailable, canceled, other.",
	}, []string{"operation", "kind"})
	kind := func(k string) *prometheus.CounterVec { return failures.MustCurryWith(prometheus.Labels{"kind": k}) }
	m := &measured{
		Broker: b,
		appended: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "longline_broker_append_events", Help: "Events appended by one call to the broker.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 6),
		}),
		append: seconds.WithLabelValues("append"), read: seconds.WithLabelValues("read"), load: seconds.WithLabelValues("load"),
		store: seconds.WithLabelValues("store"), advance: seconds.WithLabelValues("advance"),
		unavailable: kind("unavailable"), canceled: kind("canceled"), otherFailures: kind("other"),
	}
	for _, operation := range []string{"append", "read", "load", "store", "advance"} {
		m.unavailable.WithLabelValues(operation) // there from the start, with 0
	}
	r.MustRegister(seconds, failures, m.appended)
	return m
}

// done notes a call's end.
func (m *measured) done(operation string, o prometheus.Observer, began time.Time, err error) {
	o.Observe(time.Since(began).Seconds())
	switch {
	case err == nil, errors.Is(err, broker.ErrNotFound), errors.Is(err, broker.ErrConflict), errors.Is(err, broker.ErrFenced):
		// Answers, not failures.
	case errors.Is(err, broker.ErrUnavailable):
		m.unavailable.WithLabelValues(operation).Inc()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		m.canceled.WithLabelValues(operation).Inc()
	default:
		m.otherFailures.WithLabelValues(operation).Inc()
	}
}

// Append implements broker.Log.
func (m *measured) Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error) {
	began := time.Now()
	appended, err := m.Broker.Append(ctx, channel, entries)
	m.done("append", m.append, began, err)
	m.appended.Observe(float64(len(entries)))
	return appended, err
}

// Read implements broker.Log.
func (m *measured) Read(ctx context.Context, channel string, offset uint64, limit broker.Limit) (broker.Page, error) {
	began := time.Now()
	page, err := m.Broker.Read(ctx, channel, offset, limit)
	m.done("read", m.read, began, err)
	return page, err
}

// Load implements broker.Subscriptions.
func (m *measured) Load(ctx context.Context, name string) (broker.Subscription, error) {
	began := time.Now()
	s, err := m.Broker.Load(ctx, name)
	m.done("load", m.load, began, err)
	return s, err
}

// Store implements broker.Subscriptions.
func (m *measured) Store(ctx context.Context, u broker.Update) error {
	began := time.Now()
	err := m.Broker.Store(ctx, u)
	m.done("store", m.store, began, err)
	return err
}

// Advance implements broker.Subscriptions.
func (m *measured) Advance(ctx context.Context, moves []broker.Move) ([]int, error) {
	began := time.Now()
	fenced, err := m.Broker.Advance(ctx, moves)
	m.done("advance", m.advance, began, err)
	return fenced, err
}
