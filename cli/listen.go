package cli

import (
	"context"

	longline "github.com/longline-push/longline/client/go"
)

// listenCmd prints events, or forwards them to a local URL as a callback
// would bring them.
type listenCmd struct {
	Channel      []string `placeholder:"CHANNEL" xor:"what" help:"Listen to a channel; repeat it for more."`
	Subscription string   `placeholder:"NAME" xor:"what" help:"Attach to a durable subscription, and acknowledge what is printed or forwarded."`
	Since        string   `placeholder:"SINCE" help:"Begin after a cursor, at earliest, latest (the default) or an RFC 3339 time. Channels only."`
	Types        []string `placeholder:"PATTERN" help:"Only these types of event. Channels only."`
	Filter       string   `placeholder:"EXPRESSION" help:"Only events for which this says yes, e.g. 'event.data.amount > 100'. Channels only."`
	Consumer     string   `placeholder:"ID" help:"Who attaches: the same one again takes over, another one stands by; made up if not given. Subscriptions only."`

	ForwardTo   string `placeholder:"URL" help:"POST each event there and acknowledge it only once answered with 2xx."`
	Concurrency int    `default:"1" placeholder:"N" help:"POST so many events at once; those of one key stay in order. Forwarding only."`
	Secret      string `placeholder:"WHSEC" help:"Sign what is forwarded with this secret; one is made up and printed if not given."`

	clientFlags `embed:""`
}

// Run listens until its context ends.
func (c *listenCmd) Run(env *environment) error {
	switch {
	case len(c.Channel) == 0 && c.Subscription == "":
		return usage("--channel, --subscription", "want one of them")
	case c.Subscription != "" && (c.Since != "" || len(c.Types) > 0 || c.Filter != ""):
		return usage("--since, --types, --filter", "go with --channel; a subscription has its own (see longline sub seek and put)")
	case c.Subscription == "" && c.Consumer != "":
		return usage("--consumer", "goes with --subscription")
	case c.ForwardTo == "" && c.Secret != "":
		return usage("--secret", "goes with --forward-to")
	case c.Concurrency < 1 || c.Concurrency > 1000:
		return usage("--concurrency", "%d; want 1 to 1000", c.Concurrency)
	case c.ForwardTo == "" && c.Concurrency > 1:
		return usage("--concurrency", "goes with --forward-to")
	}
	client, err := c.client(env)
	if err != nil {
		return err
	}
	out := c.report(env)
	o := longline.SubscriptionOptions{
		Consumer: c.Consumer,
		Handler:  func(_ context.Context, e longline.Event) error { return out.event(e) },
		OnState:  out.state,
		OnGap:    out.gap,
		OnReject: out.reject,
	}
	if c.ForwardTo != "" {
		f, err := c.forwarder(env, out)
		if err != nil {
			return err
		}
		defer f.client.CloseIdleConnections()
		o.Handler, o.Concurrency = f.forward, c.Concurrency
	}
	var line *longline.Subscription
	if c.Subscription != "" {
		line, err = client.Attach(c.Subscription, o)
	} else {
		line, err = client.Subscribe(longline.Selection{Channels: c.Channel, Types: c.Types, Filter: c.Filter, Since: c.Since}, o)
	}
	if err != nil {
		return usage("--channel, --types", "%v", err)
	}
	return c.hint(line.Run(env.ctx))
}
