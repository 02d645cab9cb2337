package chaos

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/longline-push/longline/internal/oracle"
	"github.com/longline-push/longline/internal/process"
)

// dice are one nemesis's: what it does follows from the seed alone, when it
// happens from the machine too.
type dice struct {
	ctx context.Context
	*rand.Rand
}

func newDice(ctx context.Context, seed, which uint64) *dice {
	return &dice{ctx, rand.New(rand.NewPCG(seed, which))}
}

func (d *dice) below(n int) int { return d.IntN(n) }

// more is one kind of trouble more where there is time for it.
func more() int {
	if long {
		return 1
	}
	return 0
}

// time is one between two, in milliseconds.
func (d *dice) time(least, most time.Duration) time.Duration {
	return (least + time.Duration(d.Int64N(int64(most-least)))).Round(time.Millisecond)
}

func (d *dice) wait(t time.Duration) { pause(d.ctx, t) }

// troubleBroker has the broker fail, again and again.
func (w *world) troubleBroker(d *dice) {
	for d.ctx.Err() == nil {
		d.wait(d.time(500*time.Millisecond, 5*time.Second))
		if d.ctx.Err() == nil {
			w.broker.fault(w, d)
		}
	}
}

// troubleGateways kills, stops and drains gateways. Each is started again.
func (w *world) troubleGateways(d *dice) error {
	for d.ctx.Err() == nil {
		d.wait(d.time(500*time.Millisecond, 6*time.Second))
		if d.ctx.Err() != nil {
			break
		}
		i := d.below(len(w.gateways))
		g := w.gateways[i]
		switch d.below(3) {
		case 0:
			t := d.time(0, 2*time.Second)
			w.fault("gateway", "node-%[2]d killed, back after %[1]v", t, i)
			g.Kill()
			d.wait(t)
		case 1:
			t := d.time(200*time.Millisecond, 14*time.Second)
			w.fault("gateway", "node-%[2]d stands still for %[1]v", t, i)
			g.Stop()
			d.wait(t)
			g.Continue()
			continue
		case 2:
			w.fault("gateway", "node-%d drained", i)
			end, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			err := g.Terminate(end)
			cancel()
			if err != nil && !w.wasBusy(i) {
				w.t.Errorf("node-%d, drained at %s: %v", i, time.Now().UTC().Format("15:04:05.000"), err)
			}
		}
		w.change(d, i)
		if err := w.supervise(g); err != nil {
			return err
		}
	}
	return nil
}

// wasBusy tells whether a gateway ended with requests under way, as it does where
// its broker is away or its clients' lines are held.
func (w *world) wasBusy(i int) bool {
	text, err := os.ReadFile(w.log(i))
	return err == nil && strings.HasPrefix(string(text[bytes.LastIndexByte(bytes.TrimSpace(text), '\n')+1:]), "longline: requests were still under way")
}

// change has the clock of a gateway's next process be wrong.
func (w *world) change(d *dice, i int) {
	g := w.gateways[i]
	if long {
		off := d.below(2*maxSkew+1) - maxSkew
		if d.below(3) == 0 {
			off = 0
		}
		w.fault("gateway", "the clock of node-%d is off by %d s", i, off)
		g.Env = []string{fmt.Sprintf("%s=%d", skewEnv, off)}
	}
}

// supervise starts a gateway as often as it takes: one that finds no broker
// ends, and is started again by whoever runs it.
func (w *world) supervise(g *process.Gateway) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		err := g.Start(ctx)
		if err == nil || g.Running() || ctx.Err() != nil {
			return err
		}
	}
}

// troubleLines breaks connections, and endpoints of callbacks.
func (w *world) troubleLines(d *dice, receivers []*receiver) {
	for d.ctx.Err() == nil {
		d.wait(d.time(100*time.Millisecond, 900*time.Millisecond))
		switch d.below(5 + more()) {
		case 0:
			w.fault("lines", "all connections reset")
			w.front.Reset()
		case 1:
			t := d.time(100*time.Millisecond, 3*time.Second)
			w.fault("lines", "nothing passes for %v", t)
			w.front.Hold()
			d.wait(t)
			w.front.Release()
		case 5:
			t, late := d.time(100*time.Millisecond, 3*time.Second), d.time(5*time.Millisecond, 300*time.Millisecond)
			w.fault("lines", "all is %[2]v late for %[1]v", t, late)
			w.front.Delay(late)
			d.wait(t)
			w.front.Delay(0)
		default:
			r, mode, t := receivers[d.below(len(receivers))], modes[d.below(len(modes))], d.time(100*time.Millisecond, 4*time.Second)
			w.fault("endpoints", "%[2]s answers with %[3]q for %[1]v", t, r.book.Name, mode)
			r.mode.Store(mode)
			d.wait(t)
			r.mode.Store("")
		}
	}
}

// troubleByHand moves, pauses, deletes and makes anew the subscription of
// moved, pauses that of paused, and revokes the token of tenant.
func (w *world) troubleByHand(d *dice, moved, paused *oracle.Book, settings map[string]any, tenant *tail) error {
	for d.ctx.Err() == nil {
		d.wait(d.time(300*time.Millisecond, 3*time.Second))
		if d.ctx.Err() != nil {
			return nil
		}
		// What was begun here is brought to its end, also when time is over.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), 2*time.Minute)
		err := func() error {
			defer cancel()
			switch d.below(5) {
			case 0:
				w.fault("by hand", "%s moved back by a second", moved.Name)
				at := time.Now().Add(-time.Second).UTC().Format(time.RFC3339Nano)
				err := w.insist(ctx, "POST", "/v1/subscriptions/"+moved.Name+"/seek", map[string]string{"to": at}, nil)
				moved.Skip(time.Now())
				return err
			case 1:
				w.fault("by hand", "%s moved to the end", moved.Name)
				err := w.insist(ctx, "POST", "/v1/subscriptions/"+moved.Name+"/seek", map[string]string{"to": "latest"}, nil)
				moved.Skip(time.Now())
				return err
			case 2:
				w.fault("by hand", "%s deleted and made anew", moved.Name)
				if err := w.insist(ctx, "DELETE", "/v1/subscriptions/"+moved.Name, nil, nil); err != nil && status(err) != http.StatusNotFound {
					return err
				}
				err := w.insist(ctx, "PUT", "/v1/subscriptions/"+moved.Name, settings, nil)
				moved.Skip(time.Now())
				return err
			case 3:
				t := d.time(100*time.Millisecond, 3*time.Second)
				w.fault("by hand", "%[2]s paused for %[1]v", t, paused.Name)
				if err := w.insist(ctx, "POST", "/v1/subscriptions/"+paused.Name+"/pause", nil, nil); err != nil {
					return err
				}
				d.wait(t)
				return w.insist(ctx, "POST", "/v1/subscriptions/"+paused.Name+"/resume", nil, nil)
			default:
				w.fault("by hand", "a token revoked")
				return w.revoke(ctx, tenant)
			}
		}()
		if err != nil {
			return err
		}
	}
	return nil
}
