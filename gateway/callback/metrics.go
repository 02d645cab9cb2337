package callback

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of a node's callbacks.
type Metrics struct {
	Calls    *prometheus.CounterVec // by result: accepted, refused, trouble, gone, cancelled, stalled
	Events   prometheus.Counter     // acknowledged by a 2xx
	Dead     prometheus.Counter     // dead-lettered
	InFlight prometheus.Gauge
	Active   prometheus.Gauge
	Seconds  prometheus.Histogram // of a call
	// Each is told of each call, of which subscription it was. It must not block.
	// nil: nobody is told.
	Each func(subscription, result string, took time.Duration)

	results [stalled + 1]prometheus.Counter
}

var verdictNames = [stalled + 1]string{"accepted", "refused", "trouble", "gone", "cancelled", "stalled"}

// called counts a call.
func (m *Metrics) called(subscription string, v verdict, took time.Duration) {
	m.results[v].Inc()
	if v != cancelled {
		m.Seconds.Observe(took.Seconds())
	}
	if m.Each != nil {
		m.Each(subscription, verdictNames[v], took)
	}
}

// NewMetrics makes the metrics and registers them, if reg isn't nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		Calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "longline_callback_calls_total", Help: "Callbacks sent, by what came of them."}, []string{"result"}),
		Events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "longline_callback_events_total", Help: "Events acknowledged by callbacks."}),
		Dead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "longline_callback_dead_letters_total", Help: "Events dead-lettered by callbacks."}),
		InFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "longline_callback_in_flight", Help: "Callbacks in flight."}),
		Active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "longline_callback_active", Help: "Subscriptions being delivered by callback, without those that wait out a backoff."}),
		Seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "longline_callback_seconds", Help: "Duration of callbacks.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}),
	}
	for v, name := range verdictNames {
		m.results[v] = m.Calls.WithLabelValues(name)
	}
	if reg != nil {
		reg.MustRegister(m.Calls, m.Events, m.Dead, m.InFlight, m.Active, m.Seconds)
	}
	return m
}
