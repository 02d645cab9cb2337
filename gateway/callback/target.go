package callback

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/longline-push/longline/gateway/expr"
	"github.com/longline-push/longline/gateway/shape"
	"github.com/longline-push/longline/gateway/webhook"
)

// Target is where callbacks go, what they look like, and as whom.
type Target struct {
	URL     string
	Headers map[string]string // the user's own, checked
	Secrets []webhook.Secret  // the newest first
	Shape   *shape.Shape      // nil: a CloudEvent by POST
	Auth    *shape.Auth       // nil: none
	Replay  string            // the subscription whose events come again; "": none do
}

// receiver is a Target made ready. It is static.
type receiver struct {
	url     *url.URL
	text    string            // url's
	hides   *strings.Replacer // secrets that an answer may repeat; nil: none
	headers http.Header
	secrets []webhook.Secret
	shape   *shape.Shape
	tokens  *shape.Source // nil: none are needed
	via     http.RoundTripper
}

func (e *Engine) receiver(t *Target) (*receiver, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, errors.New("the URL is not one")
	}
	to := &receiver{url: u, text: u.String(), hides: hiding(t), headers: make(http.Header, len(t.Headers)+1), secrets: t.Secrets, shape: t.Shape, via: e.via}
	for name, value := range t.Headers {
		to.headers.Set(name, value)
	}
	if t.Replay != "" {
		to.headers.Set("Longline-Replay", t.Replay)
	}
	if t.Auth == nil {
		return to, nil
	}
	if a := t.Auth.Authorization(); a != "" {
		to.headers.Set("Authorization", a)
	}
	if t.Auth.OAuth2 != nil {
		to.tokens = e.tokens.Of(t.Auth.OAuth2)
	}
	if t.Auth.MTLS != nil {
		if to.via, err = e.certified(t.Auth.MTLS); err != nil {
			return nil, err
		}
	}
	return to, nil
}

// hiddenFrom is how long what is secret must be to be looked for in answers: a
// tenant's number is a header's value too.
const hiddenFrom = 6

// hiding makes what takes a target's secrets out of an answer that repeats them.
func hiding(t *Target) *strings.Replacer {
	var secrets []string
	add := func(s string) {
		if len(s) >= hiddenFrom {
			secrets = append(secrets, s, "***")
		}
	}
	for _, value := range t.Headers {
		add(value)
		if _, rest, ok := strings.Cut(value, " "); ok {
			add(rest)
		}
	}
	if a := t.Auth; a != nil {
		if _, credentials, ok := strings.Cut(a.Authorization(), " "); ok {
			add(credentials)
		}
		if a.Basic != nil {
			add(a.Basic.Password)
		}
		if a.OAuth2 != nil {
			add(a.OAuth2.ClientSecret)
		}
	}
	if secrets == nil {
		return nil
	}
	return strings.NewReplacer(secrets...)
}

// exchange makes a request and reads the answer, out of which secrets are taken
// as far as it is kept. Where a pooled connection ends without one, as it does
// if the endpoint closes what was idle, the request is made once more, at once.
// It may have been received, so that is announced.
func (to *receiver) exchange(ctx context.Context, m *webhook.Message, token, lastBody string) answer {
	reused := false
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	a := roundTrip(to.via, to.request(traced, m, token), lastBody, to.shape.Reads())
	if a.err != nil && a.status == 0 && reused && ctx.Err() == nil {
		again := *m
		again.Redelivery = true
		a = roundTrip(to.via, to.request(ctx, &again, token), lastBody, to.shape.Reads())
	}
	if len(token) >= hiddenFrom {
		a.head = strings.ReplaceAll(a.head, token, "***")
	}
	if to.hides != nil {
		a.head = to.hides.Replace(a.head)
	}
	return a
}

// maxCertified bounds how many client certificates have connections open.
const maxCertified = 1000

// certified is the transport that shows a client certificate. It is shared by
// all who show that one.
func (e *Engine) certified(m *shape.MTLS) (http.RoundTripper, error) {
	if e.pool == nil {
		return e.via, nil // a test's
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(text)
	if t, ok := e.certificates.Get(key); ok {
		return t, nil
	}
	config, err := m.Config()
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	t := e.opt.Dialing.transport(e.sockets)
	t.TLSClientConfig = config
	e.certificates.Add(key, t)
	return t, nil
}

// errShape wraps the reason why events can't be delivered in their shape.
var errShape = errors.New("the event does not fit the callback's shape")

// message makes what is said of events, in the target's shape. It returns the
// events as the shape sees them, nil without one.
func (to *receiver) message(subscription string, events []webhook.Event, batch bool) (webhook.Message, []*expr.Event, error) {
	m := webhook.NewMessage(subscription, events, batch)
	if to.shape == nil {
		return m, nil, nil
	}
	seen := make([]*expr.Event, len(events))
	for i := range events {
		seen[i] = expr.NewEvent(events[i].JSON)
	}
	if err := to.shape.Apply(&m, seen); err != nil {
		return m, nil, fmt.Errorf("%w: %w", errShape, err)
	}
	return m, seen, nil
}

// request makes the request of a message, with a token that is wanted beside
// the headers; "" for none.
func (to *receiver) request(ctx context.Context, m *webhook.Message, token string) *http.Request {
	r := webhook.Request(ctx, to.url, to.headers, m, to.secrets, time.Now())
	if m.Trace.Parent != "" && r.Header["Traceparent"] == nil {
		r.Header["Traceparent"] = []string{m.Trace.Parent}
		if m.Trace.State != "" {
			r.Header["Tracestate"] = []string{m.Trace.State}
		}
	}
	if token != "" {
		r.Header["Authorization"] = []string{"Bearer " + token}
	}
	return r
}

// send says a message and reads the answer, all of it within timeout. The
// answer's err is ctx's cause if ctx ended first.
func (to *receiver) send(ctx context.Context, m *webhook.Message, events []*expr.Event, timeout time.Duration, lastBody string) answer {
	start := time.Now()
	callCtx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	a := to.once(callCtx, m, lastBody)
	if a.response != nil {
		a.said, a.unsaid = to.shape.Verdicts(a.response, events)
		a.response = nil
	}
	a.latency = time.Since(start)
	if a.err != nil {
		switch cause := context.Cause(callCtx); {
		case ctx.Err() != nil:
			a.err = context.Cause(ctx)
		case cause != nil:
			a.err = fmt.Errorf("%w after %v", errTimeout, timeout)
		}
	}
	return a
}

// once sends a message, and once more with another token if that was the
// trouble.
func (to *receiver) once(ctx context.Context, m *webhook.Message, lastBody string) answer {
	if to.tokens == nil {
		return to.exchange(ctx, m, "", lastBody)
	}
	token, err := to.tokens.Token(ctx)
	if err != nil {
		return answer{err: err}
	}
	a := to.exchange(ctx, m, token, lastBody)
	if a.status != http.StatusUnauthorized {
		return a
	}
	to.tokens.Refused(token)
	another, err := to.tokens.Token(ctx)
	if err != nil {
		return answer{err: err}
	}
	if another == token {
		return a
	}
	return to.exchange(ctx, m, another, lastBody)
}
