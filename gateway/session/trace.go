package session

import (
	"time"

	"go.opentelemetry.io/otel/attribute"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/trace"
)

// delivered is an event of a batch whose delivery is traced, and its frame.
type delivered struct {
	frame int
	item  *feed.Item
}

// traceLocked makes spans of the deliveries among the first frames of a batch,
// each from its event's append to now.
func (s *Session) traceLocked(b *batch, frames int) {
	now := time.Now()
	for _, d := range b.traced {
		of := d.item.Traced()
		if d.frame >= frames || of.Left.Add(-1) < 0 {
			continue
		}
		began := d.item.Appended
		if began.IsZero() || began.After(now) {
			began = now // a dead letter that comes again; a broker's clock that is ahead
		}
		about := []attribute.KeyValue{
			trace.Channel(d.item.Channel()),
			attribute.String("longline.connection", s.ID()), attribute.String("longline.transport", s.codec.Traits().Name),
		}
		if s.durable != nil {
			about = append(about, trace.Subscription(s.durable.name))
		}
		s.hub.opts.Trace.Start(of.Trace, "deliver", oteltrace.SpanKindConsumer, began, about...).End("")
	}
}
