package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write what commands print to testdata")

// people is a terminal to print on.
type people struct{ bytes.Buffer }

func (*people) Terminal() bool { return true }

// canned answers as a gateway does, always the same, and keeps what it was asked.
func canned(t *testing.T) (url string, asked *[]string) {
	t.Helper()
	const sub = `{"name":"crm-42","channels":["acct-42","news"],"types":["email.*"],"window":256,"cursor":"acct-42@k3f9zq-7","callback":{"url":"https://crm.example.com/longline"},"status":{"state":"live","consumer":"worker-1","node":"n1","transport":"websocket","lag":{"events":120,"seconds":14},"dead":1,"callback":{"breaker":"closed"}}}`
	const quiet = `{"name":"crm-43","channels":["acct-43"],"cursor":"acct-43@p2-0","status":{"state":"offline","lag":{"events":0,"seconds":0},"dead":0}}`
	const shared = `{"name":"crm-44","channels":["acct-44"],"group":{"partitions":2},"cursor":"acct-44@p2-5","status":{"state":"live","lag":{"events":4,"seconds":3},"dead":0,"members":[{"consumer":"worker-1","node":"n1","transport":"websocket","partitions":[0,1],"since":"2026-11-24T12:00:00Z"},{"consumer":"worker-2","node":"n2","transport":"pull","partitions":[],"since":"2026-11-24T12:00:01Z"}],"partitions":[{"partition":0,"consumer":"worker-1","cursor":"acct-44@p2-5","lag":{"events":4,"seconds":3}},{"partition":1,"consumer":"worker-1","cursor":"acct-44@p2-9","lag":{"events":0,"seconds":0}}]}}`
	answers := map[string]string{
		"GET /v1/subscriptions/crm-44":                shared,
		"GET /v1/subscriptions":                       `{"subscriptions":[` + sub + `,` + quiet + `]}`,
		"GET /v1/subscriptions/crm-42":                sub,
		"PUT /v1/subscriptions/crm-42":                sub,
		"PATCH /v1/subscriptions/crm-42":              sub,
		"DELETE /v1/subscriptions/crm-42":             ``,
		"POST /v1/subscriptions/crm-42/seek":          sub,
		"POST /v1/subscriptions/crm-42/pause":         sub,
		"POST /v1/subscriptions/crm-42/resume":        sub,
		"POST /v1/subscriptions/crm-42/test":          `{"request":{"method":"POST","url":"https://crm.example.com/longline"},"status":200,"latency_ms":12.5,"body":"ok"}`,
		"POST /v1/subscriptions/crm-42/rotate-secret": `{"secret":"whsec_bmV3"}`,
		"GET /v1/subscriptions/crm-42/attempts":       `{"attempts":[{"time":"2026-11-24T12:00:00Z","status":503,"latency_ms":15.2,"error":"","ids":["e1","e2"]},{"time":"2026-11-24T11:59:00Z","status":0,"latency_ms":5000,"error":"connection refused\u001b[2J","ids":["e1"]}]}`,
		"GET /v1/subscriptions/crm-42/trace":          `{"cursor":"acct-42@k3f9zq-7","state":"dead","since":"2026-11-24T12:00:00Z","attempts":[{"time":"2026-11-24T12:00:00Z","status":422}]}`,
		"POST /v1/subscriptions/crm-42/resend":        `{"resent":2}`,
		"POST /v1/subscriptions/crm-42/replay":        `{"name":"crm-42~r-k3f9zq2abc","from":"acct-42@k3f9zq-0","to":"acct-42@k3f9zq-9"}`,
		"GET /v1/subscriptions/crm-42/dead":           `{"dead":[{"event":{"id":"e9","type":"email.opened","cursor":"acct-42@k3f9zq-9"},"reason":"refused: 422","attempts":3,"time":"2026-11-24T12:00:00Z"}]}`,
		"DELETE /v1/subscriptions/crm-42/dead":        ``,
		"POST /v1/subscriptions/crm-42/dead/redrive":  `{"redriven":1}`,
		"GET /v1/channels":                            `{"channels":["acct-42","news"]}`,
		"GET /v1/channels/acct-42":                    `{"channel":"acct-42","epoch":"k3f9zq","first":1,"head":9,"events":9,"bytes":2700,"connections":3}`,
		"GET /v1/connections":                         `{"node":"n1","total":1,"connections":[{"connection":"c1","sub":"customer-42","transport":"websocket","channels":["acct-42"],"position":"","since":"2026-11-24T12:00:00Z","expires":"2026-11-25T12:00:00Z"}]}`,
		"DELETE /v1/connections/c1":                   ``,
		"GET /v1/nodes":                               `{"nodes":[{"node":"n1","version":"1.0.0","started":"2026-11-24T10:00:00Z","seen":"2026-11-24T12:00:00Z","connections":3,"draining":false},{"node":"n2","started":"2026-11-24T10:00:00Z","connections":0,"draining":true}]}`,
		"POST /v1/tokens/revoke":                      ``,
		"POST /v1/channels/acct-42/events":            `{"events":[{"id":"e1","cursor":"acct-42@k3f9zq-1","duplicate":true}]}`,
	}
	asked = new([]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		body.ReadFrom(r.Body)
		*asked = append(*asked, strings.TrimSpace(fmt.Sprint(r.Method, " ", r.URL.RequestURI(), " ", body.String())))
		answer, ok := answers[r.Method+" "+r.URL.Path]
		switch {
		case !ok:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"code":"not_found","detail":"there is nothing here"}`)
		case answer == "":
			w.WriteHeader(http.StatusNoContent)
		default:
			fmt.Fprint(w, answer)
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s.URL, asked
}

// TestWhatCommandsPrint: each command, what it asks of the gateway, and what it
// prints for people and into a pipe.
func TestWhatCommandsPrint(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	url, asked := canned(t)
	var got strings.Builder
	for _, line := range []string{
		"sub list", "sub list --prefix crm- --state live --label customer=42", "sub get crm-42", "sub get crm-44",
		"sub put crm-42 --channel acct-42 --window 256", `sub patch crm-42 {"window":256}`, "sub delete crm-42",
		"sub seek crm-42 earliest", "sub pause crm-42", "sub resume crm-42", "sub test crm-42", "sub rotate-secret crm-42",
		"sub attempts crm-42 --status 503", "sub trace crm-42 --id e9", "sub resend crm-42 acct-42@k3f9zq-7 acct-42@k3f9zq-8",
		"sub replay crm-42 --from earliest --callback", "sub dead crm-42", "sub dead list crm-42", "sub dead rm crm-42",
		"sub redrive crm-42 --all", "channels", "channels acct-42", "connections --sub customer-42", "connections close c1", "nodes",
		"revoke --jti abc", "revoke --sub customer-42 --before 2026-11-24T12:00:00Z", "publish acct-42 --type t --id e1", "sub get nobody",
		"token inspect eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoxLCJsb25nbGluZSI6eyJwdWJsaXNoIjpbImMiXX19.c2ln",
	} {
		args := strings.Fields(line)
		if !strings.HasPrefix(line, "token ") {
			args = append(args, "--url", url, "--token", "t")
		}
		fmt.Fprintf(&got, "$ longline %s\n", line)
		var terminal people
		*asked = nil
		err := Run(t.Context(), args, strings.NewReader(""), &terminal, &terminal)
		for _, a := range *asked {
			fmt.Fprintf(&got, "< %s\n", a)
		}
		got.WriteString(terminal.String())
		if err != nil {
			fmt.Fprintf(&got, "longline: %v (exit %d)\n", err, ExitStatus(err))
			continue
		}
		var pipe, same bytes.Buffer
		if err := Run(t.Context(), args, strings.NewReader(""), &pipe, &pipe); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if pipe.String() != terminal.String() {
			got.WriteString("| cat\n" + pipe.String())
		}
		var forced people
		if err := Run(t.Context(), append(args, "--json"), strings.NewReader(""), &forced, &same); err != nil || forced.String() != pipe.String() {
			t.Errorf("%s --json: %v, printed %q, into a pipe %q", line, err, &forced, &pipe)
		}
	}
	text := got.String()
	text = strings.ReplaceAll(text, url, "http://gateway")
	text = regexp.MustCompile(`\(request [0-9a-f-]+\)`).ReplaceAllString(text, "(request ID)")
	if i := strings.Index(text, "expires  1970-01-01T00:00:01Z ("); i >= 0 { // how long ago changes
		end := strings.IndexByte(text[i:], '\n')
		text = text[:i] + "expires  1970-01-01T00:00:01Z" + text[i+end:]
	}
	wantGolden(t, "commands.txt", text)
}

func wantGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		a, b := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("%s line %d: got %q, want %q (-update writes it)", file, i+1, a[i], b[i])
			}
		}
		t.Fatalf("%s: got %d lines, want %d", file, len(a), len(b))
	}
}

// TestContexts: a gateway and a token are kept by name, used, and given up.
func TestContexts(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	url, asked := canned(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "context", "add", "prod", "--url", url, "--token-file", token)
	mustRun(t, "context", "add", "other", "--url", "http://127.0.0.1:1")
	mustRun(t, "context", "use", "prod")
	if got := mustRun(t, "context", "list"); !strings.Contains(got, "* prod") || !strings.Contains(got, "  other") || strings.Contains(got, "secret-token") {
		t.Errorf("listed %q", got)
	}
	mustRun(t, "nodes")
	if len(*asked) != 1 {
		t.Errorf("asked %q, want the nodes of prod", *asked)
	}
	var out bytes.Buffer
	for args, want := range map[string]string{
		"nodes --context other":       "--url, LONGLINE_URL or --context",
		"nodes --context third":       `["other" "prod"]`,
		"context add x --url ftp://x": "--url",
		"nodes --token-file /none":    "--token-file",
		"token inspect x":             "not a JWT",
		"revoke":                      "--jti, --sub",
		"sub trace crm-42":            "--cursor, --id",
	} {
		if err := Run(t.Context(), strings.Fields(args), strings.NewReader(""), &out, &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it to say %s", args, err, want)
		}
	}
	mustRun(t, "context", "rm", "prod")
	if err := Run(t.Context(), []string{"context", "use", "prod"}, strings.NewReader(""), &out, &out); ExitStatus(err) != 2 {
		t.Errorf("using what was removed: %v", err)
	}
}

func TestCompletions(t *testing.T) {
	for shell, wants := range map[string][]string{
		"bash": {"complete -o default -F _longline longline", `"sub") choices="list get put`, "--forward-to"},
		"zsh":  {"bashcompinit", "_longline"},
		"fish": {"complete -c longline", "-a rotate-secret", "-l forward-to"},
	} {
		script := mustRun(t, "completion", shell)
		for _, want := range wants {
			if !strings.Contains(script, want) {
				t.Errorf("%s: no %q in\n%s", shell, want, script)
			}
		}
	}
}

