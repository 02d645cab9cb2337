// Package conn carries a session's bytes over a connection taken from
// net/http. Nobody waits in it: a write hands over what the socket takes at
// once, and an idle line has neither a reader nor a writer goroutine.
//
// On Linux a plain TCP connection is watched by a Poller; everywhere else, and
// under TLS and HTTP/2, a line falls back to a goroutine per read or write
// under way (see Stream).
package conn

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Conn takes frames for one peer. Its methods may be called by any goroutine.
type Conn interface {
	// Send hands over frames, each of stride consecutive buffers, and returns
	// how many of them the peer took or will take: a frame that was begun is
	// kept and goes out first. blocked means that no more is taken for now;
	// the owner's Wake follows when it is, never after Finish. The buffers may
	// be reused once Send returned. err means that the line is dead.
	Send(bufs [][]byte, stride int) (frames int, blocked bool, err error)
	// Finish sends what was handed over, then the end of the stream, and closes
	// the line when the peer has ended its side too, by its owner's Close, or
	// after Linger.
	Finish()
	// Close closes the line at once. It may be called more than once.
	Close() error
}

// Owner hears from its line. Its methods are called without locks held.
type Owner interface {
	// Wake: the line takes bytes again. Must not block.
	Wake()
	// Read: bytes, or the end, came in. Called by a goroutine made for it,
	// never concurrently; takes what there is, until ErrWouldBlock.
	Read()
}

// errClosed is what Send returns on a line that was closed.
var errClosed = errors.New("connection is closed")

// ErrWouldBlock is what Socket.Read returns between messages when nothing has
// come in: the reader goes away and Owner.Read is called anew.
var ErrWouldBlock = errors.New("nothing to read for now")

// MessageTimeout is how long a peer may take over a message that it began,
// however it divides it, unless its Poller says otherwise.
const MessageTimeout = 30 * time.Second

// Linger bounds how long a finished line may take to end.
const Linger = 5 * time.Second

// reading states of a socket
const (
	idle int32 = iota
	busy
	again // more came in while busy
)

// Socket is a Conn over a TCP connection whose reads and writes are raw. It is
// a net.Conn too, for the WebSocket library: its Read may block (inside a
// message), its Write never does.
type Socket struct {
	net.Conn
	outer  net.Conn // what was wrapped: to be closed
	poller *Poller
	fd     int

	reads   atomic.Int32
	between bool        // Read doesn't wait; owned by the reader
	timed   bool        // the message has its deadline; owned by the reader
	gone    atomic.Bool // a Read failed

	mu        sync.Mutex
	owner     Owner  // from Start to Close: who reads it may hold it too
	tail      []byte // the rest of what the socket didn't take; goes first
	pong      []byte // the newest pong that has to wait
	blocked   bool   // the socket takes no more for now
	finishing bool   // nothing may follow what is in tail
	saidClose bool   // a close frame of the library's is in tail or sent: no events follow
	dead      bool   // closed; fd must not be used
	linger    *time.Timer
}

var _ Conn = (*Socket)(nil)

// Send implements Conn.
func (s *Socket) Send(bufs [][]byte, stride int) (frames int, blocked bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.flushLocked(); err != nil {
		return 0, false, err
	}
	if s.finishing || s.saidClose {
		return 0, true, nil
	}
	if s.blocked || len(bufs) == 0 {
		return 0, s.blocked, nil
	}
	n, sent, err := writev(s.fd, bufs)
	if err != nil {
		s.closeLocked()
		return 0, false, err
	}
	if sent {
		return len(bufs) / stride, false, nil
	}
	s.blocked = true
	whole := 0
	for whole < len(bufs) && n >= len(bufs[whole]) {
		n -= len(bufs[whole])
		whole++
	}
	if n == 0 && whole%stride == 0 {
		return whole / stride, true, nil
	}
	// A frame was begun: it is finished before anything else is sent.
	end := whole - whole%stride + stride
	s.tail = append(s.tail, bufs[whole][n:]...)
	for _, b := range bufs[whole+1 : end] {
		s.tail = append(s.tail, b...)
	}
	return end / stride, true, nil
}

// flushLocked sends what had to wait.
func (s *Socket) flushLocked() error {
	if s.dead {
		return errClosed
	}
	if s.blocked {
		return nil
	}
	if len(s.pong) > 0 {
		s.tail, s.pong = append(s.tail, s.pong...), nil
	}
	if len(s.tail) == 0 {
		return nil
	}
	n, sent, err := writev(s.fd, [][]byte{s.tail})
	if err != nil {
		s.closeLocked()
		return err
	}
	if !sent {
		s.tail, s.blocked = s.tail[n:], true
		return nil
	}
	s.tail = nil
	if s.finishing {
		s.shutdownLocked()
	}
	return nil
}

// Write takes the WebSocket library's control frames, one a call (its write
// buffer is large enough for any). It never blocks: what can't go out now
// waits, of pongs only the newest.
func (s *Socket) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.finishing {
		// The library answers a close frame that answered ours: not needed.
		return len(b), nil
	}
	const opClose, opPong = 0x88, 0x8a
	if b[0] == opPong && s.blocked {
		s.pong = append(s.pong[:0], b...)
		return len(b), nil
	}
	s.saidClose = s.saidClose || b[0] == opClose
	s.tail = append(s.tail, b...)
	if err := s.flushLocked(); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Begin says that the reader is between messages: the time for one begins
// anew. Where begun is false nothing of the next one is there yet, and Read
// doesn't wait until it has read something. Called by the reader.
func (s *Socket) Begin(begun bool) { s.between, s.timed = !begun, false }

// Read implements net.Conn for the WebSocket library. Within a message it
// waits, but not for ever.
func (s *Socket) Read(b []byte) (n int, err error) {
	n, err = s.recv(b)
	if err == ErrWouldBlock {
		if s.between {
			return 0, err
		}
		if !s.timed {
			s.timed = true
			s.Conn.SetReadDeadline(time.Now().Add(s.poller.Message()))
		}
		n, err = s.Conn.Read(b)
	}
	s.between = false
	if err != nil {
		s.gone.Store(true)
	}
	return n, err
}

// Discard reads what is there and throws it away. It returns an error at the
// stream's end.
func (s *Socket) Discard() error {
	var b [512]byte
	for {
		switch _, err := s.recv(b[:]); err {
		case nil:
		case ErrWouldBlock:
			return nil
		default:
			return err
		}
	}
}

// Gone tells whether a Read failed, that is whether the peer or the network
// ended the connection rather than somebody breaking the protocol.
func (s *Socket) Gone() bool { return s.gone.Load() }

// SaidClose tells whether the WebSocket library has written a close frame.
func (s *Socket) SaidClose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saidClose
}

// Finish implements Conn. Its owner's Read goes on: it notices the end of the
// peer's side.
func (s *Socket) Finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finishing || s.dead {
		return
	}
	s.finishing, s.pong = true, nil
	s.linger = time.AfterFunc(Linger, func() { s.Close() })
	if len(s.tail) == 0 {
		s.shutdownLocked()
	}
}

func (s *Socket) shutdownLocked() {
	if tcp, ok := s.Conn.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
}

// Close implements Conn and net.Conn.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked()
	return nil
}

func (s *Socket) closeLocked() {
	if s.dead {
		return
	}
	s.dead, s.owner, s.tail, s.pong = true, nil, nil, nil
	if s.linger != nil {
		s.linger.Stop()
	}
	s.poller.remove(s)
	s.outer.Close()
}
