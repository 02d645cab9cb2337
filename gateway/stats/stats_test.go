package stats_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/gateway/stats"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at is so many seconds after noon.
func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

// note tells that a node, up since noon, has published so many by now.
func note(k *stats.Keeper, node string, seconds, published float64) {
	k.Note(stats.Sample{Node: node, Started: noon, At: at(seconds), Totals: stats.Totals{"published": published}})
}

// last writes the last points of a series, "-" for one that is not known.
func last(t *testing.T, k *stats.Keeper, span, node, series string, now float64, n int) string {
	t.Helper()
	shown, err := k.Show(span, node, at(now))
	if err != nil {
		t.Fatal(err)
	}
	points := shown.Series[series]
	var out []string
	for _, p := range points[len(points)-n:] {
		if p == nil {
			out = append(out, "-")
		} else {
			out = append(out, fmt.Sprint(*p))
		}
	}
	return strings.Join(out, " ")
}

func TestARateIsSteadyWhateverTheSamplesBeat(t *testing.T) {
	k := stats.New()
	// Samples of every 3.5 s, steps of 5 s, 10 events a second.
	for s := 0.0; s <= 35; s += 3.5 {
		note(k, "a", s, 10*s)
	}
	if got, want := last(t, k, "5m", "", "published", 34, 8), "- 10 10 10 10 10 10 10"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNodesAddUpAndAreShownAlone(t *testing.T) {
	k := stats.New()
	for s := 0.0; s <= 20; s += 5 {
		note(k, "a", s, 10*s)
		if s >= 10 { // b is heard of later, and then not at all
			note(k, "b", s, 100*s)
		}
	}
	for node, want := range map[string]string{"": "110 110 110 110", "a": "10 10 10 10", "b": "100 100 100 100"} {
		if got := last(t, k, "5m", node, "published", 19, 4); got != want {
			t.Errorf("of %q: got %s, want %s", node, got, want)
		}
	}
	note(k, "a", 25, 250)
	note(k, "a", 30, 300)
	if got, want := last(t, k, "5m", "", "published", 29, 3), "110 10 10"; got != want {
		t.Errorf("without b: got %s, want %s", got, want)
	}
}

func TestOfAWorstTheWorstNodesCounts(t *testing.T) {
	k := stats.New()
	for node, totals := range map[string]stats.Totals{"a": {"waiting": 3, "oldest_seconds": 60}, "b": {"waiting": 4, "oldest_seconds": 5}} {
		for s := 0.0; s <= 10; s += 5 {
			k.Note(stats.Sample{Node: node, Started: noon, At: at(s), Totals: totals})
		}
	}
	if waiting, oldest := last(t, k, "5m", "", "waiting", 9, 2), last(t, k, "5m", "", "oldest_seconds", 9, 2); waiting != "7 7" || oldest != "60 60" {
		t.Errorf("%s wait, the oldest for %s", waiting, oldest)
	}
}

func TestARestartedNodeCountsFromZero(t *testing.T) {
	k := stats.New()
	note(k, "a", 0, 0)
	note(k, "a", 5, 500)
	k.Note(stats.Sample{Node: "a", Started: at(10), At: at(15), Totals: stats.Totals{"published": 50}})
	if got, want := last(t, k, "5m", "a", "published", 14, 3), "100 - 10"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestANodeThatRanBeforeItWasHeardOfSaysNothingOfThen(t *testing.T) {
	k := stats.New()
	k.Note(stats.Sample{Node: "old", Started: noon.Add(-time.Hour), At: at(5), Totals: stats.Totals{"published": 1e6}})
	k.Note(stats.Sample{Node: "old", Started: noon.Add(-time.Hour), At: at(10), Totals: stats.Totals{"published": 1e6 + 50}})
	if got, want := last(t, k, "5m", "", "published", 9, 3), "- - 10"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestABrokerThatWasAwayLeavesNoHole(t *testing.T) {
	k := stats.New()
	note(k, "a", 0, 0)
	note(k, "a", 5, 50)
	note(k, "a", 25, 150) // 20 s in which nothing could be told
	if got, want := last(t, k, "5m", "a", "published", 24, 5), "10 5 5 5 5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTheLongSpansForgetWhatIsOlder(t *testing.T) {
	k := stats.New()
	for hour := range 30 {
		for s := 0.0; s < 3600; s += 60 {
			note(k, "a", float64(hour)*3600+s, 2*(float64(hour)*3600+s))
		}
	}
	for span, points := range map[string]int{"5m": 60, "1h": 120, "24h": 288} {
		shown, _ := k.Show(span, "", at(30*3600-61))
		got := shown.Series["published"]
		if len(got) != points {
			t.Errorf("%s: %d points, want %d", span, len(got), points)
		}
		for i, p := range got {
			if p == nil || *p != 2 {
				t.Fatalf("%s: point %d is not 2", span, i)
			}
		}
	}
}

func TestMeansAreOfWhatHappened(t *testing.T) {
	k := stats.New()
	for i, totals := range []stats.Totals{
		{}, {"delivery_seconds": 1, "delivery_seconds_count": 100}, {"delivery_seconds": 1, "delivery_seconds_count": 100},
		{"delivery_seconds": 4, "delivery_seconds_count": 110, "websocket": 3},
	} {
		k.Note(stats.Sample{Node: "a", Started: noon, At: at(5 * float64(i)), Totals: totals})
	}
	if got, want := last(t, k, "5m", "", "delivery_seconds", 14, 3), "0.01 - 0.3"; got != want {
		t.Errorf("delays: got %s, want %s", got, want)
	}
	if got, want := last(t, k, "5m", "", "websocket", 14, 3), "0 0 3"; got != want {
		t.Errorf("connections: got %s, want %s", got, want)
	}
}

func TestTotalsArePickedOutOfTheMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "longline_callback_calls_total"}, []string{"result"})
	calls.WithLabelValues("accepted").Add(7)
	calls.WithLabelValues("trouble").Add(2)
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "longline_refused_total"}, []string{"limit"})
	refused.WithLabelValues("sockets").Add(1)
	refused.WithLabelValues("publish").Add(4)
	delays := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "longline_delivery_seconds"})
	delays.Observe(0.5)
	delays.Observe(1)
	r.MustRegister(calls, refused, delays)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(stats.TotalsOf(families))
	want := "map[callbacks_accepted:7 callbacks_trouble:2 delivery_seconds:1.5 delivery_seconds_count:2 refused:5]"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestHistoriesTakeLessThanAMegabyte, however many nodes come and go.
func TestHistoriesTakeLessThanAMegabyte(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	k := stats.New()
	for i := range 200 {
		note(k, fmt.Sprint("node-", i), float64(i), 1)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if taken := int64(after.HeapAlloc) - int64(before.HeapAlloc); taken > 1<<20 {
		t.Errorf("%d bytes", taken)
	}
	if shown, _ := k.Show("5m", "", at(200)); len(shown.Nodes) != 20 {
		t.Errorf("%d nodes are remembered, want the 20 last heard of", len(shown.Nodes))
	}
}

func BenchmarkNote(b *testing.B) {
	k := stats.New()
	for i := range b.N {
		note(k, "a", 5*float64(i), float64(i))
	}
}

// BenchmarkShow is what a page costs that asks every five seconds, of twenty nodes.
func BenchmarkShow(b *testing.B) {
	k := stats.New()
	for node := range 20 {
		for s := 0.0; s <= 300; s += 5 {
			note(k, fmt.Sprint("node-", node), s, s)
		}
	}
	for b.Loop() {
		if _, err := k.Show("24h", "", at(300)); err != nil {
			b.Fatal(err)
		}
	}
}
