package publish

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// outcome is what became of one channel's append.
type outcome struct {
	appended broker.Appended
	err      error
}

// ServeSeveral answers POST /v1/events: one event to several channels. Each
// channel's append stands alone; if any fails the answer is that error, with
// what became of each, and a retry is safe because the event has an id.
func (p *Publisher) ServeSeveral(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	f, err := formOf(r.Header)
	if err != nil {
		return err
	}
	switch f {
	case shortForm:
		f = single
	case structured:
	default:
		return wire.Errorf(wire.CodeUnsupportedMedia, "want application/json or application/cloudevents+json with one event and its channels")
	}
	b := newBatch(p, "")
	defer b.free()
	b.multi = true
	if err := b.readBody(r); err != nil {
		return err
	}
	if err := b.decode(f, r.Header); err != nil {
		return err
	}
	if err := b.checkSeveral(g); err != nil {
		return err
	}
	entries := make([]broker.Entry, len(b.channels))
	for i, channel := range b.channels {
		b.source = "" // each channel's own, where the event has none
		if entries[i], err = b.encode(channel); err != nil {
			return err
		}
		b.size += len(entries[i].Data)
	}
	if err := p.o.Admit(g, len(entries), b.size); err != nil {
		return err
	}
	outcomes := p.appendAll(r.Context(), b.channels, entries)
	return b.answerSeveral(w, outcomes)
}

func (b *batch) checkSeveral(g *auth.Grant) error {
	if len(b.channels) == 0 {
		return wire.BadRequest("channels is missing or empty; want an array of channel names")
	}
	if !b.given.has(attrID) {
		return wire.BadRequest("id is missing; publishing to several channels needs one, so that a retry is safe")
	}
	for _, channel := range b.channels {
		if err := mayPublish(g, channel); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) readChannels(value jsontext.Value) error {
	if err := b.once(attrChannels, "channels"); err != nil {
		return err
	}
	var list []string
	if json.Unmarshal(value, &list) != nil {
		return wire.BadRequest("channels is not an array of strings")
	}
	if limit := b.p.o.Limits.Channels; len(list) > limit {
		return wire.TooLarge("%d channels; want at most %d", len(list), limit)
	}
	seen := make(map[string]bool, len(list))
	for _, channel := range list {
		if seen[channel] {
			return wire.BadRequest("channel %.140q is named twice", channel)
		}
		seen[channel] = true
	}
	b.channels = append(b.channels, list...)
	return nil
}

// appendAll appends to all channels at once, so that they share the cost of
// durability.
func (p *Publisher) appendAll(ctx context.Context, channels []string, entries []broker.Entry) []outcome {
	outcomes := make([]outcome, len(channels))
	var wg sync.WaitGroup
	for i, channel := range channels {
		wg.Go(func() {
			appended, err := p.log.Append(ctx, channel, entries[i:i+1])
			if err != nil {
				outcomes[i].err = err
				return
			}
			outcomes[i].appended = appended[0]
			p.count(entries[i:i+1], appended)
		})
	}
	wg.Wait()
	return outcomes
}

func (b *batch) answerSeveral(w http.ResponseWriter, outcomes []outcome) error {
	list := append(b.out[:0], '[')
	var failed error
	for i, o := range outcomes {
		if i > 0 {
			list = append(list, ',')
		}
		list = event.AppendString(append(list, `{"id":`...), b.fields.ID)
		list = event.AppendString(append(list, `,"channel":`...), b.channels[i])
		if o.err != nil {
			failed = o.err
			e := wire.From(o.err)
			list = event.AppendString(append(list, `,"error":{"code":`...), string(e.Code))
			list = append(event.AppendString(append(list, `,"detail":`...), e.Detail), "}}"...)
			continue
		}
		cursor := event.Cursor{Channel: b.channels[i], Epoch: o.appended.Epoch, Offset: o.appended.Offset}
		list = append(cursor.Append(append(list, `,"cursor":"`...)), '"')
		if o.appended.Duplicate {
			list = append(list, `,"duplicate":true`...)
		}
		list = append(list, '}')
	}
	list = append(list, ']')
	b.out = list
	if failed == nil {
		return answer(w, append(append([]byte(`{"events":`), list...), "}\n"...))
	}
	e := wire.From(failed)
	body := e.AppendProblem(nil, wire.RequestID(w))
	body = append(append(body[:len(body)-1], `,"events":`...), list...)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h["Cache-Control"] = noStore
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.RetrySeconds()))
	}
	w.WriteHeader(e.Status())
	w.Write(append(body, "}\n"...))
	return nil
}
