package node

import (
	"testing"

	"github.com/longline-push/longline/gateway/stats"
)

// TestStatsNameMetricsThatThereAre: a chart of a metric that was renamed would
// be empty for ever.
func TestStatsNameMetricsThatThereAre(t *testing.T) {
	n, err := New(t.Context(), Options{Broker: "embedded:" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Shutdown()
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range families {
		have[f.GetName()] = true
	}
	for _, metric := range stats.Metrics() {
		// A vector without children isn't gathered yet: no limit refused anything.
		if !have[metric] && metric != "longline_refused_total" && metric != "longline_http_problems_total" && metric != "longline_gaps_total" {
			t.Errorf("charts are made of %s, which the node doesn't have", metric)
		}
	}
}

// BenchmarkTotals is what a node spends every five seconds to tell its totals.
func BenchmarkTotals(b *testing.B) {
	n, err := New(b.Context(), Options{Broker: "embedded:" + b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Shutdown()
	for b.Loop() {
		n.totals()
	}
}
