package quota

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// Token is what the connections and publishes of one sub hold together.
type Token struct {
	budget        *Budget
	Unread        *Account // bytes of answers that their peers don't read
	channels      *Account
	events, bytes *rate.Limiter // nil: any
}

// knownTokens is how many tokens are kept that hold nothing; one that is
// forgotten begins with a full burst again.
const knownTokens = 16384

// Token returns what the grant's sub (else jti) holds.
func (b *Budget) Token(g *auth.Grant) *Token {
	name := "sub " + g.Subject
	if g.Subject == "" {
		name = "jti " + g.TokenID
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.tokens[name]; t != nil {
		return t
	}
	if len(b.tokens) >= knownTokens {
		b.forgetLocked()
	}
	t := &Token{
		budget: b, Unread: NewAccount("max-token-unread", b.limits.TokenUnread, b.unread),
		channels: NewAccount("max-token-channels", int64(b.limits.TokenChannels), b.channels),
	}
	if r := b.limits.PublishEvents; r > 0 {
		t.events = rate.NewLimiter(rate.Limit(r), burst(r))
	}
	if r := b.limits.PublishBytes; r > 0 {
		t.bytes = rate.NewLimiter(rate.Limit(r), burst(r))
	}
	b.tokens[name] = t
	return t
}

// forgetLocked drops some tokens that hold nothing. Who has one of them at
// hand goes on with it.
func (b *Budget) forgetLocked() {
	looked := 0
	for name, t := range b.tokens {
		if t.Unread.Held() == 0 && t.channels.Held() == 0 {
			delete(b.tokens, name)
		}
		if looked++; looked == 16 {
			return
		}
	}
}

// TokenConnection decides on a new live connection where the grant's sub has so
// many on this node. What it may have is the token's own to say.
func (b *Budget) TokenConnection(g *auth.Grant, there int) error {
	if g.MaxConnections > 0 && there >= g.MaxConnections {
		b.refusedBy("max_connections")
		return wire.RateLimited(connectRetry, "%d connections for this token's sub, which is what it may have", g.MaxConnections)
	}
	return nil
}

// Channels takes n more channels for a connection of the token's. Admins may
// have any number.
func (t *Token) Channels(g *auth.Grant, n int) error {
	if g.Admin {
		t.channels.put(int64(n))
		return nil
	}
	if full := t.channels.Take(int64(n)); full != nil {
		t.budget.Refused(full)
		return wire.RateLimited(connectRetry, "the connections of this token's sub may have %d channels together; see --%s", full.Limit(), full.Name())
	}
	return nil
}

// GiveChannels gives back what Channels took.
func (t *Token) GiveChannels(n int) { t.channels.Give(int64(n)) }

// take takes n from the rate. What is more than a burst passes on a full
// bucket and leaves a debt, or it could never pass.
func (t *Token) take(l *rate.Limiter, now time.Time, n int, limit, what string) error {
	if l == nil {
		return nil
	}
	part := min(n, l.Burst())
	if !l.AllowN(now, part) {
		t.budget.refusedBy(limit)
		missing := float64(part) - l.TokensAt(now)
		after := time.Duration(missing / float64(l.Limit()) * float64(time.Second))
		return wire.RateLimited(max(after, time.Millisecond), "this token may publish %v %s a second", float64(l.Limit()), what)
	}
	for rest := n - part; rest > 0; rest -= l.Burst() {
		l.ReserveN(now, min(rest, l.Burst()))
	}
	return nil
}
