// Package process runs gateways as processes that tests kill, stop and start
// again.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Secret signs the tokens of gateways started here, and seals their secrets.
const Secret = "a secret that is long enough for HS256, and for the vault"

// Build builds the gateway into a directory and returns its path. flags are go
// build's.
func Build(dir string, flags ...string) (string, error) {
	path := filepath.Join(dir, "longline")
	args := append(append([]string{"build"}, flags...), "-o", path, "github.com/longline-push/longline")
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the gateway: %w: %s", err, out)
	}
	return path, nil
}

// Gateway is a gateway that is a process again and again, at one address. Its
// methods are called by one goroutine at a time.
type Gateway struct {
	Addr, URL string

	// Of the next process: what it runs, what is added to its environment, and how
	// many files it may open, 0 for as many as this one.
	Binary string
	Env    []string
	Files  int

	args   []string
	says   io.Writer
	cmd    *exec.Cmd
	exited chan struct{}
}

// New returns a gateway that isn't started yet, with a free loopback address.
// What it says goes to says; args come after those for address and keys.
func New(binary string, says io.Writer, args ...string) (*Gateway, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	return &Gateway{Addr: addr, URL: "http://" + addr, Binary: binary, says: &writer{w: says},
		args: append([]string{"serve", "--listen", addr, "--admin-listen", ""}, args...)}, nil
}

// writer serializes what several processes, one after the other, say.
type writer struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

// Start starts the process and returns when it is ready.
func (g *Gateway) Start(ctx context.Context) error {
	if err := g.Launch(); err != nil {
		return err
	}
	return g.Ready(ctx)
}

// Launch starts the process and doesn't wait.
func (g *Gateway) Launch() error {
	cmd := exec.Command(g.Binary, g.args...)
	if g.Files > 0 {
		cmd = exec.Command("sh", append([]string{"-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(g.Files), g.Binary}, g.args...)...)
	}
	cmd.Env = append(append(cmd.Environ(), "LONGLINE_JWT_SECRET="+Secret, "LONGLINE_SECRET_KEY="+Secret), g.Env...)
	cmd.Stdout, cmd.Stderr = g.says, g.says
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	g.cmd, g.exited = cmd, exited
	return nil
}

// Ready waits until the gateway says that it is.
func (g *Gateway) Ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-g.exited:
			return errors.New("the gateway ended by itself")
		case <-ctx.Done():
			return fmt.Errorf("the gateway isn't ready: %w", ctx.Err())
		case <-tick.C:
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
}

// Running says whether the process has not ended.
func (g *Gateway) Running() bool {
	select {
	case <-g.exited:
		return false
	default:
		return g.cmd != nil
	}
}

// PID is the process's id.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// Kill ends the process as a crash would, and waits for its end.
func (g *Gateway) Kill() {
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Kill()
	<-g.exited
}

// Stop has the process stand still; Continue ends that.
func (g *Gateway) Stop() { _ = g.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets a process that stands still go on.
func (g *Gateway) Continue() { _ = g.cmd.Process.Signal(syscall.SIGCONT) }

// Terminate has the process drain, waits for its end and returns how it ended.
func (g *Gateway) Terminate(ctx context.Context) error {
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-g.exited:
	case <-ctx.Done():
		g.Kill()
		return fmt.Errorf("the gateway doesn't end: %w", ctx.Err())
	}
	if state := g.cmd.ProcessState; !state.Success() {
		return fmt.Errorf("the gateway ended with %s", state)
	}
	return nil
}
