package quota

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// Limits of a node. 0 is no limit, but for Unread.
type Limits struct {
	Sockets            int     // accepted and not closed yet
	Connections        int     // live ones: WebSocket and SSE
	ConnectRate        float64 // new ones a second
	TokenChannels      int     // of all connections of one sub
	TokenSubscriptions int     // durable, that one sub created
	Unread             int64   // bytes of answers that wait for a peer; 0: 256 KiB
	TokenUnread        int64   // of all connections of one sub
	NodeUnread         int64   // of all connections
	PublishEvents      float64 // events a second and token (by sub, else jti)
	PublishBytes       float64 // bytes a second and token
	Memory             int64   // bytes; see Watch
}

const defaultUnread = 256 << 10

// Budget decides what a node takes on, and knows what it holds. It is safe for
// concurrent use.
type Budget struct {
	limits   Limits
	connects *rate.Limiter
	sockets  *Account
	unread   *Account
	channels *Account
	refusals *prometheus.CounterVec
	pressure atomic.Int32

	mu     sync.Mutex
	tokens map[string]*Token
}

// New makes a Budget; r may be nil.
func New(limits Limits, r prometheus.Registerer) *Budget {
	limits.Unread = cmp.Or(limits.Unread, defaultUnread)
	b := &Budget{
		limits: limits, tokens: make(map[string]*Token),
		sockets:  NewAccount("max-sockets", int64(limits.Sockets), nil),
		unread:   NewAccount("max-node-unread", limits.NodeUnread, nil),
		channels: NewAccount("channels", 0, nil),
	}
	b.register(r)
	if r := limits.ConnectRate; r > 0 {
		b.connects = rate.NewLimiter(rate.Limit(r), burst(r))
	}
	return b
}

// burst is a second's worth.
func burst(perSecond float64) int { return max(int(perSecond), 1) }

// Pressure levels.
const (
	calm         int32 = iota
	shedConnects       // above 85 % of the memory limit: no new connections
	shedPublish        // above 92 %: no publishes either
)

// connectRetry is when those come back who were shed; the transports spread it.
const connectRetry = 5 * time.Second

// Connection decides on a new live connection where there are so many. Its
// errors are of wire.CodeRateLimited or wire.CodeUnavailable.
func (b *Budget) Connection(there int) error {
	if b.pressure.Load() >= shedConnects {
		b.refusedBy("memory")
		return wire.Unavailable(connectRetry, "the node is short of memory and takes no new connections for now")
	}
	if most := b.limits.Connections; most > 0 && there >= most {
		b.refusedBy("max-connections")
		return wire.Unavailable(connectRetry, "the node has its %d connections", most)
	}
	if b.connects != nil && !b.connects.Allow() {
		b.refusedBy("connect-rate")
		return wire.RateLimited(connectRetry, "the node takes %v new connections a second", b.limits.ConnectRate)
	}
	return nil
}

// Publish decides on a publish; see publish.Options.
func (b *Budget) Publish(g *auth.Grant, events, bytes int) error {
	if b.pressure.Load() >= shedPublish {
		b.refusedBy("memory")
		return wire.Unavailable(connectRetry, "the node is short of memory and takes no events for now")
	}
	if b.limits.PublishEvents <= 0 && b.limits.PublishBytes <= 0 {
		return nil
	}
	t := b.Token(g)
	now := time.Now()
	if err := t.take(t.events, now, events, "publish-rate", "events"); err != nil {
		return err
	}
	return t.take(t.bytes, now, bytes, "publish-bytes", "bytes")
}

// Subscriptions is how many durable ones a grant's sub may have created, 0 for
// any number: of an admin, and where there is no sub, whose tokens can't be told
// from each other.
func (b *Budget) Subscriptions(g *auth.Grant) int {
	if g.Admin || g.Subject == "" {
		return 0
	}
	return b.limits.TokenSubscriptions
}

// RefuseSubscription counts and makes the refusal of one more.
func (b *Budget) RefuseSubscription() error {
	const limit = "max-token-subscriptions"
	b.refusedBy(limit)
	return wire.RateLimited(subscriptionRetry, "this token's sub has created %d subscriptions, which is what it may have; delete some, or see --%s", b.limits.TokenSubscriptions, limit)
}

// subscriptionRetry is when it is worth asking again: somebody must delete some.
const subscriptionRetry = time.Minute

// TakeUnread takes n bytes of an answer that waits for a connection of the
// token's, which has so many waiting already; false if that is too much.
func (t *Token) TakeUnread(waiting, n int64) bool {
	if waiting+n > t.budget.limits.Unread {
		t.budget.refusedBy("max-unread")
		return false
	}
	if full := t.Unread.Take(n); full != nil {
		t.budget.Refused(full)
		return false
	}
	return true
}
