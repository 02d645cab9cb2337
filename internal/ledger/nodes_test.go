package ledger_test

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/internal/ledger"
)

// TestConsumerMovesBetweenNodes has a consumer come back to another node while
// its old line still stands, again and again.
func TestConsumerMovesBetweenNodes(t *testing.T) {
	server := redisURL(t)
	nodes := []*node{startNode(t, server, "one"), startNode(t, server, "two")}
	book := ledger.New()
	nodes[0].must("PUT", "/v1/subscriptions/crm", map[string]any{"channels": []string{"acct-1"}, "window": 32}, nil)
	p := publish(t, book, 200, nodes...)
	var lines sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 12 {
		ended := make(chan error, 1)
		lines.Go(func() { ended <- attach(ctx, nodes[i%2], book, "crm", "crm", 1) })
		had, _ := book.Counts()
		eventually(t, "it takes over and gets events", func() bool {
			now, _ := book.Counts()
			var s struct{ Status struct{ Node string } }
			nodes[0].must("GET", "/v1/subscriptions/crm", nil, &s)
			return s.Status.Node == nodes[i%2].name && now > had+10
		})
	}
	p.finish()
	a := balance(t, nodes[0], book, "crm", false)
	cancel()
	lines.Wait()
	if most := 12 * 33; a.Duplicates > most {
		t.Errorf("%d duplicates, want %d at most", a.Duplicates, most)
	}
}

// TestCutOffNodeKeepsItsLines has a node lose its broker for longer than its
// lease: its client stays connected, gets nothing meanwhile, and goes on.
func TestCutOffNodeKeepsItsLines(t *testing.T) {
	server := redisURL(t)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	link := startLink(t, u.Host)
	u.Host = link.addr
	cut, well := startNode(t, u.String(), "cut"), startNode(t, server, "well")
	book := ledger.New()
	cut.must("PUT", "/v1/subscriptions/crm", map[string]any{"channels": []string{"acct-1"}}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- attach(ctx, cut, book, "crm", "crm", 1) }()
	p := &publisher{nodes: []*node{well}, book: book}
	number := 0
	for range 50 {
		number++
		p.one(t, number)
	}
	eventually(t, "events flow", func() bool { _, done := book.Counts(); return done == 50 })
	link.cut()
	within(t, 30*time.Second, "the other node gives up what the cut one owned", func() bool {
		number++
		p.one(t, number)
		var s struct{ Status struct{ State string } }
		well.must("GET", "/v1/subscriptions/crm", nil, &s)
		return s.Status.State == "offline"
	})
	link.mend()
	balance(t, well, book, "crm", false)
	select {
	case err := <-ended:
		t.Errorf("the line ended: %v", err)
		cancel()
	default:
		cancel()
		<-ended
	}
}
