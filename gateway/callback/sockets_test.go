package callback

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
)

// Endpoints that failed have three quarters of the connections at most; what is
// kept idle makes room for a call; and a call that finds none in time was not
// made.
func TestConnectionsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var idle []net.Conn
		s := newSockets(4, func() {
			for _, c := range idle {
				c.Close()
			}
			idle = nil
		})
		dial := s.bound(func(context.Context, string, string) (net.Conn, error) {
			c, other := net.Pipe()
			other.Close()
			return c, nil
		})
		connect := func(ctx context.Context, story string, want error) net.Conn {
			t.Helper()
			c, err := dial(ctx, "tcp", "192.0.2.1:443")
			if !errors.Is(err, want) {
				t.Fatalf("%s: %v, want %v", story, err, want)
			}
			return c
		}
		failing := toFailing(t.Context())
		var open []net.Conn
		for range 3 {
			open = append(open, connect(failing, "one that failed before", nil))
		}
		connect(failing, "a fourth of those", errNoSocket)
		open = append(open, connect(t.Context(), "one that is well", nil))
		connect(t.Context(), "one more than there may be", errNoSocket)
		idle = open[3:]
		again := connect(t.Context(), "one for which an idle one was closed", nil)
		again.Close()
		again.Close() // counts once
		open[0].Close()
		connect(failing, "another that failed, when one of those has ended", nil).Close()
		open[1].Close()
		open[2].Close()
		if !s.all.TryAcquire(4) || s.all.TryAcquire(1) {
			t.Error("what was taken isn't what was given back")
		}
		a := answer{err: errNoSocket}
		if got := a.verdict(t.Context()); got != stalled {
			t.Errorf("such a call is taken for %v, want stalled", got)
		}
	})
}
