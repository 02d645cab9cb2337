// Package examples_test builds and runs the examples, against a real gateway.
package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const jwtSecret = "the gateway and its examples share this secret"

// binary is the gateway's.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "longline-examples-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "longline")
		if out, err := exec.Command("go", "build", "-o", binary, "github.com/longline-push/longline").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the gateway: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// gateway is a real one, and what an example finds of it in its environment.
type gateway struct {
	t          *testing.T
	url, token string
}

func newGateway(t *testing.T, flags ...string) *gateway {
	t.Helper()
	dir := t.TempDir()
	address := free(t)
	var said bytes.Buffer
	process := exec.Command(binary, append([]string{"serve", "--listen", address, "--admin-listen", "", "--broker", "embedded:" + dir + "/data?fsync=everysec"}, flags...)...)
	process.Env = append(clean(), "LONGLINE_JWT_SECRET="+jwtSecret)
	process.Stdout, process.Stderr = &said, &said
	start(t, process)
	g := &gateway{t: t, url: "http://" + address}
	until(t, "the gateway is ready", func() bool {
		res, err := http.Get(g.url + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == 200
	})
	mint := exec.Command(binary, "token", "--sub", "example", "--subscribe", "**", "--publish", "**", "--subscriptions", "*", "--ttl", "1h")
	mint.Env = append(clean(), "LONGLINE_JWT_SECRET="+jwtSecret)
	out, err := mint.Output()
	if err != nil {
		t.Fatalf("mint a token: %v", err)
	}
	g.token = strings.TrimSpace(string(out))
	return g
}

// clean is the environment without what a developer has set for the command line.
func clean() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LONGLINE_") {
			env = append(env, v)
		}
	}
	return env
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts a process that ends with the test.
func start(t *testing.T, process *exec.Cmd) {
	t.Helper()
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Process.Kill() // an error means that it has ended
		process.Wait()
	})
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// command is an example's, with the gateway in its environment. One that doesn't
// end is asked where it is after two minutes, which ends it.
func (g *gateway) command(more []string, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	g.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, name, args...)
	c.Cancel, c.WaitDelay = func() error { return c.Process.Signal(syscall.SIGABRT) }, 5*time.Second
	c.Env = append(append(clean(), "PYTHONFAULTHANDLER=1", "LONGLINE_URL="+g.url, "LONGLINE_TOKEN="+g.token), more...)
	c.Stderr = os.Stderr
	return c
}

func (g *gateway) publish(subjects ...string) {
	g.t.Helper()
	var events []map[string]any
	for _, s := range subjects {
		event := map[string]any{"type": "email.opened", "data": map[string]int{"n": 1}}
		if s != "" {
			event["subject"] = s
		}
		events = append(events, event)
	}
	body, err := json.Marshal(events)
	if err != nil {
		g.t.Fatal(err)
	}
	r, err := http.NewRequest("POST", g.url+"/v1/channels/acct-42/events", bytes.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+g.token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
		g.t.Fatalf("publish: %d %s", res.StatusCode, text)
	}
}

func TestPython(t *testing.T) {
	g := newGateway(t)
	c := g.command([]string{"PYTHONPATH=../client/python"}, "/usr/bin/python3", "python/main.py")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, c)
	g.publish("alice@example.com", "", "bob@example.com")
	got := make(map[string]bool)
	for lines := bufio.NewScanner(out); len(got) < 2 && lines.Scan(); {
		got[lines.Text()] = true
	}
	for _, want := range []string{"alice@example.com: email.opened {'n': 1}", "bob@example.com: email.opened {'n': 1}"} {
		if !got[want] {
			t.Errorf("got %v, want %q among them", got, want)
		}
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it ended by %v, want in good order", err)
	}
}

func TestCronPull(t *testing.T) {
	g := newGateway(t)
	for _, want := range []string{"0 handled\n", "alice@example.com: email.opened\nbob@example.com: email.opened\n2 handled\n"} {
		out, err := g.command(nil, "php", "cron-pull/pull.php").Output()
		if err != nil || string(out) != want {
			t.Errorf("got %q, %v, want %q", out, err, want)
		}
		g.publish("alice@example.com", "bob@example.com")
	}
}

func TestPHPPublishes(t *testing.T) {
	g := newGateway(t)
	out, err := g.command(nil, "php", "php/publish.php", "acct-42", "email.opened", "alice@example.com", `{"n":1}`).Output()
	if err != nil || !strings.HasPrefix(string(out), "acct-42@") || !strings.HasSuffix(string(out), "-1\n") {
		t.Errorf("got %q, %v, want a cursor", out, err)
	}
}

