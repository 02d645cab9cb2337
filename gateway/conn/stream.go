package conn

import (
	"net"
	"sync"
	"time"
)

// Stream is a Conn over anything that can only be written to with waiting: TLS
// in process, HTTP/2. A goroutine writes while there is something to write.
type Stream struct {
	peer Peer

	mu        sync.Mutex
	owner     Owner // until the connection is closed
	buf       []byte
	extra     []byte // control frames that came while busy
	saidClose bool   // the library has written a close frame: no events follow
	busy      bool   // a goroutine writes buf
	finishing bool
	dead      bool
	idle      sync.Cond // busy became false
	linger    *time.Timer
}

var _ Conn = (*Stream)(nil)

// Peer is what a Stream writes to. Write and End are called by one goroutine,
// never concurrently; Cut by any.
type Peer interface {
	// Write hands all bytes over and flushes them.
	Write([]byte) error
	// End ends the stream after what was written.
	End()
	// Cut ends it at once: a Write or End under way returns. It doesn't wait.
	Cut()
}

// NewStream returns a line to a peer, which it ends by Cut, once, after End if
// it is finished.
func NewStream(owner Owner, peer Peer) *Stream {
	s := &Stream{peer: peer, owner: owner}
	s.idle.L = &s.mu
	return s
}

// Send implements Conn: it takes everything, or nothing while a write is under
// way.
func (s *Stream) Send(bufs [][]byte, stride int) (frames int, blocked bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead:
		return 0, false, errClosed
	case s.busy || s.finishing || s.saidClose:
		return 0, true, nil
	case len(bufs) == 0:
		return 0, false, nil
	}
	s.buf = s.buf[:0]
	for _, b := range bufs {
		s.buf = append(s.buf, b...)
	}
	s.startLocked()
	return len(bufs) / stride, true, nil
}

// Write queues b behind what is under way: the WebSocket library's control
// frames, one a call. It never blocks.
func (s *Stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.finishing {
		return len(b), nil
	}
	const opClose, most = 0x88, 1024
	if b[0] == opClose {
		s.saidClose = true
	}
	if s.saidClose || len(s.extra)+len(b) <= most { // pongs nobody reads
		s.extra = append(s.extra, b...)
	}
	s.startLocked()
	return len(b), nil
}

// SaidClose tells whether the WebSocket library has written a close frame.
func (s *Stream) SaidClose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saidClose
}

func (s *Stream) startLocked() {
	if !s.busy {
		s.busy = true
		go s.run()
	}
}

func (s *Stream) run() {
	s.mu.Lock()
	var ended bool
	for !s.dead {
		s.buf = append(s.buf, s.extra...)
		s.extra = nil
		if len(s.buf) == 0 && (ended || !s.finishing) {
			break
		}
		if ended = len(s.buf) == 0; ended {
			s.mu.Unlock()
			s.peer.End()
			s.mu.Lock()
			continue
		}
		s.mu.Unlock()
		err := s.peer.Write(s.buf)
		s.mu.Lock()
		s.buf = s.buf[:0]
		if err != nil {
			s.closeLocked()
		}
	}
	s.busy = false
	const kept = 16 << 10
	if cap(s.buf) > kept {
		s.buf = nil
	}
	owner := s.owner
	if s.finishing {
		owner = nil
	}
	s.idle.Broadcast()
	s.mu.Unlock()
	if owner != nil {
		owner.Wake()
	}
}

// Finish implements Conn. Who reads from the peer closes the line when the
// peer has ended its side.
func (s *Stream) Finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finishing || s.dead {
		return
	}
	s.finishing = true
	s.linger = time.AfterFunc(Linger, func() { s.Close() })
	s.startLocked()
}

// Close implements Conn.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked()
	return nil
}

// Wait returns when no write is under way on a line that was ended.
func (s *Stream) Wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy {
		s.idle.Wait()
	}
}

func (s *Stream) closeLocked() {
	if s.dead {
		return
	}
	s.dead, s.owner = true, nil
	if s.linger != nil {
		s.linger.Stop()
	}
	s.peer.Cut()
}

// NetPeer is a connection as a Stream's Peer.
func NetPeer(c net.Conn) Peer { return netPeer{c} }

type netPeer struct{ conn net.Conn }

func (p netPeer) Write(b []byte) error {
	_, err := p.conn.Write(b)
	return err
}

func (p netPeer) End() {
	if c, ok := p.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
		return
	}
	p.conn.Close()
}

func (p netPeer) Cut() {
	if c, ok := p.conn.(interface{ NetConn() net.Conn }); ok {
		c.NetConn().Close() // TLS says goodbye first, and waits for that
		return
	}
	p.conn.Close()
}
