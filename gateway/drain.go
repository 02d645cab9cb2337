package gateway

import (
	"context"
	"time"
)

// maxRetry is how soon a connection comes back to another node, at most; the
// grace of callbacks must be longer.
const maxRetry = 2 * time.Second

// byesPerSecond is as many as need no more spreading.
const byesPerSecond = 500

// Drain makes the node not ready, takes no new connections, and says bye to
// those there are, spread over the time there is, most of it at most. It
// returns when all are gone or ctx ends. over is the whole time for shutdown.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.draining.Store(true)
	spread := time.Duration(s.o.Hub.Count()) * time.Second / byesPerSecond
	s.o.Hub.Drain(ctx, min(spread, over*8/10), maxRetry)
}
