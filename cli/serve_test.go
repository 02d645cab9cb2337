package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes this test binary the gateway itself where a test needs a
// process that can be killed.
func TestMain(m *testing.M) {
	if os.Getenv("LONGLINE_TEST_PROCESS") != "" {
		os.Unsetenv("LONGLINE_TEST_PROCESS")
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := Run(ctx, Args(), os.Stdin, os.Stdout, os.Stderr)
		stop()
		fmt.Fprintln(os.Stderr, err)
		os.Exit(ExitStatus(err))
	}
	goleak.VerifyTestMain(m)
}

// output collects what a gateway prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// find waits for what the pattern's group matches.
func (o *output) find(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.Now().Add(20 * time.Second)
	for {
		if m := re.FindStringSubmatch(o.String()); m != nil {
			return m[1]
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s in:\n%s", pattern, o)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// gateway is one that runs, in this process or its own.
type running struct {
	t          *testing.T
	url, token string
	out        *output
	stop       func() error // ends it in good order
	kill       func()       // SIGKILL; processes only
	process    *exec.Cmd    // processes only
}

// start runs the gateway in this process, keyless, with its data in dir.
func start(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: t, out: new(output)}
	ended := make(chan error, 1)
	args = append([]string{"--listen", "127.0.0.1:0", "--admin-listen", "", "--broker", "embedded:" + dir, "--drain", "5s"}, args...)
	go func() { ended <- Run(ctx, args, strings.NewReader(""), r.out, r.out) }()
	var once sync.Once
	var err error
	r.stop = func() error {
		once.Do(func() { cancel(); err = <-ended })
		return err
	}
	t.Cleanup(func() { r.stop() })
	r.announced()
	return r
}

// startProcess is start in a process of its own.
func startProcess(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"--listen", "127.0.0.1:0", "--broker", "embedded:" + dir, "--drain", "5s", "--admin-listen", ""}, args...)...)
	cmd.Env = append(os.Environ(), "LONGLINE_TEST_PROCESS=1")
	r := &running{t: t, out: new(output), process: cmd}
	cmd.Stdout, cmd.Stderr = r.out, r.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	end := func(sig os.Signal) (err error) {
		once.Do(func() { cmd.Process.Signal(sig); err = cmd.Wait() })
		return err
	}
	r.stop = func() error { return end(syscall.SIGTERM) }
	r.kill = func() { end(syscall.SIGKILL) }
	t.Cleanup(r.kill)
	if !slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, "-secret") }) {
		r.announced()
	}
	return r
}

func (r *running) announced() {
	r.t.Helper()
	r.url = r.out.find(r.t, `(https?://[0-9.:]+)/#channel=`)
	r.token = r.out.find(r.t, `Bearer (\S+)' \\`)
	r.out.find(r.t, `(node is ready)`)
}

