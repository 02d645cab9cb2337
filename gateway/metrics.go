package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// metrics of the HTTP side.
type metrics struct {
	requests *prometheus.CounterVec
	problems *prometheus.CounterVec
	probes   prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, hub *session.Hub) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "longline_http_requests_total", Help: "Requests by method and route.",
		}, []string{"method", "route"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "longline_http_problems_total", Help: "Requests answered with a problem, by its code.",
		}, []string{"code"}),
		probes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "longline_probe_seconds", Help: "From the append of the node's own probe to its arrival in the feed.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13),
		}),
	}
	if r == nil {
		return m
	}
	r.MustRegister(m.requests, m.problems, m.probes,
		connections{hub},
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "longline_filters_failed_total", Help: "Evaluations of filters that came to no answer, for what the event lacked or for what they cost: it was not taken.",
		}, func() float64 { return float64(hub.Filters().Failed()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "longline_feeds", Help: "Channels followed by this node.",
		}, func() float64 { open, _ := hub.Feeds().Count(); return float64(open) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "longline_ring_bytes", Help: "Bytes of recent events kept for this node's connections.",
		}, func() float64 { _, bytes := hub.Feeds().Count(); return float64(bytes) }),
	)
	return m
}

// connections counts live connections when it is asked.
type connections struct{ hub *session.Hub }

var connectionsDesc = prometheus.NewDesc("longline_connections",
	"Live connections on this node, by transport and by what they carry.", []string{"transport", "session"}, nil)

// Describe implements prometheus.Collector.
func (c connections) Describe(to chan<- *prometheus.Desc) { to <- connectionsDesc }

// Collect implements prometheus.Collector.
func (c connections) Collect(to chan<- prometheus.Metric) {
	for kind, n := range c.hub.Kinds() {
		to <- prometheus.MustNewConstMetric(connectionsDesc, prometheus.GaugeValue, float64(n), kind.Transport, kind.Session)
	}
}

func (m *metrics) route(r route) prometheus.Counter {
	return m.requests.WithLabelValues(r.method, r.path)
}

func (m *metrics) problem(code wire.Code) { m.problems.WithLabelValues(string(code)).Inc() }
