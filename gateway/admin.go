package gateway

import (
	"net"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/longline-push/longline/gateway/wire"
)

// Admin is the handler for the admin listener: metrics and profiles, for the
// machine's own people. It asks for no token, but answers only to loopback
// names and to what it listens on. Nothing it shows holds a secret: the
// command line, which pprof would show, may, so it isn't there.
func Admin(g prometheus.Gatherer, listen string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !adminHost(r.Host, listen) {
			wire.WriteProblem(w, wire.Forbidden("host %.80q; the admin listener answers to loopback names, e.g. localhost, and to what it listens on, %s", r.Host, listen))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// adminHost tells whether a request's Host may ask who listens on an address.
// One that listens on all addresses is asked by any of them: an address, other
// than a name, can't be made to point elsewhere.
func adminHost(host, listen string) bool {
	name, own := hostName(host), hostName(listen)
	if loopbackHost(host) || name == own && own != "" {
		return true
	}
	ip := net.ParseIP(own)
	return (own == "" || ip != nil && ip.IsUnspecified()) && net.ParseIP(name) != nil
}
