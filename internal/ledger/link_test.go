package ledger_test

import (
	"flag"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
)

var long = flag.Bool("long", false, "run as many handovers as it takes to be sure")

func redisURL(t *testing.T) string { return redistest.Start(t).URL() }

// link is a way to a server that can be cut: then nothing passes, and nothing
// is closed.
type link struct {
	addr string

	mu    sync.Mutex
	held  chan struct{} // closed while things pass
	conns []net.Conn
	wait  sync.WaitGroup
}

func startLink(t *testing.T, target string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{addr: l.Addr().String(), held: make(chan struct{})}
	close(k.held)
	k.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.DialTimeout("tcp", target, time.Second)
			if err != nil {
				c.Close()
				continue
			}
			k.mu.Lock()
			k.conns = append(k.conns, c, s)
			k.mu.Unlock()
			k.wait.Go(func() { k.pass(c, s) })
			k.wait.Go(func() { k.pass(s, c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		k.mend()
		k.mu.Lock()
		for _, c := range k.conns {
			c.Close()
		}
		k.mu.Unlock()
		k.wait.Wait()
	})
	return k
}

func (k *link) pass(to io.WriteCloser, from io.Reader) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		k.mu.Lock()
		held := k.held
		k.mu.Unlock()
		<-held
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = make(chan struct{})
}

func (k *link) mend() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.held:
	default:
		close(k.held)
	}
}

// wantPause holds the receiver's log against the lease. Calls came at a steady
// rate; the node that was cut off must have stopped them by itself well before
// the other began, so there is a pause between the two.
func wantPause(t *testing.T, r *receiver, cut time.Time) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var longest time.Duration
	var ended time.Time
	for i := 1; i < len(r.requests); i++ {
		if pause := r.requests[i].Sub(r.requests[i-1]); r.requests[i].After(cut) && pause > longest {
			longest, ended = pause, r.requests[i]
		}
	}
	t.Logf("no calls for %v, until %v after the cut", longest.Round(time.Millisecond), ended.Sub(cut).Round(time.Millisecond))
	if longest < time.Second {
		t.Errorf("the longest pause between calls is %v: the node that was cut off went on until the other began", longest)
	}
}
