package demo

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strconv"
	"sync"
	"time"

	longline "github.com/longline-push/longline/client/go"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/probe"
)

// A mailshot is opened as mailshots are: most of it soon after it was sent,
// then ever more slowly, over what the mailshots before it still bring. What
// takes days is done here in three minutes; then comes the next one.
const (
	length   = 3 * time.Minute
	steepest = 40 * time.Second // when most opens come
	basis    = 0.25             // of the rate is what earlier ones bring
	contacts = 5000
	tick     = 50 * time.Millisecond
)

// campaign tells how many events have happened, and keeps when.
type campaign struct {
	rate float64 // on average

	mu    sync.Mutex
	at    []int64          // of each event, by number - 1
	queue []longline.Event // not published yet
	more  chan struct{}    // holds one: there is something in queue
	// offsets of published events in the log, by number - 1. Offsets and
	// numbers differ if somebody else publishes too.
	offsets []uint64
}

func newCampaign(rate float64) *campaign {
	return &campaign{rate: rate, more: make(chan struct{}, 1)}
}

// share is how much of a mailshot's response has come after t of length: the
// integral of t·e^-t, which rises fast and falls slowly.
func share(t time.Duration) float64 {
	grown := func(x float64) float64 { return 1 - (1+x)*math.Exp(-x) }
	return grown(t.Seconds()/steepest.Seconds()) / grown(length.Seconds()/steepest.Seconds())
}

// happened is how many events there are t after the beginning.
func (c *campaign) happened(t time.Duration) uint64 {
	whole := math.Floor(t.Seconds() / length.Seconds())
	rest := t - time.Duration(whole)*length
	responses := (whole + share(rest)) * length.Seconds()
	return uint64(c.rate * (basis*t.Seconds() + (1-basis)*responses))
}

// mailshot is the number of the one that was sent last, t after the beginning.
func mailshot(t time.Duration) int { return int(t/length) + 1 }

// happen makes the next event.
func (c *campaign) happen(mailshot int) (e longline.Event, seq uint64) {
	contact := fmt.Sprintf("contact%d@example.com", rand.N(contacts))
	kind := "email.opened"
	switch p := rand.Float64(); {
	case p < 0.01:
		kind = "email.unsubscribed"
	case p < 0.15:
		kind = "email.clicked"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := measure.Now()
	c.at = append(c.at, at)
	seq = uint64(len(c.at))
	e = longline.Event{
		ID: "mail-" + strconv.FormatUint(seq, 10), Type: kind, Source: "/mailshots/" + strconv.Itoa(mailshot),
		Subject: contact, Key: contact,
		Data: fmt.Appendf(nil, `{"seq":%d,"at":%d,"mailshot":%d}`, seq, at, mailshot),
	}
	c.queue = append(c.queue, e)
	select {
	case c.more <- struct{}{}:
	default:
	}
	return e, seq
}

// counts are how many events there are, and how many of them the gateway has
// answered for.
func (c *campaign) counts() (emitted, published uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(len(c.at)), uint64(len(c.offsets))
}

// when is the moment of the event of that number; false if there is none yet.
func (c *campaign) when(seq uint64) (at int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq < 1 || seq > uint64(len(c.at)) {
		return 0, false
	}
	return c.at[seq-1], true
}

// upTo is how many events the log has up to offset.
func (c *campaign) upTo(offset uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(sort.Search(len(c.offsets), func(i int) bool { return c.offsets[i] > offset }))
}

// emit lets events happen and sends each as a webhook, as most services do.
func (d *Demo) emit(ctx context.Context) {
	began := time.Now()
	t := time.NewTicker(tick)
	defer t.Stop()
	for n := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		passed := time.Since(began)
		for due := d.campaign.happened(passed); n < due; n++ {
			e, seq := d.campaign.happen(mailshot(passed))
			d.sender.Send(ctx, d.plain.URL, e.Data, func() { d.webhooks.api.GiveUp(seq) })
		}
	}
}

// publish brings events to the gateway, in order, as one service would: what
// isn't answered for is sent again, under the same ids.
func (d *Demo) publish(ctx context.Context) {
	c := d.campaign
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.more:
		}
		c.mu.Lock()
		events := c.queue
		c.queue = nil
		c.mu.Unlock()
		for len(events) > 0 && ctx.Err() == nil {
			batch := events[:min(len(events), 500)]
			done, err := d.client.Publish(ctx, channel, batch...)
			if err != nil {
				continue // it has waited between its own attempts
			}
			c.mu.Lock()
			for _, p := range done {
				_, offset, _ := probe.SplitCursor([]byte(p.Cursor))
				c.offsets = append(c.offsets, offset)
			}
			c.mu.Unlock()
			events = events[len(batch):]
		}
	}
}
