package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Origins are the web origins whose pages may talk to the gateway, besides its
// own. The zero value is none but its own.
type Origins struct {
	list []string
	any  bool
}

// ParseOrigins reads origins such as https://app.example.com, or "*" for any,
// which then come without credentials.
func ParseOrigins(list []string) (Origins, error) {
	var o Origins
	for _, text := range list {
		if text == "*" {
			o.any = true
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" || u.Host == "" || text != u.Scheme+"://"+u.Host {
			return Origins{}, fmt.Errorf("origin %q; want scheme://host[:port] and nothing after it, or *", text)
		}
		o.list = append(o.list, strings.ToLower(text))
	}
	return o, nil
}

// Allows tells whether a page of the request's Origin may read answers and
// open WebSockets. A request without Origin is no browser's cross-origin one.
func (o Origins) Allows(r *http.Request) bool {
	return r.Header.Get("Origin") == "" || o.any || o.Credentials(r)
}

// Credentials tells whether the request's Origin is allowed by name, or the
// gateway's own, so that a cookie may count.
func (o Origins) Credentials(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if slices.Contains(o.list, strings.ToLower(origin)) {
		return true
	}
	// Behind a proxy that ends TLS the scheme is not known here.
	_, host, ok := strings.Cut(origin, "://")
	return ok && host != "" && strings.EqualFold(host, r.Host)
}
