package subscriptions_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/subscriptions"
)

// gathering has the first of those who count replays wait for each other, so that
// all find the same.
type gathering struct {
	subscriptions.Broker
	left *atomic.Int64
	all  chan struct{}
}

func (g gathering) List(ctx context.Context, prefix, after string, limit int) ([]broker.Subscription, error) {
	page, err := g.Broker.List(ctx, prefix, after, limit)
	if strings.Contains(prefix, "~r-") {
		if n := g.left.Add(-1); n == 0 {
			close(g.all)
		}
		<-g.all
	}
	return page, err
}

// TestReplaysAskedForAtOnce: each finds none yet; those that are too many are
// refused nevertheless, and leave nothing.
func TestReplaysAskedForAtOnce(t *testing.T) { onBoth(t, replaysAskedForAtOnce) }

func replaysAskedForAtOnce(t *testing.T, plain *api) {
	const many, most = 24, 16
	g := gathering{plain.broker, new(atomic.Int64), make(chan struct{})}
	g.left.Store(many)
	a := newAPIOn(t, g, nil)
	me := token(t, customer)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)
	a.append("acct-42", 3)
	var asking sync.WaitGroup
	var made atomic.Int64
	for range many {
		asking.Go(func() {
			switch status, out := a.call(me, "POST", "/v1/subscriptions/crm-1/replay", `{"from":"earliest"}`); status {
			case 201:
				made.Add(1)
			case 409:
			default:
				t.Errorf("got %d %v", status, out)
			}
		})
	}
	asking.Wait()
	there, err := plain.broker.List(t.Context(), "crm-1~r-", "", many)
	if err != nil {
		t.Fatal(err)
	}
	if len(there) > most || len(there) != int(made.Load()) {
		t.Errorf("%d replays are there, %d were made, want %d at most", len(there), made.Load(), most)
	}
}
