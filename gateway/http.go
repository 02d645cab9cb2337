package gateway

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
)

// Broker is what a node needs of one.
type Broker interface {
	broker.Log
	broker.Tail
	broker.Durable
	// Close ends it; what was answered before is kept.
	Close() error
}

// HTTPServer makes a server that outlives slow and silent peers. Live
// connections leave it: its time-outs are for requests.
func HTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second, // who sends a header byte by byte ends here
		ReadTimeout:       30 * time.Second, // and a body
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	n := &newcomers{conns: map[net.Conn]struct{}{}}
	s.ConnState = n.state
	s.RegisterOnShutdown(n.end)
	return s
}

// newcomers are connections that have not asked anything yet. net/http waits five
// seconds for them where it shuts down; nothing is lost by hanging up at once.
type newcomers struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	over  bool
}

func (n *newcomers) state(c net.Conn, s http.ConnState) {
	if s == http.StateIdle {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case s != http.StateNew:
		delete(n.conns, c)
	case n.over:
		_ = c.Close()
	default:
		n.conns[c] = struct{}{}
	}
}

// end hangs up on those there are, and on whoever comes yet.
func (n *newcomers) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = true
	for c := range n.conns {
		_ = c.Close()
	}
}
