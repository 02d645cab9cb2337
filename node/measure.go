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
	appended                                                           prometheus.Histogram // events a call
	append, read, state, load, store, advance, look, bury, record, due prometheus.Observer
	unavailable, canceled, otherFailures                               *prometheus.CounterVec
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
		append: seconds.WithLabelValues("append"), read: seconds.WithLabelValues("read"), state: seconds.WithLabelValues("state"),
		load: seconds.WithLabelValues("load"), store: seconds.WithLabelValues("store"), advance: seconds.WithLabelValues("advance"),
		look: seconds.WithLabelValues("look"), bury: seconds.WithLabelValues("bury"), record: seconds.WithLabelValues("record"), due: seconds.WithLabelValues("due"),
		unavailable: kind("unavailable"), canceled: kind("canceled"), otherFailures: kind("other"),
	}
	for _, operation := range []string{"append", "read", "state", "load", "store", "advance", "look", "bury", "record", "due"} {
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

// State implements broker.Log.
func (m *measured) State(ctx context.Context, channel string) (broker.State, error) {
	began := time.Now()
	s, err := m.Broker.State(ctx, channel)
	m.done("state", m.state, began, err)
	return s, err
}

// Look implements broker.Subscriptions.
func (m *measured) Look(ctx context.Context, names []string) ([]broker.Progress, error) {
	began := time.Now()
	progress, err := m.Broker.Look(ctx, names)
	m.done("look", m.look, began, err)
	return progress, err
}

// Due implements broker.Schedule.
func (m *measured) Due(ctx context.Context, parts []int, limit int, hide time.Duration) ([]broker.Ticket, []int, error) {
	began := time.Now()
	tickets, left, err := m.Broker.Due(ctx, parts, limit, hide)
	m.done("due", m.due, began, err)
	return tickets, left, err
}

// Bury implements broker.DeadLetters.
func (m *measured) Bury(ctx context.Context, b broker.Burial) (int, error) {
	began := time.Now()
	dropped, err := m.Broker.Bury(ctx, b)
	m.done("bury", m.bury, began, err)
	return dropped, err
}

// Record implements broker.Attempts.
func (m *measured) Record(ctx context.Context, attempts []broker.Attempt) error {
	began := time.Now()
	err := m.Broker.Record(ctx, attempts)
	m.done("record", m.record, began, err)
	return err
}
