package scenario

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/measure"
)

func series(name string, values ...float64) *measure.Run {
	run := &measure.Run{}
	for i, v := range values {
		run.Add(name, "MiB", time.Duration(i)*time.Second, v)
	}
	return run
}

func TestFlat(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []float64
		leaks  bool
	}{
		{"flat", []float64{100, 100, 100, 100, 100, 100, 100, 100}, false},
		{"warms up, then flat", []float64{10, 50, 100, 100, 100, 100, 101, 99}, false},
		{"a saw", []float64{100, 120, 100, 120, 100, 120, 100, 120}, false},
		{"within the slack", []float64{20, 20, 22, 24, 26, 28, 30, 32}, false},
		{"leaks", []float64{100, 150, 200, 250, 300, 350, 400, 450}, true},
		{"shrinks", []float64{400, 300, 200, 100, 100, 100, 100, 100}, false},
		{"too short to tell", []float64{100, 100}, true},
	} {
		err := flat(series("RSS", tc.values...), "RSS", "MiB", 24)
		if (err != nil) != tc.leaks {
			t.Errorf("%s: got %v, want an error: %v", tc.name, err, tc.leaks)
		}
	}
	run := &measure.Run{}
	if err := flat(run, "goroutines", "", 1); err != nil || len(run.Notes) != 1 {
		t.Errorf("unknown: got %v, notes %q, want a note", err, run.Notes)
	}
}

func TestAgainstTheUndisturbed(t *testing.T) {
	r := &measure.Report{}
	for n, p99 := range [][2]float64{{10, 11}, {100, 150}} {
		for i, c := range []string{"x, all read", "x, some don't"} {
			run := &measure.Run{Case: c, Number: n + 1}
			run.Set("p99", "ms", p99[i])
			r.Runs = append(r.Runs, run)
		}
	}
	against("all read")(r)
	var got []float64
	for _, run := range r.Runs {
		v, _ := run.Get("p99 ÷ all read")
		got = append(got, v)
	}
	if want := []float64{0, 1.1, 0, 1.5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestGrowthJudgesWhatIsAdded(t *testing.T) {
	r := &measure.Report{}
	for _, p := range []struct{ n, mib float64 }{{100, 40}, {1000, 49}, {10_000, 139}} {
		run := &measure.Run{Case: "ws 1 connections", X: p.n, Target: "longline", Number: 1}
		run.Case = "ws " + strings.Repeat("1", int(p.n)/1000+1) + " connections" // distinct
		run.Set("RSS connected", "MiB", p.mib)
		r.Runs = append(r.Runs, run)
	}
	growth.Judge(r)
	if _, ok := r.Runs[0].Get(furtherRSS); ok {
		t.Error("the first has nothing to be compared with")
	}
	for _, run := range r.Runs[1:] {
		if got, _ := run.Get(furtherRSS); int(got) != 10485 {
			t.Errorf("%v connections: got %v bytes for each further one, want 10485", run.X, got)
		}
	}
	if len(r.Findings) != 1 || !strings.Contains(r.Findings[0], "1.00 × the lowest") {
		t.Errorf("findings: %q", r.Findings)
	}
}

func TestSteps(t *testing.T) {
	for _, tc := range []struct {
		from, to int
		want     []int
	}{{100, 15_000, []int{100, 1000, 10_000, 15_000}}, {1, 100, []int{1, 10, 100}}, {100, 50, []int{50}}} {
		if got := steps(tc.from, tc.to); !slices.Equal(got, tc.want) {
			t.Errorf("%d to %d: got %v, want %v", tc.from, tc.to, got, tc.want)
		}
	}
}

func TestScenariosAreComplete(t *testing.T) {
	for _, s := range All() {
		if found, err := Find(s.Name); err != nil || found != s {
			t.Errorf("%s: not found: %v", s.Name, err)
		}
		cases := s.Cases(Options{}.or(s.Defaults))
		if len(cases) == 0 || s.Brief == "" {
			t.Errorf("%s: got %d cases, brief %q", s.Name, len(cases), s.Brief)
		}
		names := map[string]bool{}
		for _, c := range cases {
			if names[c.Name] {
				t.Errorf("%s: two cases are called %q", s.Name, c.Name)
			}
			names[c.Name] = true
		}
	}
	if _, err := Find("nosuch"); err == nil || !strings.Contains(err.Error(), "fanout") {
		t.Errorf("got %v, want an error that names the scenarios", err)
	}
}

func TestKindsOfReceivers(t *testing.T) {
	count := map[string]int{}
	for i := range 9 {
		count[kindOf(mixed, i, 9)]++
		if got := kindOf(allFast, i, 9); got != "fast" {
			t.Errorf("all fast: got %q", got)
		}
	}
	if count["fast"] != 3 || count["slow"] != 3 || count["dead"] != 3 {
		t.Errorf("got %v", count)
	}
}

// TestReceiversKeepAccount sends callbacks that are lost, doubled, disordered
// and announced.
func TestReceiversKeepAccount(t *testing.T) {
	r := &receivers{books: []ledger.Ledger{ledger.From(1)}, first: 1, latency: measure.NewHistogram()}
	send := func(again string, seqs ...int) {
		t.Helper()
		var events []string
		for _, seq := range seqs {
			events = append(events, fmt.Sprintf(`{"data":{"seq":%d,"at":1}}`, seq))
		}
		req := httptest.NewRequest("POST", "/fast/0", strings.NewReader("["+strings.Join(events, ",")+"]"))
		req.Header.Set("Longline-Redelivery", again)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code != 204 {
			t.Fatalf("got %d", w.Code)
		}
	}
	send("", 1, 2)
	send("true", 2, 3) // 2 was announced
	send("", 3)        // 3 wasn't
	send("", 6, 5)     // 4 never comes
	want := ledger.Faults{Lost: 1, Duplicated: 1, Disordered: 1}
	if got := r.books[0].Close(6); got != want || r.delivered != 5 || r.announced != 1 {
		t.Errorf("got %+v, %d delivered, %d announced, want %+v, 5, 1", got, r.delivered, r.announced, want)
	}
	for _, path := range []string{"/fast/1", "/fast/x", "/"} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("POST", path, nil))
		if w.Code != 404 {
			t.Errorf("%s: got %d, want 404", path, w.Code)
		}
	}
}
