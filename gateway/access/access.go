// Package access answers whether the bearer of a grant may do this to that. It
// is the only place that knows: it is asked by each request, when a connection
// opens, when it is registered, when it is renewed, before an event is
// delivered again, and when a token is revoked. What is refused is a
// *wire.Error that says what was asked for. All functions may be called by
// many goroutines at once.
package access

import (
	"strings"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// Admin asks for the right to everything; what says what it is for.
func Admin(g *auth.Grant, what string) error {
	if !g.Admin {
		return wire.Forbidden("%s is for admins; the token's longline.admin is not true", what)
	}
	return nil
}

// Publish asks whether g may publish to a channel. Nobody may to the gateway's
// own.
func Publish(g *auth.Grant, channel string) error {
	switch {
	case event.Reserved(channel):
		return wire.Forbidden("channel %q is the gateway's own; nobody else publishes to names that begin with %q", channel, event.ReservedPrefix)
	case !g.MayPublish(channel):
		return wire.Forbidden("token may not publish to %q", channel)
	}
	return nil
}

// PublishAnything tells whether there is any channel that g may publish to:
// such a client may send large frames.
func PublishAnything(g *auth.Grant) bool { return g.MayPublishAnything() }

// OwnTypes begins the types of the gateway's own events and of the control
// events of an event stream.
const OwnTypes = "longline."

// PublishType asks whether an event of a type may be published. The gateway's
// own types are nobody's: whoever reads them is to know who wrote them.
func PublishType(typ string) error {
	if strings.HasPrefix(typ, OwnTypes) {
		return wire.Forbidden("type %.140q begins %s, which is the gateway's own", typ, OwnTypes)
	}
	return nil
}

// Read asks whether g may read a channel.
func Read(g *auth.Grant, channel string) error {
	if !g.MaySubscribe(channel) {
		return wire.Forbidden("token may not subscribe to %q", channel)
	}
	return nil
}

// ReplayMark stands between the name of a subscription and the rest of that of
// its replays. No other name has it.
const ReplayMark = "~r-"

// Base is the subscription that a name is about: of a replay, the one whose
// events it delivers again.
func Base(name string) string {
	of, _, _ := strings.Cut(name, ReplayMark)
	return of
}

// Name asks whether g may use a durable subscription of that name; a replay is
// used by whoever may use what it replays. Once its channels are known,
// Subscription is to be asked.
func Name(g *auth.Grant, name string) error {
	if !g.MaySubscription(Base(name)) {
		return wire.Forbidden("token may not use subscription %.128q", name)
	}
	return nil
}

// Subscription asks whether g may create, change and attach to a durable
// subscription: its name, and all of its channels. It is asked on every call,
// since tokens and definitions both change.
func Subscription(g *auth.Grant, name string, channels []string) error {
	if err := Name(g, name); err != nil {
		return err
	}
	for _, channel := range channels {
		if !g.MaySubscribe(channel) {
			return wire.Forbidden("token may not subscribe to %q, a channel of subscription %.128q", channel, name)
		}
	}
	return nil
}

// Use is what a connection does with its grant.
type Use struct {
	Subscription string // it is attached to, or stands by for; "": none
	Channels     []string
}

// Renew asks whether a connection may go on with another grant: of the same
// subject, and with every right in use.
func Renew(had, g *auth.Grant, use Use) error {
	if g.Subject != had.Subject {
		return wire.Forbidden("a renewal needs a token of the same sub")
	}
	if use.Subscription != "" {
		return Subscription(g, use.Subscription, use.Channels)
	}
	for _, channel := range use.Channels {
		if !g.MaySubscribe(channel) {
			return wire.Forbidden("token may not subscribe to %q, which is in use", channel)
		}
	}
	return nil
}
