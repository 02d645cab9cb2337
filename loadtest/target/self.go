package target

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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/token"
)

// SelfOptions say how the tester starts a gateway itself.
type SelfOptions struct {
	Broker string   // --broker; default an embedded one in a directory of its own
	Fsync  string   // of the embedded broker: always (default) or everysec
	Binary string   // default: built from the module
	Flags  []string // more flags of serve
	Env    []string // more environment, KEY=value
	Also   measure.Processes
	Log    io.Writer // the gateway's output; default: kept for error messages only
}

// Build compiles the gateway at the module's root and returns its path.
func Build(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	mod := strings.TrimSpace(string(out))
	if err != nil || mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("find the module to build the gateway from: run within it, or give --binary")
	}
	root := filepath.Dir(mod)
	binary := filepath.Join(root, "tmp", "longline")
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return "", fmt.Errorf("build gateway: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build gateway: %w\n%s", err, out)
	}
	return binary, nil
}

// Self makes targets that are gateways of our own, each on a free port with a
// secret and, unless a broker is given, a data directory of its own.
func Self(o SelfOptions) Maker {
	return func(ctx context.Context) (*Target, error) {
		g := &gateway{opts: o, secret: rand.Text() + rand.Text()}
		if g.opts.Broker == "" {
			dir, err := os.MkdirTemp("", "loadtest-gateway-")
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
			g.stop()
			return nil, err
		}
		t := &Target{
			Name: Longline, Addr: g.addr, Tokens: token.Source{Secret: g.secret},
			Metrics: "http://" + g.admin + "/metrics", stop: g.stop,
		}
		t.Processes = append(measure.Processes{g.cmd.Process.Pid}, o.Also...)
		t.died = g.died
		t.restart = func(ctx context.Context) (killed, started int64, err error) {
			killed = measure.Now()
			g.kill()
			started = measure.Now()
			if err := g.exec(); err != nil {
				return killed, started, err
			}
			t.Processes[0] = g.cmd.Process.Pid
			return killed, started, nil
		}
		return t, nil
	}
}

// gateway is a gateway process.
type gateway struct {
	opts        SelfOptions
	dir         string // to be removed
	secret      string
	addr, admin string
	cmd         *exec.Cmd
	exited      <-chan struct{} // nil: not running
	output      tail
}

// start execs the gateway on ports that are free and waits until it is ready.
func (g *gateway) start(ctx context.Context) error {
	var err error
	if g.addr, err = freeAddr(); err != nil {
		return err
	}
	if g.admin, err = freeAddr(); err != nil {
		return err
	}
	if err := g.exec(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	ready, ended := false, false
	err = poll(ctx, 20*time.Millisecond, func() bool {
		select {
		case <-g.exited:
			ended = true
			return true
		default:
		}
		resp, err := client.Get("http://" + g.addr + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		ready = resp.StatusCode == http.StatusOK
		return ready
	})
	switch {
	case ended:
		return fmt.Errorf("start gateway: it ended at once; its last output:\n%s", g.output.lastWords())
	case err != nil:
		return fmt.Errorf("start gateway: not ready within 30 s; its last output:\n%s", g.output.lastWords())
	}
	return nil
}

func (g *gateway) exec() error {
	args := append([]string{"serve", "--listen", g.addr, "--admin-listen", g.admin, "--broker", g.opts.Broker}, g.opts.Flags...)
	g.cmd = exec.Command(g.opts.Binary, args...)
	// Secrets go by the environment: a command line is everybody's to read.
	g.cmd.Env = append(os.Environ(), "LONGLINE_JWT_SECRET="+g.secret, "LONGLINE_SECRET_KEY="+g.secret)
	// How fast it takes connections is for the tester to find out.
	// The receivers of its callbacks are on this machine.
	g.cmd.Env = append(g.cmd.Env, "LONGLINE_CONNECT_RATE=0", "LONGLINE_CALLBACK_ALLOW_CIDR=127.0.0.0/8")
	g.cmd.Env = append(g.cmd.Env, g.opts.Env...)
	var out io.Writer = &g.output
	if g.opts.Log != nil {
		out = io.MultiWriter(g.opts.Log, out)
	}
	g.cmd.Stdout, g.cmd.Stderr = out, out // one writer: exec writes to it from one goroutine
	if err := g.cmd.Start(); err != nil {
		return fmt.Errorf("start gateway: %w", err)
	}
	exited := make(chan struct{})
	g.exited = exited
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // killed, in the end; who needs to know looks at exited
		close(exited)
	}(g.cmd)
	return nil
}

// died tells the end of a gateway that nobody ended.
func (g *gateway) died() error {
	select {
	case <-g.exited: // nil, never ready, when it isn't running
		return fmt.Errorf("the gateway ended by itself (%v); its last output:\n%s", g.cmd.ProcessState, g.output.lastWords())
	default:
		return nil
	}
}

func (g *gateway) kill() {
	if g.exited != nil {
		_ = g.cmd.Process.Signal(syscall.SIGKILL)
		<-g.exited
		g.exited = nil
	}
}

func (g *gateway) stop() {
	g.kill()
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
