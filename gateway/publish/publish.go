// Package publish takes events in: it decodes whatever form they come in,
// checks and completes them, encodes each once, and appends them. Their data
// never becomes a Go value: it stays the publisher's bytes, compacted.
package publish

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// Log is what a Publisher needs of a broker.
type Log interface {
	// Append is broker.Log's.
	Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error)
}

// Limits bound what one publish may carry.
type Limits struct {
	Events   int // in a batch; default 1,000
	Bytes    int // of a body; default 4 MiB
	Event    int // bytes of one event as encoded; default 256 KiB
	Channels int // of a publish to several; default 100
}

// WithDefaults fills in what is not set.
func (l Limits) WithDefaults() Limits {
	for _, d := range []struct {
		value *int
		with  int
	}{{&l.Events, 1000}, {&l.Bytes, 4 << 20}, {&l.Event, 256 << 10}, {&l.Channels, 100}} {
		if *d.value <= 0 {
			*d.value = d.with
		}
	}
	return l
}

// Options of a Publisher.
type Options struct {
	Limits Limits
	// Admit may refuse a publish of so many events and bytes, e.g. for its
	// rate; it is asked last before the append. nil: all are admitted.
	Admit func(g *auth.Grant, events, bytes int) error
	// Metrics, nil for none.
	Metrics *Metrics
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Metrics of publishing.
type Metrics struct {
	Events     prometheus.Counter // appended
	Bytes      prometheus.Counter // of those, as encoded
	Duplicates prometheus.Counter // not appended again
}

// NewMetrics makes and registers metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	return &Metrics{
		Events:     counter("longline_published_events_total", "Events appended to a log by this node."),
		Bytes:      counter("longline_published_bytes_total", "Bytes of the events appended by this node, as encoded."),
		Duplicates: counter("longline_published_duplicates_total", "Events not appended because their id was seen before."),
	}
}

// Publisher appends what clients publish. It is safe for concurrent use.
type Publisher struct {
	log Log
	o   Options
}

// MaxBody is how many bytes the events of one publish may have.
func (p *Publisher) MaxBody() int { return p.o.Limits.Bytes }

// New makes a Publisher.
func New(log Log, o Options) *Publisher {
	o.Limits = o.Limits.WithDefaults()
	if o.Admit == nil {
		o.Admit = func(*auth.Grant, int, int) error { return nil }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Publisher{log: log, o: o}
}

// ServeChannel answers POST /v1/channels/{channel}/events: 200 once all events
// are durable. Any error means that nothing was appended, or, if it is
// unavailable, that nothing is known to be.
func (p *Publisher) ServeChannel(w http.ResponseWriter, r *http.Request, g *auth.Grant, channel string) error {
	if err := mayPublish(g, channel); err != nil {
		return err
	}
	b := newBatch(p, channel)
	defer b.free()
	form, err := formOf(r.Header)
	if err != nil {
		return err
	}
	if err := b.readBody(r); err != nil {
		return err
	}
	if err := b.decode(form, r.Header); err != nil {
		return err
	}
	if err := b.append(r.Context(), g); err != nil {
		return err
	}
	b.out = append(b.out[:0], `{"events":`...)
	b.out = append(b.appendResults(b.out), "}\n"...)
	return answer(w, b.out)
}

// PublishJSON publishes one event or an array of them, in the short form or
// the CloudEvents one, and returns the answer's list of results as JSON. The
// events may be reused when it returns.
func (p *Publisher) PublishJSON(ctx context.Context, g *auth.Grant, channel string, events []byte) (json.RawMessage, error) {
	if err := mayPublish(g, channel); err != nil {
		return nil, err
	}
	if limit := p.o.Limits.Bytes; len(events) > limit {
		return nil, tooLong(limit)
	}
	b := newBatch(p, channel)
	defer b.free()
	b.body = events
	err := b.decode(shortForm, nil)
	b.body = nil // not ours to keep
	if err != nil {
		return nil, err
	}
	if err := b.append(ctx, g); err != nil {
		return nil, err
	}
	return b.appendResults(make([]byte, 0, 96*len(b.appended))), nil
}

// mayPublish checks name and grant.
func mayPublish(g *auth.Grant, channel string) error {
	if err := event.CheckChannel(channel); err != nil {
		return wire.BadRequest("%v", err)
	}
	return access.Publish(g, channel)
}

// append hands the batch to the log.
func (b *batch) append(ctx context.Context, g *auth.Grant) error {
	if err := b.p.o.Admit(g, len(b.entries), b.size); err != nil {
		return err
	}
	appended, err := b.p.log.Append(ctx, b.channel, b.entries)
	if err != nil {
		return err
	}
	b.appended = appended
	b.p.count(b.entries, appended)
	return nil
}

func (p *Publisher) count(entries []broker.Entry, appended []broker.Appended) {
	if p.o.Metrics == nil {
		return
	}
	events, bytes := 0, 0
	for i, a := range appended {
		if !a.Duplicate {
			events++
			bytes += len(entries[i].Data)
		}
	}
	p.o.Metrics.Events.Add(float64(events))
	p.o.Metrics.Bytes.Add(float64(bytes))
	if n := len(appended) - events; n > 0 {
		p.o.Metrics.Duplicates.Add(float64(n))
	}
}

// appendResults appends the list of what became of each event.
func (b *batch) appendResults(dst []byte) []byte {
	dst = append(dst, '[')
	for i, a := range b.appended {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = event.AppendString(append(dst, `{"id":`...), b.ids[i])
		dst = append(dst, `,"cursor":"`...)
		dst = event.Cursor{Channel: b.channel, Epoch: a.Epoch, Offset: a.Offset}.Append(dst)
		dst = append(dst, '"')
		if a.Duplicate {
			dst = append(dst, `,"duplicate":true`...)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func answer(w http.ResponseWriter, body []byte) error {
	h := w.Header()
	h["Content-Type"] = contentTypeJSON
	h["Cache-Control"] = noStore
	w.Write(body)
	return nil
}

var contentTypeJSON, noStore = []string{"application/json"}, []string{"no-store"}

// readBody reads the body whole, within the limit.
func (b *batch) readBody(r *http.Request) error {
	limit := b.p.o.Limits.Bytes
	if r.ContentLength > int64(limit) {
		return tooLong(limit)
	}
	if r.ContentLength >= 0 {
		b.body = grown(b.body, int(r.ContentLength))
		if _, err := io.ReadFull(r.Body, b.body); err != nil {
			return wire.BadRequest("body ended before its Content-Length of %d bytes, or came too slowly", r.ContentLength)
		}
		return nil
	}
	b.body = b.body[:0]
	for {
		if len(b.body) == cap(b.body) {
			b.body = append(b.body, 0)[:len(b.body)]
		}
		n, err := r.Body.Read(b.body[len(b.body):min(cap(b.body), limit+1)])
		b.body = b.body[:len(b.body)+n]
		if len(b.body) > limit {
			return tooLong(limit)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return wire.BadRequest("body could not be read to its end")
		}
	}
}

// grown returns b with length n.
func grown(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

func tooLong(limit int) error { return wire.TooLarge("body is longer than %d bytes", limit) }
