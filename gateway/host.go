package gateway

import (
	"net"
	"strings"
)

// A page of any web site can send requests to whatever address its own name is
// made to point at (DNS rebinding), this machine's included. Such requests
// have that name as their Host; so who is here for few only answers to names
// it knows.

// hostName is a Host, or an address to listen on, without its port.
func hostName(host string) string {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
}

// loopbackHost tells whether a request's Host is a name or an address of this
// machine's loopback.
func loopbackHost(host string) bool {
	name := hostName(host)
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
