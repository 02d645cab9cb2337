// Longline is a push gateway: events come in by HTTP, are kept in a log per
// channel, and go out over whatever line their receivers opened.
//
//	                 ┌──────────────── gateway.Server ───────────────────┐
//	POST events ───▶ │ publish.Publisher ─────────┐                      │
//	                 │      ▲ Admission (limits)  │ append               │
//	WS, SSE ◀──────▶ │ ws, sse ─▶ session.Hub     ▼                      │
//	                 │              └─▶ feed ◀─ Broker (log, tail) ──────│─▶ disk or Redis
//	POSTs ◀───────── │ callback.Engine ◀─ Dispatcher ◀─ durable.Manager ──│─▶ (who owns what)
//	token ─────────▶ │ auth.Verifier ◀── Revocations ◀┘                  │
//	                 └───────────────────────────────────────────────────┘
//	/metrics, pprof ─▶ admin listener
//
// It is built from right to left and shut down from left to right: see serve
// and shutDown.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/publish"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// version is set by the linker for releases.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "longline:", err)
	}
	os.Exit(exitStatus(err))
}

// run is the whole program: it parses args and does what they say until that
// is done or ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return parse(args, stdout, stderr, &environment{ctx: ctx, stdout: stdout, stderr: stderr})
}

// environment is what a command may use of the world.
type environment struct {
	ctx            context.Context
	stdout, stderr io.Writer
}

// node is everything that serve builds and shutDown takes down.
type node struct {
	logger  *slog.Logger
	drain   time.Duration
	broker  gateway.Broker
	durable *durability
	hub     *session.Hub
	server  *gateway.Server
	public  *http.Server
	admin   *http.Server // nil if there is none
	stop    context.CancelFunc
	running sync.WaitGroup
	failed  chan error // of a listener
}

// serve builds the node in the order of the picture, from right to left, and
// runs it until ctx ends.
func (c *serveCmd) serve(ctx context.Context, env *environment) error {
	logger := c.logger(env.stderr)
	config, err := c.check()
	if err != nil {
		return err
	}
	n := &node{logger: logger, drain: c.Drain, failed: make(chan error, 2)}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	defer stop()

	// Listening comes first: the commonest mistake is a port that is taken.
	listener, err := listen("--listen", c.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	if n.broker, err = c.openBroker(ctx, config, logger); err != nil {
		return err
	}
	name := c.nodeName()
	if n.durable, err = newDurability(n.broker, config, name, registry, logger); err != nil {
		return errors.Join(err, n.broker.Close())
	}
	n.hub = session.NewHub(session.Options{
		Broker: n.broker, Times: n.broker, Manager: n.durable.manager, Logger: logger, Node: name, WriteTimeout: c.WriteTimeout,
		Metrics: session.NewMetrics(registry),
	})
	revocations := auth.NewRevocations(n.broker, logger, func(r auth.Revocation) {
		n.hub.EndWhere(r.Covers, wire.CloseUnauthorized, "the token was revoked")
		n.durable.revoked(background, r, logger)
	})
	verifier, err := c.verifier(background, config, revocations, logger)
	if err != nil {
		n.hub.Close()
		return errors.Join(err, n.broker.Close())
	}
	admission := gateway.NewAdmission(c.limits())
	publisher := publish.New(n.broker, publish.Options{
		Limits:  publish.Limits{Events: c.MaxBatch, Bytes: int(c.MaxBody), Event: int(c.MaxEvent)},
		Admit:   admission.Publish,
		Metrics: publish.NewMetrics(registry),
	})
	n.server = gateway.New(gateway.Options{
		Broker: n.broker, Hub: n.hub, Verifier: verifier, Revocations: revocations,
		Publisher: publisher, Admission: admission, Origins: config.origins,
		LoopbackOnly: config.development, Version: version, Registerer: registry, Logger: logger,
	}, n.durable.routes(n.broker, n.hub, config.dialing)...)

	n.durable.run(n.broker, n.hub.Feeds(), logger)
	n.running.Go(func() { revocations.Run(background) })
	n.running.Go(func() { admission.Watch(background, logger) })
	n.running.Go(func() { n.server.Run(background) })
	n.public = gateway.HTTPServer(n.server, logger)
	n.serve(listener, n.public, c.TLSCert, c.TLSKey)
	if c.AdminListen != "" {
		admin, err := listen("--admin-listen", c.AdminListen)
		if err != nil {
			return errors.Join(err, n.shutDown())
		}
		n.admin = gateway.HTTPServer(gateway.Admin(registry), logger)
		n.admin.WriteTimeout = 0 // profiles take their time
		n.serve(admin, n.admin, "", "")
		logger.Info("admin listener", "address", admin.Addr().String())
	}
	c.announce(env.stdout, listener.Addr(), config)
	logger.Info("serving", "address", listener.Addr().String(), "node", n.hub.Node(), "version", version)

	select {
	case <-ctx.Done():
		return n.shutDown()
	case err := <-n.failed:
		return errors.Join(err, n.shutDown())
	}
}

// shutDown takes the node down from left to right, within the drain time.
func (n *node) shutDown() error {
	n.logger.Info("shutting down", "connections", n.hub.Count(), "within", n.drain)
	ctx, cancel := context.WithTimeout(context.Background(), n.drain)
	defer cancel()

	n.server.Drain(ctx, n.drain)  // not ready; no new connections; byes, spread
	err := n.public.Shutdown(ctx) // no new requests; those under way finish
	n.durable.endCallbacks(ctx)   // calls in flight finish
	n.hub.Close()                 // what is left of the connections; the feeds
	n.durable.end()               // acknowledgements are committed, the lease ends
	n.stop()                      // revocations, the probe, memory
	if n.admin != nil {           //
		n.admin.Close() // metrics were there until now
	} //
	n.running.Wait()           // everything started by serve has ended
	closed := n.broker.Close() // what was answered is durable
	n.logger.Info("shut down")
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("requests were still under way after %v", n.drain)
	}
	return errors.Join(err, closed)
}

// serve answers on a listener until the server is shut down.
func (n *node) serve(l net.Listener, s *http.Server, cert, key string) {
	l = conn.Listen(l)
	n.running.Go(func() {
		var err error
		if cert != "" {
			err = s.ServeTLS(l, cert, key)
		} else {
			err = s.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			n.failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
	})
}

func listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, address, err)
	}
	return l, nil
}
