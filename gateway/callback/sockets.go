package callback

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// sockets bounds the connections that an engine has: those being made, those in
// use, those kept for the next call, whoever they are to and whatever asked for
// them. What is beyond the bound belongs to the store and to those who connect.
// nil bounds nothing. Its methods may be called by many goroutines at once.
type sockets struct {
	all     *semaphore.Weighted
	failing *semaphore.Weighted // of all, those to endpoints that failed last time
	max     int
	// closeIdle ends connections that wait for another call.
	closeIdle func()

	mu    sync.Mutex
	close time.Time // no closeIdle before
}

// How long a call waits for a connection to be free, and how often those that
// fell idle meanwhile are closed for it.
const (
	socketWait  = time.Second / 2
	socketLook  = 50 * time.Millisecond
	socketsLeft = 4 // one in so many is never for an endpoint that failed last time
)

// errNoSocket: the endpoint was not asked, and is not to blame.
var errNoSocket = errors.New("the gateway has as many connections for callbacks as it may; the endpoint was not asked")

func newSockets(max int, closeIdle func()) *sockets {
	if max == 0 {
		return nil
	}
	return &sockets{all: semaphore.NewWeighted(int64(max)), failing: semaphore.NewWeighted(int64(max - max/socketsLeft)), max: max, closeIdle: closeIdle}
}

// failingKey marks the context of a call to an endpoint that failed last time.
// Endpoints that hang must not have all there is from those that answer.
type failingKey struct{}

func toFailing(ctx context.Context) context.Context {
	return context.WithValue(ctx, failingKey{}, true)
}

type dial func(ctx context.Context, network, address string) (net.Conn, error)

// bound returns a dial whose connections count until they are closed.
func (s *sockets) bound(next dial) dial {
	if s == nil {
		return next
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		from := []*semaphore.Weighted{s.all}
		if ctx.Value(failingKey{}) != nil {
			from = []*semaphore.Weighted{s.failing, s.all}
		}
		give, err := s.take(ctx, from)
		if err != nil {
			return nil, err
		}
		c, err := next(ctx, network, address)
		if err != nil {
			give()
			return nil, err
		}
		return &socket{Conn: c, give: sync.OnceFunc(give)}, nil
	}
}

// take takes one from each, and returns what gives them back.
func (s *sockets) take(ctx context.Context, from []*semaphore.Weighted) (give func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, socketWait)
	defer cancel()
	var had []*semaphore.Weighted
	give = func() {
		for _, one := range had {
			one.Release(1)
		}
	}
	for _, one := range from {
		if !one.TryAcquire(1) && s.wait(ctx, one) != nil {
			give()
			return nil, errNoSocket
		}
		had = append(had, one)
	}
	return give, nil
}

// wait waits for its turn, while what falls idle is closed.
func (s *sockets) wait(ctx context.Context, one *semaphore.Weighted) error {
	got := make(chan error, 1)
	go func() { got <- one.Acquire(ctx, 1) }()
	tick := time.NewTicker(socketLook)
	defer tick.Stop()
	for {
		s.makeRoom()
		select {
		case err := <-got:
			return err
		case <-tick.C:
		}
	}
}

// makeRoom closes connections that are kept for a next call: a call that is to
// be made now comes first.
func (s *sockets) makeRoom() {
	now := time.Now()
	s.mu.Lock()
	due := now.After(s.close)
	if due {
		s.close = now.Add(socketLook)
	}
	s.mu.Unlock()
	if due {
		s.closeIdle()
	}
}

// socket is a connection that counts.
type socket struct {
	net.Conn
	give func()
}

// Close implements net.Conn.
func (c *socket) Close() error {
	defer c.give()
	return c.Conn.Close()
}

// closeIdle ends the connections that no call uses.
func (e *Engine) closeIdle() {
	if e.pool == nil {
		return // a test's
	}
	e.pool.CloseIdleConnections()
	for _, t := range e.certificates.Values() {
		t.CloseIdleConnections()
	}
}
