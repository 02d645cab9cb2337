// Package target is what a scenario runs against: a gateway that someone else
// runs, a gateway that the tester starts itself, or the floor.
package target

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/longline-push/longline/loadtest/floor"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/token"
)

// Names of targets in results.
const (
	Longline = "longline"
	Floor    = "floor"
)

// A Target is something to load.
type Target struct {
	Name      string // Longline or Floor
	Addr      string // host:port
	Tokens    token.Source
	Processes measure.Processes // whose cost is counted; none: cost isn't known
	Metrics   string            // URL of Prometheus metrics, "" if there are none

	stop    func()
	died    func() error
	restart func(context.Context) (killed, started int64, err error)
}

// Stop ends what was started for the target.
func (t *Target) Stop() {
	if t.stop != nil {
		t.stop()
	}
}

// Died returns an error with its last words if a gateway that the tester
// started has ended by itself.
func (t *Target) Died() error {
	if t.died == nil {
		return nil
	}
	return t.died()
}

// ErrNotOurs says that a gateway can't be killed because others run it.
var ErrNotOurs = errors.New("this scenario kills the gateway: run it with --self")

// Restart kills the gateway with SIGKILL and starts it again at once on the
// same address and data. It returns the moments of both; the second is that
// of the exec, not of readiness.
func (t *Target) Restart(ctx context.Context) (killed, started int64, err error) {
	if t.restart == nil {
		return 0, 0, ErrNotOurs
	}
	return t.restart(ctx)
}

// A Maker starts a target, fresh for each run.
type Maker func(ctx context.Context) (*Target, error)

// Running is a gateway that others run, at an http:// URL.
func Running(rawURL string, tokens token.Source, processes measure.Processes, metrics string) (Maker, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("--url %q: want http://host:port", rawURL)
	}
	addr := u.Host
	if u.Port() == "" {
		addr += ":80"
	}
	return func(context.Context) (*Target, error) {
		return &Target{Name: Longline, Addr: addr, Tokens: tokens, Processes: processes, Metrics: metrics}, nil
	}, nil
}

// NewFloor starts the floor.
func NewFloor(context.Context) (*Target, error) {
	p, err := floor.Start()
	if err != nil {
		return nil, err
	}
	return &Target{Name: Floor, Addr: p.Addr, Processes: measure.Processes{p.PID}, stop: p.Stop}, nil
}
