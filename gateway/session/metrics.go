package session

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/longline-push/longline/gateway/wire"
)

// Metrics counts what becomes of sessions and their events. What was not
// delivered is counted under the reason its client was told.
type Metrics struct {
	frames   prometheus.Counter
	gaps     *prometheus.CounterVec
	byes     *prometheus.CounterVec
	timeouts prometheus.Counter
	catchUps prometheus.Counter
	latency  prometheus.Histogram
	corrupt  prometheus.Counter
	cutOff   prometheus.Counter
}

// NewMetrics makes the metrics and registers them; r may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	make := promauto.With(r)
	return &Metrics{
		frames: make.NewCounter(prometheus.CounterOpts{
			Name: "longline_frames_sent_total", Help: "Events and control messages handed to live connections.",
		}),
		gaps: make.NewCounterVec(prometheus.CounterOpts{
			Name: "longline_gaps_total", Help: "Gaps told to live connections, by reason.",
		}, []string{"reason"}),
		byes: make.NewCounterVec(prometheus.CounterOpts{
			Name: "longline_byes_total", Help: "Connections that the gateway ended, by close code.",
		}, []string{"code"}),
		timeouts: make.NewCounter(prometheus.CounterOpts{
			Name: "longline_write_timeouts_total", Help: "Connections closed because their peer took nothing for too long.",
		}),
		catchUps: make.NewCounter(prometheus.CounterOpts{
			Name: "longline_catch_ups_total", Help: "Pages of the log read for connections behind the ring.",
		}),
		latency: make.NewHistogram(prometheus.HistogramOpts{
			Name: "longline_delivery_seconds", Help: "From an event's append to its write to a connection that keeps up, of one send in 16.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}),
		corrupt: make.NewCounter(prometheus.CounterOpts{
			Name: "longline_corrupt_events_total", Help: "Stored events that can't be read, each once.",
		}),
		cutOff: make.NewCounter(prometheus.CounterOpts{
			Name: "longline_filters_cut_off_total", Help: "Evaluations of filters that were stopped, or not begun, for what they cost: the event was not taken.",
		}),
	}
}

func (m *Metrics) bye(code wire.CloseCode) { m.byes.WithLabelValues(strconv.Itoa(int(code))).Inc() }
