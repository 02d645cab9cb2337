package ledger_test

import (
	"context"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/ledger"
)

// balance waits until everything is acknowledged or dead and closes the book.
func balance(t *testing.T, n *node, book *ledger.Ledger, name string, byKey bool) ledger.Account {
	t.Helper()
	var a ledger.Account
	within(t, 60*time.Second, "everything published is accounted for", func() bool {
		var s struct{ Cursor string }
		if _, err := n.do(t.Context(), "GET", "/v1/subscriptions/"+name, nil, &s); err != nil {
			return false
		}
		var dead struct {
			Dead []struct{ Event struct{ ID string } }
		}
		if _, err := n.do(t.Context(), "GET", "/v1/subscriptions/"+name+"/dead?limit=1000", nil, &dead); err != nil {
			return false
		}
		for _, d := range dead.Dead {
			book.Dead(d.Event.ID)
		}
		p, err := event.ParsePosition(s.Cursor)
		if err != nil {
			t.Fatal(err)
		}
		a = book.Balance(p, byKey)
		return len(a.Pending) == 0
	})
	t.Logf("%d published: %d acknowledged, %d dead, %d in gaps, %d LOST; %d duplicates, %d unannounced",
		a.Published, a.Acknowledged, a.Dead, a.Gap, len(a.Lost), a.Duplicates, len(a.Unannounced))
	if len(a.Lost) > 0 {
		t.Errorf("LOST: %v", a.Lost)
	}
	for _, d := range a.Disordered {
		t.Errorf("out of order: %s", d)
	}
	return a
}

func wantAnnounced(t *testing.T, a ledger.Account) {
	t.Helper()
	if len(a.Unannounced) > 0 {
		t.Errorf("came twice without a word: %v", a.Unannounced)
	}
}

// handovers is how often a subscription changes hands.
func handovers() int {
	if testing.Short() || !*long {
		return 6
	}
	return 50
}

func TestChaosHandovers(t *testing.T) {
	brokers(t, func(t *testing.T, broker string) {
		n := startNode(t, broker, "one")
		book := ledger.New()
		r := startReceiver(t, book)
		n.must("PUT", "/v1/subscriptions/crm", map[string]any{
			"channels": []string{"acct-1"}, "window": 64, "callback": map[string]any{"url": r.URL, "grace": "200ms"},
		}, nil)
		p := publish(t, book, 200, n)
		for i := range handovers() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond+rand.N(500*time.Millisecond))
			attach(ctx, n, book, "crm", "crm", 1+i%5)
			cancel()
			pause := time.NewTimer(rand.N(800 * time.Millisecond))
			<-pause.C
		}
		p.finish()
		a := balance(t, n, book, "crm", false)
		wantAnnounced(t, a)
		if most := handovers() * 2 * 65; a.Duplicates > most {
			t.Errorf("%d duplicates, want %d at most", a.Duplicates, most)
		}
	})
}

func TestReceiversFaults(t *testing.T) {
	n := startNode(t, "embedded:"+t.TempDir(), "one")
	var all sync.WaitGroup
	defer all.Wait()
	for _, mode := range []string{"500", "hang", "reset", "slow", "bomb", "redirect", "429"} {
		all.Go(func() {
			t.Run(mode, func(t *testing.T) {
				book := ledger.New()
				r := startReceiver(t, book)
				r.mode.Store(mode)
				n.must("PUT", "/v1/subscriptions/"+mode, map[string]any{
					"channels": []string{"acct-1"}, "callback": map[string]any{"url": r.URL, "timeout": "500ms"},
				}, nil)
				var at struct{ Cursor string }
				n.must("GET", "/v1/subscriptions/"+mode, nil, &at)
				p := &publisher{nodes: []*node{n}, book: book}
				for number := 1; number <= 20; number++ {
					p.one(t, number*100+len(mode))
				}
				eventually(t, "the receiver is called", func() bool { return r.count(time.Time{}) >= 3 })
				r.mode.Store("")
				balance(t, n, book, mode, false)
			})
		})
	}
}

func TestPoisonAmidGoodEvents(t *testing.T) {
	n := startNode(t, "embedded:"+t.TempDir(), "one")
	book := ledger.New()
	r := startReceiver(t, book)
	r.poison[5], r.poison[9] = true, true
	n.must("PUT", "/v1/subscriptions/crm", map[string]any{
		"channels": []string{"acct-1"}, "callback": map[string]any{"url": r.URL},
	}, nil)
	p := &publisher{nodes: []*node{n}, book: book}
	for number := 1; number <= 20; number++ {
		p.one(t, number)
	}
	a := balance(t, n, book, "crm", false)
	if a.Dead != 2 || a.Acknowledged != 18 {
		t.Errorf("got %d dead and %d acknowledged, want 2 and 18", a.Dead, a.Acknowledged)
	}
	r.mu.Lock()
	clear(r.poison)
	r.mu.Unlock()
	var redriven struct{ Redriven int }
	n.must("POST", "/v1/subscriptions/crm/dead/redrive", map[string]any{"all": true}, &redriven)
	if redriven.Redriven != 2 {
		t.Errorf("redriven %d, want 2", redriven.Redriven)
	}
	eventually(t, "the dead letters are delivered and gone", func() bool {
		var s struct{ Status struct{ Dead int } }
		n.must("GET", "/v1/subscriptions/crm", nil, &s)
		_, done := book.Counts()
		return s.Status.Dead == 0 && done == 20
	})
}

