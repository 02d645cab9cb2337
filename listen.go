package main

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

// listenCmd prints events, or forwards them to a local URL as a callback
// would bring them.
type listenCmd struct {
	Channel      []string `placeholder:"CHANNEL" xor:"what" help:"Listen to a channel; repeat it for more."`
	Subscription string   `placeholder:"NAME" xor:"what" help:"Attach to a durable subscription, and acknowledge what is printed or forwarded."`
	Since        string   `placeholder:"SINCE" help:"Begin after a cursor, at earliest, latest (the default) or an RFC 3339 time. Channels only."`
	Types        []string `placeholder:"PATTERN" help:"Only these types of event. Channels only."`
	Consumer     string   `placeholder:"ID" help:"Who attaches: the same one again takes over, another one stands by; made up if not given. Subscriptions only."`

	ForwardTo string `placeholder:"URL" help:"POST each event there and acknowledge it only once answered with 2xx."`
	Secret    string `placeholder:"WHSEC" help:"Sign what is forwarded with this secret; one is made up and printed if not given."`

	clientFlags `embed:""`
}

// Run listens until its context ends.
func (c *listenCmd) Run(env *environment) error {
	switch {
	case len(c.Channel) == 0 && c.Subscription == "":
		return usage("--channel, --subscription", "want one of them")
	case c.Subscription != "" && (c.Since != "" || len(c.Types) > 0):
		return usage("--since, --types", "go with --channel; a subscription has its own (see longline sub seek and put)")
	case c.Subscription == "" && c.Consumer != "":
		return usage("--consumer", "goes with --subscription")
	case c.ForwardTo == "" && c.Secret != "":
		return usage("--secret", "goes with --forward-to")
	}
	client, err := c.client(env)
	if err != nil {
		return err
	}
	o := longline.SubscriptionOptions{
		Consumer: c.Consumer,
		Handler:  func(_ context.Context, e longline.Event) error { return printLine(env, e.Raw) },
		OnGap: func(g longline.Gap) {
			fmt.Fprintf(env.stderr, "gap in %s: the events after %s up to %s won't come (%s)\n", g.Channel, g.From, g.To, g.Reason)
		},
		OnReject: func(e longline.Event, err error) {
			fmt.Fprintf(env.stderr, "event %s rejected: %v\n", e.ID, err)
		},
	}
	if c.ForwardTo != "" {
		f, err := c.forwarder(env)
		if err != nil {
			return err
		}
		defer f.client.CloseIdleConnections()
		o.Handler, o.Tries, o.MaxBackoff = f.forward, -1, 15*time.Second
	}
	var line *longline.Subscription
	if c.Subscription != "" {
		line, err = client.Attach(c.Subscription, o)
	} else {
		line, err = client.Subscribe(longline.Selection{Channels: c.Channel, Types: c.Types, Since: c.Since}, o)
	}
	if err != nil {
		return usage("--channel, --types", "%v", err)
	}
	return line.Run(env.ctx)
}

// forwarder posts events as callbacks are posted: same body, same headers,
// same signature.
type forwarder struct {
	to           string
	subscription string
	secret       webhook.Secret
	client       *http.Client

	mu       sync.Mutex
	attempts map[string]int // by cursor
}

// refusedTries is how often an event is forwarded that is refused as such.
const refusedTries = 3

func (c *listenCmd) forwarder(env *environment) (*forwarder, error) {
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
	return &forwarder{
		to: c.ForwardTo, subscription: c.Subscription, secret: secret, attempts: make(map[string]int),
		client: &http.Client{
			Timeout:       15 * time.Second,
			Transport:     http.DefaultTransport.(*http.Transport).Clone(),
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
	status, err := f.post(ctx, e, attempt)
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
