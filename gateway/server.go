// Package gateway is the HTTP side of Longline: routes, limits, publishing and
// reading, and what operators need. Live connections are the packages ws and
// sse, over a session.Hub.
package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/guard"
	"github.com/longline-push/longline/gateway/proxies"
	"github.com/longline-push/longline/gateway/publish"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/sse"
	"github.com/longline-push/longline/gateway/stats"
	"github.com/longline-push/longline/gateway/trace"
	"github.com/longline-push/longline/gateway/wire"
	"github.com/longline-push/longline/gateway/ws"
)

// Options of a Server. All fields but those that say otherwise are required.
type Options struct {
	Broker      broker.Log
	Hub         *session.Hub
	Verifier    *auth.Verifier
	Revocations *auth.Revocations
	// Revoked is called once for each revocation that was issued here, before
	// the issuer is answered. nil: nothing more is to be done.
	Revoked   func(context.Context, auth.Revocation) error
	Publisher *publish.Publisher
	Budget    *quota.Budget
	Guard     *guard.Guard // nil: panics are logged only
	// Origins whose pages may use the API; the zero value is the gateway's own.
	Origins auth.Origins
	// Proxies are believed when they say whom they ask for; the zero value: none.
	Proxies proxies.Trusted
	// LoopbackOnly refuses requests whose Host is not this machine, so that no
	// web page reaches a gateway that trusts the machine by a name of its own.
	LoopbackOnly bool
	// Broken says why only a restart helps, nil while that isn't so: /livez
	// fails then. nil: never.
	Broken func() error
	// Backup writes a copy of the data as a tar. nil: the data is elsewhere.
	Backup func(context.Context, io.Writer) error
	// MintPortal makes the tokens of portals. nil: there is no secret to sign
	// them with.
	MintPortal func(auth.Mintage) (string, error)
	// PortalOrigins may have the portal in a frame of their pages.
	PortalOrigins []string
	// Mint makes a token by the gateway's own key. nil: tokens are made
	// elsewhere.
	Mint       func(auth.Mintage) (string, error)
	Trace      *trace.Tracer         // of publishes; nil: none
	Version    string                // shown by /v1/nodes
	Registerer prometheus.Registerer // nil: no metrics
	// Totals are what the node's metrics say now, for /v1/stats. nil: nothing.
	Totals func() stats.Totals
	Logger *slog.Logger // nil: slog.Default()
	// ProbeEvery is how often the node sends itself an event. 0: 2 s.
	ProbeEvery time.Duration
}

// Server answers requests. It is an http.Handler, safe for concurrent use;
// Run must run beside it.
type Server struct {
	o        Options
	mux      *http.ServeMux
	routes   []route
	probe    *probe
	stats    *stats.Keeper
	drains   drains
	metrics  *metrics
	requests *requestIDs
	draining atomic.Bool
	started  time.Time

	unavailable complaints // of the broker
}

// New makes a Server. Further routes come with the packages that have them.
func New(o Options, more ...Route) *Server {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.ProbeEvery <= 0 {
		o.ProbeEvery = 2 * time.Second
	}
	s := &Server{o: o, mux: http.NewServeMux(), requests: newRequestIDs(), started: time.Now(), stats: stats.New(), unavailable: complaints{limit: newComplaintRate()}}
	s.metrics = newMetrics(o.Registerer, o.Hub)
	s.probe = newProbe(s)
	s.routes = append(s.ownRoutes(), s.checked(more)...)
	s.register()
	return s
}

// Run keeps the probe going until ctx ends, and what drains the node meanwhile.
func (s *Server) Run(ctx context.Context) {
	s.probe.run(ctx)
	s.drains.end()
}

// asks is what a route asks of a request's token.
type asks int

const (
	open   asks = iota // none
	bearer             // a valid one
	admin              // one that says admin
	own                // the handler asks for itself
)

// handler answers a request or returns why not. The grant is nil on open
// routes.
type handler func(w http.ResponseWriter, r *http.Request, g *auth.Grant) error

// route is a line of the table.
type route struct {
	method, path string
	asks         asks
	handle       handler
}

// Route is one that another package brings. Its token is verified before
// Handle is called; what the token may do there is for Handle to check.
type Route struct {
	Method, Path string
	Handle       func(w http.ResponseWriter, r *http.Request, g *auth.Grant) error
}

func (s *Server) checked(more []Route) (routes []route) {
	for _, m := range more {
		routes = append(routes, route{m.Method, m.Path, bearer, m.Handle})
	}
	return routes
}

// ownRoutes is the table of what this package answers.
func (s *Server) ownRoutes() []route {
	shed := func(*auth.Grant) error { return s.o.Budget.Connection(s.o.Hub.Count()) }
	sockets := &ws.Handler{Hub: s.o.Hub, Verifier: s.o.Verifier, Origins: s.o.Origins, Publisher: s.o.Publisher, MaxBody: s.o.Publisher.MaxBody(), Shed: shed, Address: s.o.Proxies.Client}
	streams := &sse.Handler{Hub: s.o.Hub, Verifier: s.o.Verifier, Shed: shed, Address: s.o.Proxies.Client}
	return []route{
		{"GET", "/v1/ws", own, plain(sockets)},
		{"GET", "/v1/sse", own, plain(streams)},

		{"POST", "/v1/events", bearer, s.publishSeveral},
		{"POST", "/v1/channels/{channel}/events", bearer, s.publish},
		{"GET", "/v1/channels/{channel}/events", bearer, s.readEvents},
		{"GET", "/v1/channels/{channel}/types", bearer, s.listTypes},
		{"GET", "/v1/channels/{channel}", bearer, s.showChannel},
		{"DELETE", "/v1/channels/{channel}", admin, s.dropChannel},
		{"GET", "/v1/channels", admin, s.listChannels},

		{"GET", "/v1/token", bearer, s.showToken},
		{"POST", "/v1/tokens", admin, s.mint},
		{"POST", "/v1/tokens/revoke", admin, s.revoke},
		{"POST", "/v1/backup", admin, s.backup},
		{"GET", "/v1/stats", admin, s.showStats},
		{"GET", "/v1/nodes", admin, s.listNodes},
		{"POST", "/v1/nodes/{node}/drain", admin, s.drainNode},
		{"DELETE", "/v1/nodes/{node}/drain", admin, s.undrainNode},
		{"GET", "/v1/connections", admin, s.listConnections},
		{"DELETE", "/v1/connections/{id}", admin, s.closeConnection},

		{"GET", "/livez", open, s.live},
		{"GET", "/readyz", open, s.ready},
		{"GET", "/v1/openapi.json", open, s.openAPI},
		{"GET", "/longline.js", open, s.module},
		{"GET", "/{$}", open, s.page},
		{"GET", "/console/{part}", open, s.pagePart},

		{"POST", "/v1/portal", admin, s.makePortal},
		{"GET", "/v1/recipes", open, s.listRecipes},
		{"GET", "/portal", open, s.portal},
	}
}