func TestEveryTransportMovesOneCursor(t *testing.T) {
	brokers(t, func(t *testing.T, broker string) {
		n := startNode(t, broker, "one")
		book := ledger.New()
		n.must("PUT", "/v1/subscriptions/crm", map[string]any{"channels": []string{"acct-1"}, "window": 64}, nil)
		p := publish(t, book, 200, n)
		last := ""
		for round := range 8 {
			ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
			switch round % 4 {
			case 0:
				attach(ctx, n, book, "crm", "socket", 3)
			case 1:
				for ctx.Err() == nil {
					stream(ctx, n, book, "crm", false, &last)
				}
			case 2:
				pullAll(ctx, n, book, "crm")
				// Nothing tells that a puller won't come back, but another
				// ack of its own ends what it holds.
				n.must("POST", "/v1/subscriptions/crm/pause", nil, nil)
				n.must("POST", "/v1/subscriptions/crm/resume", nil, nil)
			case 3:
				stream(ctx, n, book, "crm", true, &last)
			}
			cancel()
		}
		p.finish()
		ctx, cancel := context.WithCancel(t.Context())
		var last2 sync.WaitGroup
		last2.Go(func() { keepAttached(ctx, book, "crm", "socket", 1, n) })
		balance(t, n, book, "crm", false)
		cancel()
		last2.Wait()
	})
}

func TestTwoConsumersFight(t *testing.T) {
	brokers(t, func(t *testing.T, broker string) {
		n := startNode(t, broker, "one")
		book := ledger.New()
		n.must("PUT", "/v1/subscriptions/crm", map[string]any{"channels": []string{"acct-1"}, "window": 32}, nil)
		p := publish(t, book, 200, n)
		ctx, cancel := context.WithCancel(t.Context())
		var fighters sync.WaitGroup
		for _, consumer := range []string{"a", "b", "b"} { // the third takes over from the second
			fighters.Go(func() {
				for ctx.Err() == nil {
					life, end := context.WithTimeout(ctx, 100*time.Millisecond+rand.N(600*time.Millisecond))
					attach(life, n, book, "crm", consumer, 4)
					<-life.Done() // who was sent away comes back after a while
					end()
				}
			})
		}
		stop := time.NewTimer(4 * time.Second)
		<-stop.C
		p.finish()
		cancel()
		fighters.Wait()
		ctx, cancel = context.WithCancel(t.Context())
		fighters.Go(func() { keepAttached(ctx, book, "crm", "c", 1, n) })
		wantAnnounced(t, balance(t, n, book, "crm", false))
		cancel()
		fighters.Wait()
	})
}

func TestKillOwner(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		n := startNode(t, "embedded:"+t.TempDir(), "one")
		killOwner(t, n, n)
	})
	t.Run("redis", func(t *testing.T) {
		broker := redisURL(t)
		killOwner(t, startNode(t, broker, "one"), startNode(t, broker, "two"))
	})
}

// killOwner kills the node that owns a live subscription and one that calls
// back. other takes over, or, if it is the same, comes back.
func killOwner(t *testing.T, owner, other *node) {
	live, called := ledger.New(), ledger.New()
	r := startReceiver(t, called)
	owner.must("PUT", "/v1/subscriptions/live", map[string]any{"channels": []string{"acct-1"}, "window": 64}, nil)
	owner.must("PUT", "/v1/subscriptions/called", map[string]any{
		"channels": []string{"acct-1"}, "callback": map[string]any{"url": r.URL, "grace": "500ms"},
	}, nil)
	nodes := []*node{owner}
	if other != owner {
		nodes = append(nodes, other)
	}
	p := &publisher{nodes: nodes, book: live}
	ctx, cancel := context.WithCancel(t.Context())
	var consumer, publishing sync.WaitGroup
	consumer.Go(func() { keepAttached(ctx, live, "live", "c", 1, nodes...) })
	stop := make(chan struct{})
	publishing.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for number := 1; ; number++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				p.one(t, number)
			}
		}
	})
	eventually(t, "events flow both ways", func() bool {
		_, a := live.Counts()
		_, b := called.Counts()
		return a > 100 && b > 100
	})
	owner.kill()
	if other == owner {
		owner.start()
	}
	_, before := called.Counts()
	eventually(t, "callbacks go on", func() bool { _, now := called.Counts(); return now > before+100 })
	close(stop)
	publishing.Wait()
	balance(t, other, live, "live", false)
	// Both subscriptions have the same events.
	live.Copy(called)
	balance(t, other, called, "called", false)
	cancel()
	consumer.Wait()
}

func TestCutOffNodeStopsItsCallbacks(t *testing.T) {
	server := redisURL(t)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	link := startLink(t, u.Host)
	u.Host = link.addr
	cut := startNode(t, u.String(), "cut")
	book := ledger.New()
	r := startReceiver(t, book)
	cut.must("PUT", "/v1/subscriptions/crm", map[string]any{
		"channels": []string{"acct-1"}, "window": 10_000, "callback": map[string]any{"url": r.URL, "rate": 40},
	}, nil)
	p := &publisher{nodes: []*node{cut}, book: book}
	for number := 1; number <= 700; number++ {
		p.one(t, number)
	}
	eventually(t, "the callback is called", func() bool { return r.count(time.Time{}) > 5 })
	well := startNode(t, server, "well")
	// From now on nothing but the cut node's own clock tells it to stop.
	link.cut()
	at := time.Now()
	within(t, 30*time.Second, "the other node takes over", func() bool {
		var s struct{ Status struct{ Node string } }
		well.must("GET", "/v1/subscriptions/crm", nil, &s)
		return s.Status.Node == "well"
	})
	t.Logf("%d calls since the cut, taken over after %v", r.count(at), time.Since(at).Round(time.Second))
	a := balance(t, well, book, "crm", false)
	link.mend()
	wantAnnounced(t, a)
	wantPause(t, r, at)
}
