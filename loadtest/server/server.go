// Package server is a gateway in a process of its own: started on free ports,
// killed and started again on the same ones, and never left behind.
package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say how a gateway is started.
type Options struct {
	Binary string // that has the command serve
	Broker string // --broker; default an embedded one in a directory of its own
	Fsync  string // of the embedded broker: always (default) or everysec
	Flags  []string
	// Env is its whole environment, KEY=value, beside its secrets and what
	// lets its callbacks reach this machine. nil: this process's own.
	Env []string
	Log io.Writer // its output; default: kept for error messages only
}

// A Gateway is such a process. Start, Kill, Exec and Stop are for one
// goroutine, or one after another.
type Gateway struct {
	Addr, Admin string // host:port
	Secret      string // that signs tokens

	opts   Options
	dir    string // to be removed
	cmd    *exec.Cmd
	exited <-chan struct{} // nil: not running
	output tail
}

// Start starts a gateway with a new secret and waits until it is ready.
func Start(ctx context.Context, o Options) (*Gateway, error) {
	g := &Gateway{opts: o, Secret: rand.Text() + rand.Text()}
	if g.opts.Broker == "" {
		dir, err := os.MkdirTemp("", "longline-gateway-")
		if err != nil {
			return nil, fmt.Errorf("start gateway: %w", err)
		}
		g.dir = dir
		g.opts.Broker = "embedded:" + dir
		if o.Fsync != "" {
			g.opts.Broker += "?fsync=" + o.Fsync
		}
	}
	if err := g.start(ctx); err != nil {
		g.Stop()
		return nil, err
	}
	return g, nil
}

// start execs the gateway on ports that are free and waits until it is ready.
func (g *Gateway) start(ctx context.Context) error {
	var err error
	if g.Addr, err = freeAddr(); err != nil {
		return err
	}
	if g.Admin, err = freeAddr(); err != nil {
		return err
	}
	if err := g.Exec(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-g.exited:
			return fmt.Errorf("start gateway: it ended at once; its last output:\n%s", g.output.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("start gateway: %w; its last output:\n%s", context.Cause(ctx), g.output.lastWords())
		case <-tick.C:
		}
		if g.Ready(ctx) {
			return nil
		}
	}
}

var client = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// Ready asks the gateway whether it is. Safe for concurrent use.
func (g *Gateway) Ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Exec starts the process again, which must not be running, on the same
// address and data. It doesn't wait until it is ready.
func (g *Gateway) Exec() error {
	args := append([]string{"serve", "--listen", g.Addr, "--admin-listen", g.Admin, "--broker", g.opts.Broker}, g.opts.Flags...)
	g.cmd = exec.Command(g.opts.Binary, args...)
	env := g.opts.Env
	if env == nil {
		env = os.Environ()
	}
	// Secrets go by the environment: a command line is everybody's to read.
	g.cmd.Env = append(env[:len(env):len(env)], "LONGLINE_JWT_SECRET="+g.Secret, "LONGLINE_SECRET_KEY="+g.Secret,
		"LONGLINE_CALLBACK_ALLOW_CIDR=127.0.0.0/8")
	var out io.Writer = &g.output
	if g.opts.Log != nil {
		out = io.MultiWriter(g.opts.Log, out)
	}
	g.cmd.Stdout, g.cmd.Stderr = out, out // one writer: exec writes to it from one goroutine
	g.cmd.SysProcAttr = bound()
	started, exited := make(chan error), make(chan struct{})
	go func(cmd *exec.Cmd) {
		defer close(exited)
		// The kernel ends a bound process with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed, in the end; who needs to know looks at exited
		}
	}(g.cmd)
	if err := <-started; err != nil {
		return fmt.Errorf("start gateway: %w", err)
	}
	g.exited = exited
	return nil
}

// PID is the process's.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// Exited is closed when the process has ended; nil if it was killed by Kill.
func (g *Gateway) Exited() <-chan struct{} { return g.exited }

// Died tells the end of a process that Kill didn't end, with its last words.
func (g *Gateway) Died() error {
	select {
	case <-g.exited: // nil, never ready, when it isn't running
		return fmt.Errorf("the gateway ended by itself (%v); its last output:\n%s", g.cmd.ProcessState, g.output.lastWords())
	default:
		return nil
	}
}

// Kill ends the process with SIGKILL and waits for its end.
func (g *Gateway) Kill() {
	if g.exited != nil {
		_ = g.cmd.Process.Signal(syscall.SIGKILL)
		<-g.exited
		g.exited = nil
	}
}

// Stop kills the process and removes a directory of its own.
func (g *Gateway) Stop() {
	g.Kill()
	if g.dir != "" {
		os.RemoveAll(g.dir)
	}
}

// freeAddr finds a loopback address with a port that is free now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return "127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// tail keeps the end of what a process wrote.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const keep = 64 << 10
	t.b.Write(p)
	if over := t.b.Len() - keep; over > 0 {
		t.b.Next(over)
	}
	return len(p), nil
}

// lastWords are the beginning of a panic, if there is one, else the end.
func (t *tail) lastWords() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	const length = 3000
	s := t.b.String()
	for _, start := range []string{"panic: ", "fatal error: "} {
		if i := strings.Index(s, start); i >= 0 {
			return s[i:min(len(s), i+length)]
		}
	}
	return s[max(len(s)-length, 0):]
}