func plain(h http.Handler) handler {
	return func(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
		h.ServeHTTP(w, r)
		return nil
	}
}

// register groups the table by path, so that another method on a known path is
// 405 and not 404.
func (s *Server) register() {
	byPath := make(map[string]map[string]http.HandlerFunc)
	for _, r := range s.routes {
		if byPath[r.path] == nil {
			byPath[r.path] = make(map[string]http.HandlerFunc)
		}
		byPath[r.path][r.method] = s.answer(r)
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, notFound(r)) })
	// A HEAD there would open a stream, or hold a subscription.
	attaching := map[string]bool{"/v1/ws": true, "/v1/sse": true, "/v1/subscriptions/{name}/events": true}
	for path, methods := range byPath {
		allow := slices.Sorted(maps.Keys(methods))
		if methods["GET"] != nil && !attaching[path] {
			methods["HEAD"] = methods["GET"]
			allow = append(allow, "HEAD")
		}
		allow = append(allow, "OPTIONS")
		s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if h := methods[r.Method]; h != nil {
				h(w, r)
				return
			}
			w.Header().Set("Allow", strings.Join(allow, ", "))
			if r.Method == http.MethodOptions {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			s.fail(w, r, wire.Errorf(wire.CodeMethodNotAllowed, "method %.20s; want %s", r.Method, strings.Join(allow, " or ")))
		})
	}
}

// answer checks the token, in this one place, and calls the handler.
func (s *Server) answer(rt route) http.HandlerFunc {
	requests := s.metrics.route(rt)
	return func(w http.ResponseWriter, r *http.Request) {
		requests.Inc()
		defer func() {
			if p := recover(); p == http.ErrAbortHandler {
				panic(p)
			} else if p != nil {
				s.o.Guard.Caught("request", p)
				s.fail(w, r, fmt.Errorf("panic: %v", p))
			}
		}()
		var g *auth.Grant
		if rt.asks == bearer || rt.asks == admin {
			var err error
			if g, _, err = s.o.Verifier.FromRequest(r); err != nil {
				s.fail(w, r, err)
				return
			}
			if rt.asks == admin {
				if err := access.Admin(g, r.Method+" "+rt.path); err != nil {
					s.fail(w, r, err)
					return
				}
			}
		}
		if err := rt.handle(w, r, g); err != nil {
			s.fail(w, r, err)
		}
	}
}

// fail answers with a problem and logs what the client isn't told.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := wire.From(err)
	s.metrics.problem(e.Code)
	switch {
	case e.Code == wire.CodeInternal:
		// The path, never the query: that may hold a token.
		s.logger(w).Error("request failed", "method", r.Method, "path", r.URL.Path, "client", s.o.Proxies.Client(r), "error", err)
	case e.Code == wire.CodeUnavailable && e.Unwrap() != nil:
		// One for each request would be a flood while the broker is away.
		if more, ok := s.unavailable.may(); ok {
			s.logger(w).Warn("request failed", "method", r.Method, "path", r.URL.Path, "client", s.o.Proxies.Client(r), "error", err, "more", more)
		}
	}
	wire.WriteProblem(w, e)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(wire.RequestIDHeader, s.requests.of(r))
	if s.o.LoopbackOnly && !loopbackHost(r.Host) {
		s.fail(w, r, wire.Forbidden("host %.80q; without a key of its own the gateway answers on this machine's loopback names only, e.g. localhost", r.Host))
		return
	}
	if s.cors(w, r) {
		return
	}
	if !cleanPath(r.URL.Path) {
		// The mux would redirect, and a client would follow to another route.
		s.fail(w, r, wire.BadRequest("path %.200q has empty, \".\" or \"..\" segments; channel names are segments of A-Z a-z 0-9 _ : - joined by \".\"", r.URL.Path))
		return
	}
	if r.ProtoMajor == 2 && r.URL.Path == "/v1/sse" {
		// Over HTTP/2 a stream stays in its handler, where the server's
		// time-outs are for other answers.
		http.NewResponseController(w).SetWriteDeadline(time.Time{})
	}
	s.mux.ServeHTTP(w, r)
}

func cleanPath(p string) bool {
	return p == path.Clean(p) || strings.HasSuffix(p, "/") && p == path.Clean(p)+"/"
}

func (s *Server) publish(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	return s.o.Publisher.ServeChannel(w, s.o.Trace.Came(r), g, r.PathValue("channel"))
}

func (s *Server) publishSeveral(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	return s.o.Publisher.ServeSeveral(w, s.o.Trace.Came(r), g)
}
