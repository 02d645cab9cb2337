package ledger_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/ledger"
	"github.com/longline-push/longline/internal/oracle"
)

// TestWhatAKillLeaves kills a gateway under load, again and again, and with it
// the master of what it runs on, if that has one. What POST …/ack answered and
// GET showed until then is left; nothing is lost, and what comes twice was
// announced.
func TestWhatAKillLeaves(t *testing.T) {
	type place struct {
		name  string
		nodes int
		open  func(t *testing.T) (url string, fail func())
	}
	places := []place{{"embedded", 1, func(t *testing.T) (string, func()) {
		return "embedded:" + filepath.Join(t.TempDir(), "data"), func() {}
	}}}
	rounds := 3
	if *long {
		rounds = 12
		places = append(places, place{"sentinel", 2, func(t *testing.T) (string, func()) {
			g := redistest.StartSentinels(t)
			return g.URL() + "?wait_replicas=1", func() {
				g.Master.Kill()
				g.WaitFailover()
				g.Master.Restart()
				g.Swap()
			}
		}}, place{"cluster", 2, func(t *testing.T) (string, func()) {
			c := redistest.StartCluster(t)
			return c.URL() + "?wait_replicas=1", func() {
				master, _ := c.Owner("acct-1")
				c.KillMaster(master)
				master.Restart()
				c.WaitOK()
			}
		}})
	}
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			url, fail := p.open(t)
			var nodes []*node
			for i := range p.nodes {
				nodes = append(nodes, startNode(t, url, []string{"one", "two"}[i]))
			}
			// A failover may forget what a GET showed of a line's own
			// acknowledgements; what a POST answered it may not.
			killAndLook(t, nodes, rounds, p.nodes > 1, fail)
		})
	}
}

func killAndLook(t *testing.T, nodes []*node, rounds int, forgetful bool, fail func()) {
	book := ledger.New()
	said := oracle.NewBook(&oracle.World{}, "crm", func(oracle.Published) bool { return true })
	said.Forgetful = forgetful
	nodes[0].must("PUT", "/v1/subscriptions/crm", map[string]any{"channels": []string{"acct-1"}, "window": 32}, nil)
	p := publish(t, book, 100, nodes...)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	stop := sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	each := func(pause time.Duration, f func(n *node)) {
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				f(nodes[i%len(nodes)])
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	last := ""
	each(20*time.Millisecond, func(n *node) { streamAnswered(ctx, n, book, "crm", true, &last, said.Acked) })
	each(10*time.Millisecond, func(n *node) {
		var s struct{ Cursor string }
		asked := time.Now()
		if _, err := n.do(ctx, "GET", "/v1/subscriptions/crm", nil, &s); err == nil {
			if at, err := event.ParsePosition(s.Cursor); err == nil {
				said.Shown(at, asked)
			}
		}
	})
	for i := range rounds {
		_, had := book.Counts()
		within(t, time.Minute, "events flow", func() bool { _, done := book.Counts(); return done > had+30 })
		n := nodes[i%len(nodes)]
		n.kill()
		fail()
		n.start()
	}
	p.finish()
	within(t, time.Minute, "all are processed", func() bool { published, done := book.Counts(); return done == published })
	stop()
	ctx, cancel = context.WithCancel(t.Context())
	running.Go(func() { keepAttached(ctx, book, "crm", "stream", 1, nodes[0]) })
	a := balance(t, nodes[0], book, "crm", false)
	cancel()
	running.Wait()
	wantAnnounced(t, a)
	for _, broken := range said.Balance().Broken {
		t.Error(broken)
	}
}
