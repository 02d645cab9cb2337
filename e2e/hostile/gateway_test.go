// Package hostile says to a gateway, a process, what nobody who means well would.
package hostile

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/internal/process"
)

var program string // the gateway

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hostile")
	if err == nil {
		program, err = process.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

type gateway struct {
	*process.Gateway
	token string // an admin's
	said  log
}

type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(t *testing.T) *gateway {
	t.Helper()
	return startWith(t, 0)
}

// startWith starts one that may open so many files; 0: as many as this process.
func startWith(t *testing.T, files int) *gateway {
	t.Helper()
	g := &gateway{}
	var err error
	if g.Gateway, err = process.New(program, &g.said, "--broker", "embedded:"+t.TempDir(), "--log-level", "debug", "--drain", "1s",
		"--callback-allow-cidr", "127.0.0.0/8"); err != nil {
		t.Fatal(err)
	}
	g.Files = files
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			text := g.said.String()
			t.Logf("the gateway said, at last: %s", text[max(0, len(text)-4000):])
		}
	})
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g.token, err = auth.Mint([]byte(process.Secret), auth.Mintage{Subject: "hostile", Admin: true, TTL: time.Hour}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *gateway) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// wantWell wants it alive, without a panic behind it, and no secret in its log.
func (g *gateway) wantWell(t *testing.T) {
	t.Helper()
	if status, text := g.ask(t, "GET", "/livez", ""); status != http.StatusOK || !g.Running() {
		t.Errorf("it isn't well: %d %s", status, text)
	}
	text := g.said.String()
	for _, bad := range []string{"panic", process.Secret, g.token} {
		if strings.Contains(text, bad) {
			t.Errorf("its log has %.12q in it", bad)
		}
	}
}
