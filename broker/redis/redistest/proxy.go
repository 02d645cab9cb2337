package redistest

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy stands between a broker and a server and can take pub/sub's voice
// without closing a connection, as a broken middlebox does.
type Proxy struct {
	Addr   string
	muted  atomic.Bool
	target string

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

// StartProxy starts a proxy to the server at target.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, conns: make(map[net.Conn]struct{})}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		for c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// MutePubSub swallows what the server says on connections that subscribed,
// also later ones, or no longer.
func (p *Proxy) MutePubSub(mute bool) { p.muted.Store(mute) }

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	if p.closed {
		_ = client.Close()
		_ = server.Close()
	}
	p.mu.Unlock()

	var subscribed atomic.Bool
	var both sync.WaitGroup
	both.Go(func() {
		pass(server, client, func(b []byte) []byte {
			if bytes.Contains(bytes.ToLower(b), []byte("\r\nsubscribe\r\n")) {
				subscribed.Store(true)
			}
			return b
		})
	})
	both.Go(func() {
		pass(client, server, func(b []byte) []byte {
			if subscribed.Load() && p.muted.Load() {
				return nil
			}
			return b
		})
	})
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

func pass(to, from net.Conn, see func([]byte) []byte) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if _, werr := to.Write(see(buf[:n])); werr != nil || err != nil {
			return
		}
	}
}
