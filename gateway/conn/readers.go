package conn

import (
	"sync"
	"time"
)

// readers are the goroutines that read from sockets with something to read. A
// socket that blocks one (in the middle of a message) delays no other: where
// all are busy there is one more. They linger a little, since growing a fresh
// goroutine's stack is what costs.
type readers struct {
	once sync.Once
	work chan *Socket
	stop chan struct{}
	wait sync.WaitGroup
}

const lingering = 5 * time.Second

func (r *readers) init() {
	r.once.Do(func() {
		r.work = make(chan *Socket)
		r.stop = make(chan struct{})
	})
}

func (r *readers) read(s *Socket) {
	r.init()
	select {
	case r.work <- s:
	default:
		r.wait.Go(func() { r.run(s) })
	}
}

func (r *readers) run(s *Socket) {
	timer := time.NewTimer(lingering)
	defer timer.Stop()
	for {
		s.serve()
		timer.Reset(lingering)
		select {
		case s = <-r.work:
		case <-timer.C:
			return
		case <-r.stop:
			return
		}
	}
}

// Message is how long a peer may take over a message.
func (p *Poller) Message() time.Duration {
	if p.MessageTimeout > 0 {
		return p.MessageTimeout
	}
	return MessageTimeout
}

// close waits for the readers; their sockets must have been closed.
func (r *readers) close() {
	r.init()
	close(r.stop)
	r.wait.Wait()
}
