package measure_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/measure"
)

func TestHistogramRoundTrip(t *testing.T) {
	h := measure.NewHistogram()
	for i := range 1000 {
		h.Record(time.Duration(i) * time.Millisecond)
	}
	h.Record(-time.Second) // clamped
	h.Record(time.Hour)    // clamped
	b, err := h.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var got measure.Histogram
	if err := got.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	if got.Count() != 1002 || got.Quantile(0.5) != h.Quantile(0.5) || got.Max() != h.Max() {
		t.Errorf("got %d, %v, %v", got.Count(), got.Quantile(0.5), got.Max())
	}
	if p := h.Quantile(0.5); p < 495*time.Millisecond || p > 505*time.Millisecond {
		t.Errorf("median: got %v, want about 500ms", p)
	}
	got.Merge(h)
	got.Merge(nil)
	if got.Count() != 2004 {
		t.Errorf("merged: got %d, want 2004", got.Count())
	}
}

func TestReportRoundTrip(t *testing.T) {
	want := &measure.Report{Format: measure.Format, Scenario: "fanout", Command: []string{"fanout"}, Started: time.Unix(1e9, 0).UTC(), Machine: measure.ThisMachine()}
	run := &measure.Run{Case: "a", Target: "longline", Number: 1, Started: want.Started, Faults: ledger.Faults{Lost: 2}}
	h := measure.NewHistogram()
	h.Record(3 * time.Millisecond)
	run.SetLatency("", h)
	run.Set("CPU", "cores", 1.5)
	run.Add("RSS", "MiB", time.Second, 10)
	run.Fail(errors.New("something broke"))
	want.Runs = append(want.Runs, run)
	want.Verdicts = append(want.Verdicts, measure.Verdict{Name: "flat", Detail: "it grew"})
	var b bytes.Buffer
	if err := want.Save(&b); err != nil {
		t.Fatal(err)
	}
	got, err := measure.Load(&b)
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Runs[0].Latencies[0].Histogram.Quantile(1); p != h.Quantile(1) {
		t.Errorf("latency: got %v, want %v", p, h.Quantile(1))
	}
	got.Runs[0].Latencies, want.Runs[0].Latencies = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	msg := got.Err().Error()
	for _, part := range []string{"2 events lost", "something broke", "it grew"} {
		if !strings.Contains(msg, part) {
			t.Errorf("error %q lacks %q", msg, part)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, s := range []string{"", "{", `{"format":99}`, `{"format":1,"runs":[null]}`,
		`{"format":1,"runs":[{"latencies":[{"name":"x"}]}]}`, `{"format":1,"runs":[{"latencies":[{"name":"x","histogram":"!!"}]}]}`} {
		if _, err := measure.Load(strings.NewReader(s)); err == nil {
			t.Errorf("%s: got no error", s)
		}
	}
}

func FuzzLoad(f *testing.F) {
	h := measure.NewHistogram()
	h.Record(time.Millisecond)
	r := &measure.Report{Format: measure.Format, Runs: []*measure.Run{{Case: "a"}}}
	r.Runs[0].SetLatency("", h)
	var b bytes.Buffer
	if err := r.Save(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := measure.Load(bytes.NewReader(b)); err == nil {
			r.Summarize("floor")
			_ = r.Err()
		}
	})
}

func TestSummarizeComparesNeighbours(t *testing.T) {
	r := &measure.Report{}
	add := func(target string, n int, v float64) {
		run := &measure.Run{Case: "c", Target: target, Number: n}
		run.Set("CPU", "µs", v)
		r.Runs = append(r.Runs, run)
	}
	// The machine is three times slower in the second round: ratios don't mind.
	add("longline", 1, 11)
	add("floor", 1, 10)
	add("longline", 2, 33)
	add("floor", 2, 30)
	add("longline", 3, 12)
	add("floor", 3, 10)
	rows := r.Summarize("floor")
	if len(rows) != 2 {
		t.Fatalf("got %d rows, want 2", len(rows))
	}
	if v, _ := rows[0].Get("CPU"); v != 12 {
		t.Errorf("median: got %v, want 12", v)
	}
	if got := rows[0].Ratio["CPU"]; got < 1.099 || got > 1.101 {
		t.Errorf("ratio: got %v, want 1.1", got)
	}
	if len(rows[1].Ratio) != 0 {
		t.Errorf("the floor has a ratio to itself: %v", rows[1].Ratio)
	}
}

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := measure.Median(tc.values); got != tc.want {
			t.Errorf("%v: got %v, want %v", tc.values, got, tc.want)
		}
	}
}

func TestProcessesCountWhatTheyUse(t *testing.T) {
	me := measure.Processes{os.Getpid()}
	before, err := me.Sample()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		after, err := me.Sample()
		if err != nil {
			t.Fatal(err)
		}
		if after.CPU-before.CPU >= 20*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 5 busy seconds %v of CPU were counted", after.CPU-before.CPU)
		}
	}
	if before.RSS < 1<<20 || before.FDs < 3 {
		t.Errorf("got RSS %d, %d descriptors", before.RSS, before.FDs)
	}
	both := measure.Processes{os.Getpid(), os.Getpid()}
	if u, err := both.Sample(); err != nil || u.RSS < 3*before.RSS/2 {
		t.Errorf("two processes: got RSS %d, error %v, want about %d", u.RSS, err, 2*before.RSS)
	}
}

func TestProcessThatIsGone(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := (measure.Processes{cmd.Process.Pid}).Sample(); !errors.Is(err, measure.ErrNoProcess) {
		t.Errorf("got %v, want ErrNoProcess", err)
	}
}
