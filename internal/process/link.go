package process

import (
	"net"
	"sync"
	"time"
)

// Link is a way to a server that can be held, so that nothing passes and
// nothing is closed, reset, so that all that is open is closed, and slow.
type Link struct {
	Addr string

	listener net.Listener
	target   func() string
	mu       sync.Mutex
	passing  chan struct{} // closed while things pass
	delay    time.Duration // of each piece that passes
	conns    map[net.Conn]struct{}
	closed   bool
	wait     sync.WaitGroup
}

// NewLink opens a link to the server that target names, which is asked for
// each connection, by many goroutines at once. Close ends the link.
func NewLink(target func() string) (*Link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &Link{Addr: l.Addr().String(), listener: l, target: target, passing: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(k.passing)
	k.wait.Go(k.accept)
	return k, nil
}

func (k *Link) accept() {
	for {
		c, err := k.listener.Accept()
		if err != nil {
			return
		}
		k.wait.Go(func() { k.serve(c) })
	}
}

func (k *Link) serve(c net.Conn) {
	defer c.Close()
	s, err := net.DialTimeout("tcp", k.target(), time.Second)
	if err != nil {
		return
	}
	defer s.Close()
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return
	}
	k.conns[c], k.conns[s] = struct{}{}, struct{}{}
	k.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { k.pass(c, s) })
	both.Go(func() { k.pass(s, c) })
	both.Wait()
	k.mu.Lock()
	delete(k.conns, c)
	delete(k.conns, s)
	k.mu.Unlock()
}

func (k *Link) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			k.mu.Lock()
			passing, delay := k.passing, k.delay
			k.mu.Unlock()
			<-passing
			time.Sleep(delay)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Delay has each piece of up to 32 KiB that comes from now on wait for d before it
// passes, and those behind it wait for it; 0 ends that.
func (k *Link) Delay(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.delay = d
}

// Hold keeps everything back until Release.
func (k *Link) Hold() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.passing:
		k.passing = make(chan struct{})
	default:
	}
}

// Release lets things pass.
func (k *Link) Release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.passing:
	default:
		close(k.passing)
	}
}

// Reset closes all that is open, with what is underway.
func (k *Link) Reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

// Close ends the link and all that goes over it.
func (k *Link) Close() {
	_ = k.listener.Close()
	k.Release()
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.Reset()
	k.wait.Wait()
}
