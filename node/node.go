// Package node is a gateway as a value: what serve starts, and what tests
// start in three lines.
//
//	n, err := node.New(ctx, node.Options{Broker: "embedded:" + dir})
//	err = n.Run(ctx)      // until ctx ends, or it can't go on
//	err = n.Shutdown()
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/guard"
	"github.com/longline-push/longline/gateway/publish"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/stats"
	"github.com/longline-push/longline/gateway/trace"
	"github.com/longline-push/longline/gateway/wire"
)

// Node is a gateway: listeners, and what stands behind them. Its methods are
// called one after another: New, Run, Shutdown.
type Node struct {
	o          Options
	config     *checked
	logger     *slog.Logger
	background context.Context // ends in Shutdown
	stop       context.CancelFunc

	listener, adminListener net.Listener // the latter nil if there is none

	metrics     *prometheus.Registry // the gateway's own
	broker      gateway.Broker
	durable     *durability
	hub         *session.Hub
	revocations *auth.Revocations
	budget      *quota.Budget
	server      *gateway.Server
	public      *http.Server
	trace       *trace.Tracer // nil if nothing is traced
	admin       *http.Server  // nil if there is none

	running sync.WaitGroup
	failed  chan error // of a listener
	store   breakable  // nil: the broker mends itself
}

// breakable is a broker that can come to a state that only a restart mends: the
// embedded one.
type breakable interface {
	Broken() <-chan struct{} // closed then
	Err() error              // why; nil before
}

// New builds a node. It listens but answers nothing yet. The error is an
// *OptionError if an option can't be taken. A node that was made is to be shut
// down, whether it has run or not.
func New(ctx context.Context, o Options) (*Node, error) {
	o.fillIn()
	config, err := o.check(auth.KeepSecret)
	if err != nil {
		return nil, err
	}
	n := &Node{o: o, config: config, logger: o.Logger, failed: make(chan error, 2)}
	n.background, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.build(ctx); err != nil {
		return nil, errors.Join(err, n.abandon())
	}
	return n, nil
}

// build makes everything in the order of the picture in main.go, from right to
// left.
func (n *Node) build(ctx context.Context) (err error) {
	o, config := &n.o, n.config
	// Listening comes first: the commonest mistake is a port that is taken.
	if n.listener, err = listen("listen", o.Listen); err != nil {
		return err
	}
	if o.AdminListen != "" {
		if n.adminListener, err = listen("admin-listen", o.AdminListen); err != nil {
			return err
		}
	}

	registry := prometheus.NewRegistry()
	n.metrics = registry
	process := prometheus.NewRegistry() // and the runtime's, which are dearer to gather
	process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	if n.broker, err = o.openBroker(ctx, config.store, registry); err != nil {
		return err
	}
	n.store, _ = n.broker.(breakable)
	n.broker = measure(n.broker, registry)
	var log publish.Log = n.broker
	if o.OTLPEndpoint != "" {
		if n.trace, err = trace.New(ctx, trace.Options{Endpoint: o.OTLPEndpoint, Sample: o.OTLPSample, Node: o.Name, Version: o.Version, Logger: n.logger}); err != nil {
			return err
		}
		log = n.trace.Log(n.broker)
	}
	if err := n.checkSealed(ctx, n.broker); err != nil {
		return err
	}
	contain := guard.New(n.logger, registry)
	if n.durable, err = newDurability(n.broker, config, o, registry, contain, n.trace, n.logger); err != nil {
		return err
	}
	n.revocations = auth.NewRevocations(n.broker, n.logger, func(r auth.Revocation) {
		n.hub.EndWhere(r.Covers, wire.CloseUnauthorized, "the token was revoked")
		n.durable.puller.EndWhere(r.Covers)
	})
	n.budget = quota.New(quota.Limits{
		Sockets: o.MaxSockets, Connections: o.MaxConnections, ConnectRate: o.ConnectRate,
		TokenChannels: o.MaxTokenChannels, TokenSubscriptions: o.MaxTokenSubscriptions, Unread: o.MaxUnread, TokenUnread: o.MaxTokenUnread, NodeUnread: o.MaxNodeUnread,
		PublishEvents: o.PublishRate, PublishBytes: float64(o.PublishBytes), Memory: o.Memory,
	}, registry)
	n.hub = session.NewHub(session.Options{
		Budget: n.budget, Guard: contain,
		Broker: n.broker, Times: n.broker, Manager: n.durable.manager, Revocations: n.revocations, Logger: n.logger, Node: o.Name, WriteTimeout: o.WriteTimeout, MaxAddress: o.MaxAddressConnections,
		Metrics: session.NewMetrics(registry), Trace: n.trace,
	})
	verifier, err := o.verifier(n.background, config, n.revocations, n.logger)
	if err != nil {
		return err
	}
	publisher := publish.New(log, publish.Options{
		Limits:  publish.Limits{Events: o.MaxBatch, Bytes: o.MaxBody, Event: o.MaxEvent},
		Admit:   n.budget.Publish,
		Metrics: publish.NewMetrics(registry),
	})
	n.server = gateway.New(gateway.Options{
		Broker: n.broker, Hub: n.hub, Verifier: verifier, Revocations: n.revocations,
		Publisher: publisher, Budget: n.budget, Guard: contain, Origins: config.origins, Proxies: config.proxies,
		Revoked: n.durable.pauseOf, Broken: n.broken, Backup: n.backup(),
		LoopbackOnly: config.development, Mint: n.mint(), MintPortal: n.mintPortal(), PortalOrigins: o.PortalOrigins, Version: o.Version, Trace: n.trace, Registerer: registry, Totals: n.totals, Logger: n.logger,
	}, n.durable.routes(n.broker, n.hub, n.revocations, n.budget, config.dialing, registry, n.logger)...)
	n.public = gateway.HTTPServer(n.server, n.logger)
	if n.adminListener != nil {
		n.admin = gateway.HTTPServer(gateway.Admin(prometheus.Gatherers{process, registry}, o.AdminListen), n.logger)
		n.admin.WriteTimeout = 0 // profiles take their time
	}
	return nil
}

