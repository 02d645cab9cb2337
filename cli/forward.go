package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	longline "github.com/longline-push/longline/client/go"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/webhook"
)

// forwarder posts events as callbacks are posted: same body, same headers,
// same signature.
type forwarder struct {
	to           string
	subscription string
	secret       webhook.Secret
	client       *http.Client
	out          *report

	mu       sync.Mutex
	attempts map[string]int // by cursor
}

// refusedTries is how often an event is forwarded that is refused as such.
const refusedTries = 3

func (c *listenCmd) forwarder(env *environment, out *report) (*forwarder, error) {
	u, err := url.Parse(c.ForwardTo)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usage("--forward-to", "%q; want an http or https URL", c.ForwardTo)
	}
	text := c.Secret
	if text == "" {
		text = webhook.NewSecret()
		fmt.Fprintf(env.stderr, "signing with %s\n", text)
	}
	secret, err := webhook.ParseSecret(text)
	if err != nil {
		return nil, usage("--secret", "not a secret; want whsec_ and the base64 of 24 to 64 bytes")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = c.Concurrency
	return &forwarder{
		out: out,
		to:  c.ForwardTo, subscription: c.Subscription, secret: secret, attempts: make(map[string]int),
		client: &http.Client{
			Timeout:       15 * time.Second,
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// forward posts an event. As for a callback, 400, 422 and their like refuse
// the event itself, which is rejected after a few tries; else the endpoint is
// in trouble, and it is tried for as long as that takes.
func (f *forwarder) forward(ctx context.Context, e longline.Event) error {
	f.mu.Lock()
	f.attempts[e.Cursor]++
	attempt := f.attempts[e.Cursor]
	f.mu.Unlock()
	began := time.Now()
	status, err := f.post(ctx, e, attempt)
	if printed := f.out.forwarded(e, status, time.Since(began), err); printed != nil {
		return printed
	}
	if err == nil && status >= 200 && status <= 299 {
		f.forget(e)
		return nil
	}
	if err != nil {
		return err
	}
	err = fmt.Errorf("%s answered %d", f.to, status)
	if webhook.Refuses(status) && attempt >= refusedTries {
		f.forget(e)
		return longline.Reject(err)
	}
	return err
}

func (f *forwarder) forget(e longline.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attempts, e.Cursor)
}

func (f *forwarder) post(ctx context.Context, e longline.Event, attempt int) (status int, err error) {
	at, err := event.ParseCursor(e.Cursor)
	if err != nil {
		return 0, fmt.Errorf("forward event %s: %w", e.ID, err)
	}
	m := webhook.NewMessage(f.subscription, []webhook.Event{{Cursor: at, ID: e.ID, JSON: e.Raw}}, false)
	m.Attempt = attempt
	req, err := webhook.NewRequest(ctx, f.to, m, []webhook.Secret{f.secret}, time.Now())
	if err != nil {
		return 0, err
	}
	res, err := f.client.Do(req)
	if err != nil {
		return 0, errors.Unwrap(err) // without the method and the URL, which the log names anyway
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	return res.StatusCode, nil
}
