package session

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// FromQuery reads what a connection's query asks for. resume is what the
// transport's own headers say of the position, "" if nothing; it comes before
// the query's last_event_id and since.
func FromQuery(q url.Values, resume string, g *auth.Grant, codec Codec) (Config, error) {
	c := Config{Grant: g, Codec: codec, Select: SelectionFromQuery(q), Channels: q["channel"]}
	for _, from := range []struct{ name, text string }{
		{"Last-Event-ID", resume}, {"last_event_id", q.Get("last_event_id")}, {"since", q.Get("since")},
	} {
		if from.text == "" {
			continue
		}
		since, err := cursor.ParseSince(from.name, from.text)
		if err != nil {
			return c, err
		}
		c.Since = since
		break
	}
	var err error
	c.Lag, err = ParseLag(q.Get("lag"))
	return c, err
}

// SelectionFromQuery reads which events a query asks for.
func SelectionFromQuery(q url.Values) cursor.Selection {
	return cursor.Selection{Types: strings.Join(q["types"], ","), Filter: q.Get("filter")}
}

// AttachmentFromQuery reads what a connection to a durable subscription asks
// for.
func AttachmentFromQuery(q url.Values, g *auth.Grant, codec Codec) (Attachment, error) {
	a := Attachment{Grant: g, Codec: codec, Name: q.Get("subscription"), Consumer: q.Get("consumer")}
	for _, other := range []string{"channel", "types", "filter", "since", "lag"} {
		if q.Has(other) {
			return a, wire.BadRequest("subscription and %s can't be asked for together: the subscription says it", other)
		}
	}
	if len(a.Consumer) > durable.MaxName {
		return a, wire.BadRequest("consumer has %d bytes; want %d at most", len(a.Consumer), durable.MaxName)
	}
	if text := q.Get("window"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > durable.MaxWindow {
			return a, wire.BadRequest("window is %.40q; want a number from 1 to %d", text, durable.MaxWindow)
		}
		a.Window = n
	}
	return a, nil
}

// Authorizer turns requests and tokens into grants; see auth.Verifier.
type Authorizer interface {
	FromRequest(r *http.Request) (*auth.Grant, auth.Source, error)
}

// Address tells which client a request comes from; nil: not known.
type Address func(r *http.Request) netip.Addr

// Of is the request's, the zero Addr if not known.
func (a Address) Of(r *http.Request) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	return a(r)
}

// Shed answers whether a new connection can be taken now; nil: yes. Its errors
// are of wire.CodeRateLimited or wire.CodeUnavailable.
type Shed func(g *auth.Grant) error

// Overloaded tells whether err says to come back later rather than what is
// wrong with the request.
func Overloaded(err error) bool {
	code := wire.From(err).Code
	return code == wire.CodeRateLimited || code == wire.CodeUnavailable || code == wire.CodeInternal
}
