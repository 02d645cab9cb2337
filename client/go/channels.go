package longline

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/longline-push/longline/event"
)

// Channels are the gateway's logs. Safe for concurrent use.
type Channels struct{ client *Client }

// Channels returns those that the token names; listing and deleting is for
// admins.
func (c *Client) Channels() Channels { return Channels{c} }

func (c Channels) call(ctx context.Context, method, channel, rest string, answer any) error {
	if err := event.CheckChannel(channel); err != nil {
		return &Error{Code: ErrBadRequest.Code, cause: err}
	}
	return c.client.Do(ctx, method, "/v1/channels/"+url.PathEscape(channel)+rest, nil, answer)
}

// ChannelInfo is how a channel is: First and Head are the offsets of its first
// and newest event.
type ChannelInfo struct {
	Channel, Epoch string
	First, Head    uint64
	Events         uint64
	Bytes          int64
	Connections    int
}

// Get returns how a channel is.
func (c Channels) Get(ctx context.Context, channel string) (info ChannelInfo, err error) {
	err = c.call(ctx, http.MethodGet, channel, "", &info)
	return info, err
}

// List goes through the names of channels that begin with prefix. An error is
// the last thing that comes.
func (c Channels) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return pages[string](ctx, c.client, "/v1/channels", query("prefix", prefix), "channels", "page")
}

// ReadOptions say which events of a channel are read.
type ReadOptions struct {
	Since  string   // as in Selection; "": "latest"
	Types  []string // patterns; none: all
	Filter string   // CEL; "": all
	Limit  int      // 0: 100
}

// Page is a part of a channel. Cursor is for the next one's Since.
type Page struct {
	Events []Event
	Cursor string
	Gap    *Gap // before the events; nil: none
}

// Read returns events of a channel as they are now, and keeps no position.
func (c Channels) Read(ctx context.Context, channel string, o ReadOptions) (page Page, err error) {
	q := query("since", o.Since, "types", strings.Join(o.Types, ","), "filter", o.Filter)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	err = c.call(ctx, http.MethodGet, channel, "/events?"+q.Encode(), &page)
	if page.Gap != nil {
		page.Gap.Channel = channel
	}
	return page, err
}

// Delete drops a channel's log. What is published next begins another.
func (c Channels) Delete(ctx context.Context, channel string) error {
	return c.call(ctx, http.MethodDelete, channel, "", nil)
}

// Connections are the live ones of the node that answers, for admins.
type Connections struct{ client *Client }

// Connections returns them.
func (c *Client) Connections() Connections { return Connections{c} }

// ConnectionInfo is how a connection is. Behind is how many events lie beyond
// its position.
type ConnectionInfo struct {
	Connection, Sub, Address, Transport string
	Subscription                        string // durable; "": none
	Channels                            []string
	Position                            string
	Behind                              uint64
	Since, Expires                      time.Time
}

// List returns up to a thousand connections, the oldest first, of a sub or
// channel if those aren't "".
func (c Connections) List(ctx context.Context, sub, channel string) ([]ConnectionInfo, error) {
	var answer struct{ Connections []ConnectionInfo }
	q := query("sub", sub, "channel", channel, "limit", "1000")
	err := c.client.Do(ctx, http.MethodGet, "/v1/connections?"+q.Encode(), nil, &answer)
	return answer.Connections, err
}

// Close ends a connection, on whatever node.
func (c Connections) Close(ctx context.Context, connection string) error {
	return c.client.Do(ctx, http.MethodDelete, "/v1/connections/"+url.PathEscape(connection), nil, nil)
}

// Nodes are the gateway's, for admins.
type Nodes struct{ client *Client }

// Nodes returns them.
func (c *Client) Nodes() Nodes { return Nodes{c} }

// NodeInfo is how a node is.
type NodeInfo struct {
	Node, Version string
	Started, Seen time.Time
	Connections   int
	Draining      bool
}

// List returns the nodes there are.
func (n Nodes) List(ctx context.Context) ([]NodeInfo, error) {
	var answer struct{ Nodes []NodeInfo }
	err := n.client.Do(ctx, http.MethodGet, "/v1/nodes", nil, &answer)
	return answer.Nodes, err
}

// Drain has a node send its connections elsewhere and take no new ones.
func (n Nodes) Drain(ctx context.Context, node string) error {
	return n.client.Do(ctx, http.MethodPost, "/v1/nodes/"+url.PathEscape(node)+"/drain", nil, nil)
}

// Undrain has it take connections again.
func (n Nodes) Undrain(ctx context.Context, node string) error {
	return n.client.Do(ctx, http.MethodDelete, "/v1/nodes/"+url.PathEscape(node)+"/drain", nil, nil)
}
