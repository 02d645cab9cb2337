package trace

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// appender is what Log decorates.
type appender interface {
	Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error)
}

// Log is a log whose appends are traced: each event has a span of its publish,
// from when its request came, and in it one of the append.
type Log struct {
	appender
	tracer *Tracer
}

// Log returns l with its appends traced.
func (t *Tracer) Log(l appender) *Log { return &Log{l, t} }

// maxTraced is how many events of one publish have spans.
const maxTraced = 64

// Append implements broker.Log.
func (l *Log) Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error) {
	began := time.Now()
	request, ok := ctx.Value(cameKey{}).(came)
	if !ok {
		request.at = began // over a connection
	}
	var spans []*Span // as entries; nil where there is none
	for i := range entries[:min(len(entries), maxTraced)] {
		of := event.Stored(entries[i].Data).Trace()
		if of.Parent == "" {
			of = request.of
		}
		s := l.tracer.Start(of, "publish", trace.SpanKindProducer, request.at, Channel(channel))
		if s != nil && spans == nil {
			spans = make([]*Span, len(entries))
		}
		if s != nil {
			spans[i] = s
		}
	}
	if spans == nil {
		return l.appender.Append(ctx, channel, entries)
	}
	appends := make([]*Span, len(spans))
	for i, s := range spans {
		appends[i] = s.Child("append", began)
	}
	appended, err := l.appender.Append(ctx, channel, entries)
	wrong := ""
	if err != nil {
		wrong = err.Error()
	}
	for i, s := range spans {
		appends[i].End(wrong)
		if err != nil {
			s.End(wrong)
			continue
		}
		a := appended[i]
		s.End("", Cursor(event.Cursor{Channel: channel, Epoch: a.Epoch, Offset: a.Offset}), attribute.Bool("longline.duplicate", a.Duplicate))
	}
	return appended, err
}

// What spans say.

// Channel is where an event was published.
func Channel(name string) attribute.KeyValue {
	return attribute.String("messaging.destination.name", name)
}

// Cursor is an event's place.
func Cursor(c event.Cursor) attribute.KeyValue {
	return attribute.String("longline.cursor", c.String())
}

// Subscription is whose event it is.
func Subscription(name string) attribute.KeyValue {
	return attribute.String("longline.subscription", name)
}

// Status is what a receiver answered.
func Status(code int) attribute.KeyValue { return attribute.Int("http.response.status_code", code) }

// Wrong is a status that is none of success, as text.
func Wrong(code int) string {
	if code/100 == 2 {
		return ""
	}
	return fmt.Sprintf("answered %d", code)
}
