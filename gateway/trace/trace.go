// Package trace makes spans of what a gateway does with events, and sends them
// by OTLP: publish → append when an event comes in, deliver and callback when it
// goes out, all of them children of the event's own traceparent. A span names
// events, channels and subscriptions; never tokens, data, or where in a
// receiver a callback goes.
package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/longline-push/longline/event"
)

// Options of New.
type Options struct {
	Endpoint string // of an OTLP receiver over HTTP, e.g. http://127.0.0.1:4318
	// Sample is the share of publishes that are traced where neither the event
	// nor the request says whether to: 0 to 1.
	Sample        float64
	Node, Version string
	Logger        *slog.Logger // nil: slog.Default()
}

// Tracer makes spans. nil makes none and costs nothing. Its methods may be
// called by any goroutine; none of them waits for the receiver.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// Check finds what New would not take.
func Check(endpoint string, sample float64) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return errors.New("not the URL of an OTLP receiver; want one such as http://127.0.0.1:4318, its credentials in OTEL_EXPORTER_OTLP_HEADERS")
	}
	if sample < 0 || sample > 1 {
		return fmt.Errorf("a share of %v; want 0 to 1", sample)
	}
	return nil
}

// New makes a Tracer. That the receiver isn't there is no error: spans that
// can't be sent are dropped.
func New(ctx context.Context, o Options) (*Tracer, error) {
	if err := Check(o.Endpoint, o.Sample); err != nil {
		return nil, err
	}
	u, _ := url.Parse(o.Endpoint)
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()))
	if err != nil {
		return nil, fmt.Errorf("make an OTLP exporter: %w", err)
	}
	logger, seldom := o.Logger, &rate.Sometimes{Interval: time.Minute}
	if logger == nil {
		logger = slog.Default()
	}
	// The library has one for the whole process.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		seldom.Do(func() { logger.Warn("spans can't be sent", "error", err) })
	}))
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(o.Sample))),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "longline"), attribute.String("service.version", o.Version), attribute.String("service.instance.id", o.Node))),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/longline-push/longline")}, nil
}

// Close sends what there is to send, within ctx.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Span is something under way. nil is one that nobody traces.
type Span struct {
	tracer *Tracer
	ctx    context.Context
	span   trace.Span
}

// Start begins a span as a child of what an event or a request says; one of
// nothing begins a trace of its own, if it is sampled. nil if it is not traced.
func (t *Tracer) Start(of event.Trace, name string, kind trace.SpanKind, began time.Time, about ...attribute.KeyValue) *Span {
	if t == nil {
		return nil
	}
	return t.start(Context(context.Background(), of), name, kind, began, about)
}

func (t *Tracer) start(ctx context.Context, name string, kind trace.SpanKind, began time.Time, about []attribute.KeyValue) *Span {
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithTimestamp(began), trace.WithAttributes(about...))
	if !span.IsRecording() {
		return nil
	}
	return &Span{t, ctx, span}
}

// Context puts an event's trace into ctx.
func Context(ctx context.Context, of event.Trace) context.Context {
	if of.Parent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": of.Parent, "tracestate": of.State})
}

// Sampled tells whether whoever began an event's trace wants it recorded.
func Sampled(of event.Trace) bool {
	return trace.SpanContextFromContext(Context(context.Background(), of)).IsSampled()
}

// Child begins a span within s.
func (s *Span) Child(name string, began time.Time) *Span {
	if s == nil {
		return nil
	}
	return s.tracer.start(s.ctx, name, trace.SpanKindInternal, began, nil)
}

// Link says that the span is also about another event.
func (s *Span) Link(to event.Trace) {
	if s == nil {
		return
	}
	if other := trace.SpanContextFromContext(Context(context.Background(), to)); other.IsValid() {
		s.span.AddLink(trace.Link{SpanContext: other})
	}
}

// Trace is what is passed on, so that what follows is within the span.
func (s *Span) Trace() event.Trace {
	if s == nil {
		return event.Trace{}
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(s.ctx, carrier)
	return event.Trace{Parent: carrier["traceparent"], State: carrier["tracestate"]}
}

// End ends the span, as failed if wrong isn't "".
func (s *Span) End(wrong string, about ...attribute.KeyValue) {
	if s == nil {
		return
	}
	s.span.SetAttributes(about...)
	if wrong != "" {
		s.span.SetStatus(codes.Error, wrong)
	}
	s.span.End()
}

// came is when a request came, and of which trace it is.
type came struct {
	at time.Time
	of event.Trace
}

type cameKey struct{}

// Came notes that a request comes now, for Log.
func (t *Tracer) Came(r *http.Request) *http.Request {
	if t == nil {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), cameKey{}, came{time.Now(), event.Trace{Parent: r.Header.Get("Traceparent"), State: r.Header.Get("Tracestate")}}))
}
