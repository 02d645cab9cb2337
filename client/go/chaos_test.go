package longline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/event"
)

// logSim is a gateway's durable subscription of so many events: it delivers
// within the window, takes acknowledgements and refusals as a gateway does,
// and complains of what no gateway would take.
type logSim struct {
	t      *testing.T
	window int
	key    func(n int) string

	mu    sync.Mutex
	head  int          // events in the log
	acked int          // the contiguous prefix
	dead  map[int]bool // rejected, before and beyond the prefix
	conn  *simConn
}

// simConn is one connection to it.
type simConn struct {
	log   *logSim
	state *sync.Cond // with log.mu
	sent  int
	again int // up to here it may come twice
	said  int // hello and redelivery
	gone  bool
}

func (g *logSim) connect() *simConn {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &simConn{log: g, state: sync.NewCond(&g.mu), sent: g.acked}
	if g.conn != nil {
		c.again = max(g.conn.sent, g.conn.again)
		g.conn.gone = true
		g.conn.state.Broadcast()
	}
	g.conn = c
	return c
}

// cut ends the present connection, if there is any.
func (g *logSim) cut() {
	g.mu.Lock()
	c := g.conn
	g.mu.Unlock()
	if c != nil {
		c.close(false)
	}
}

func (c *simConn) read() (frame, error) {
	g := c.log
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.said++; c.said == 1 {
		return helloFrame(fmt.Sprintf("a@k-%d", g.acked), g.window), nil
	}
	if c.said == 2 && c.again > g.acked {
		return frame{op: "redelivery", control: control{Cursor: fmt.Sprintf("a@k-%d", c.again)}}, nil
	}
	for {
		out := 0
		for n := g.acked + 1; n <= c.sent; n++ {
			if !g.dead[n] {
				out++
			}
		}
		switch {
		case c.gone:
			return frame{}, unreachable(errors.New("connection closed"), "")
		case c.sent < g.head && out < g.window:
			c.sent++
			if g.dead[c.sent] {
				continue
			}
			return frame{event: testEvent(c.sent, g.key(c.sent))}, nil
		}
		c.state.Wait()
	}
}

func (c *simConn) ack(_ context.Context, a ack) error {
	at, err := event.ParseCursor(a.position)
	g := c.log
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err != nil || int(at.Offset) > c.sent:
		g.t.Errorf("got an ack of %s, want at most %d, which is what this connection delivered", a.position, c.sent)
	case c.gone || g.conn != c:
		return errors.New("connection closed")
	}
	g.acked = max(g.acked, int(at.Offset))
	g.settleLocked()
	return nil
}

func (c *simConn) reject(_ context.Context, r reject) error {
	at, err := event.ParseCursor(r.cursor)
	g := c.log
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil || c.gone || g.conn != c {
		return errors.New("connection closed")
	}
	g.dead[int(at.Offset)] = true
	g.settleLocked()
	return nil
}

func (g *logSim) settleLocked() {
	for g.dead[g.acked+1] {
		g.acked++
	}
	g.conn.state.Broadcast()
}

func (c *simConn) close(bool) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.gone = true
	c.state.Broadcast()
}

func (c *simConn) transport() Transport                       { return WebSocket }
func (c *simConn) alive() time.Time                           { return time.Now() }
func (c *simConn) readEnded()                                 {}
func (c *simConn) renew(context.Context, string) error        { return nil }
func (c *simConn) subscribe(context.Context, Selection) error { return nil }

func (g *logSim) position() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.acked
}

// attach runs a subscription at the log.
func (g *logSim) attach(o SubscriptionOptions) (end func() error) {
	g.t.Helper()
	s := newTestSubscription(g.t, "crm", Options{}, o)
	s.open = func(context.Context, Transport, string) (conn, frame, error) {
		c := g.connect()
		first, err := c.read()
		return c, first, err
	}
	return s.start()
}

func newLogSim(t *testing.T, events, window, keys int) *logSim {
	return &logSim{t: t, head: events, window: window, dead: make(map[int]bool), key: func(n int) string {
		if keys == 0 {
			return ""
		}
		return fmt.Sprint("key-", n%keys)
	}}
}

