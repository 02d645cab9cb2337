package callback

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// proxyError is trouble at the egress proxy: the endpoint was not asked, and is
// not to blame. Its text is fit for the subscription's owner.
type proxyError struct{ reason string }

func (e *proxyError) Error() string { return "the gateway's proxy for callbacks " + e.reason }

// errUnreached: the proxy could not reach the endpoint.
var errUnreached = errors.New("could not connect")

// proxy connects to endpoints through an HTTP proxy, by CONNECT. What a name
// leads to is checked before the proxy is asked for it: every address, since
// the proxy may take any.
type proxy struct {
	url  *url.URL
	dial dial // to the proxy itself
	rule *addressRule
}

const connectTimeout = 10 * time.Second

// DialContext is an http.Transport's.
func (p *proxy) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	if err := p.check(ctx, address); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := p.dial(ctx, "tcp", net.JoinHostPort(p.url.Hostname(), portOf(p.url)))
	if errors.Is(err, errNoSocket) {
		return nil, err
	}
	if err != nil {
		return nil, &proxyError{"can't be reached"}
	}
	// Nothing below outlives ctx.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	through, err := p.connect(c, address)
	if !stop() && err == nil {
		err = &proxyError{"timed out"}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return through, nil
}

// check resolves an address as the proxy will, and refuses it if callbacks may
// not connect to any one of what that gives.
func (p *proxy) check(ctx context.Context, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%w: not an address", errForbidden)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("%w: not a port", errForbidden)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if !p.rule.checkAddr(netip.AddrPortFrom(addr, uint16(n))) {
			return errForbidden
		}
	}
	return nil
}

// connect asks the proxy, at the other end of c, for the address.
func (p *proxy) connect(c net.Conn, address string) (net.Conn, error) {
	if p.url.Scheme == "https" {
		c = tls.Client(c, &tls.Config{ServerName: p.url.Hostname(), MinVersion: tls.VersionTLS12})
	}
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if u := p.url.User; u != nil {
		password, _ := u.Password()
		r.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := r.Write(c); err != nil {
		return nil, &proxyError{"closed the connection"}
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, r)
	switch {
	case err != nil:
		return nil, &proxyError{"gave no answer"}
	case resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusGatewayTimeout:
		return nil, errUnreached
	case resp.StatusCode/100 != 2:
		return nil, &proxyError{fmt.Sprintf("answered %d", resp.StatusCode)}
	case in.Buffered() > 0:
		return nil, &proxyError{"sent more than an answer"}
	}
	return c, nil
}
