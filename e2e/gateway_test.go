// Package e2e tests gateways as processes that are killed, on servers that are
// taken away.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker/redis/redistest"
)

var binary string // of the gateway

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "longline")
	if err == nil {
		binary = filepath.Join(dir, "longline")
		build := exec.Command("go", "build", "-o", binary, "..")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the gateway:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

const secret = "a secret of at least thirty-two bytes"

// gateway is a gateway process.
type gateway struct {
	t      testing.TB
	url    string
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}
	output *buffer
}

// buffer is what a process says.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// startGateway starts a gateway on the broker at url and waits until it is
// ready.
func startGateway(t testing.TB, url string, args ...string) *gateway {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	g := &gateway{t: t, url: "http://" + addr}
	g.args = append([]string{"serve", "--listen", addr, "--admin-listen", "", "--broker", url,
		"--jwt-secret", secret, "--secret-key", secret, "--drain", "2s"}, args...)
	g.launch()
	g.ready()
	return g
}

func (g *gateway) launch() {
	g.t.Helper()
	g.cmd, g.exited, g.output = exec.Command(binary, g.args...), make(chan struct{}), &buffer{}
	g.cmd.Stdout, g.cmd.Stderr = g.output, g.output
	if err := g.cmd.Start(); err != nil {
		g.t.Fatalf("start the gateway: %v", err)
	}
	cmd, exited := g.cmd, g.exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	g.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		<-exited
	})
}

// kill ends the gateway with SIGKILL.
func (g *gateway) kill() {
	_ = g.cmd.Process.Kill()
	<-g.exited
}

// ready waits until the gateway says that it is ready.
func (g *gateway) ready() {
	g.t.Helper()
	redistest.Eventually(g.t, func() error {
		select {
		case <-g.exited:
			g.t.Fatalf("the gateway ended: %s", g.output)
		default:
		}
		if status := g.status("/readyz"); status != http.StatusOK {
			return fmt.Errorf("not ready: %d", status)
		}
		return nil
	})
}

// status is what a GET answers, 0 for nothing.
func (g *gateway) status(path string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// memory is what the process has of the machine's, in bytes.
func (g *gateway) memory() int {
	g.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	g.t.Fatal("no VmRSS")
	return 0
}

// token lets its bearer do everything.
func token(t testing.TB) string {
	t.Helper()
	cmd := exec.Command(binary, "token", "--admin", "--sub", "test", "--ttl", "1h", "--jwt-secret", secret)
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("mint a token: %v", err)
	}
	return strings.TrimSpace(string(text))
}
