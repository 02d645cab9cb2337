package quota

import "github.com/prometheus/client_golang/prometheus"

// register makes the budget's metrics; r may be nil.
func (b *Budget) register(r prometheus.Registerer) {
	b.refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "longline_refused_total", Help: "What was refused, by the name of the limit.",
	}, []string{"limit"})
	if r == nil {
		return
	}
	r.MustRegister(b.refusals)
	for _, a := range []*Account{b.sockets, b.unread, b.channels} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "longline_held", Help: "What the node holds, by the name of its limit.",
			ConstLabels: prometheus.Labels{"limit": a.Name()},
		}, func() float64 { return float64(a.Held()) }))
	}
}

// Refused counts a refusal because the account is full.
func (b *Budget) Refused(full *Account) { b.refusedBy(full.Name()) }

// RefusedAddress counts a connection refused because its client's address has
// as many as one may.
func (b *Budget) RefusedAddress() { b.refusedBy("max-address-connections") }

func (b *Budget) refusedBy(limit string) { b.refusals.WithLabelValues(limit).Inc() }
