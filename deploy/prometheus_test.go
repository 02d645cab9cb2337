package deploy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// TestAlerts: each rule fires when it should, and none when all is well.
func TestAlerts(t *testing.T) {
	cmd := exec.Command("promtool", "test", "rules", "alerts_test.yml")
	cmd.Dir = "prometheus"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	rules, tests, operations := mustRead(t, "prometheus/alerts.yml"), mustRead(t, "prometheus/alerts_test.yml"), mustRead(t, "../docs/operations.md")
	for _, name := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1) {
		if !strings.Contains(tests, "alertname: "+name[1]+"\n        exp_alerts:") {
			t.Errorf("no test sees %s fire", name[1])
		}
	}
	for _, anchor := range regexp.MustCompile(`operations\.md#(\S+)`).FindAllStringSubmatch(rules, -1) {
		found := false
		for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(operations, -1) {
			found = found || strings.ReplaceAll(strings.ToLower(strings.NewReplacer("'", "", ",", "").Replace(heading[1])), " ", "-") == anchor[1]
		}
		if !found {
			t.Errorf("the runbook has no #%s", anchor[1])
		}
	}
}

func mustRead(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs a program until the test ends; it must be killed then.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, text)
		}
	})
}

// eventually asks until it hears nil.
func eventually(t testing.TB, what string, ask func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		if err = ask(); err == nil {
			return
		}
		time.Sleep(200 * time.Millisecond) // another process's affair: it can only be asked
	}
	t.Fatalf("%s: %v", what, err)
}

// TestDashboards has a real Prometheus scrape a gateway at work, and asks it
// what each panel of each dashboard asks. Every one gets an answer; and there
// is every metric that an alert names.
func TestDashboards(t *testing.T) {
	dir := t.TempDir()
	public, admin, prometheus := freeAddress(t), freeAddress(t), freeAddress(t)
	start(t, exec.Command(built, "serve", "--listen", public, "--admin-listen", admin, "--broker", "embedded:"+filepath.Join(dir, "data"), "--metrics-subscriptions", "1"))
	onRedis := startOnRedis(t, dir)
	base := "http://" + public
	eventually(t, "ready", func() error { return get(base+"/readyz", nil) })

	config := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: longline\n    static_configs: [{targets: [%q, %q]}]\n", admin, onRedis)
	path := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, exec.Command("prometheus", "--config.file="+path, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.listen-address="+prometheus))

	// Something of everything: a reader, a callback that works, one that
	// doesn't, a problem, and events.
	mint := exec.Command(built, "token", "--admin")
	mint.Env = append(os.Environ(), "LONGLINE_BROKER=embedded:"+filepath.Join(dir, "data"))
	token, err := mint.Output()
	if err != nil {
		t.Fatal(err)
	}
	bearer := "Bearer " + strings.TrimSpace(string(token))
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}))
	defer receiver.Close()
	call := func(method, path, body string) int {
		t.Helper()
		r, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", bearer)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		return answer.StatusCode
	}
	for _, name := range []string{"accept", "refuse"} {
		if got := call("PUT", "/v1/subscriptions/"+name, fmt.Sprintf(`{"channels":["a"],"callback":{"url":%q,"grace":"0s"}}`, receiver.URL+"/"+name)); got >= 300 {
			t.Fatalf("PUT: %d", got)
		}
	}
	stream, err := http.Get(base + "/v1/sse?channel=a&access_token=" + strings.TrimPrefix(bearer, "Bearer "))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	go io.Copy(io.Discard, stream.Body)
	call("GET", "/v1/channels/a/events?since=nonsense", "")
	publish := func() {
		for range 20 {
			if got := call("POST", "/v1/channels/a/events", `{"type":"t","data":1}`); got != http.StatusOK {
				t.Fatalf("publish: %d", got)
			}
		}
	}
	ask := func(query string) error {
		var answer struct {
			Status, Error string
			Data          struct{ Result []any }
		}
		if err := get("http://"+prometheus+"/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
			return err
		}
		if len(answer.Data.Result) == 0 {
			return fmt.Errorf("no data (%s %s)", answer.Status, answer.Error)
		}
		return nil
	}
	eventually(t, "scraped", func() error { publish(); return ask(`longline_published_events_total > 20`) })

	boards, err := filepath.Glob("grafana/*.json")
	if err != nil || len(boards) != 5 {
		t.Fatalf("%d dashboards, %v", len(boards), err)
	}
	// What only trouble makes has no series until there is some.
	rare := regexp.MustCompile(`longline_(gaps|byes|refused|panics)_total`)
	for _, path := range boards {
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal([]byte(mustRead(t, path)), &board); err != nil || len(board.Panels) == 0 {
			t.Fatalf("%s: %v", path, err)
		}
		for _, panel := range board.Panels {
			for _, target := range panel.Targets {
				expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "15s")
				if rare.MatchString(expr) {
					continue
				}
				eventually(t, path+": "+panel.Title+": "+expr, func() error { publish(); return ask(expr) })
			}
		}
	}

	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(mustRead(t, "prometheus/alerts.yml")), &rules); err != nil {
		t.Fatal(err)
	}
	documented := mustRead(t, "../docs/metrics.md")
	for _, rule := range rules.Groups[0].Rules {
		for _, name := range regexp.MustCompile(`longline_\w+`).FindAllString(rule.Expr, -1) {
			name = strings.TrimSuffix(strings.TrimSuffix(name, "_count"), "_bucket")
			if !strings.Contains(documented, "`"+name+"`") {
				t.Errorf("%s asks for %s, which isn't there", rule.Alert, name)
			}
		}
	}
}

// startOnRedis has a gateway on a Redis of its own, and returns where its metrics are.
func startOnRedis(t *testing.T, dir string) (admin string) {
	t.Helper()
	redis, public, admin := freeAddress(t), freeAddress(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(redis)
	start(t, exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir))
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("k", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, exec.Command(built, "serve", "--listen", public, "--admin-listen", admin, "--broker", "redis://"+redis, "--jwt-secret-file", key, "--secret-key-file", key))
	eventually(t, "ready on Redis", func() error { return get("http://"+public+"/readyz", nil) })
	return admin
}

func get(url string, into any) error {
	answer, err := http.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", answer.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(into)
}
