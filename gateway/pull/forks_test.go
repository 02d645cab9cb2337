package pull_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/durable"
)

// newForked is a gateway with a group of two partitions, whose position is before
// a fork: the store was opened again, and appended to, since.
func newForked(t *testing.T) *gateway {
	t.Helper()
	dir := t.TempDir()
	open := func() *embedded.Broker {
		b, err := embedded.Open(embedded.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	g := &gateway{t: t, broker: open()}
	g.publish("before", 1)
	g.publishOf(2, 0, 1, 1, 0, 1) // 2 to 6
	if err := g.broker.Close(); err != nil {
		t.Fatal(err)
	}
	g.broker = open()
	b := g.broker
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	g.serve()
	g.token = authtest.Token(t, auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm"}})
	def, err := durable.ParseDefinition([]byte(`{"channels":["a"],"types":["wanted"],"group":{"partitions":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	old := event.Position{{Channel: "a", Epoch: g.epoch, Offset: 1}}
	err = g.manager.Change(t.Context(), "crm", func(_ durable.State, _ bool, env durable.Env) (durable.Change, error) {
		_, c := durable.Create("crm", durable.Record{Definition: def}, old, env)
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// fork appends an event of a partition, by which a store that was opened again
// begins an epoch.
func (g *gateway) fork(partition int) {
	g.t.Helper()
	g.publishOf(2, partition)
	state, err := g.broker.State(g.t.Context(), "a")
	if err != nil {
		g.t.Fatal(err)
	}
	g.epoch = state.Epoch
}

// One partition is acknowledged in a log's new epoch, the other is where it was
// before: what was given of that comes again until it is acknowledged too.
func TestAPartitionBeforeAForkIsNotPassedOver(t *testing.T) {
	g := newForked(t)
	g.fork(0) // 7
	g.wantTake("one", "wait=5s", []int{0, 1}, 2, 3, 4, 5, 6, 7)
	a := g.wantTake("one", "partition=0&"+ack(g.cursor(7)), []int{0, 1}, 3, 4, 6)
	if a.Redelivery.Cursor != g.cursor(6) {
		t.Errorf("announced up to %q, want %s", a.Redelivery.Cursor, g.cursor(6))
	}
	g.wantTake("one", "partition=1&"+ack(g.cursor(4)), []int{0, 1}, 6)
	g.take("one", ack(g.cursor(6)))
	g.wantAcked(7)
}

// A log is forked while somebody pulls of a group: what is acknowledged then is,
// and what was given before is announced when it comes again.
func TestAPullGoesOnOverAFork(t *testing.T) {
	g := newForked(t)
	a := g.wantTake("one", "max=4&wait=5s", []int{0, 1}, 2, 3, 4, 5)
	if a.redelivered {
		t.Errorf("what is new was announced up to %s", a.Redelivery.Cursor)
	}
	g.fork(1) // 7
	a = g.wantTake("one", "wait=1s", []int{0, 1}, 2, 3, 4, 5, 6, 7)
	if a.Redelivery.Cursor != g.cursor(5) {
		t.Errorf("announced up to %q, want %s", a.Redelivery.Cursor, g.cursor(5))
	}
	a = g.wantTake("one", "max=2&"+ack(g.cursor(2)), []int{0, 1}, 3, 5)
	a = g.wantTake("one", "", []int{0, 1}, 3, 4, 5, 6, 7)
	if a.Redelivery.Cursor != g.cursor(7) {
		t.Errorf("announced up to %q, want %s", a.Redelivery.Cursor, g.cursor(7))
	}
	if a := g.take("one", ack(g.cursor(7))); !slices.Equal(a.numbers, nil) {
		t.Errorf("%v came again after %s", a.numbers, fmt.Sprint("an ack of ", g.cursor(7)))
	}
	g.wantAcked(7)
}