func (r *running) do(method, path, body string, headers ...string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// follow reads a channel's stream, from after the position, line by line.
func (r *running) follow(channel, position string) *bufio.Scanner {
	r.t.Helper()
	req, err := http.NewRequest("GET", r.url+"/v1/sse?channel="+channel, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	if position != "" {
		req.Header.Set("Last-Event-ID", position)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { resp.Body.Close() })
	return bufio.NewScanner(resp.Body)
}

func wantLine(t *testing.T, s *bufio.Scanner, text string) string {
	t.Helper()
	for s.Scan() {
		if strings.Contains(s.Text(), text) {
			return s.Text()
		}
	}
	t.Fatalf("the stream ended without %q: %v", text, s.Err())
	return ""
}

func TestNewcomerPastesTheCurl(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := start(t, dir)
	if info, err := os.Stat(filepath.Join(dir, "jwt.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v; want a file of mode 0600", info, err)
	}
	lines := r.follow("acct-42", "")
	wantLine(t, lines, "longline.hello")
	status, body := r.do("POST", "/v1/channels/acct-42/events", `{"type":"email.opened","data":{"ip":"203.0.113.7"}}`)
	if status != 200 {
		t.Fatalf("publish: %d %s", status, body)
	}
	wantLine(t, lines, `"type":"email.opened"`)
	if err := r.stop(); err != nil {
		t.Errorf("shut down: %v", err)
	}
	wantLine(t, lines, `"code":1012`)
	if log := r.out.String(); strings.Count(log, r.token) != 2 {
		t.Errorf("the token is not just in the link and the curl:\n%s", log)
	}
}

func TestTokensReachNoLog(t *testing.T) {
	r := start(t, filepath.Join(t.TempDir(), "data"), "--log-level", "debug")
	for path, want := range map[string]int{
		"/v1/channels/a/events?limit=x&access_token=" + r.token:          400,
		"/v1/channels/a/events?access_token=" + r.token + "x":            401,
		"/v1/sse?channel=..&access_token=" + r.token:                     400,
		"/v1/ws?channel=a&access_token=" + r.token:                       400, // no handshake
		"/v1/nothing/" + r.token:                                         404,
		"/v1/subscriptions/none/events?access_token=" + r.token:          404,
		"/v1/sse?channel=a&types=a.**.b&since=x&access_token=" + r.token: 400,
	} {
		if got, body := r.do("GET", path, "", "Authorization", "none"); got != want {
			t.Errorf("%.40s: %d, want %d: %s", path, got, want, body)
		}
	}
	if err := r.stop(); err != nil {
		t.Errorf("shut down: %v", err)
	}
	signature := r.token[strings.LastIndexByte(r.token, '.')+1:]
	if log := r.out.String(); strings.Count(log, signature) != 2 {
		t.Errorf("the token is not just in the link and the curl:\n%s", log)
	}
}

func TestKilledGatewayGoesOnWhereItWas(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := startProcess(t, dir)
	lines := first.follow("c", "")
	wantLine(t, lines, "longline.hello")
	const published = 200
	var answered []string
	for i := range published {
		status, body := first.do("POST", "/v1/channels/c/events", fmt.Sprintf(`{"type":"t","id":"%d"}`, i))
		if status != 200 {
			t.Fatalf("publish: %d %s", status, body)
		}
		answered = append(answered, fmt.Sprint(i))
	}
	var position string
	for position == "" {
		position, _ = strings.CutPrefix(wantLine(t, lines, "id: c@"), "id: ")
		if strings.HasSuffix(position, "-0") {
			position = ""
		}
	}
	first.kill()

	second := startProcess(t, dir)
	status, body := second.do("GET", "/v1/channels/c/events?limit=1000", "")
	if status != 200 {
		t.Fatalf("read: %d %s", status, body)
	}
	var page struct{ Events []struct{ ID, Cursor string } }
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, e := range page.Events {
		kept = append(kept, e.ID)
	}
	if fmt.Sprint(kept) != fmt.Sprint(answered) {
		t.Errorf("answered %d, kept %d: %v", len(answered), len(kept), kept)
	}
	// The key was kept too: the old token counts, and the stream resumes.
	second.token = first.token
	lines = second.follow("c", position)
	wantLine(t, lines, `"recovered":true`)
	wantLine(t, lines, fmt.Sprintf(`"id":"%d"`, published-1))
	// A retry of what was answered before the kill is known.
	if _, body := second.do("POST", "/v1/channels/c/events", `{"type":"t","id":"199"}`); !strings.Contains(body, `"duplicate":true`) {
		t.Errorf("retry: %s", body)
	}
	if err := second.stop(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

func TestSecondGatewayOnTheSameDataIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	start(t, dir)
	cmd := exec.Command(os.Args[0], "--listen", "127.0.0.1:0", "--admin-listen", "", "--broker", "embedded:"+dir)
	cmd.Env = append(os.Environ(), "LONGLINE_TEST_PROCESS=1")
	out, err := cmd.CombinedOutput()
	if text := string(out); err == nil || !strings.Contains(text, dir+" is in use") || !strings.Contains(text, "--broker embedded:"+dir+"-2") || strings.Count(text, "\n") != 1 {
		t.Errorf("got %v: %s; want one line that names the directory and the way out", err, out)
	}
}

func TestWrongConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const long = "a secret of at least thirty-two bytes"
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	data := "embedded:" + filepath.Join(dir, "data")
	for _, tt := range []struct {
		name   string
		args   string
		status int
		saying []string
	}{
		{"unknown flag", "--lisen :80", 2, []string{"--lisen"}},
		{"unknown command", "sevre", 2, []string{"sevre"}},
		{"no time", "--drain soon", 2, []string{"--drain", "soon"}},
		{"time of nothing", "--drain 0s", 2, []string{"--drain", "above 0"}},
		{"no size", "--max-event big", 2, []string{"--max-event", "KiB"}},
		{"unknown log format", "--log-format xml", 2, []string{"--log-format", "text", "json"}},
		{"open to the world without a key", "--listen 0.0.0.0:0", 2, []string{"--listen", "loopback", "--jwt-secret"}},
		{"all addresses without a key", "--listen :0", 2, []string{"--listen", "loopback"}},
		{"short secret", "--jwt-secret short", 2, []string{"--jwt-secret", "5 bytes", "32"}},
		{"no network for callbacks", "--callback-allow-cidr 10.0.0.1", 2, []string{"--callback-allow-cidr", "10.0.0.1", "10.1.0.0/16"}},
		{"a proxy that is none", "--callback-proxy socks5://me:hush@x", 2, []string{"--callback-proxy", "http://proxy.internal:3128"}},
		{"no port for callbacks", "--callback-ports 0", 2, []string{"--callback-ports", "1 to 65535"}},
		{"short secret key", "--secret-key short", 2, []string{"--secret-key", "32"}},
		{"no public key", "--jwt-public-key " + file("key.pem", "hello"), 2, []string{"--jwt-public-key", "not PEM"}},
		{"public key not there", "--jwt-public-key " + filepath.Join(dir, "none"), 2, []string{"--jwt-public-key", "no such file"}},
		{"public key and key set", "--jwt-public-key a --jwks b", 2, []string{"--jwt-public-key, --jwks"}},
		{"no key set", "--jwks " + file("jwks.json", "{"), 2, []string{"--jwks", "JSON Web Key Set"}},
		{"unknown broker", "--broker kafka://a", 2, []string{"--broker", "kafka", "embedded:DIR"}},
		{"unknown fsync", "--broker embedded:x?fsync=never", 2, []string{"--broker", "fsync=always"}},
		{"no directory", "--broker embedded:", 2, []string{"--broker", "embedded:DIR"}},
		{"Redis without a token key", "--broker redis://127.0.0.1:1", 2, []string{"--jwt-secret", "required"}},
		{"Redis without a secret key", "--broker redis://127.0.0.1:1 --jwt-secret " + strings.ReplaceAll(long, " ", "_"), 2, []string{"--secret-key", "required"}},
		{"origin with a path", "--cors-origin https://a.example/b", 2, []string{"--cors-origin", "scheme://host"}},
		{"certificate without key", "--tls-cert a", 2, []string{"--tls-cert", "both"}},
		{"certificate not there", "--tls-cert a --tls-key b", 2, []string{"--tls-cert", "PEM"}},
		{"no file", "--config " + filepath.Join(dir, "none.yaml"), 2, []string{"--config", "no such file"}},
		{"not YAML", "--config " + file("bad.yaml", "a: [b"), 2, []string{"--config", "bad.yaml"}},
		{"unknown key", "--config " + file("key.yaml", "lisen: 1"), 2, []string{"--config", `"lisen"`, "listen"}},
		{"unknown key of retention", "--config " + file("ret.yaml", "retention: [{channels: a, replya: 1m}]"), 2, []string{"--config", "retention", "replya"}},
		{"retention that contradicts itself", "--config " + file("ret2.yaml", "retention: [{channels: a, replay: 2h, max_age: 1h}]"), 2, []string{"retention", "max_age"}},
		{"bad pattern of retention", "--config " + file("ret3.yaml", "retention: [{channels: a.**.b}]"), 2, []string{"retention", "a.**.b"}},
		{"bad value in the file", "--config " + file("val.yaml", "drain: soon"), 2, []string{"--drain", "soon"}},
		{"port taken", "--listen " + busy.Addr().String(), 1, []string{"--listen", "in use", "another gateway", "127.0.0.1:0"}},
		{"second gateway on one machine", "--listen 127.0.0.1:0 --admin-listen " + busy.Addr().String(), 1, []string{"--admin-listen", "in use", "another gateway", "an empty one"}},
		{"secret twice", "--jwt-secret a --jwt-secret-file b", 2, []string{"--jwt-secret-file", "LONGLINE_JWT_SECRET", "one of them"}},
		{"secret's file not there", "--jwt-secret-file " + filepath.Join(dir, "none"), 2, []string{"--jwt-secret-file", "no such file"}},
		{"secret's file empty", "--secret-key-file " + file("empty", "\n"), 2, []string{"--secret-key-file", "empty"}},
		{"short secret in a file", "--jwt-secret-file " + file("short", "short\n"), 2, []string{"--jwt-secret-file " + filepath.Join(dir, "short"), "5 bytes", "32", "openssl"}},
		{"short key in a file", "--secret-key-file " + file("short-key", "short"), 2, []string{"--secret-key-file " + filepath.Join(dir, "short-key"), "5 bytes", "32"}},
		{"a folder as a file", "--secret-key-file " + dir, 2, []string{"--secret-key-file", "a file that holds the secret"}},
		{"token without a key", "token --broker embedded:" + filepath.Join(dir, "nowhere"), 2, []string{"--jwt-secret", "required"}},
		{"publishing to no channel", "publish a..b --type t", 2, []string{"<channel>", "empty segment", "A-Z"}},
		{"publishing without a type", "publish a", 2, []string{"--type", "required"}},
		{"listening to nothing", "listen", 2, []string{"--channel, --subscription"}},
		{"seeking to nowhere", "sub seek crm", 2, []string{"<to>"}},
		{"token for no time", "token --ttl 0s --jwt-secret " + strings.ReplaceAll(long, " ", "_"), 2, []string{"ttl"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			serves := strings.HasPrefix(args[0], "--")
			if serves && !strings.Contains(tt.args, "--broker") {
				args = append(args, "--broker", data)
			}
			if serves && !strings.Contains(tt.args, "--listen") {
				args = append(args, "--listen", "127.0.0.1:0")
			}
			var out bytes.Buffer
			err := Run(t.Context(), args, strings.NewReader(""), &out, &out)
			if got := ExitStatus(err); got != tt.status {
				t.Fatalf("status %d, want %d: %v", got, tt.status, err)
			}
			for _, want := range tt.saying {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestFlagsWinOverEnvironmentOverFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "longline.yaml")
	text := "node: of-file\nlog-format: json\nmax-event: 1KiB\ncors-origin: [https://a.example, https://b.example]\nretention:\n  - channels: live.**\n    none: true\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	node := func(r *running) string {
		_, body := r.do("GET", "/v1/nodes", "")
		var list struct{ Nodes []struct{ Node string } }
		if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Nodes) == 0 {
			t.Fatalf("nodes: %v %s", err, body)
		}
		return list.Nodes[0].Node
	}
	r := start(t, t.TempDir(), "--config", file)
	if got := node(r); got != "of-file" {
		t.Errorf("node = %q, want the file's", got)
	}
	if status, body := r.do("POST", "/v1/channels/c/events", `{"type":"t","data":"`+strings.Repeat("x", 2000)+`"}`); status != 413 {
		t.Errorf("an event above the file's max-event: %d %s", status, body)
	}
	t.Setenv("LONGLINE_CONFIG", file)
	t.Setenv("LONGLINE_NODE", "of-environment")
	if got := node(start(t, t.TempDir())); got != "of-environment" {
		t.Errorf("node = %q, want the environment's", got)
	}
	if got := node(start(t, t.TempDir(), "--node", "of-flag")); got != "of-flag" {
		t.Errorf("node = %q, want the flag's", got)
	}
}

func TestTokenIsForTheGatewayThatKeepsItsKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := start(t, dir)
	var out bytes.Buffer
	if err := Run(t.Context(), []string{"token", "--broker", "embedded:" + dir, "--sub", "a", "--publish", "c", "--subscribe", "c,public.**", "--ttl", "1h"}, strings.NewReader(""), &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	r.token = strings.TrimSpace(out.String())
	if status, body := r.do("POST", "/v1/channels/c/events", `{"type":"t"}`); status != 200 {
		t.Errorf("publish: %d %s", status, body)
	}
	if status, _ := r.do("POST", "/v1/channels/d/events", `{"type":"t"}`); status != 403 {
		t.Errorf("publish elsewhere: %d, want 403", status)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for arg, want := range map[string]string{"--help": "serve", "--version": "longline dev, commit "} {
		var out bytes.Buffer
		if err := Run(t.Context(), []string{arg}, strings.NewReader(""), &out, &out); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v: %s", arg, err, &out)
		}
	}
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key, pool = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), x509.NewCertPool()
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: raw}, key: {Type: "PRIVATE KEY", Bytes: rawKey}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return cert, key, pool
}

func TestStreamOverHTTP2(t *testing.T) {
	cert, key, pool := certificate(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	r := start(t, t.TempDir(), "--tls-cert", cert, "--tls-key", key)
	call := func(method, path, body string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+r.token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	stream := call("GET", "/v1/sse?channel=c", "")
	if stream.ProtoMajor != 2 || stream.StatusCode != 200 {
		t.Fatalf("stream: %s %s", stream.Proto, stream.Status)
	}
	lines := bufio.NewScanner(stream.Body)
	wantLine(t, lines, "longline.hello")
	if resp := call("POST", "/v1/channels/c/events", `{"type":"over.h2"}`); resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Fatalf("publish: %s %s", resp.Proto, resp.Status)
	}
	wantLine(t, lines, "over.h2")
	go r.stop()
	wantLine(t, lines, `"code":1012`)
}
