// Package proxies tells whose request it is where reverse proxies stand before
// the gateway: what they say of the client counts if they are trusted, and what
// a client says of itself never does.
package proxies

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// Trusted are the networks of proxies that are believed. The zero value
// believes nobody. Its methods may be called by any goroutine.
type Trusted struct{ networks []netip.Prefix }

// Parse reads networks such as 10.0.0.0/8, or single addresses.
func Parse(networks []string) (Trusted, error) {
	var t Trusted
	for _, text := range networks {
		p, err := netip.ParsePrefix(text)
		if a, addrErr := netip.ParseAddr(text); addrErr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return Trusted{}, fmt.Errorf("%.80q; want a network such as 10.0.0.0/8, or an address such as 127.0.0.1 or ::1", text)
		}
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96) // addresses are compared unmapped
		}
		t.networks = append(t.networks, p.Masked())
	}
	return t, nil
}

func (t Trusted) has(a netip.Addr) bool {
	for _, p := range t.networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Client returns the address that a request comes from: the peer's, unless that
// is a trusted proxy; then what is rightmost in X-Forwarded-For (else Forwarded,
// RFC 7239) and no trusted proxy itself. Each proxy adds on the right what it
// saw, so whatever stands left of that, the client may have written.
//
// Where both headers are there and say different things, neither is believed: a
// proxy that writes the one passes on whatever a client put into the other. The
// zero Addr means that the connection has no address.
func (t Trusted) Client(r *http.Request) netip.Addr {
	peer, err := address(r.RemoteAddr)
	if err != nil || !t.has(peer) {
		return peer
	}
	byList := t.walk(peer, listed(r.Header["X-Forwarded-For"]))
	if len(r.Header["Forwarded"]) == 0 {
		return byList
	}
	byForwarded := t.walk(peer, forwarded(r.Header["Forwarded"]))
	if len(r.Header["X-Forwarded-For"]) > 0 && byList != byForwarded {
		return peer
	}
	return byForwarded
}

// walk goes from the peer away along what each hop says of the one before it,
// as long as it is trusted and says an address.
func (t Trusted) walk(peer netip.Addr, hops []string) netip.Addr {
	at := peer
	for i := len(hops) - 1; i >= 0 && t.has(at); i-- {
		next, err := address(hops[i])
		if err != nil {
			break // "unknown", a name made up to hide one, or nonsense
		}
		at = next
	}
	return at
}

// listed splits X-Forwarded-For, which may be there several times.
func listed(lines []string) (hops []string) {
	for _, line := range lines {
		for hop := range strings.SplitSeq(line, ",") {
			hops = append(hops, strings.TrimSpace(hop))
		}
	}
	return hops
}

// forwarded returns the for of each element of Forwarded, "" where there is
// none. Commas and semicolons within quotes are no separators. Nothing in a line
// counts in which a quote is left open: what a proxy added stands within it.
func forwarded(lines []string) (hops []string) {
	for _, line := range lines {
		elements, closed := split(line, ',')
		if !closed {
			elements = []string{""}
		}
		for _, element := range elements {
			hop := ""
			pairs, _ := split(element, ';')
			for _, pair := range pairs {
				if name, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && strings.EqualFold(name, "for") {
					hop = strings.Trim(value, `"`) // an address has nothing to escape
				}
			}
			hops = append(hops, hop)
		}
	}
	return hops
}

// split cuts a text at separators outside of quotes, and tells whether each quote
// is closed.
func split(s string, separator byte) (parts []string, closed bool) {
	quoted, from := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && s[i] == separator:
			parts = append(parts, s[from:i])
			from = i + 1
		}
	}
	return append(parts, s[from:]), !quoted
}

// address reads an address with or without a port, an IPv6 one with or without
// brackets.
func address(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		var with netip.AddrPort
		if with, err = netip.ParseAddrPort(text); err != nil {
			return netip.Addr{}, err
		}
		a = with.Addr()
	}
	return a.Unmap().WithZone(""), nil
}