// abandon takes down what was built when build can't go on.
func (n *Node) abandon() (err error) {
	n.stop()
	for _, l := range []net.Listener{n.listener, n.adminListener} {
		if l != nil {
			l.Close()
		}
	}
	if n.hub != nil {
		n.hub.Close()
	}
	n.endTrace()
	if n.broker != nil {
		err = n.broker.Close()
	}
	return err
}

// endTrace sends what spans there are, if that doesn't take long.
func (n *Node) endTrace() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := n.trace.Close(ctx); err != nil {
		n.logger.Warn("spans can't be sent", "error", err)
	}
}

// Run answers until ctx ends, which is no error, or a listener or the store
// fails for good.
func (n *Node) Run(ctx context.Context) error {
	n.durable.run(n.broker, n.hub, n.logger)
	n.running.Go(func() { n.revocations.Run(n.background) })
	n.running.Go(func() { n.budget.Watch(n.background, n.logger) })
	n.running.Go(func() { n.server.Run(n.background) })
	n.serve(n.budget.Listen(conn.Listen(n.listener), n.o.TLSCert == ""), n.public, n.o.TLSCert, n.o.TLSKey)
	if n.admin != nil {
		n.serve(conn.Listen(n.adminListener), n.admin, "", "")
		n.logger.Info("admin listener", "address", n.adminListener.Addr().String())
	}
	n.logger.Info("serving", "address", n.listener.Addr().String(), "node", n.hub.Node(), "version", n.o.Version)
	var broken <-chan struct{}
	if n.store != nil {
		broken = n.store.Broken()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.failed:
		return err
	case <-broken:
		return n.store.Err()
	}
}

// Shutdown takes the node down from left to right, within Options.Drain. It
// is called once, when Run has returned or was never called.
func (n *Node) Shutdown() error {
	n.logger.Info("shutting down", "connections", n.hub.Count(), "within", n.o.Drain)
	ctx, cancel := context.WithTimeout(context.Background(), n.o.Drain)
	defer cancel()

	n.durable.drain(ctx)           // pulls that wait end; no new calls
	n.server.Drain(ctx, n.o.Drain) // not ready; no new connections; byes, spread
	err := n.public.Shutdown(ctx)  // no new requests; those under way finish
	n.listener.Close()             // Shutdown has, if Run was called
	n.durable.endCallbacks(ctx)    // calls in flight finish
	n.hub.Close()                  // what is left of the connections; the feeds
	n.durable.end()                // acknowledgements are committed, the lease ends
	n.stop()                       // revocations, the probe, memory
	if n.admin != nil {            //
		n.admin.Close() // metrics were there until now
		n.adminListener.Close()
	} //
	n.running.Wait()           // everything started by Run has ended
	n.endTrace()               // the spans of all that
	closed := n.broker.Close() // what was answered is durable
	n.logger.Info("shut down")
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("requests were still under way after %v", n.o.Drain)
	}
	return errors.Join(err, closed)
}

// broken says why the process must be started anew, nil if it need not.
func (n *Node) broken() error {
	if n.store == nil {
		return nil
	}
	return n.store.Err()
}

// URL is where the node is, e.g. http://127.0.0.1:8080.
func (n *Node) URL() string {
	scheme := "http"
	if n.o.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + n.listener.Addr().String()
}

// Development tells whether the node verifies tokens by a key of its own, and
// in which file that is.
func (n *Node) Development() (file string, ok bool) {
	if !n.config.development {
		return "", false
	}
	return filepath.Join(n.config.store.embedded.Dir, keyFile), true
}

// Mint makes a token that the node takes. It is an error if the node has no
// secret to make one with.
func (n *Node) Mint(m auth.Mintage) (string, error) {
	m.Issuer, m.Audience = n.o.JWTIssuer, n.o.JWTAudience
	return auth.Mint(n.config.secret, m, time.Now())
}

// mint makes tokens for admins that ask, in development mode; nil otherwise.
func (n *Node) mint() func(auth.Mintage) (string, error) {
	if !n.config.development {
		return nil
	}
	return n.Mint
}

// mintPortal makes portals' tokens wherever there is a secret.
func (n *Node) mintPortal() func(auth.Mintage) (string, error) {
	if n.config.secret == nil {
		return nil
	}
	return n.Mint
}

// totals are what the metrics say now. What can't be gathered is left out.
func (n *Node) totals() stats.Totals {
	families, _ := n.metrics.Gather()
	return stats.TotalsOf(families)
}

// serve answers on a listener until the server is shut down.
func (n *Node) serve(l net.Listener, s *http.Server, cert, key string) {
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