// TestListenOnATerminal: who listens sees to what, where and as whom, and each
// event on a line.
func TestListenOnATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	url := newCLIGateway(t)
	mustRun(t, "publish", "acct-42", "--type", "email.opened", "--data", `{"a":1}`, "--key", "alice@example.com", "--id", "e1")
	stdout, stderr := new(terminalScreen), new(terminalScreen)
	done := startListening(t, stdout, stderr, "--channel", "acct-42", "--since", "earliest")
	waitUntil(t, "the event is printed", func() bool { return len(stdout.lines()) == 1 })
	if got, want := stdout.lines()[0], `--> email.opened alice@example.com {"a":1}`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := stderr.lines()[0], "Ready: acct-42 at "+url+" as cli (websocket)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	done()

	const secret = "whsec_YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s="
	to := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer to.Close()
	stdout, stderr = new(terminalScreen), new(terminalScreen)
	startListening(t, stdout, stderr, "--channel", "acct-42", "--since", "earliest", "--forward-to", to.URL, "--secret", secret)
	waitUntil(t, "the event is forwarded", func() bool { return len(stdout.lines()) == 1 })
	if got := stdout.lines()[0]; !strings.HasPrefix(got, "--> email.opened alice@example.com [200 in ") || !strings.HasSuffix(got, " ms]") {
		t.Errorf("got %q", got)
	}
}

// startListening runs listen until the test ends or what it returns is called.
func startListening(t *testing.T, stdout, stderr *terminalScreen, args ...string) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, append([]string{"listen"}, args...), strings.NewReader(""), stdout, stderr) }()
	end = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(end)
	return end
}

// terminalScreen is a screen that people read.
type terminalScreen struct{ screen }

func (*terminalScreen) Terminal() bool { return true }
