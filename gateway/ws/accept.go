// Package ws makes an HTTP request a session over WebSocket. The library does
// the handshake, reading and control frames; events go out beside it, as
// frames built once for all sessions.
package ws

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// The subprotocols.
const (
	Protocol    = "longline.v1"
	CloudEvents = "cloudevents.json" // the CloudEvents WebSocket binding
)

// Publisher publishes what the publish op carries; see package publish.
type Publisher interface {
	// PublishJSON publishes an array of events, or one, to a channel and
	// returns the results as the JSON that the ok frame's events hold.
	PublishJSON(ctx context.Context, g *auth.Grant, channel string, events []byte) (json.RawMessage, error)
}

// Verifier verifies tokens; see auth.Verifier.
type Verifier interface {
	session.Authorizer
	Verify(ctx context.Context, token string) (*auth.Grant, error)
}

// Handler accepts WebSocket connections. Its fields are static.
type Handler struct {
	Hub       *session.Hub
	Verifier  Verifier
	Origins   auth.Origins
	Publisher Publisher
	MaxBody   int             // bytes of a publish's events; 0: 4 MiB
	Shed      session.Shed    // nil: never
	Address   session.Address // nil: not known
}

// Frames from clients hold so many bytes; where the token may publish, as many
// as the events may have, and the rest of the frame.
const (
	readLimit = 64 << 10
	maxBody   = 4 << 20
	envelope  = 1 << 10
)

// readLimit is what a frame may hold of one with the grant.
func (h *Handler) readLimit(g *auth.Grant) int64 {
	if !access.PublishAnything(g) {
		return readLimit
	}
	return max(readLimit, int64(cmp.Or(h.MaxBody, maxBody))+envelope)
}

// ServeHTTP implements http.Handler. It returns once the session runs.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	offered := subprotocols(r)
	own := slices.Contains(offered, Protocol)
	if !h.Origins.Allows(r) {
		// A foreign page is to learn nothing, so this is a plain refusal.
		wire.WriteProblem(w, wire.Forbidden("origin %.200q is not allowed; see --cors-origin", r.Header.Get("Origin")))
		return
	}
	if !upgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		wire.WriteProblem(w, wire.BadRequest("this is a WebSocket endpoint: want a GET over HTTP/1.1 with Upgrade: websocket"))
		return
	}
	grant, s, err := h.prepare(r, !own && slices.Contains(offered, CloudEvents))
	switch {
	case err == nil:
		h.accept(w, r, grant, s)
	case own && !session.Overloaded(err):
		// A browser can't see why a handshake failed, so it succeeds first.
		refuse(w, r, wire.From(err))
	default:
		wire.WriteProblem(w, err)
	}
}

func (h *Handler) prepare(r *http.Request, plain bool) (*auth.Grant, *session.Session, error) {
	g, _, err := h.Verifier.FromRequest(r)
	if err != nil {
		return nil, nil, err
	}
	if h.Shed != nil {
		if err := h.Shed(g); err != nil {
			return nil, nil, err
		}
	}
	if q := r.URL.Query(); q.Has("subscription") {
		if plain {
			return nil, nil, wire.BadRequest("cloudevents.json is for ephemeral sessions; a subscription wants %s", Protocol)
		}
		a, err := session.AttachmentFromQuery(q, g, codec{})
		if err != nil {
			return nil, nil, err
		}
		a.Address = h.Address.Of(r)
		s, err := h.Hub.Attach(r.Context(), a)
		return g, s, err
	}
	c, err := session.FromQuery(r.URL.Query(), "", g, codec{plain: plain})
	if err != nil {
		return nil, nil, err
	}
	c.Address = h.Address.Of(r)
	s, err := h.Hub.New(r.Context(), c)
	return g, s, err
}

