package floor

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longline-push/longline/loadtest/poll"
	"github.com/longline-push/longline/loadtest/wire"
)

type server struct {
	addr     netip.AddrPort
	listener int
	poller   *poll.Poller
	conns    []conn // by descriptor
	channels map[string]*channel
	buf      []byte // read into
	out      []byte // answers are built here
}

type kind uint8

const (
	closed  kind = iota
	request      // HTTP: publishes, or becomes one of the others
	ws
	sse
)

// conn is all that the floor knows of a connection.
type conn struct {
	kind kind
	turn int32
	at   int32 // place among the channel's subscribers
	ch   *channel
	rest []byte
}

type channel struct {
	name         string
	ws, sse      []int32 // descriptors
	head         uint64
	event, frame []byte // built once per event
}

func (s *server) serve(ended <-chan struct{}) error {
	runtime.LockOSThread()
	for {
		select {
		case <-ended:
			return nil
		default:
		}
		events, err := s.poller.Wait(-1)
		if err != nil {
			return err
		}
		for _, e := range events {
			fd := int(e.Key)
			if fd == s.listener {
				s.accept()
			} else if c := &s.conns[fd]; c.kind != closed && c.turn == e.Turn {
				if err := s.read(fd); err != nil {
					s.close(fd)
				}
			}
		}
	}
}

func (s *server) accept() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		for fd >= len(s.conns) {
			s.conns = append(s.conns, conn{})
		}
		c := &s.conns[fd]
		*c = conn{kind: request, turn: c.turn + 1}
		if s.poller.Add(fd, int32(fd), c.turn, poll.In) != nil {
			s.close(fd)
		}
	}
}

func (s *server) close(fd int) {
	c := &s.conns[fd]
	switch c.kind {
	case closed:
		return
	case ws:
		s.leave(&c.ch.ws, c.at)
	case sse:
		s.leave(&c.ch.sse, c.at)
	}
	*c = conn{turn: c.turn}
	unix.Close(fd)
}

// leave takes the subscriber at a place out; the last one moves there.
func (s *server) leave(subscribers *[]int32, at int32) {
	list := *subscribers
	last := list[len(list)-1]
	list[at] = last
	s.conns[last].at = at
	*subscribers = list[:len(list)-1]
}

var errGone = errors.New("peer is gone")

func (s *server) read(fd int) error {
	c := &s.conns[fd]
	kept := copy(s.buf, c.rest)
	n, err := poll.Read(fd, s.buf[kept:])
	if err != nil {
		if poll.Busy(err) {
			return nil
		}
		return errGone
	}
	if n == 0 {
		return errGone
	}
	b := s.buf[:kept+n]
	for len(b) > 0 {
		var used int
		switch c.kind {
		case request:
			used, err = s.http(fd, b)
		case ws:
			used, err = s.frame(fd, b)
		default:
			used = len(b) // an event stream's client has nothing to say
		}
		if err != nil {
			return err
		}
		if used == 0 {
			break
		}
		b = b[used:]
	}
	if len(b) == len(s.buf) {
		return fmt.Errorf("message over %d bytes", len(s.buf))
	}
	c.rest = nil
	if len(b) > 0 {
		c.rest = append([]byte(nil), b...)
	}
	return nil
}

// http answers one request and returns its size, 0 for "not yet whole".
func (s *server) http(fd int, b []byte) (int, error) {
	head, n, err := wire.NextHead(b)
	if n == 0 || err != nil {
		return 0, err
	}
	parts := strings.SplitN(string(head.First), " ", 3)
	if len(parts) != 3 {
		return 0, wire.ErrHTTP
	}
	target := parts[1]
	if name, ok := strings.CutPrefix(target, "/v1/channels/"); ok && parts[0] == "POST" {
		if len(b) < n+max(head.Length, 0) {
			return 0, nil
		}
		body := b[n : n+max(head.Length, 0)]
		answer := s.publish(s.channel(strings.TrimSuffix(name, "/events")), body)
		s.out = fmt.Appendf(s.out[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		return n + len(body), send(fd, s.out)
	}
	path, query, _ := strings.Cut(target, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, err
	}
	ch := s.channel(values.Get("channel"))
	c := &s.conns[fd]
	switch {
	case path == "/v1/ws":
		c.kind, c.ch, c.at = ws, ch, int32(len(ch.ws))
		ch.ws = append(ch.ws, int32(fd))
		s.out = fmt.Appendf(s.out[:0], "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: longline.v1\r\n\r\n", acceptKey(head.Get("Sec-WebSocket-Key")))
		hello := fmt.Appendf(nil, `{"op":"hello","connection":"%d","node":"floor","session":"ephemeral","cursor":"%s@floor-%d","recovered":false,"heartbeat_ms":25000}`, fd, ch.name, ch.head)
		s.out = wire.AppendFrame(s.out, wire.OpText, hello)
	case path == "/v1/sse":
		c.kind, c.ch, c.at = sse, ch, int32(len(ch.sse))
		ch.sse = append(ch.sse, int32(fd))
		s.out = fmt.Appendf(s.out[:0], "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n"+
			"id: %[1]s@floor-%[2]d\nevent: longline.hello\ndata: {\"connection\":\"%[3]d\",\"cursor\":\"%[1]s@floor-%[2]d\",\"recovered\":false}\n\n", ch.name, ch.head, fd)
	case path == "/readyz":
		s.out = append(s.out[:0], "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"...)
	default:
		s.out = append(s.out[:0], "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"...)
	}
	return n, send(fd, s.out)
}

func (s *server) channel(name string) *channel {
	ch := s.channels[name]
	if ch == nil {
		ch = &channel{name: name}
		s.channels[name] = ch
	}
	return ch
}

// acceptKey is RFC 6455 section 4.2.2.
func acceptKey(key []byte) string {
	sum := sha1.Sum(append(append([]byte(nil), key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// send writes all of b, waiting for a peer that doesn't take it at once.
func send(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := poll.Write(fd, b)
		b = b[n:]
		if err == nil {
			continue
		}
		if !poll.Busy(err) {
			return errGone
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if _, err := unix.Poll(fds, int((10*time.Second)/time.Millisecond)); err != nil && err != unix.EINTR {
			return errGone
		}
	}
	return nil
}
