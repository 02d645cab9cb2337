package callback

import (
	"context"
	"net/url"
	"time"

	"github.com/longline-push/longline/gateway/webhook"
)

// Try sends a message once, outside of any worker, and says what came back:
// for people who want to see whether their endpoint takes callbacks.
func (e *Engine) Try(ctx context.Context, sub Subscription, m webhook.Message) (Attempt, error) {
	u, err := url.Parse(sub.URL)
	if err != nil {
		return Attempt{}, err
	}
	if sub.Timeout <= 0 {
		sub.Timeout = 15 * time.Second
	}
	at := time.Now()
	a := exchange(ctx, e.via, webhook.Request(ctx, u, headerOf(sub.Headers), &m, sub.Secrets, at), sub.Timeout, "")
	return Attempt{
		Time: at.UTC(), Status: a.status, LatencyMS: float64(a.latency.Microseconds()) / 1000, Error: a.describe(), Body: a.head,
	}, nil
}