func (h *Handler) accept(w http.ResponseWriter, r *http.Request, g *auth.Grant, s *session.Session) {
	c := &peer{Session: s, handler: h}
	taken := &taker{ResponseWriter: w, peer: c}
	var err error
	c.ws, err = websocket.Accept(taken, r, &websocket.AcceptOptions{
		Subprotocols:       []string{Protocol, CloudEvents},
		InsecureSkipVerify: true, // the origin is checked above
		CompressionMode:    websocket.CompressionDisabled,
		OnPingReceived:     func(context.Context, []byte) bool { c.between(); return true },
		OnPongReceived:     func(context.Context, []byte) { c.between() },
	})
	if err != nil {
		s.Gone() // the library has answered
		return
	}
	c.ws.SetReadLimit(h.readLimit(g))
	if c.socket == nil {
		s.Start(c.stream)
		go c.readAll()
		return
	}
	s.Start(c.socket)
	if err := h.Hub.Poller().Start(c.socket, c); err != nil {
		s.Gone()
	}
}

// taker hands the library a line instead of the connection.
type taker struct {
	http.ResponseWriter
	peer *peer
}

// Unwrap is for http.ResponseController.
func (t *taker) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// Hijack implements http.Hijacker. The buffers are small: an idle connection
// keeps them. The writer's holds any control frame whole (RFC 6455 §5.5), so
// that each is one Write.
func (t *taker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	netConn, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	early = bytes.Clone(early)
	var taken net.Conn
	c := t.peer
	if c.socket = c.handler.Hub.Poller().Wrap(netConn); c.socket != nil {
		taken = socketConn{c.socket}
	} else {
		c.stream = conn.NewStream(c, conn.NetPeer(netConn))
		c.plain = &streamConn{Conn: netConn, stream: c.stream, within: c.handler.Hub.Poller().Message()}
		taken = c.plain
	}
	reader := bufio.NewReaderSize(bytes.NewReader(early), max(512, len(early)))
	reader.Peek(len(early))
	c.buffer = reader
	return taken, bufio.NewReadWriter(reader, bufio.NewWriterSize(taken, 192)), nil
}

// socketConn is a Socket as the library has it: what the library closes is
// ended, or the answer to a close frame would be lost.
type socketConn struct{ *conn.Socket }

func (c socketConn) Close() error {
	c.Finish()
	return nil
}

// streamConn is a connection that is read by one goroutine and whose writes go
// through a Stream.
type streamConn struct {
	net.Conn
	stream *conn.Stream
	within time.Duration // for a message
	timed  bool          // the message has its deadline; owned by the reader
	gone   bool          // a Read failed; owned by the reader
}

// begin says that the reader is between messages, of which the next one may
// have begun.
func (c *streamConn) begin(begun bool) {
	if c.timed {
		c.SetReadDeadline(time.Time{})
	}
	if c.timed = begun; begun {
		c.SetReadDeadline(time.Now().Add(c.within))
	}
}

// Read implements net.Conn. The first bytes of a message may take any time,
// the rest may not.
func (c *streamConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.gone = c.gone || err != nil
	if !c.timed {
		c.timed = true
		c.SetReadDeadline(time.Now().Add(c.within))
	}
	return n, err
}

func (c *streamConn) Write(b []byte) (int, error) { return c.stream.Write(b) }

func (c *streamConn) Close() error {
	c.stream.Finish()
	return nil
}

// refuse upgrades to say why, and closes.
func refuse(w http.ResponseWriter, r *http.Request, e *wire.Error) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{Protocol}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return
	}
	defer c.CloseNow()
	ctx, cancel := context.WithTimeout(context.Background(), refuseTimeout)
	defer cancel()
	bye, _ := json.Marshal(wire.Bye(e.Close(), e.Detail, e.RetryAfter.Milliseconds()))
	if c.Write(ctx, websocket.MessageText, bye) == nil {
		c.Close(websocket.StatusCode(e.Close()), closeReason(e))
	}
}

const refuseTimeout = 5 * time.Second

// closeReason is the error's code: the detail may be too long for a close
// frame and stands in the bye.
func closeReason(e *wire.Error) string { return string(e.Code) }

func subprotocols(r *http.Request) (offered []string) {
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(header, ",") {
			offered = append(offered, strings.TrimSpace(name))
		}
	}
	return offered
}

// upgrade tells whether r asks for a WebSocket at all; the library checks the
// rest.
func upgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}
