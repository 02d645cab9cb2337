// Package sse makes an HTTP request a session over Server-Sent Events (WHATWG
// HTML §9.2). Over HTTP/1.1 the connection is taken from net/http; over HTTP/2
// the handler stays.
package sse

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// Handler serves event streams. Its fields are static. CORS headers are set by
// who wraps it.
type Handler struct {
	Hub      *session.Hub
	Verifier session.Authorizer
	Shed     session.Shed    // nil: never
	Address  session.Address // nil: not known
}

// maxPosition bounds a position over SSE: it comes back in a header.
const maxPosition = 4 << 10

// ServeHTTP implements http.Handler. Over HTTP/1.1 it returns once the session
// runs.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s, err := h.prepare(r)
	switch {
	case err == nil:
		h.start(w, r, s)
	case session.Overloaded(err) && !takesProblems(r):
		turnAway(w, wire.From(err))
	default:
		wire.WriteProblem(w, err)
	}
}

func (h *Handler) prepare(r *http.Request) (*session.Session, error) {
	g, _, err := h.Verifier.FromRequest(r)
	if err != nil {
		return nil, err
	}
	if h.Shed != nil {
		if err := h.Shed(g); err != nil {
			return nil, err
		}
	}
	q := r.URL.Query()
	if event := q.Get("event"); event != "" && event != "type" {
		return nil, wire.BadRequest("event is %.40q: want \"type\" or nothing", event)
	}
	if q.Has("subscription") {
		return h.attach(r, g, codec{types: q.Get("event") == "type"})
	}
	c, err := session.FromQuery(q, r.Header.Get("Last-Event-ID"), g, codec{types: q.Get("event") == "type"})
	if err != nil {
		return nil, err
	}
	if len(c.Channels) == 0 {
		return nil, wire.BadRequest("want channel=<name>, as often as needed, or subscription=<name>")
	}
	if err := fits(c.Channels); err != nil {
		return nil, err
	}
	c.Address = h.Address.Of(r)
	return h.Hub.New(r.Context(), c)
}

// fits refuses more channels than a position over SSE may name.
func fits(channels []string) error {
	if len(channels) < 2 {
		return nil
	}
	size := 0
	for _, channel := range channels {
		const place = len("@abcdefgh-12345678901234567890,")
		size += len(channel) + place
	}
	if size > maxPosition {
		return wire.BadRequest("%d channels: their position would not fit %d bytes, which is what it may have over SSE; WebSocket takes them", len(channels), maxPosition)
	}
	return nil
}

// attach attaches to a durable subscription. Unless the client acknowledges by
// itself, what it received is acknowledged by its coming back.
func (h *Handler) attach(r *http.Request, g *auth.Grant, c codec) (*session.Session, error) {
	q := r.URL.Query()
	a, err := session.AttachmentFromQuery(q, g, c)
	if err != nil {
		return nil, err
	}
	a.Check = fits
	switch q.Get("ack") {
	case "manual":
	case "":
		a.Rounds = true
		last := r.Header.Get("Last-Event-ID")
		if last == "" {
			last = q.Get("last_event_id")
		}
		if err := h.Hub.AckReceived(r.Context(), g, a.Name, last); err != nil {
			return nil, err
		}
	default:
		return nil, wire.BadRequest("ack is %.40q: want \"manual\" or nothing", q.Get("ack"))
	}
	a.Address = h.Address.Of(r)
	return h.Hub.Attach(r.Context(), a)
}

func (h *Handler) start(w http.ResponseWriter, r *http.Request, s *session.Session) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	// In the block of what comes first: some clients take a block without data
	// for an empty message.
	retry := fmt.Appendf(nil, "retry: %d\n", 1000+rand.N(3000))
	if r.ProtoMajor != 1 {
		h.stay(w, r, s, retry)
		return
	}
	netConn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.Gone()
		wire.WriteProblem(w, err)
		return
	}
	// Without a length or chunks, the body ends with the connection.
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 200 OK\r\nDate: %s\r\nConnection: close\r\n", time.Now().UTC().Format(http.TimeFormat))
	header.Write(&head)
	head.WriteString("\r\n")
	head.Write(retry)
	s.Prepend(head.Bytes())
	rw.Reader.Reset(nil) // what a client sends after its request is ignored

	c := &peer{Session: s, socket: h.Hub.Poller().Wrap(netConn)}
	if c.socket != nil {
		s.Start(c.socket)
		if err := h.Hub.Poller().Start(c.socket, c); err != nil {
			s.Gone()
		}
		return
	}
	s.Start(conn.NewStream(watched{s}, conn.NetPeer(netConn)))
	go func() {
		var b [64]byte
		for {
			if _, err := netConn.Read(b[:]); err != nil {
				s.Gone()
				return
			}
		}
	}()
}

// peer is a stream's connection over HTTP/1.1. All that is read from it is its
// end.
type peer struct {
	*session.Session
	socket *conn.Socket
}

var _ conn.Owner = (*peer)(nil)

// Read implements conn.Owner.
func (c *peer) Read() {
	defer c.Contain("reader")
	if c.socket.Discard() != nil {
		c.Gone()
	}
}

// watched is the owner of a Stream, which is read elsewhere.
type watched struct{ *session.Session }

func (watched) Read() {}

// stay serves HTTP/2, where a stream lives as long as its handler.
func (h *Handler) stay(w http.ResponseWriter, r *http.Request, s *session.Session, retry []byte) {
	p := &held{w: w, control: http.NewResponseController(w), ended: make(chan struct{})}
	s.Prepend(retry)
	w.WriteHeader(http.StatusOK)
	stream := conn.NewStream(watched{s}, p)
	s.Start(stream)
	stop := context.AfterFunc(r.Context(), s.Gone)
	<-p.ended
	stop()
	stream.Wait()
	stream.Close()
	s.Gone()
}

// held is what a handler that stays writes to.
type held struct {
	w       http.ResponseWriter
	control *http.ResponseController
	once    sync.Once
	ended   chan struct{} // closed: the handler may return
}

var _ conn.Peer = (*held)(nil)

// Write implements conn.Peer.
func (p *held) Write(b []byte) error {
	if _, err := p.w.Write(b); err != nil {
		return err
	}
	return p.control.Flush()
}

// End implements conn.Peer: the handler's return ends the stream.
func (p *held) End() { p.once.Do(func() { close(p.ended) }) }

// Cut implements conn.Peer: a deadline that has passed resets the stream.
func (p *held) Cut() {
	p.once.Do(func() {
		p.control.SetWriteDeadline(time.Now())
		close(p.ended)
	})
}

// turnAway tells a browser's EventSource to come back later: a status other
// than 200 would make it give up for good.
func turnAway(w http.ResponseWriter, e *wire.Error) {
	retry := e.RetryAfter
	if retry <= 0 {
		retry = 2 * time.Second
	}
	retry += rand.N(retry)
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	b := fmt.Appendf(nil, "retry: %d\n", retry.Milliseconds())
	w.Write(wire.Bye(e.Close(), e.Detail, retry.Milliseconds()).AppendSSE(b, ""))
}

// takesProblems tells whether the client reads errors: a native EventSource
// accepts nothing but an event stream.
func takesProblems(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		if strings.Contains(accept, "application/problem+json") {
			return true
		}
	}
	return false
}

var _ session.Authorizer = (*auth.Verifier)(nil)
