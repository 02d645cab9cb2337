package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

const cliSecret = "a secret of thirty-two bytes, ok."

// screen is what a command prints, read while it prints.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *screen) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.FieldsFunc(s.buf.String(), func(r rune) bool { return r == '\n' })
}

// background runs a command until the test ends or end is called, which
// returns what it did.
func background(t *testing.T, args ...string) (stdout, stderr *screen, end func() error) {
	t.Helper()
	stdout, stderr = new(screen), new(screen)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, args, strings.NewReader(""), stdout, stderr) }()
	end = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		end()
		if t.Failed() {
			t.Logf("%s said:\n%s", args[0], strings.Join(stderr.lines(), "\n"))
		}
	})
	return stdout, stderr, end
}

// mustRun runs a command to its end and returns what it printed.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	return mustRunWith(t, "", args...)
}

// mustRunWith is mustRun with something to read on stdin.
func mustRunWith(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := Run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// newCLIGateway serves, and has the client commands find it and its token.
func newCLIGateway(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	background(t, "serve", "--listen", address, "--admin-listen", "", "--jwt-secret", cliSecret,
		"--broker", "embedded:"+filepath.Join(t.TempDir(), "data")+"?fsync=everysec", "--drain", "2s")
	url = "http://" + address
	waitUntil(t, "the gateway answers", func() bool {
		res, err := http.Get(url + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Setenv("LONGLINE_URL", url)
	t.Setenv("LONGLINE_TOKEN", strings.TrimSpace(mustRun(t, "token", "--jwt-secret", cliSecret, "--sub", "cli",
		"--subscribe", "**", "--publish", "**", "--subscriptions", "*")))
	return url
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited 30 s in vain: %s", what)
		case <-tick.C:
		}
	}
}

func TestPublishThenListen(t *testing.T) {
	newCLIGateway(t)
	out := mustRun(t, "publish", "acct-42", "--type", "email.opened", "--data", `{"ip": "203.0.113.7"}`, "--key", "alice", "--id", "e1")
	var published longline.Published
	if err := json.Unmarshal([]byte(out), &published); err != nil || published.ID != "e1" || published.Cursor == "" {
		t.Fatalf("publish printed %q", out)
	}
	mustRunWith(t, "{\"type\":\"email.clicked\",\"id\":\"e2\"}\n\n{\"type\":\"email.opened\",\"id\":\"e3\",\"traceparent\":\"00-x\"}\n", "publish", "acct-42", "--ndjson")

	stdout, _, end := background(t, "listen", "--channel", "acct-42", "--since", "earliest", "--types", "email.opened")
	waitUntil(t, "two events are printed", func() bool { return len(stdout.lines()) == 2 })
	var first, second longline.Event
	for i, e := range []*longline.Event{&first, &second} {
		if err := json.Unmarshal([]byte(stdout.lines()[i]), e); err != nil {
			t.Fatal(err)
		}
	}
	if first.ID != "e1" || first.Key != "alice" || first.Cursor != published.Cursor || string(first.Data) != `{"ip":"203.0.113.7"}` {
		t.Errorf("got %s", stdout.lines()[0])
	}
	if second.ID != "e3" || second.Extension("traceparent") != "00-x" {
		t.Errorf("got %s", stdout.lines()[1])
	}
	if err := end(); err != nil {
		t.Errorf("listen ended with %v", err)
	}

	// What listen prints can be published elsewhere.
	mustRunWith(t, stdout.lines()[0]+"\n", "publish", "copy", "--ndjson")
	stdout, _, _ = background(t, "listen", "--channel", "copy", "--since", "earliest")
	waitUntil(t, "the copy is printed", func() bool { return len(stdout.lines()) == 1 })
	if copied := stdout.lines()[0]; !strings.Contains(copied, `"id":"e1"`) || !strings.Contains(copied, `"channel":"copy"`) {
		t.Errorf("got %s", copied)
	}
}

// receiver is an endpoint that checks signatures and answers as told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []string // event ids, each time they come
	bodies map[string][]byte
	answer func(e longline.Event, attempt string) int
}

func newReceiver(t *testing.T, secret string, answer func(e longline.Event, attempt string) int) *receiver {
	t.Helper()
	r := &receiver{bodies: make(map[string][]byte), answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
			return
		}
		if err := longline.VerifyCallback(req.Header, body, secret); err != nil {
			t.Errorf("signature: %v", err)
		}
		var e longline.Event
		if err := json.Unmarshal(body, &e); err != nil {
			t.Errorf("body %s: %v", body, err)
		}
		if got := req.Header.Get("longline-cursor"); got != e.Cursor {
			t.Errorf("longline-cursor is %s, want %s", got, e.Cursor)
		}
		if got := req.Header.Get("webhook-id"); got != e.ID {
			t.Errorf("webhook-id is %s, want %s", got, e.ID)
		}
		r.mu.Lock()
		r.got = append(r.got, e.ID)
		r.bodies[e.ID] = body
		r.mu.Unlock()
		w.WriteHeader(r.answer(e, req.Header.Get("longline-attempt")))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.got...)
}

