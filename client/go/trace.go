package longline

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
)

// Carrier gives access to an event's trace attributes ("traceparent",
// "tracestate"; the CloudEvents distributed tracing extension). It has the
// methods of OpenTelemetry's TextMapCarrier.
type Carrier interface {
	Get(key string) string
	Set(key, value string)
	Keys() []string
}

// TraceContext carries trace context between events and contexts. An
// OpenTelemetry propagator fits with a few lines around it:
//
//	type otelTrace struct{ p propagation.TextMapPropagator }
//
//	func (t otelTrace) Extract(ctx context.Context, c longline.Carrier) context.Context { return t.p.Extract(ctx, c) }
//	func (t otelTrace) Inject(ctx context.Context, c longline.Carrier)                  { t.p.Inject(ctx, c) }
type TraceContext interface {
	// Extract returns ctx with the trace that the event belongs to; it is the
	// context a handler gets. Batch handlers get a context without one.
	Extract(ctx context.Context, c Carrier) context.Context
	// Inject writes ctx's trace into an event to be published.
	Inject(ctx context.Context, c Carrier)
}

type carrier struct{ e *Event }

func (c carrier) Get(key string) string { return c.e.Extension(key) }

func (c carrier) Set(key, value string) {
	quoted, err := json.Marshal(value)
	if err != nil {
		return // a string always marshals
	}
	// The map may be the caller's own, shared with another event.
	extensions := maps.Clone(c.e.Extensions)
	if extensions == nil {
		extensions = make(map[string]json.RawMessage)
	}
	extensions[key] = quoted
	c.e.Extensions = extensions
}

func (c carrier) Keys() []string { return slices.Collect(maps.Keys(c.e.Extensions)) }