// One call takes 25 s while the others' events are refused: more is refused
// behind it than two windows hold.
func TestSlowCallAmongRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newLogSim(t, 1500, 256, 0)
		end := g.attach(SubscriptionOptions{Concurrency: 8, Handler: func(_ context.Context, e Event) error {
			if e.ID == "1" {
				time.Sleep(25 * time.Second)
				return nil
			}
			return Reject(errors.New("no such contact"))
		}})
		pass(time.Minute)
		if got := g.position(); got != 1500 {
			t.Errorf("got %d of 1500 acknowledged after a minute", got)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// The CRM is away for a night. No event is set aside for it, and when it is
// back everything is done soon.
func TestAnOutageSetsNothingAside(t *testing.T) {
	for _, shape := range []struct {
		concurrency, batch, keys int
		away                     time.Duration
	}{{1, 0, 0, 99 * time.Second}, {8, 0, 0, 99 * time.Second}, {8, 0, 40, 8 * time.Hour}, {1, 50, 40, 8 * time.Hour}, {4, 50, 0, 99 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			g := newLogSim(t, 1500, 256, shape.keys)
			back := time.Now().Add(shape.away)
			var calls int
			var mu sync.Mutex
			crm := func() error {
				time.Sleep(10 * time.Millisecond)
				if time.Now().Before(back) {
					mu.Lock()
					defer mu.Unlock()
					calls++
					return errBroken
				}
				return nil
			}
			o := SubscriptionOptions{Concurrency: shape.concurrency, OnReject: func(e Event, err error) { t.Errorf("event %s is set aside: %v", e.ID, err) }}
			if shape.batch > 0 {
				o.BatchSize, o.BatchHandler = shape.batch, func(context.Context, []Event) error { return crm() }
			} else {
				o.Handler = func(context.Context, Event) error { return crm() }
			}
			end := g.attach(o)
			pass(shape.away)
			mu.Lock()
			if most := 20 + shape.concurrency + int(shape.away/time.Second); calls > most {
				t.Errorf("%+v: got %d calls of a CRM that is away, want at most %d", shape, calls, most)
			}
			mu.Unlock()
			pass(11 * time.Minute)
			if got := g.position(); got != 1500 {
				t.Errorf("%+v: got %d of 1500 acknowledged after it is back", shape, got)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Three events fail whatever happens, while the others pass: they are found
// and set aside, and nothing else is.
func TestPoisonIsFound(t *testing.T) {
	for _, shape := range []struct{ concurrency, batch, keys int }{{1, 0, 0}, {1, 0, 7}, {8, 0, 0}, {8, 0, 7}, {1, 20, 0}, {1, 20, 7}, {4, 20, 0}} {
		synctest.Test(t, func(t *testing.T) {
			g := newLogSim(t, 400, 256, shape.keys)
			bad := func(e Event) error {
				if e.ID == "3" || e.ID == "100" || e.ID == "101" {
					return errBroken
				}
				return nil
			}
			o := SubscriptionOptions{Concurrency: shape.concurrency}
			if shape.batch > 0 {
				o.BatchSize, o.BatchHandler = shape.batch, func(_ context.Context, events []Event) error {
					for _, e := range events {
						if err := bad(e); err != nil {
							return err
						}
					}
					return nil
				}
			} else {
				o.Handler = func(_ context.Context, e Event) error { return bad(e) }
			}
			end := g.attach(o)
			pass(time.Hour)
			if got := g.position(); got != 400 || len(g.dead) != 3 || !g.dead[3] || !g.dead[100] || !g.dead[101] {
				t.Errorf("%+v: got %d of 400 acknowledged, dead letters %v", shape, got, g.dead)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever handlers do, and however often the connection is lost meanwhile: a
// subscription goes on until all is done, or ends when it is told to.
// LONGLINE_SEED repeats one run.
func TestItAlwaysGoesOn(t *testing.T) {
	seeds := make([]uint64, 12)
	for i := range seeds {
		seeds[i] = rand.Uint64()
	}
	if s, err := strconv.ParseUint(os.Getenv("LONGLINE_SEED"), 10, 64); err == nil {
		seeds = []uint64{s}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { goOn(t, seed) })
		})
	}
}

func goOn(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	const events = 400
	g := newLogSim(t, events, []int{1, 8, 64, 256}[r.IntN(4)], []int{0, 1, 5}[r.IntN(3)])
	var mu sync.Mutex
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(n)
	}
	fate := make(map[string]int) // by id
	last := make(map[string]int) // by key, the last first delivery
	seen := make(map[string]bool)
	chaos := time.Now().Add(20 * time.Minute)
	handle := func(ctx context.Context, events []Event) error {
		mu.Lock()
		for _, e := range events {
			var n int
			fmt.Sscan(e.ID, &n)
			if _, ok := fate[e.ID]; !ok {
				fate[e.ID] = r.IntN(100)
			}
			if !seen[e.ID] && e.Key != "" && n < last[e.Key] {
				t.Errorf("key %s: got %d for the first time after %d", e.Key, n, last[e.Key])
			}
			seen[e.ID], last[e.Key] = true, max(last[e.Key], n)
		}
		how := fate[events[0].ID]
		mu.Unlock()
		switch {
		case how < 5:
			return Reject(errors.New("no such contact"))
		case time.Now().After(chaos):
			return nil
		case how < 10:
			if !sleep(ctx, time.Duration(roll(30000))*time.Millisecond) {
				return ctx.Err()
			}
		case how < 12: // as long as it may, and longer
			time.Sleep(time.Duration(roll(60000)) * time.Millisecond)
		case how < 20:
			if roll(3) > 0 {
				return errBroken
			}
		case how < 23:
			panic("nil map")
		case how < 26:
			return RetryAfter(errBroken, time.Duration(roll(20))*time.Second)
		default:
			time.Sleep(time.Duration(roll(20)) * time.Millisecond)
		}
		return nil
	}
	o := SubscriptionOptions{Concurrency: 1 + r.IntN(8)}
	if r.IntN(3) == 0 {
		o.BatchSize, o.BatchHandler = 1+r.IntN(20), handle
	} else {
		o.Handler = func(ctx context.Context, e Event) error { return handle(ctx, []Event{e}) }
	}
	end := g.attach(o)
	for time.Now().Before(chaos) {
		time.Sleep(time.Duration(roll(60)) * time.Second)
		switch roll(8) {
		case 0, 1, 2:
			g.cut()
		case 3:
			if err := end(); err != nil && !errors.Is(err, ErrTimeout) {
				t.Fatal(err)
			}
			end = g.attach(o) // in another process
		}
	}
	pass(time.Hour)
	if got := g.position(); got != events {
		t.Errorf("got %d of %d acknowledged an hour after all is well", got, events)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	pass(time.Hour)
}
