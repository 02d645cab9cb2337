package node

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker/redis/redistest"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

const metricsDoc = "../docs/metrics.md"

var described = regexp.MustCompile(`fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)", (?:unit: "[^"]*", )?constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)

// newDescribed makes a node with all the metrics it can have.
func newDescribed(t *testing.T, o Options) *Node {
	t.Helper()
	o.MetricsSubscriptions = 1
	n, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Shutdown() })
	return n
}

// TestMetricsAreDocumented holds docs/metrics.md to what the node registers.
// Run with -update after a change.
func TestMetricsAreDocumented(t *testing.T) {
	embedded := newDescribed(t, Options{Broker: "embedded:" + t.TempDir()})
	onRedis := newDescribed(t, Options{Broker: redistest.Start(t).URL(), JWTSecret: strings.Repeat("j", 32), SecretKey: strings.Repeat("s", 32)})
	descs := make(chan *prometheus.Desc)
	go func() {
		embedded.metrics.Describe(descs)
		onRedis.metrics.Describe(descs)
		close(descs)
	}()
	var rows []string
	for d := range descs {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("can't read %s", d)
		}
		if !strings.HasPrefix(m[1], "longline_") {
			continue // the Go runtime's and the process's
		}
		kind := "gauge"
		switch {
		case strings.HasSuffix(m[1], "_total"):
			kind = "counter"
		case m[1] == "longline_subscription_callback_seconds":
			kind = "summary"
		case strings.HasSuffix(m[1], "_lag_seconds"):
		case strings.HasSuffix(m[1], "_seconds") || strings.HasSuffix(m[1], "_calls") || m[1] == "longline_broker_append_events":
			kind = "histogram"
		}
		var names []string
		for _, pair := range strings.Split(m[3]+","+m[4], ",") {
			if name, _, _ := strings.Cut(pair, "="); name != "" {
				names = append(names, "`"+name+"`")
			}
		}
		labels := strings.Join(names, ", ")
		if labels == "" {
			labels = "–"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", m[1], kind, labels, m[2]))
	}
	slices.Sort(rows)
	rows = slices.Compact(rows) // one a constant label
	if len(rows) < 25 {
		t.Fatalf("only %d metrics", len(rows))
	}
	want := `# Metrics

What a node serves at ` + "`/metrics`" + ` of its admin listener (` + "`--admin-listen`" + `, loopback by default), for Prometheus. Besides these there are the Go runtime's (` + "`go_…`" + `) and the process's (` + "`process_…`" + `). Dashboards and alerts that use them are in ` + "`deploy/grafana`" + ` and ` + "`deploy/prometheus`" + `.

| name | type | labels | what |
|---|---|---|---|
` + strings.Join(rows, "\n") + "\n"
	if *update {
		if err := os.WriteFile(metricsDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s isn't what the node registers: go test ./node -run MetricsAreDocumented -update", metricsDoc)
	}
}

// TestMetricsAreAsPrometheusLikesThem: names, types and help by its own linter.
func TestMetricsAreAsPrometheusLikesThem(t *testing.T) {
	n, err := New(t.Context(), Options{Broker: "embedded:" + t.TempDir(), AdminListen: "127.0.0.1:0", MetricsSubscriptions: 3})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- n.Run(ctx) }()
	defer func() {
		cancel()
		<-ran
		n.Shutdown()
	}()
	r, err := http.NewRequest(http.MethodGet, "http://"+n.adminListener.Addr().String()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", answer.Status, err)
	}
	lint := exec.Command("promtool", "check", "metrics")
	lint.Stdin = strings.NewReader(string(text))
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
