package target

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/server"
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
		// How fast it takes connections is for the tester to find out.
		env := append(os.Environ(), "LONGLINE_CONNECT_RATE=0")
		g, err := server.Start(ctx, server.Options{
			Binary: o.Binary, Broker: o.Broker, Fsync: o.Fsync, Flags: o.Flags, Env: append(env, o.Env...), Log: o.Log,
		})
		if err != nil {
			return nil, err
		}
		t := &Target{
			Name: Longline, Addr: g.Addr, Tokens: token.Source{Secret: g.Secret},
			Metrics: "http://" + g.Admin + "/metrics", stop: g.Stop, died: g.Died,
		}
		t.Processes = append(measure.Processes{g.PID()}, o.Also...)
		t.restart = func(context.Context) (killed, started int64, err error) {
			killed = measure.Now()
			g.Kill()
			started = measure.Now()
			if err := g.Exec(); err != nil {
				return killed, started, err
			}
			t.Processes[0] = g.PID()
			return killed, started, nil
		}
		return t, nil
	}
}
