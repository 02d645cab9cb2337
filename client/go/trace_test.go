package longline

import (
	"context"
	"encoding/json"
	"testing"
)

type traceKey struct{}

// testTrace carries a traceparent in a context's value.
type testTrace struct{}

func (testTrace) Extract(ctx context.Context, c Carrier) context.Context {
	return context.WithValue(ctx, traceKey{}, c.Get("traceparent"))
}

func (testTrace) Inject(ctx context.Context, c Carrier) {
	if parent, ok := ctx.Value(traceKey{}).(string); ok {
		c.Set("traceparent", parent)
	}
}

func TestTraceContextGoesAlong(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	g := newGateway(t)
	c := g.client(t, Options{TraceContext: testTrace{}})
	mine := map[string]json.RawMessage{"tenant": json.RawMessage(`"42"`)}
	ctx := context.WithValue(t.Context(), traceKey{}, parent)
	if _, err := c.Publish(ctx, "acct-42", Event{Type: "t", Extensions: mine}); err != nil {
		t.Fatal(err)
	}
	if len(mine) != 1 {
		t.Errorf("the caller's extensions were changed: %v", mine)
	}
	got := make(chan string, 1)
	runSubscription(t, mustSubscribe(t, c, Selection{Channels: []string{"acct-42"}, Since: "earliest"}, SubscriptionOptions{
		Handler: func(ctx context.Context, e Event) error {
			parent, _ := ctx.Value(traceKey{}).(string)
			got <- parent + " " + e.Extension("tenant")
			return nil
		},
	}))
	if got := <-got; got != parent+" 42" {
		t.Errorf("got %q, want %q", got, parent+" 42")
	}
}
