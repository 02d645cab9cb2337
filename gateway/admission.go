package gateway

import (
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// Limits of a node. 0 is no limit.
type Limits struct {
	Connections   int     // on this node
	ConnectRate   float64 // new ones a second
	PublishEvents float64 // events a second and token (by sub, else jti)
	PublishBytes  float64 // bytes a second and token
	Memory        int64   // bytes; see Pressure
}

// Admission decides what a node takes on. It is safe for concurrent use.
type Admission struct {
	limits   Limits
	connects *rate.Limiter
	tokens   *lru.Cache[string, *tokenRate]
	pressure atomic.Int32
}

// tokenRate is what one token may publish.
type tokenRate struct{ events, bytes *rate.Limiter }

// knownTokens bounds how many tokens' rates are kept; one that is forgotten
// begins with a full burst again.
const knownTokens = 16384

// NewAdmission makes an Admission.
func NewAdmission(limits Limits) *Admission {
	// The only error is a size below 1.
	tokens, _ := lru.New[string, *tokenRate](knownTokens)
	a := &Admission{limits: limits, tokens: tokens}
	if r := limits.ConnectRate; r > 0 {
		a.connects = rate.NewLimiter(rate.Limit(r), burst(r))
	}
	return a
}

// burst is a second's worth.
func burst(perSecond float64) int { return max(int(perSecond), 1) }

// Pressure levels, as Admission goes by them.
const (
	calm         int32 = iota
	shedConnects       // above 85 % of the memory limit: no new connections
	shedPublish        // above 92 %: no publishes either
)

// connectRetry is when those come back who were shed; the transports spread it.
const connectRetry = 5 * time.Second

// Connection returns what decides on new connections.
func (a *Admission) Connection(hub *session.Hub) session.Shed {
	return func(*auth.Grant) error {
		if a.pressure.Load() >= shedConnects {
			return wire.Unavailable(connectRetry, "the node is short of memory and takes no new connections for now")
		}
		if most := a.limits.Connections; most > 0 && hub.Count() >= most {
			return wire.Unavailable(connectRetry, "the node has its %d connections", most)
		}
		if a.connects != nil && !a.connects.Allow() {
			return wire.RateLimited(connectRetry, "the node takes %v new connections a second", a.limits.ConnectRate)
		}
		return nil
	}
}

// Publish decides on a publish; see publish.Options.
func (a *Admission) Publish(g *auth.Grant, events, bytes int) error {
	if a.pressure.Load() >= shedPublish {
		return wire.Unavailable(connectRetry, "the node is short of memory and takes no events for now")
	}
	if a.limits.PublishEvents <= 0 && a.limits.PublishBytes <= 0 {
		return nil
	}
	t := a.token(g)
	now := time.Now()
	if err := take(t.events, now, events, "events"); err != nil {
		return err
	}
	return take(t.bytes, now, bytes, "bytes")
}

// take takes n from the rate. What is more than a burst passes on a full
// bucket and leaves a debt, or it could never pass.
func take(l *rate.Limiter, now time.Time, n int, what string) error {
	if l == nil {
		return nil
	}
	part := min(n, l.Burst())
	if !l.AllowN(now, part) {
		missing := float64(part) - l.TokensAt(now)
		after := time.Duration(missing / float64(l.Limit()) * float64(time.Second))
		return wire.RateLimited(max(after, time.Millisecond), "this token may publish %v %s a second", float64(l.Limit()), what)
	}
	for rest := n - part; rest > 0; rest -= l.Burst() {
		l.ReserveN(now, min(rest, l.Burst()))
	}
	return nil
}

func (a *Admission) token(g *auth.Grant) *tokenRate {
	name := "sub " + g.Subject
	if g.Subject == "" {
		name = "jti " + g.TokenID
	}
	if t, ok := a.tokens.Get(name); ok {
		return t
	}
	t := new(tokenRate)
	if r := a.limits.PublishEvents; r > 0 {
		t.events = rate.NewLimiter(rate.Limit(r), burst(r))
	}
	if r := a.limits.PublishBytes; r > 0 {
		t.bytes = rate.NewLimiter(rate.Limit(r), burst(r))
	}
	if before, ok, _ := a.tokens.PeekOrAdd(name, t); ok {
		return before
	}
	return t
}
