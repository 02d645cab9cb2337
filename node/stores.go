package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/broker/redis"
)

// measureDisk has the fsyncs of an embedded broker measured.
func measureDisk(o *embedded.Options, r prometheus.Registerer) {
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "longline_embedded_fsync_seconds", Help: "Duration of fsyncs of the log. Of the embedded broker.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
	})
	calls := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "longline_embedded_fsync_calls", Help: "Calls that one fsync answered. Of the embedded broker with fsync=always.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 12),
	})
	r.MustRegister(seconds, calls)
	o.OnSync = func(took time.Duration, answered int) {
		seconds.Observe(took.Seconds())
		if answered > 0 {
			calls.Observe(float64(answered))
		}
	}
}

// measureRoundTrips has the round trips of a broker on Redis measured.
func measureRoundTrips(o *redis.Options, r prometheus.Registerer) {
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "longline_redis_round_trip_seconds", Help: "Duration of round trips to a Redis master that write, failed ones included.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
	})
	calls := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "longline_redis_round_trip_calls", Help: "Calls that shared one such round trip.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 11),
	})
	r.MustRegister(seconds, calls)
	o.OnRoundTrip = func(took time.Duration, n int) {
		seconds.Observe(took.Seconds())
		calls.Observe(float64(n))
	}
}

// pool asks a broker on Redis how its connections do.
type pool struct{ broker *redis.Broker }

var (
	poolGets        = prometheus.NewDesc("longline_redis_pool_gets_total", "Connections taken from the pool that reads from Redis: hit, miss (one was opened), wait (none was free at first), timeout (none came free).", []string{"result"}, nil)
	poolConnections = prometheus.NewDesc("longline_redis_connections", "Open connections of that pool: busy, idle.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (pool) Describe(to chan<- *prometheus.Desc) {
	to <- poolGets
	to <- poolConnections
}

// Collect implements prometheus.Collector.
func (p pool) Collect(to chan<- prometheus.Metric) {
	s := p.broker.Pool()
	for result, n := range map[string]uint64{"hit": s.Hits, "miss": s.Misses, "wait": s.Waits, "timeout": s.Timeouts} {
		to <- prometheus.MustNewConstMetric(poolGets, prometheus.CounterValue, float64(n), result)
	}
	to <- prometheus.MustNewConstMetric(poolConnections, prometheus.GaugeValue, float64(s.Open-s.Idle), "busy")
	to <- prometheus.MustNewConstMetric(poolConnections, prometheus.GaugeValue, float64(s.Idle), "idle")
}
