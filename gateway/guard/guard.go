// Package guard contains panics: one ends the session or the call it belongs
// to, is logged with its stack, and counted.
package guard

import (
	"log/slog"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// Guard notes panics. The nil Guard logs to slog.Default and counts nothing.
// Its methods may be called by any goroutine.
type Guard struct {
	logger *slog.Logger
	panics *prometheus.CounterVec
}

// New makes a Guard; r may be nil.
func New(logger *slog.Logger, r prometheus.Registerer) *Guard {
	g := &Guard{logger: logger, panics: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "longline_panics_total", Help: "Panics, each of which ended the session or call it was in.",
	}, []string{"where"})}
	if r != nil {
		r.MustRegister(g.panics)
	}
	return g
}

// Caught notes what recover returned, which must not be nil; where names the
// kind of goroutine. It is called in the function that was deferred, while the
// stack is still that of the panic.
func (g *Guard) Caught(where string, panicked any) {
	logger := slog.Default()
	if g != nil {
		logger = g.logger
		g.panics.WithLabelValues(where).Inc()
	}
	logger.Error("a panic was contained", "where", where, "panic", panicked, "stack", string(debug.Stack()))
}

// Do calls f. A panic ends f and nothing else; it tells whether f returned.
func (g *Guard) Do(where string, f func()) (returned bool) {
	defer g.Contain(where, nil)
	f()
	return true
}

// Contain is to be deferred: a panic ends there, and then is called, unless it
// is nil.
func (g *Guard) Contain(where string, then func()) {
	if panicked := recover(); panicked != nil {
		g.Caught(where, panicked)
		if then != nil {
			then()
		}
	}
}
