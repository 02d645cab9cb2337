package cli

import (
	"net/http"
	"net/url"
	"time"
)

// channelsCmd lists channels.
type channelsCmd struct {
	Channel string `arg:"" optional:"" help:"Print this one, and how it is."`
	Prefix  string `placeholder:"TEXT" help:"Only names that begin so."`

	clientFlags `embed:""`
}

func (c *channelsCmd) Run(env *environment) error {
	if c.Channel != "" {
		return c.show(env, http.MethodGet, "/v1/channels/"+url.PathEscape(c.Channel), nil, func(f fields) error {
			return facts(env, "channel", f.at("channel"), "epoch", f.at("epoch"), "first", f.at("first"), "head", f.at("head"),
				"events", f.at("events"), "bytes", f.at("bytes"), "connections", f.at("connections"))
		})
	}
	q := url.Values{"limit": {"1000"}}
	if c.Prefix != "" {
		q.Set("prefix", c.Prefix)
	}
	return c.pages(env, "/v1/channels", "channels", "page", q, nil, "no channels")
}

// connectionsCmd is about the connections of the node that is asked.
type connectionsCmd struct {
	List  connectionsListCmd  `cmd:"" default:"withargs" help:"List those of the node that answers."`
	Close connectionsCloseCmd `cmd:"" help:"Close one, on whatever node."`
}

type connectionsListCmd struct {
	Sub     string `placeholder:"NAME" help:"Only those whose token is for this sub."`
	Channel string `placeholder:"CHANNEL" help:"Only those that listen to it."`

	clientFlags `embed:""`
}

func (c *connectionsListCmd) Run(env *environment) error {
	q := url.Values{"limit": {"1000"}}
	if c.Sub != "" {
		q.Set("sub", c.Sub)
	}
	if c.Channel != "" {
		q.Set("channel", c.Channel)
	}
	return c.pages(env, "/v1/connections", "connections", "", q, []column{
		field("CONNECTION", "connection"), field("SUB", "sub"), field("TRANSPORT", "transport"),
		field("CHANNELS", "channels"), field("SINCE", "since"),
	}, "no connections")
}

type connectionsCloseCmd struct {
	Connection string `arg:"" help:"The connection, as hello and connections name it."`

	clientFlags `embed:""`
}

func (c *connectionsCloseCmd) Run(env *environment) error {
	_, err := c.call(env, http.MethodDelete, "/v1/connections/"+url.PathEscape(c.Connection), nil)
	return err
}

// nodesCmd lists the gateways of this broker.
type nodesCmd struct {
	clientFlags `embed:""`
}

func (c *nodesCmd) Run(env *environment) error {
	return c.pages(env, "/v1/nodes", "nodes", "", url.Values{}, []column{
		field("NODE", "node"), field("VERSION", "version"), field("CONNECTIONS", "connections"),
		{"STATE", func(f fields) string {
			if f.at("draining") == "true" {
				return "draining"
			}
			return "serving"
		}},
		field("STARTED", "started"),
	}, "no nodes")
}

// revokeCmd revokes tokens.
type revokeCmd struct {
	JTI    string `name:"jti" placeholder:"JTI" help:"The token with this jti (longline token inspect shows it)."`
	Sub    string `placeholder:"NAME" help:"All tokens of this sub."`
	Before string `placeholder:"TIME" help:"With --sub: only those issued before, an RFC 3339 time; now if not given."`

	clientFlags `embed:""`
}

func (c *revokeCmd) Run(env *environment) error {
	if (c.JTI == "") == (c.Sub == "") {
		return usage("--jti, --sub", "want one of them")
	}
	if c.Before != "" && c.Sub == "" {
		return usage("--before", "goes with --sub")
	}
	body := map[string]string{"jti": c.JTI}
	if c.Sub != "" {
		body = map[string]string{"sub": c.Sub}
		if body["before"] = c.Before; c.Before == "" {
			body["before"] = time.Now().UTC().Format(time.RFC3339Nano)
		}
	}
	_, err := c.call(env, http.MethodPost, "/v1/tokens/revoke", body)
	return err
}
