package conn

import (
	"sync"
)

// Stream is a Conn over anything that can only be written to with waiting: TLS
// in process, HTTP/2. A goroutine writes while there is something to write.
type Stream struct {
	write func([]byte) error // hands all bytes over and flushes them
	end   func()             // closes what is written to

	mu        sync.Mutex
	owner     Owner // until the connection is closed
	buf       []byte
	extra     []byte // control frames that came while busy
	saidClose bool
	busy      bool // a goroutine writes buf
	finishing bool
	dead      bool
	idle      sync.Cond // busy became false
}

var _ Conn = (*Stream)(nil)

// NewStream returns a line whose bytes go to write, called by one goroutine at
// a time; end is called once, when the line is done with it, and makes a write
// under way return.
func NewStream(owner Owner, write func([]byte) error, end func()) *Stream {
	s := &Stream{write: write, end: end, owner: owner}
	s.idle.L = &s.mu
	return s
}

// Send implements Conn: it takes everything, or nothing while a write is under
// way.
func (s *Stream) Send(bufs [][]byte, stride int) (frames int, blocked bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead || s.finishing:
		return 0, false, errClosed
	case s.busy:
		return 0, true, nil
	case len(bufs) == 0:
		return 0, false, nil
	}
	s.buf = s.buf[:0]
	for _, b := range bufs {
		s.buf = append(s.buf, b...)
	}
	s.busy = true
	go s.run()
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
	s.saidClose = s.saidClose || b[0] == opClose
	if len(s.extra)+len(b) <= most { // pongs nobody reads
		s.extra = append(s.extra, b...)
	}
	if !s.busy {
		s.busy = true
		go s.run()
	}
	return len(b), nil
}

// SaidClose tells whether the WebSocket library has sent a close frame.
func (s *Stream) SaidClose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saidClose
}

func (s *Stream) run() {
	s.mu.Lock()
	for {
		s.buf = append(s.buf, s.extra...)
		s.extra = nil
		s.mu.Unlock()
		err := s.write(s.buf)
		s.mu.Lock()
		s.buf = s.buf[:0]
		if err != nil || len(s.extra) == 0 {
			s.busy = false
			if s.finishing || err != nil {
				s.closeLocked()
			}
			break
		}
	}
	const kept = 16 << 10
	if cap(s.buf) > kept {
		s.buf = nil
	}
	owner := s.owner
	s.idle.Broadcast()
	s.mu.Unlock()
	if owner != nil {
		owner.Wake()
	}
}

// Finish implements Conn.
func (s *Stream) Finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishing = true
	if !s.busy {
		s.closeLocked()
	}
}

// Close implements Conn.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked()
	return nil
}

// Wait returns when no write is under way on a closed line.
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
	s.end()
}
