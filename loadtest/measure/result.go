package measure

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longline-push/longline/loadtest/ledger"
)

// Format is the version of the kept form of results.
const Format = 1

// A Report is all that one command measured, raw: every run by itself, with
// whole histograms. Summaries are made from it, never kept.
type Report struct {
	Format   int       `json:"format"`
	Scenario string    `json:"scenario"`
	Brief    string    `json:"brief"`
	Command  []string  `json:"command"`
	Started  time.Time `json:"started"`
	Machine  Machine   `json:"machine"`
	Compare  []string  `json:"compare,omitempty"` // series drawn of all cases in one picture
	Runs     []*Run    `json:"runs"`
	Findings []string  `json:"findings,omitempty"` // what the runs say together
	Verdicts []Verdict `json:"verdicts,omitempty"`
}

// Machine is what the figures depend on.
type Machine struct {
	CPUs   int    `json:"cpus"`
	CPU    string `json:"cpu"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// A Run is one case of a scenario, once, against one target.
type Run struct {
	Case      string        `json:"case"`
	X         float64       `json:"x,omitempty"` // where the case stands on a growth axis
	Target    string        `json:"target"`
	Number    int           `json:"number"`
	Started   time.Time     `json:"started"`
	Metrics   []Metric      `json:"metrics"`
	Latencies []Latency     `json:"latencies"`
	Series    []Series      `json:"series"`
	Faults    ledger.Faults `json:"faults"`
	Errors    []string      `json:"errors,omitempty"` // why the run counts as failed
	Notes     []string      `json:"notes,omitempty"`
}

// A Metric is one number of a run.
type Metric struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// A Latency is a distribution of a run.
type Latency struct {
	Name      string     `json:"name"`
	Histogram *Histogram `json:"histogram"`
}

// A Series is a quantity over a run's time.
type Series struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Points []Point `json:"points"`
}

// A Point is a value at a number of seconds since the run began to measure.
type Point struct {
	T float64 `json:"t"`
	V float64 `json:"v"`
}

// A Verdict is what a scenario demands of its runs together; one that isn't
// passed fails the report.
type Verdict struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail"`
}

// Set notes a number; it replaces one of that name.
func (r *Run) Set(name, unit string, value float64) {
	for i := range r.Metrics {
		if r.Metrics[i].Name == name {
			r.Metrics[i] = Metric{name, value, unit}
			return
		}
	}
	r.Metrics = append(r.Metrics, Metric{name, value, unit})
}

// Get returns a number noted.
func (r *Run) Get(name string) (float64, bool) {
	i := slices.IndexFunc(r.Metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return 0, false
	}
	return r.Metrics[i].Value, true
}

// Quantiles that are reported of each latency.
var Quantiles = []struct {
	Name string
	Q    float64
}{{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}}

// SetLatency notes a distribution, and its quantiles as numbers in ms.
func (r *Run) SetLatency(name string, h *Histogram) {
	r.Latencies = append(r.Latencies, Latency{name, h})
	if h.Count() == 0 {
		return
	}
	for _, q := range Quantiles {
		r.Set(strings.TrimSpace(name+" "+q.Name), "ms", float64(h.Quantile(q.Q).Microseconds())/1000)
	}
}

// Add appends a point to the series of that name.
func (r *Run) Add(name, unit string, t time.Duration, v float64) {
	i := slices.IndexFunc(r.Series, func(s Series) bool { return s.Name == name })
	if i < 0 {
		i = len(r.Series)
		r.Series = append(r.Series, Series{Name: name, Unit: unit})
	}
	r.Series[i].Points = append(r.Series[i].Points, Point{t.Seconds(), v})
}

// Fail marks the run as failed.
func (r *Run) Fail(err error) { r.Errors = append(r.Errors, err.Error()) }

// Err joins all that went wrong, nil if nothing did.
func (r *Report) Err() error {
	var errs []error
	for _, run := range r.Runs {
		where := fmt.Sprintf("%s, %s, run %d", run.Case, run.Target, run.Number)
		if err := run.Faults.Err(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
		for _, e := range run.Errors {
			errs = append(errs, fmt.Errorf("%s: %s", where, e))
		}
	}
	for _, v := range r.Verdicts {
		if !v.Passed {
			errs = append(errs, fmt.Errorf("%s: %s", v.Name, v.Detail))
		}
	}
	return errors.Join(errs...)
}

// Good is what can be said of a report without error.
func (r *Report) Good() string {
	for _, run := range r.Runs {
		if lost, _ := run.Get("lost"); lost > 0 {
			return "Longline lost nothing and overran nobody."
		}
	}
	return "Every event arrived once and in order."
}

// Save writes the report as JSON.
func (r *Report) Save(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(r); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	return nil
}

// Load reads a report that Save wrote.
func Load(r io.Reader) (*Report, error) {
	var report Report
	if err := json.NewDecoder(r).Decode(&report); err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	if report.Format != Format {
		return nil, fmt.Errorf("read results: format %d: this version takes %d", report.Format, Format)
	}
	for _, run := range report.Runs {
		if run == nil {
			return nil, errors.New("read results: a run is null")
		}
		for _, l := range run.Latencies {
			if l.Histogram == nil || l.Histogram.h == nil {
				return nil, fmt.Errorf("read results: latency %q has no histogram", l.Name)
			}
		}
	}
	return &report, nil
}

// ThisMachine describes where the tester runs.
func ThisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}
