package longline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
)

// Event is a CloudEvents 1.0 event. Its DataAs method decodes the data.
type Event = event.Event

// Transport is how a subscription's events come.
type Transport string

const (
	// Auto is WebSocket, or SSE where WebSocket doesn't get through.
	Auto      Transport = ""
	WebSocket Transport = "websocket"
	// SSE is Server-Sent Events, with acknowledgements by POST.
	SSE Transport = "sse"
)

// Options say how a Client reaches its gateway. The zero value is useful
// where the gateway asks for no token.
type Options struct {
	// Token is sent with every request and connection.
	Token string
	// TokenFunc is called, instead, for each connection and before a token
	// expires, so that a subscription outlives its tokens. It may be called by
	// several goroutines at once.
	TokenFunc func(context.Context) (string, error)

	// Transport defaults to Auto.
	Transport Transport
	// HTTPClient defaults to one of its own with http.DefaultTransport. Its
	// Timeout must be 0, since connections stay open.
	HTTPClient *http.Client
	// Logger gets connections at Info, trouble at Warn: at once, then rarely.
	// Default: slog.Default() for warnings; slog.DiscardHandler is silent.
	Logger *slog.Logger
	// TraceContext, if set, connects handlers and Publish to traces.
	TraceContext TraceContext

	// MinBackoff and MaxBackoff bound the waits between attempts to connect
	// and to publish, where the gateway names none. Defaults: 500 ms, 30 s.
	MinBackoff, MaxBackoff time.Duration
	// ConnectTimeout bounds an attempt to connect. Default: 15 s.
	ConnectTimeout time.Duration
	// PublishTimeout bounds Publish with all its retries. Default: 1 min.
	PublishTimeout time.Duration
	// MaxFrame is the largest frame taken, in bytes. A larger one ends the
	// subscription with ErrTooLarge. Default: 16 MiB.
	MaxFrame int64
}

func (o *Options) fill() {
	if o.HTTPClient == nil {
		o.HTTPClient = &http.Client{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(warnings{slog.Default().Handler()})
	}
	fill(&o.MinBackoff, 500*time.Millisecond)
	fill(&o.MaxBackoff, 30*time.Second)
	fill(&o.ConnectTimeout, 15*time.Second)
	fill(&o.PublishTimeout, time.Minute)
	fill(&o.MaxFrame, 16<<20)
}

// fill sets a number that isn't positive to its default.
func fill[N ~int | ~int64](n *N, standard N) {
	if *n <= 0 {
		*n = standard
	}
}

// Client talks to one gateway, or to several behind one address. Safe for
// concurrent use; it holds nothing that must be closed.
type Client struct {
	base    *url.URL // without trailing slash
	options Options
	log     *slog.Logger
	path    path

	mu       sync.Mutex
	outboxes map[string]*outbox // by channel; see publish.go
}

// New makes a client of the gateway at base, e.g. "https://push.example.com".
// Nothing is sent yet.
func New(base string, o Options) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("gateway is %q, want an http or https URL", base)}
	}
	switch o.Transport {
	case Auto, WebSocket, SSE:
	default:
		return nil, &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("transport is %q, want websocket, sse or none", o.Transport)}
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawQuery, u.Fragment = "", ""
	o.fill()
	return &Client{base: u, options: o, log: o.Logger, outboxes: make(map[string]*outbox)}, nil
}

// token returns the token to use now, or "".
func (c *Client) token(ctx context.Context) (string, error) {
	if c.options.TokenFunc == nil {
		return c.options.Token, nil
	}
	token, err := c.options.TokenFunc(ctx)
	if err != nil {
		return "", fmt.Errorf("get token: %w", err)
	}
	return token, nil
}

// Do makes a call of the gateway's HTTP API: path begins with "/v1/" and may
// have a query, body is sent as JSON unless nil, and the answer is decoded
// into answer unless nil. A refusal is an *Error.
func (c *Client) Do(ctx context.Context, method, path string, body, answer any) error {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	kind := "application/json"
	if method == http.MethodPatch {
		kind = "application/merge-patch+json"
	}
	return c.send(ctx, method, path, kind, payload, answer)
}

func (c *Client) send(ctx context.Context, method, path, kind string, payload []byte, answer any, header ...string) error {
	var body io.Reader
	if payload != nil {
		body = bytes.NewReader(payload)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if payload != nil {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	id := newID()
	req.Header.Set(requestIDHeader, id)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	token, err := c.token(ctx)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.options.HTTPClient.Do(req)
	if err != nil {
		return unreachable(err, id)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		e, _ := answerError(res)
		return e
	}
	if answer == nil || res.StatusCode == http.StatusNoContent {
		_, err = io.Copy(io.Discard, res.Body)
	} else {
		err = json.NewDecoder(res.Body).Decode(answer)
	}
	if err != nil && err != io.EOF { // some answers have no body
		return unreachable(fmt.Errorf("read answer: %w", err), id)
	}
	return nil
}

// unreachable is the error of a gateway that can't be reached, or not to the
// end of its answer to the request of that id, if it was one.
func unreachable(err error, request string) *Error {
	return &Error{Code: ErrUnavailable.Code, RequestID: request, cause: err}
}
