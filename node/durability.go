package node

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/guard"
	"github.com/longline-push/longline/gateway/lag"
	"github.com/longline-push/longline/gateway/pull"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/subscriptions"
	"github.com/longline-push/longline/gateway/trace"
)

// durability is what a node has for durable subscriptions: who owns them, and
// who calls back for those that nobody does.
type durability struct {
	contain    *guard.Guard
	notices    *durable.Notices
	vault      *durable.Vault
	manager    *durable.Manager
	history    *callback.History
	watch      *lag.Watch // nil: the metrics name no subscription
	engine     *callback.Engine
	dispatcher *callback.Dispatcher // set by run
	api        *subscriptions.API   // set by routes, as is puller
	puller     *pull.Puller
	waiting    *subscriptions.Waiting // set by routes

	claiming, keeping, telling, recording, counting, watching context.CancelFunc // set by run; do nothing before
	claims, keeps, tells, records, counts, watches            sync.WaitGroup
}

func newDurability(b gateway.Broker, config *checked, o *Options, registry prometheus.Registerer, contain *guard.Guard, tracer *trace.Tracer, logger *slog.Logger) (*durability, error) {
	vault, err := durable.NewVault(config.vaultKey)
	if err != nil {
		return nil, err
	}
	idle := func() {}
	d := &durability{
		contain: contain, vault: vault, notices: durable.NewNotices(b, o.Name, logger),
		claiming: idle, keeping: idle, telling: idle, recording: idle, counting: idle, watching: idle,
	}
	d.manager = durable.New(durable.Options{Broker: b, Logger: logger, Node: o.Name, Publish: d.notices.Publish, Guard: contain})
	metrics := callback.NewMetrics(registry)
	if o.MetricsSubscriptions > 0 {
		d.watch = lag.New(lag.Options{Log: b, Owned: d.owned(b), Most: o.MetricsSubscriptions, Logger: logger}, registry)
		metrics.Each = d.watch.Called
	}
	d.history = callback.NewHistory(b, logger, registry)
	d.engine = callback.New(callback.Options{Dialing: config.dialing, MaxSockets: callbackSockets(o.MaxSockets), History: d.history, Logger: logger, Metrics: metrics, Guard: contain, Trace: tracer})
	return d, nil
}

// routes makes what answers requests about durable subscriptions.
func (d *durability) routes(b gateway.Broker, hub *session.Hub, revocations *auth.Revocations, budget *quota.Budget, dialing callback.Dialing, registry prometheus.Registerer, logger *slog.Logger) []gateway.Route {
	d.puller = pull.New(pull.Options{Log: b, Hub: hub, Manager: d.manager, Guard: d.contain})
	d.api = subscriptions.New(subscriptions.Options{
		Broker: b, Manager: d.manager, Vault: d.vault, Engine: d.engine, CheckURL: dialing.CheckURL,
		Revocations: revocations, Budget: budget,
	})
	d.waiting = subscriptions.NewWaiting(d.api, registry, logger)
	routes := []gateway.Route{
		{Method: "GET", Path: "/v1/subscriptions/{name}/events", Handle: d.puller.ServePull},
		{Method: "DELETE", Path: "/v1/subscriptions/{name}/events", Handle: d.puller.ServeRelease},
	}
	for _, r := range d.api.Routes() {
		routes = append(routes, gateway.Route(r))
	}
	return routes
}

// owned asks which subscriptions this node owns, without replays.
func (d *durability) owned(b gateway.Broker) func(context.Context) ([]string, error) {
	return func(ctx context.Context) (names []string, err error) {
		node := d.manager.Node()
		if node == "" {
			return nil, nil
		}
		for after := ""; ; {
			page, err := b.Owned(ctx, node, after, 1000)
			if err != nil || len(page) == 0 {
				return slices.DeleteFunc(names, durable.IsReplay), err
			}
			names, after = append(names, page...), page[len(page)-1]
		}
	}
}

// pauseOf pauses the subscriptions that a revoked sub's tokens created.
func (d *durability) pauseOf(ctx context.Context, r auth.Revocation) error {
	return d.api.PauseOf(ctx, r)
}

// run starts what runs: the notices, the node's lease, the claims.
func (d *durability) run(b gateway.Broker, hub *session.Hub, logger *slog.Logger) {
	d.dispatcher = callback.NewDispatcher(callback.DispatcherOptions{
		Manager: d.manager, Schedule: b, Feeds: hub.Feeds(), Filters: hub.Filters(),
		Engine: d.engine, Private: d.private, Logger: logger,
	})
	start := func(wait *sync.WaitGroup, run func(context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(context.Background())
		wait.Go(func() { run(ctx) })
		return cancel
	}
	d.telling = start(&d.tells, d.notices.Run)
	d.keeping = start(&d.keeps, d.manager.Run)
	d.recording = start(&d.records, d.history.Run)
	d.claiming = start(&d.claims, d.dispatcher.Run)
	d.counting = start(&d.counts, d.waiting.Run)
	if d.watch != nil {
		d.watching = start(&d.watches, d.watch.Run)
	}
}

// private opens what of a callback is kept encrypted.
func (d *durability) private(s durable.State) (callback.Private, error) {
	p, err := d.vault.Open(s.Name, s.Sealed)
	if err != nil {
		return callback.Private{}, err
	}
	secrets, err := subscriptions.CallbackSecrets(p)
	return callback.Private{Secrets: secrets, Headers: p.Headers, Auth: p.Auth}, err
}

// drain ends the pulls that wait, claims nothing more and starts no new call,
// so that by the time the connections are gone these are too.
func (d *durability) drain(ctx context.Context) {
	d.puller.Drain()
	d.claiming()
	d.engine.Drain(ctx)
}

// endCallbacks waits for the end of calls in flight, as long as ctx allows.
func (d *durability) endCallbacks(ctx context.Context) {
	d.claims.Wait()
	d.engine.Close(ctx)
	d.puller.Close()
	d.counting()
	d.counts.Wait()
	d.recording()
	d.records.Wait()
	d.watching()
	d.watches.Wait()
}

// end commits, releases what is still owned, and leaves the nodes.
func (d *durability) end() {
	d.keeping()
	d.keeps.Wait()
	d.telling()
	d.tells.Wait()
}
