package stats

import (
	dto "github.com/prometheus/client_model/go"
)

// series is one line of a chart and the metric it is of.
type series struct {
	name, metric string
	label, value string // "": all of the metric together
	kind         kind
}

type kind int

const (
	rate  kind = iota // of a counter, a second
	level             // of a gauge
	worst             // of a gauge of which nodes don't add up: the highest of them
	mean              // of a histogram: two slots, the sum and the count
)

// all is what is kept, in the order of the slots.
var all = []series{
	{name: "published", metric: "longline_published_events_total"},
	{name: "sent", metric: "longline_frames_sent_total"},
	{name: "called", metric: "longline_callback_events_total"},
	{name: "websocket", metric: "longline_connections", label: "transport", value: "websocket", kind: level},
	{name: "sse", metric: "longline_connections", label: "transport", value: "sse", kind: level},
	{name: "callbacks_in_flight", metric: "longline_callback_in_flight", kind: level},
	{name: "callbacks_accepted", metric: "longline_callback_calls_total", label: "result", value: "accepted"},
	{name: "callbacks_refused", metric: "longline_callback_calls_total", label: "result", value: "refused"},
	{name: "callbacks_trouble", metric: "longline_callback_calls_total", label: "result", value: "trouble"},
	{name: "waiting", metric: "longline_subscriptions_waiting_events", kind: level},
	{name: "oldest_seconds", metric: "longline_subscriptions_oldest_seconds", kind: worst},
	{name: "dead_letters", metric: "longline_callback_dead_letters_total"},
	{name: "gaps", metric: "longline_gaps_total"},
	{name: "refused", metric: "longline_refused_total"},
	{name: "problems", metric: "longline_http_problems_total"},
	{name: "delivery_seconds", metric: "longline_delivery_seconds", kind: mean},
	{name: "callback_seconds", metric: "longline_callback_seconds", kind: mean},
}

// Metrics are the names of the metrics that series are made of.
func Metrics() (names []string) {
	for _, s := range all {
		names = append(names, s.metric)
	}
	return names
}

// slots is how many numbers a sample has: one a series, two of a mean.
var slots = func() (n int) {
	for _, s := range all {
		n += s.width()
	}
	return n
}()

// gauge tells whether the last value of a step is what counts.
func (s series) gauge() bool { return s.kind == level || s.kind == worst }

func (s series) width() int {
	if s.kind == mean {
		return 2
	}
	return 1
}

// Totals are what a node's metrics say at one moment, by the names of series:
// a counter's value, a gauge's, a histogram's sum and, with "_count", its
// count. Zeros are left out.
type Totals map[string]float64

// TotalsOf picks out of gathered metrics what is kept.
func TotalsOf(families []*dto.MetricFamily) Totals {
	t := make(Totals)
	for _, f := range families {
		for _, s := range all {
			if s.metric != f.GetName() {
				continue
			}
			for _, m := range f.GetMetric() {
				if s.label == "" || labelled(m, s.label, s.value) {
					t.add(s, m)
				}
			}
		}
	}
	return t
}

func (t Totals) add(s series, m *dto.Metric) {
	switch s.kind {
	case rate:
		t.put(s.name, m.GetCounter().GetValue())
	case level, worst:
		t.put(s.name, m.GetGauge().GetValue())
	case mean:
		t.put(s.name, m.GetHistogram().GetSampleSum())
		t.put(s.name+"_count", float64(m.GetHistogram().GetSampleCount()))
	}
}

func (t Totals) put(name string, v float64) {
	if v != 0 {
		t[name] += v
	}
}

func labelled(m *dto.Metric, label, value string) bool {
	for _, l := range m.GetLabel() {
		if l.GetName() == label {
			return l.GetValue() == value
		}
	}
	return false
}
