package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/loadtest/child"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/scenario"
)

var scratch string // removed after all tests

func TestMain(m *testing.M) {
	child.Run(roles)
	var err error
	if scratch, err = os.MkdirTemp("", "loadtest-test-"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(scratch)
		os.Exit(code)
	}))
}

// gateway is the real one, built once.
var gateway = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(scratch, "longline")
	out, err := exec.Command("go", "build", "-o", binary, "..").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return binary, err
})

func mustGateway(t *testing.T) string {
	t.Helper()
	binary, err := gateway()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

func loadtest(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out, io.Discard)
	return out.String(), err
}

// small are numbers with which each scenario ends within seconds.
var small = map[string][]string{
	"idle":      {"-n", "30", "--settle", "50ms"},
	"fanout":    {"-n", "30", "-d", "300ms", "--warmup", "100ms", "--rate", "3000", "--runs", "2", "--transport", "ws"},
	"private":   {"-n", "30", "-d", "300ms", "--warmup", "100ms", "--rate", "300", "--publishers", "4"},
	"publish":   {"--publishers", "1,8", "-d", "300ms", "--warmup", "50ms"},
	"burst":     {"-n", "30", "--events", "100", "--settle", "10ms"},
	"slow":      {"-n", "20", "-d", "300ms", "--warmup", "100ms"},
	"storm":     {"-n", "30", "--channels", "4", "-d", "600ms", "--warmup", "100ms", "--rate", "100", "--publishers", "2"},
	"growth":    {"-n", "300", "--channels", "20", "-d", "300ms", "--warmup", "100ms", "--settle", "10ms", "--rate", "4000", "--publishers", "4"},
	"callbacks": {"-n", "6", "-d", "500ms", "--warmup", "100ms", "--rate", "60", "--publishers", "2"},
	"crm":       {"-d", "1500ms", "--scale", "0.05", "--rate", "200"},
	"soak":      {"-n", "60", "-d", "5s", "--warmup", "100ms", "--rate", "100"},
}

func TestEveryScenarioRunsSmall(t *testing.T) {
	for _, s := range scenario.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			args, ok := small[s.Name]
			if !ok {
				t.Fatalf("scenario %s has no small run", s.Name)
			}
			kept, page := filepath.Join(t.TempDir(), "r.json"), filepath.Join(t.TempDir(), "r.html")
			args = append([]string{s.Name, "--self", "--binary", mustGateway(t), "--fsync", "everysec", "--json", kept, "--html", page}, args...)
			if s.Floored {
				args = append(args, "--floor")
			}
			out, err := loadtest(t, args...)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			again, err := loadtest(t, "report", kept, "--html", page+"2")
			if err != nil {
				t.Fatalf("report: %v\n%s", err, again)
			}
			if first, _, _ := strings.Cut(out, "wrote "); !strings.HasPrefix(again, first) {
				t.Errorf("the table shown again differs:\n%s\nwas\n%s", again, out)
			}
			b, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			good := "Every event arrived once and in order."
			if s.Name == "crm" { // naive webhooks lose events, and are meant to
				good = "Longline lost nothing and overran nobody."
			}
			for _, want := range []string{"<h1>" + s.Name + "</h1>", good, "</html>"} {
				if !strings.Contains(string(b), want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			for _, foreign := range []string{"src=", "href=", "@import", "url("} {
				if strings.Contains(string(b), foreign) {
					t.Errorf("the page has %q: it must stand by itself", foreign)
				}
			}
		})
	}
}

// TestLossFailsTheRun loads a gateway that answers 200 and delivers nothing.
func TestLossFailsTheRun(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sse" {
			io.Copy(io.Discard, r.Body)
			return
		}
		io.WriteString(w, "event: longline.hello\ndata: {}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	kept := filepath.Join(t.TempDir(), "r.json")
	out, err := loadtest(t, "burst", "--url", srv.URL, "-n", "3", "--events", "4", "--transport", "sse", "--settle", "1ms", "--json", kept)
	if !errors.Is(err, errFailed) || !strings.Contains(out, "12 events lost") {
		t.Errorf("got %v, want errFailed and 12 lost in:\n%s", err, out)
	}
	if _, err := loadtest(t, "report", kept); !errors.Is(err, errFailed) {
		t.Errorf("shown again: got %v, want errFailed", err)
	}
}

func TestInterruptedRunKeepsWhatItHas(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	kept := filepath.Join(t.TempDir(), "r.json")
	var out bytes.Buffer
	err := run(ctx, []string{"idle", "--floor", "-n", "5", "--settle", "1ms", "--runs", "1000000", "--transport", "ws", "--json", kept, "-q"}, &out, io.Discard)
	if err == nil || errors.Is(err, errFailed) {
		t.Errorf("got %v, want the interruption", err)
	}
	f, err := os.Open(kept)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r, err := measure.Load(f); err != nil || len(r.Runs) == 0 {
		t.Errorf("kept: %v, error %v", r, err)
	}
}

func TestWrongCommandLines(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"", "expected one of"},
		{"nosuch", "nosuch"},
		{"fanout", "want --self, --url or --floor"},
		{"fanout --self --url http://x:1", "want one of them"},
		{"fanout --url ftp://x", "want http://host:port"},
		{"fanout --url http://x:1/path", "want http://host:port"},
		{"storm --floor", "the floor can't do"},
		{"fanout --self --fsync sometimes", "always"},
		{"fanout --self --binary /dev/null --broker redis://x --fsync always", "?fsync="},
		{"fanout --floor --transport pigeon", "pigeon"},
		{"report /nonexistent", "/nonexistent"},
	} {
		out, err := loadtest(t, strings.Fields(tc.args)...)
		if err == nil || !strings.Contains(err.Error()+out, tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.args, err, tc.want)
		}
	}
}

func TestSecretsAreNotKept(t *testing.T) {
	args := []string{"idle", "--token", "s3cret", "--jwt-secret=s3cret", "--broker", "redis://u:s3cret@h", "--serve-env=A=s3cret", "-n", "5"}
	if got := strings.Join(withoutSecrets(args), " "); strings.Contains(got, "s3cret") || !strings.Contains(got, "-n 5") {
		t.Errorf("got %q", got)
	}
}