func TestListenForwards(t *testing.T) {
	newCLIGateway(t)
	const secret = "whsec_YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s="
	r := newReceiver(t, secret, func(e longline.Event, attempt string) int {
		switch {
		case e.ID == "2" && attempt == "1":
			return http.StatusServiceUnavailable
		case e.ID == "3":
			return http.StatusUnprocessableEntity
		}
		return http.StatusNoContent
	})
	for id := 1; id <= 4; id++ {
		mustRun(t, "publish", "acct-42", "--type", "t", "--id", fmt.Sprint(id), "--data", "[1, 2]")
	}
	_, stderr, end := background(t, "listen", "--channel", "acct-42", "--since", "earliest", "--forward-to", r.URL, "--secret", secret)
	waitUntil(t, "the last event is forwarded", func() bool { ids := r.ids(); return len(ids) > 0 && ids[len(ids)-1] == "4" })
	if got, want := strings.Join(r.ids(), " "), "1 2 2 3 3 3 4"; got != want {
		t.Errorf("got %s, want %s: in order, trouble is waited out, a refusal is taken after three", got, want)
	}
	if err := end(); err != nil {
		t.Errorf("listen ended with %v", err)
	}
	if said := strings.Join(stderr.lines(), "\n"); !strings.Contains(said, "event 3 rejected") {
		t.Errorf("listen said %q, want that event 3 was rejected", said)
	}
	// The same bytes as printed.
	stdout, _, _ := background(t, "listen", "--channel", "acct-42", "--since", "earliest")
	waitUntil(t, "events are printed", func() bool { return len(stdout.lines()) == 4 })
	if got := string(r.bodies["4"]); got != stdout.lines()[3] {
		t.Errorf("forwarded %s, printed %s", got, stdout.lines()[3])
	}
}

// TestListenForwardsAtOnceByKey: a call that takes its time holds up its own
// key and no other.
func TestListenForwardsAtOnceByKey(t *testing.T) {
	newCLIGateway(t)
	const secret = "whsec_YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s="
	slow := make(chan struct{})
	r := newReceiver(t, secret, func(e longline.Event, _ string) int {
		if e.ID == "1" {
			<-slow
		}
		return http.StatusNoContent
	})
	mustRunWith(t, `{"type":"t","id":"1","partitionkey":"a"}
{"type":"t","id":"2","partitionkey":"a"}
{"type":"t","id":"3","partitionkey":"b"}
{"type":"t","id":"4","partitionkey":"b"}
`, "publish", "acct-42", "--ndjson")
	background(t, "listen", "--channel", "acct-42", "--since", "earliest", "--forward-to", r.URL, "--secret", secret, "--concurrency", "4")
	waitUntil(t, "the other key's events are forwarded", func() bool { return slices.Contains(r.ids(), "4") })
	if ids := r.ids(); slices.Contains(ids, "2") {
		t.Errorf("forwarded %v: 2 came before 1 was answered", ids)
	}
	close(slow)
	waitUntil(t, "the slow key goes on", func() bool { return slices.Contains(r.ids(), "2") })
}

