package subscriptions_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/subscriptions"
)

// TestWhatWaitsIsCounted, whether anybody delivers it or not.
func TestWhatWaitsIsCounted(t *testing.T) {
	onBoth(t, func(t *testing.T, a *api) {
		me := token(t, customer)
		a.append("acct-42", 7)
		a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"start":"earliest"}`)
		a.want(201, me, "PUT", "/v1/subscriptions/crm-2", `{"channels":["acct-42"],"start":"latest"}`)
		a.want(201, me, "PUT", "/v1/subscriptions/crm-3", `{"channels":["acct-42"],"start":"earliest","group":{"partitions":2}}`)
		a.want(200, me, "POST", "/v1/subscriptions/crm-1/pause", "")
		registry := prometheus.NewRegistry()
		w := subscriptions.NewWaiting(a.api, registry, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		t.Cleanup(func() {
			cancel()
			running.Wait()
		})
		a.becomes("events that wait", func() any { return gauge(t, registry, "longline_subscriptions_waiting_events") }, 14.0)
	})
}

func gauge(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// TestEachSubscriptionIsCountedByOneNode: sums of all nodes hold it once.
func TestEachSubscriptionIsCountedByOneNode(t *testing.T) {
	a := newAPI(t)
	nodes := []*durable.Manager{a.manager, a.otherNode()}
	var all []broker.Node
	a.becomes("both are known", func() any {
		var err error
		if all, err = a.broker.Nodes(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(all)
	}, 2)
	by := func(s durable.State) (n int) {
		for _, m := range nodes {
			if m.Counts(&s) {
				n++
			}
		}
		return n
	}
	for _, m := range nodes {
		owned, shared := durable.State{}, durable.State{}
		owned.Owner = &durable.Owner{Node: m.Node()}
		shared.Members = []durable.Owner{{Node: m.Node()}, {Node: "elsewhere"}}
		for what, s := range map[string]durable.State{"owned": owned, "shared": shared} {
			if !m.Counts(&s) || by(s) != 1 {
				t.Errorf("%s at %s: %d nodes count it", what, m.Node(), by(s))
			}
		}
	}
	// Once each has heard of the other, by its next look.
	a.becomes("nodes that count what nobody owns", func() any { return by(durable.State{}) }, 1)
}
