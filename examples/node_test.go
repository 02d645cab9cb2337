package examples_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// install copies an example to where its dependencies are as npm install puts
// them, and returns the directory. express is a stand-in.
func install(t *testing.T, example string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(example)); err != nil {
		t.Fatal(err)
	}
	sdk, err := filepath.Abs("../client/js")
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(dir, "node_modules")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(modules, "express"), 0o755),
		os.Symlink(sdk, filepath.Join(modules, "longline")),
		os.WriteFile(filepath.Join(modules, "express", "package.json"), []byte(`{"type":"module","exports":"./index.js"}`), 0o644),
		os.WriteFile(filepath.Join(modules, "express", "index.js"), readFile(t, "express/testdata/express.js"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// prints starts a command and returns what it prints, line by line. It ends
// with the test, or by command's own time limit.
func prints(t *testing.T, c *exec.Cmd) *bufio.Scanner {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, c)
	return bufio.NewScanner(out)
}

// wantLines reads until each of the lines came, in whatever order.
func wantLines(t *testing.T, out *bufio.Scanner, want ...string) {
	t.Helper()
	missing := make(map[string]bool)
	for _, line := range want {
		missing[line] = true
	}
	var got []string
	for len(missing) > 0 && out.Scan() {
		got = append(got, out.Text())
		delete(missing, out.Text())
	}
	if len(missing) > 0 {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// leaves has a command end by SIGTERM in good order.
func leaves(t *testing.T, c *exec.Cmd, out *bufio.Scanner) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for out.Scan() {
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it ended by %v, want in good order", err)
	}
}

func TestGo(t *testing.T) {
	g := newGateway(t)
	worker := filepath.Join(t.TempDir(), "example-go")
	if out, err := g.command(nil, "go", "build", "-o", worker, "./go").Output(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	g.losesNothing(func() *exec.Cmd { return g.command(nil, worker) }, "email.opened 1")
}

func TestJS(t *testing.T) {
	g := newGateway(t)
	dir := install(t, "js")
	g.losesNothing(func() *exec.Cmd { return g.command(nil, "node", filepath.Join(dir, "main.js")) }, `email.opened {"n":1}`)
}

// losesNothing has an integration take events, stop, and take what was published
// meanwhile. What it can't take is a dead letter.
func (g *gateway) losesNothing(integration func() *exec.Cmd, what string) {
	t := g.t
	t.Helper()
	c := integration()
	out := prints(t, c)
	g.publish("alice@example.com", "", "bob@example.com")
	wantLines(t, out, "alice@example.com: "+what, "bob@example.com: "+what)
	leaves(t, c, out)

	g.publish("carol@example.com")
	c = integration()
	out = prints(t, c)
	wantLines(t, out, "carol@example.com: "+what)
	leaves(t, c, out)
}

func TestExpress(t *testing.T) {
	g := newGateway(t)
	dir := install(t, "express")
	address := free(t)
	_, port, _ := strings.Cut(address, ":")
	c := g.command([]string{"PORT=" + port, "LONGLINE_CALLBACK_SECRET=" + callbackSecret}, "node", filepath.Join(dir, "server.js"))
	out := prints(t, c)
	post := func() (*http.Response, error) {
		return http.Post("http://"+address+"/orders", "application/json", strings.NewReader(`{"email":"alice@example.com","total":12}`))
	}
	until(t, "it publishes", func() bool {
		res, err := post()
		if err != nil {
			return false
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body) // what is missing is told
		if res.StatusCode != 202 || !strings.Contains(string(text), `"acct-42@`) {
			t.Fatalf("got %d %s, want a cursor", res.StatusCode, text)
		}
		return true
	})
	for _, tt := range []struct {
		secret, id, subject string
		want                int
	}{
		{"whsec_bm90IHRoaXMgb25l", "e1", "alice@example.com", 401},
		{callbackSecret, "e1", "alice@example.com", 204},
		{callbackSecret, "e2", "", 422},
	} {
		if got := callback(t, "http://"+address+"/longline", tt.secret, tt.id, tt.subject); got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
	}
	wantLines(t, out, "alice@example.com: email.opened")
	http.DefaultClient.CloseIdleConnections()
	leaves(t, c, out)
}

// The page's script runs as it stands there; that it runs in a browser as well
// is for the SDK's own tests.
func TestBrowser(t *testing.T) {
	address := free(t)
	_, port, _ := strings.Cut(address, ":")
	g := newGateway(t, "--cors-origin", "http://"+address)
	start(t, g.command([]string{"PORT=" + port, "LONGLINE_JWT_SECRET=" + jwtSecret}, "node", "browser/server.js"))
	until(t, "the page is served", func() bool {
		res, err := http.Get("http://" + address)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == 200
	})
	page := prints(t, g.command(nil, "node", "browser/testdata/visit.mjs", "http://"+address))
	wantLines(t, page, "state live")
	g.publish("alice@example.com")
	wantLines(t, page, "events alice@example.com: email.opened")
}