func TestTokenWithoutRightsSaysSo(t *testing.T) {
	for args, want := range map[string]bool{"token": true, "token --sub a": true, "token --subscribe c": false, "token --admin": false} {
		var stdout, stderr bytes.Buffer
		t.Setenv("LONGLINE_JWT_SECRET", cliSecret)
		if err := Run(t.Context(), strings.Fields(args), strings.NewReader(""), &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(stderr.String(), "no rights"); got != want || strings.Count(stdout.String(), "\n") != 1 {
			t.Errorf("%s: said %q, printed %q", args, &stderr, &stdout)
		}
	}
}

func TestClientCommandsSayWhatIsWrong(t *testing.T) {
	url := newCLIGateway(t)
	for _, test := range []struct {
		args   string
		want   string
		status int
	}{
		{"publish acct-42", "--type", 2},
		{"publish acct-42 --type t --data {", "--data", 2},
		{"publish acct-42 --type t --url ftp://x", "--url", 2},
		{"publish acct+42 --type t", "<channel>", 2},
		{"publish acct-42 --ndjson --type t", "--ndjson", 2},
		{"publish acct-42 --ndjson", "line 2: id", 1},
		{"publish acct-42 --type t --token nonsense", "token inspect", 1},
		{"publish longline.events --type t", "forbidden", 1},
		{"listen", "--channel", 2},
		{"listen --channel a --subscription b", "--channel", 2},
		{"listen --subscription b --since latest", "--since", 2},
		{"listen --channel a --consumer me", "--consumer", 2},
		{"listen --channel a --secret whsec_AAAA", "--secret", 2},
		{"listen --channel a --forward-to here", "--forward-to", 2},
		{"listen --channel a --concurrency 2", "--concurrency", 2},
		{"listen --channel a --concurrency 0 --forward-to " + url, "--concurrency", 2},
		{"listen --channel a --forward-to " + url + " --secret ?", "--secret", 2},
		{"listen --channel a,,b", "channel", 2},
		{"listen --channel a --since yesterday", "bad_request", 1},
		{"listen --channel a --transport smoke", "--transport", 2},
		{"sub put crm", "--channel", 2},
		{"sub put crm --definition {", "--definition", 2},
		{"sub redrive crm", "redrive", 2},
	} {
		var stdout, stderr bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		stdin := strings.NewReader("{\"type\":\"t\"}\n{\"id\":7}\n")
		err := Run(ctx, strings.Fields(test.args), stdin, &stdout, &stderr)
		cancel()
		if err == nil || !strings.Contains(err.Error(), test.want) || ExitStatus(err) != test.status {
			t.Errorf("%s: got %v (status %d), want an error about %s (status %d)", test.args, err, ExitStatus(err), test.want, test.status)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got more than one line: %v", test.args, err)
		}
	}
}

func TestReadEvent(t *testing.T) {
	e, err := readEvent([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-11-22T13:31:00.123456Z","channel":"a","cursor":"a@k-1","partitionkey":"k","data":{"a":1},"x":"y"}`))
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != "1" || e.Channel != "" || e.Cursor != "" || e.Key != "k" || string(e.Data) != `{"a":1}` || e.Extension("x") != "y" || e.Time.Nanosecond() != 123456000 {
		t.Errorf("got %+v", e)
	}
	for _, bad := range []string{``, `[]`, `null`, `{}`, `{"type":7}`, `{"type":"t","time":"today"}`, `{"type":"t","data_base64":"?"}`} {
		if _, err := readEvent([]byte(bad)); err == nil {
			t.Errorf("took %q", bad)
		}
	}
	if _, err := readEvent([]byte(`{"type":"t"`)); errors.Is(err, io.EOF) || err == nil {
		t.Errorf("got %v", err)
	}
}