const callbackSecret = "whsec_dGhlIGV4YW1wbGVzJyBvd24gc2VjcmV0Lg=="

// serve has PHP's own server answer by a file.
func serve(t *testing.T, file string) (url, notes string) {
	t.Helper()
	address := free(t)
	notes = filepath.Join(t.TempDir(), "notes")
	c := exec.Command("php", "-S", address, file)
	c.Env = append(clean(), "LONGLINE_CALLBACK_SECRET="+callbackSecret, "NOTES="+notes)
	start(t, c)
	until(t, "PHP serves", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return "http://" + address, notes
}

// callback posts an event as a gateway does.
func callback(t *testing.T, url, secret, id, subject string) int {
	t.Helper()
	body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/s","type":"email.opened","subject":%q,"channel":"acct-42","cursor":"acct-42@k-1","data":{"n":1}}`, id, subject)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	stamp := fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "." + body))
	r, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/cloudevents+json")
	r.Header.Set("webhook-id", id)
	r.Header.Set("webhook-timestamp", stamp)
	r.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

func TestThoseThatAreCalled(t *testing.T) {
	for _, example := range []struct{ name, file, path, note string }{
		{"plain PHP", "php/callback.php", "/", "alice@example.com: email.opened\n"},
		{"Laravel", "laravel-like/index.php", "/longline", "alice@example.com: email.opened\n"},
		{"WordPress", "wordpress-plugin/testdata/wordpress.php", "/wp-json/longline/v1/callback", "email.opened: alice@example.com\n"},
	} {
		t.Run(example.name, func(t *testing.T) {
			url, notes := serve(t, example.file)
			if got := callback(t, url+example.path, "whsec_bm90IHRoaXMgb25l", "e1", "alice@example.com"); got != 401 {
				t.Errorf("by another secret: got %d, want 401", got)
			}
			if got := callback(t, url+example.path, callbackSecret, "e1", "alice@example.com"); got != 204 {
				t.Errorf("got %d, want 204", got)
			}
			text, err := os.ReadFile(notes)
			if err != nil || !strings.HasSuffix(string(text), example.note) {
				t.Errorf("noted was %q, %v, want %q", text, err, example.note)
			}
			if example.name != "WordPress" {
				return
			}
			callback(t, url+example.path, callbackSecret, "e1", "alice@example.com")
			if text, err = os.ReadFile(notes); err != nil || strings.Count(string(text), example.note) != 1 {
				t.Errorf("what came twice was noted as %q, %v", text, err)
			}
		})
	}
}

// What the READMEs begin with brings a first event, as it stands there.
func TestWhatTheReadmesOfTheSDKsBeginWith(t *testing.T) {
	for _, sdk := range []struct{ language, command, first string }{
		{"python", "/usr/bin/python3", "email.opened alice@example.com {'n': 1}\n"},
		{"php", "php", "email.opened alice@example.com\n"},
	} {
		t.Run(sdk.language, func(t *testing.T) {
			g := newGateway(t)
			readme, err := os.ReadFile("../client/" + sdk.language + "/README.md")
			if err != nil {
				t.Fatal(err)
			}
			_, block, _ := strings.Cut(string(readme), "```"+sdk.language+"\n")
			block, _, found := strings.Cut(block, "```")
			if !found {
				t.Fatal("the README has no block")
			}
			block = strings.NewReplacer("http://127.0.0.1:8080", g.url, "…", g.token, "longline/client/php", "../client/php").Replace(block)
			args := []string{"-c", block}
			if sdk.language == "php" {
				args = []string{"-r", block}
			}
			g.publish("alice@example.com")
			// The gateway is asked for the channel's beginning, so that what was
			// published before comes, too.
			c := g.command([]string{"PYTHONPATH=../client/python", "PYTHONUNBUFFERED=1"}, sdk.command, args...)
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			start(t, c)
			got, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || got != sdk.first {
				t.Errorf("got %q, %v, want %q", got, err, sdk.first)
			}
		})
	}
}

// Each example says in about ten lines what it is and how to run it.
func TestReadmes(t *testing.T) {
	found, err := filepath.Glob("*/README.md")
	if err != nil || len(found) < 5 {
		t.Fatalf("found %v, %v, want five at least", found, err)
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n > 14 {
			t.Errorf("%s has %d lines, want ten or so", path, n)
		}
	}
}
