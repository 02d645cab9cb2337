package callback

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// DefaultPorts are what callbacks may connect to if nothing else is said.
var DefaultPorts = []uint16{80, 443, 8080, 8443}

// Dialing says what callbacks may connect to: public addresses, at Ports, and
// whatever is listed besides.
type Dialing struct {
	Ports    []uint16       // nil: DefaultPorts
	Allow    []netip.Prefix // these networks too, at any port
	Loopback bool           // this machine too, at any port
	// Proxy is an HTTP proxy that is asked for each connection, by CONNECT; its
	// own address is not checked. nil: connections are made from here.
	Proxy *url.URL
}

// addressRule decides about each address a dialer is about to connect to: what a
// name resolved to, not the name, so that no name leads inside.
type addressRule struct {
	allow  []netip.Prefix
	public *ssrf.Guardian
}

func (d Dialing) rule() *addressRule {
	ports := d.Ports
	if ports == nil {
		ports = DefaultPorts
	}
	g := &addressRule{public: ssrf.New(ssrf.WithPorts(ports...))}
	for _, p := range d.Allow {
		g.allow = append(g.allow, p.Masked())
	}
	if d.Loopback {
		g.allow = append(g.allow, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	}
	return g
}

// check is a net.Dialer's Control. Errors name no address: what a name means
// inside this network is nobody's business.
func (g *addressRule) check(network, address string, raw syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: not an address", errForbidden)
	}
	if g.checkAddr(to) {
		if network == "tcp4" || network == "tcp6" {
			return nil
		}
	}
	return errForbidden
}

func (g *addressRule) checkAddr(to netip.AddrPort) bool {
	// An IPv4 address in IPv6 clothes is that IPv4 address.
	addr := to.Addr().Unmap()
	for _, p := range g.allow {
		if p.Contains(addr) {
			return true
		}
	}
	return g.public.SafeAddrPort(netip.AddrPortFrom(addr, to.Port())) == nil
}

// CheckURL refuses early what every call would refuse at dial time: a port
// that is not allowed on any network, a literal address that is not. A URL
// with a name may pass here and be refused when it is called.
func (d Dialing) CheckURL(u *url.URL) error {
	port, err := strconv.ParseUint(portOf(u), 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("port %q is not a port", u.Port())
	}
	g := d.rule()
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		if !g.checkAddr(netip.AddrPortFrom(addr, uint16(port))) {
			return fmt.Errorf("address %s is not one that callbacks may connect to", u.Host)
		}
		return nil
	}
	if len(g.allow) > 0 {
		return nil // the name may be in a network with any port
	}
	ports := d.Ports
	if ports == nil {
		ports = DefaultPorts
	}
	for _, p := range ports {
		if uint64(p) == port {
			return nil
		}
	}
	return fmt.Errorf("port %d is not one that callbacks may connect to, want one of %v", port, ports)
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// maxIdle is how many connections are kept for the next call.
const maxIdle = 4096

// Transport returns what callbacks are sent by: pooled connections, HTTP/2
// where TLS offers it, no proxy. It follows no redirect, as RoundTrip never
// does.
func (d Dialing) Transport() *http.Transport { return d.transport(nil) }

// transport is Transport with connections that count.
func (d Dialing) transport(s *sockets) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: d.rule().check}
	connect := s.bound(dialer.DialContext)
	if d.Proxy != nil {
		dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}
		connect = (&proxy{url: d.Proxy, dial: s.bound(dialer.DialContext), rule: d.rule()}).DialContext
	}
	idle := maxIdle
	if s != nil {
		idle = min(idle, s.max/2)
	}
	return &http.Transport{
		Proxy:               nil, // the environment's proxy would dial for us, unchecked
		DialContext:         connect,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		// No limit per host: subscriptions with the same receiver would wait
		// for each other's slow calls.
		MaxConnsPerHost:        0,
		MaxIdleConns:           idle,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ExpectContinueTimeout:  time.Second,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
}
