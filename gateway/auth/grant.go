// Package auth turns a token into a Grant: who asks, what they may do and
// until when. It verifies signatures, remembers what it verified, and knows
// which tokens were revoked.
package auth

import (
	"time"
)

// Leeway is what clocks may differ by: a token counts so much longer than it
// says.
const Leeway = 30 * time.Second

// Grant is what a verified token allows. It is immutable, shared by all
// requests with that token, and small: a node holds one per live connection.
type Grant struct {
	Subject string
	TokenID string // the jti, or ""
	// MaxConnections is how many connections Subject may have on a node, or 0
	// for the node's own limit.
	MaxConnections int
	Admin          bool
	Portal         *Portal // nil: the token isn't a portal's

	issued, expires int64 // Unix seconds; issued is 0 if unknown
	subscribe       *channels
	publish         *channels
	subscriptions   *names
}

// Portal is how a portal looks that a token opens. It stands in the token so
// that no link shows what its signer didn't say.
type Portal struct {
	Name      string `json:"name,omitempty"`       // of the service whose customers look
	Accent    string `json:"accent,omitempty"`     // a colour, #rrggbb
	ReturnURL string `json:"return_url,omitempty"` // where the customer came from
}

// Issued is when the token was made, in Unix seconds; 0 if it doesn't say.
func (g *Grant) Issued() int64 { return g.issued }

// Expires is the token's exp. Live connections end at Ends.
func (g *Grant) Expires() time.Time { return time.Unix(g.expires, 0) }

// Ends is when the token stops to count: Expires and the leeway.
func (g *Grant) Ends() time.Time { return g.Expires().Add(Leeway) }

// Subscribe, Publish and Subscriptions are the patterns that the token says;
// not to be changed.
func (g *Grant) Subscribe() []string     { return g.subscribe.list() }
func (g *Grant) Publish() []string       { return g.publish.list() }
func (g *Grant) Subscriptions() []string { return g.subscriptions.list() }

// MaySubscribe tells whether the bearer may read a channel.
func (g *Grant) MaySubscribe(channel string) bool {
	return g.Admin || g.subscribe.match(channel)
}

// MayPublish tells whether the bearer may publish to a channel. Nobody may to
// the gateway's own.
func (g *Grant) MayPublish(channel string) bool {
	return !reserved(channel) && (g.Admin || g.publish.match(channel))
}

// MayPublishAnything tells whether there is any channel the bearer may publish
// to: such a client may send large frames.
func (g *Grant) MayPublishAnything() bool { return g.Admin || g.publish != nil }

// MaySubscription tells whether the bearer may create, change and attach to
// the durable subscription of that name. The subscription's channels are to be
// checked with MaySubscribe besides.
func (g *Grant) MaySubscription(name string) bool {
	return g.Admin || g.subscriptions.match(name)
}
