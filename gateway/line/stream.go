package line

import (
	"sync"
)

// Stream is a Line over anything that can only be written to with waiting: TLS
// in process, HTTP/2. A goroutine writes while there is something to write.
type Stream struct {
	write func([]byte) error // hands all bytes over and flushes them
	end   func()             // closes what is written to
	owner Owner

	mu        sync.Mutex
	buf       []byte
	busy      bool // a goroutine writes buf
	finishing bool
	dead      bool
	idle      sync.Cond // busy became false
}

var _ Line = (*Stream)(nil)

// NewStream returns a line whose bytes go to write, called by one goroutine at
// a time; end is called once, when the line is done with it, and makes a write
// under way return.
func NewStream(owner Owner, write func([]byte) error, end func()) *Stream {
	s := &Stream{write: write, end: end, owner: owner}
	s.idle.L = &s.mu
	return s
}

// Send implements Line: it takes everything, or nothing while a write is under
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

func (s *Stream) run() {
	err := s.write(s.buf)
	s.mu.Lock()
	s.busy = false
	if cap(s.buf) > 16<<10 {
		s.buf = nil
	}
	ends := s.finishing || err != nil
	if ends {
		s.closeLocked()
	}
	s.idle.Broadcast()
	s.mu.Unlock()
	s.owner.Wake()
}

// Finish implements Line.
func (s *Stream) Finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishing = true
	if !s.busy {
		s.closeLocked()
	}
}

// Close implements Line.
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
	s.dead = true
	s.end()
}
