package callback

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/webhook"
)

// Sent is a request as people may see it: without what is secret.
type Sent struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"` // the user's own and credentials are "***"
	Body    string            `json:"body"`
}

// Try sends an event that has no place in a channel once, outside of any worker, and says what was sent and
// what came back; at is the position that it names: for people who want to see whether their endpoint takes
// callbacks. Where the event doesn't fit the target's shape nothing is sent.
func (e *Engine) Try(ctx context.Context, sub Subscription, ev webhook.Event, at event.Position) (*Sent, Attempt, error) {
	to, err := e.receiver(&sub.Target)
	if err != nil {
		return nil, Attempt{}, err
	}
	if sub.Timeout <= 0 {
		sub.Timeout = 15 * time.Second
	}
	began := time.Now()
	m, events, err := to.message(sub.Name, []webhook.Event{ev}, sub.MaxEvents > 1)
	m.Cursor = at.String()
	var sent *Sent
	a := answer{err: err}
	if err == nil {
		sent = to.shown(to.request(ctx, &m, ""), &m)
		a = to.send(ctx, &m, events, sub.Timeout, "")
	}
	return sent, Attempt{
		Time: began.UTC(), Status: a.status, LatencyMS: float64(a.latency.Microseconds()) / 1000, Error: a.describe(), Body: a.head,
	}, nil
}

func (to *receiver) shown(r *http.Request, m *webhook.Message) *Sent {
	s := &Sent{Method: r.Method, URL: r.URL.String(), Headers: map[string]string{}, Body: strings.ToValidUTF8(string(m.Body), "\uFFFD")}
	for name, values := range r.Header {
		if len(values) > 0 {
			s.Headers[strings.ToLower(name)] = values[0]
		}
	}
	if to.tokens != nil {
		s.Headers["authorization"] = "***"
	}
	for name := range to.headers {
		s.Headers[strings.ToLower(name)] = "***"
	}
	return s
}
