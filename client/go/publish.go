package longline

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
)

// The most that goes into one request; the gateway takes no more.
const (
	maxBatch      = 1000
	maxBatchBytes = 4<<20 - 64<<10
)

// Published is what became of an event that was published.
type Published struct {
	ID     string `json:"id"`
	Cursor string `json:"cursor"`
	// Duplicate tells that an event of this source and id was there already,
	// under this cursor.
	Duplicate bool `json:"duplicate"`
}

// NewEvent makes an event to publish, with data as JSON.
func NewEvent(typ string, data any) (Event, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return Event{}, fmt.Errorf("encode data of %s: %w", typ, err)
	}
	return Event{Type: typ, Data: b}, nil
}

// Publish appends events to a channel and returns once they are durable. Only
// Type is needed; an ID is made if there is none, so that retries, which go on
// for Options.PublishTimeout while the gateway is away, append nothing twice.
//
// Calls at the same time share requests, so many goroutines may publish one
// event each without batching on their own. The events of one call are
// appended in order, and all or none of them up to 1000 events or 4 MiB.
// Channel and Cursor of the events are ignored.
func (c *Client) Publish(ctx context.Context, channel string, events ...Event) ([]Published, error) {
	if err := event.CheckChannel(channel); err != nil {
		return nil, &Error{Code: ErrBadRequest.Code, cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.PublishTimeout)
	defer cancel()
	letters := make([][]byte, len(events))
	for i, e := range events {
		if e.Type == "" {
			return nil, &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("event %d has no type", i+1)}
		}
		if e.ID == "" {
			e.ID = newID()
		}
		if t := c.options.TraceContext; t != nil {
			t.Inject(ctx, carrier{&e})
		}
		letter, err := appendShort(nil, &e)
		if err != nil {
			return nil, &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("event %d", i+1), cause: err}
		}
		if len(letter) > maxBatchBytes {
			return nil, &Error{Code: ErrTooLarge.Code, Detail: fmt.Sprintf("event %d has %d bytes", i+1, len(letter))}
		}
		letters[i] = letter
	}
	var all []Published
	for len(letters) > 0 {
		n, size := 0, 0
		for n < len(letters) && n < maxBatch && (n == 0 || size+len(letters[n]) < maxBatchBytes) {
			size += len(letters[n]) + 1
			n++
		}
		published, err := c.post(ctx, channel, letters[:n], size)
		all = append(all, published...)
		if err != nil {
			return all, err
		}
		letters = letters[n:]
	}
	return all, nil
}

// appendShort appends the short form of an event to be published.
func appendShort(dst []byte, e *Event) ([]byte, error) {
	text := func(name, value string) {
		if value != "" {
			dst = event.AppendString(append(append(append(dst, ',', '"'), name...), '"', ':'), value)
		}
	}
	dst = event.AppendString(append(dst, `{"type":`...), e.Type)
	text("id", e.ID)
	text("source", e.Source)
	text("subject", e.Subject)
	text("partitionkey", e.Key)
	text("datacontenttype", e.ContentType)
	text("dataschema", e.DataSchema)
	if !e.Time.IsZero() {
		text("time", e.Time.Format(time.RFC3339Nano))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		if value := e.Extensions[name]; !json.Valid(value) {
			return nil, fmt.Errorf("extension %q is not JSON", name)
		}
		dst = append(event.AppendString(append(dst, ','), name), ':')
		dst = append(dst, e.Extensions[name]...)
	}
	switch {
	case e.Binary != nil && e.Data != nil:
		return nil, errors.New("both Data and Binary are set, want one")
	case e.Binary != nil:
		dst = append(dst, `,"data_base64":"`...)
		dst = append(base64.StdEncoding.AppendEncode(dst, e.Binary), '"')
	case e.Data != nil:
		if !json.Valid(e.Data) {
			return nil, errors.New("event's Data is not JSON")
		}
		dst = append(append(dst, `,"data":`...), e.Data...)
	}
	return append(dst, '}'), nil
}

// outbox gathers a channel's events while a request is on its way; the next
// request takes all that came meanwhile. It exists while somebody publishes.
type outbox struct {
	waiting []*mail
}

// mail is one caller's events.
type mail struct {
	ctx     context.Context
	letters [][]byte
	size    int
	turn    chan []*mail // those whom this caller is to post for
	done    chan struct{}

	published []Published
	err       error
}

// post has the letters posted, by this caller or by one before it.
func (c *Client) post(ctx context.Context, channel string, letters [][]byte, size int) ([]Published, error) {
	m := &mail{ctx: ctx, letters: letters, size: size, turn: make(chan []*mail, 1), done: make(chan struct{})}
	c.mu.Lock()
	box := c.outboxes[channel]
	if box == nil {
		c.outboxes[channel] = new(outbox)
		m.turn <- []*mail{m}
	} else {
		box.waiting = append(box.waiting, m)
	}
	c.mu.Unlock()

	select {
	case <-m.done:
		return m.published, m.err
	case together := <-m.turn:
		c.postAll(channel, together)
		c.passOn(channel)
	case <-ctx.Done():
		c.leave(channel, m)
		return nil, publishError(ctx, nil)
	}
	return m.published, m.err
}

// leave takes m, whose caller gave up, out of the outbox. If it was m's turn
// already or somebody posts for it, that is waited for: the events may have
// been appended.
func (c *Client) leave(channel string, m *mail) {
	c.mu.Lock()
	box := c.outboxes[channel]
	if i := slices.Index(box.waiting, m); i >= 0 {
		box.waiting = slices.Delete(box.waiting, i, i+1)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	select {
	case <-m.done:
	case together := <-m.turn:
		c.postAll(channel, together)
		c.passOn(channel)
	}
}

// passOn gives the turn to the first who waits, with as many as fit into one
// request.
func (c *Client) passOn(channel string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	box := c.outboxes[channel]
	if len(box.waiting) == 0 {
		delete(c.outboxes, channel)
		return
	}
	n, letters, size := 0, 0, 0
	for n < len(box.waiting) {
		m := box.waiting[n]
		if n > 0 && (letters+len(m.letters) > maxBatch || size+m.size > maxBatchBytes) {
			break
		}
		letters += len(m.letters)
		size += m.size
		n++
	}
	together := slices.Clone(box.waiting[:n])
	box.waiting = slices.Delete(box.waiting, 0, n)
	together[0].turn <- together
}

// postAll posts for several callers at once and, if that is refused, for each
// alone, so that nobody pays for another's bad event.
func (c *Client) postAll(channel string, together []*mail) {
	defer func() {
		for _, m := range together {
			close(m.done)
		}
	}()
	if len(together) == 1 {
		m := together[0]
		m.published, m.err = c.postOnce(m.ctx, channel, m.letters)
		return
	}
	var letters [][]byte
	for _, m := range together {
		letters = append(letters, m.letters...)
	}
	ctx, cancel := untilFirst(together)
	defer cancel()
	published, err := c.postOnce(ctx, channel, letters)
	if err == nil {
		for _, m := range together {
			m.published, published = published[:len(m.letters):len(m.letters)], published[len(m.letters):]
		}
		return
	}
	var alone sync.WaitGroup
	for _, m := range together {
		if m.ctx.Err() != nil {
			m.err = publishError(m.ctx, err)
			continue
		}
		alone.Go(func() { m.published, m.err = c.postOnce(m.ctx, channel, m.letters) })
	}
	alone.Wait()
}

// untilFirst returns a context that ends when the first of the callers' does, so
// that nobody waits longer than they want to; the others then go on alone.
func untilFirst(together []*mail) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(together[0].ctx))
	stops := make([]func() bool, len(together))
	for i, m := range together {
		stops[i] = context.AfterFunc(m.ctx, cancel)
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// postOnce makes one request, and again while that may help.
func (c *Client) postOnce(ctx context.Context, channel string, letters [][]byte) ([]Published, error) {
	size := 2
	for _, l := range letters {
		size += len(l) + 1
	}
	body := make([]byte, 0, size)
	for i, l := range letters {
		body = append(append(body, "[,"[min(i, 1)]), l...)
	}
	body = append(body, ']')
	wait := backoff{least: c.options.MinBackoff, most: c.options.MaxBackoff}
	for {
		var answer struct{ Events []Published }
		err := c.send(ctx, http.MethodPost, "/v1/channels/"+url.PathEscape(channel)+"/events", "application/json", body, &answer)
		if err == nil && len(answer.Events) != len(letters) {
			err = malformed("the gateway answered for %d events of %d", len(answer.Events), len(letters))
		}
		if err == nil {
			return answer.Events, nil
		}
		var e *Error
		if ctx.Err() != nil || !errors.As(err, &e) || !e.Temporary() {
			return nil, publishError(ctx, err)
		}
		pause := max(e.RetryAfter, wait.next())
		c.log.Warn("publish failed, will try again", "channel", channel, "events", len(letters), "retry", pause, "error", err)
		if !sleep(ctx, pause) {
			return nil, publishError(ctx, err)
		}
	}
}

// publishError is err, unless the time ran out: then whether the events were
// appended isn't known.
func publishError(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	e := &Error{Code: ErrTimeout.Code, Detail: "events may not have been published", cause: context.Cause(ctx)}
	if err != nil {
		e.cause = fmt.Errorf("%w; last: %w", e.cause, err)
	}
	return e
}
