package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	longline "github.com/longline-push/longline/client/go"
	"github.com/longline-push/longline/loadtest/crm"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/probe"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/token"
)

// toCRM is the problem that Longline was made for, and four ways to solve it.
var toCRM = Scenario{
	Name: "crm",
	Brief: "events for a customer whose CRM takes 1–2 s a call and collapses beyond 10 at once, brought there by polling, " +
		"naive webhooks, Longline callbacks and the Longline SDK side by side: delay, calls, time-outs, loss",
	Defaults: Options{Rate: 200, Duration: time.Minute, Scale: 1},
	Compare:  []string{"oldest event waiting", "calls in flight"},
	Cases: func(o Options) []Case {
		return []Case{{Name: "the gateway", Rate: o.Rate, Channels: 1}}
	},
	Run: runCRM,
}

// customers' contacts: events of one are kept in order.
const contacts = 1000

// batchSize is how many records the customer's code puts in one call.
const batchSize = 200

// A way is one manner of getting events into one CRM of its own.
type way struct {
	name    string
	sound   bool // must lose nothing and overrun nobody
	api     *crm.API
	run     *measure.Run
	carry   func(ctx context.Context) error // until ctx ends
	settled func() bool                     // nothing more will come
}

func runCRM(ctx context.Context, e *Env) error {
	base := newBase()
	channel := base + ".0"
	t, err := e.Target.Tokens.For("loadtest-crm", token.Grant{
		Subscribe: []string{channel}, Subscriptions: []string{base + "-*"},
	})
	if err != nil {
		return err
	}
	c, err := longline.New("http://"+e.Target.Addr, longline.Options{Token: t})
	if err != nil {
		return err
	}
	rested, known := e.usage()
	sender := &webhooks{every: time.Duration(1e9 / e.Case.Rate), sender: crm.NewWebhooks(e.Scale), ready: make(chan struct{})}
	ways := []*way{
		{name: "polling", carry: nil},
		{name: "naive webhooks"},
		{name: "Longline callbacks", sound: true},
		{name: "Longline SDK", sound: true},
	}
	for _, w := range ways {
		w.api = crm.New()
		w.api.Scale = e.Scale
		w.run = e.more(w.name)
	}
	ways[0].carry = polling{c, channel, e.Scale}.to(ways[0].api)
	ways[1].carry = sender.to(ways[1].api)
	ways[1].settled = sender.settled
	if ways[2].carry, err = e.callbacks(ctx, c, base, channel, ways[2].api); err != nil {
		return err
	}
	if ways[3].carry, err = e.sdk(ctx, c, base, channel, ways[3].api); err != nil {
		return err
	}

	carrying, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, w := range ways {
		wg.Go(func() {
			if err := w.carry(carrying); err != nil && carrying.Err() == nil {
				w.run.Fail(err)
			}
		})
	}
	defer func() {
		stop()
		wg.Wait()
		for _, w := range ways {
			w.api.Wait()
		}
	}()

	began := measure.Now()
	limit := uint64(e.Case.Rate * e.Duration.Seconds())
	p, err := pump.Start(e.publisher(pump.Options{Base: base, Rate: e.Case.Rate, Limit: limit, Keys: contacts}))
	if err != nil {
		return err
	}
	defer p.Stop(0)
	sender.begin(began, limit)
	if err := e.watch(ctx, ways, began, limit); err != nil {
		return err
	}
	if err := p.Stop(patience); err != nil {
		return err
	}
	stop()
	wg.Wait()
	for _, w := range ways {
		w.conclude(limit)
	}
	if after, ok := e.usage(); ok && known {
		e.Run.Set("CPU", "cores", (after.CPU-rested.CPU).Seconds()/time.Duration(after.At-rested.At).Seconds())
		e.Run.Set("CPU per publish", "µs", micros(after.CPU-rested.CPU)/float64(limit))
		e.Run.Set("RSS", "MiB", float64(after.RSS)/(1<<20))
	}
	return nil
}

// watch samples all ways until the events are published and then until they
// are where they belong, or have had time enough.
func (e *Env) watch(ctx context.Context, ways []*way, began int64, limit uint64) error {
	every := time.Duration(float64(time.Second) * e.Scale)
	grace := time.Duration(float64(time.Minute) * e.Scale)
	period := 1e9 / e.Case.Rate
	for {
		if err := pause(ctx, every); err != nil {
			return err
		}
		at := time.Duration(measure.Now() - began)
		finished := at > e.Duration
		for _, w := range ways {
			st := w.api.Stats()
			waited := 0.0
			if st.Next <= limit {
				waited = max(at.Seconds()-float64(st.Next-1)*period/1e9, 0)
			}
			w.run.Add("oldest event waiting", "s", at, waited)
			w.run.Add("calls in flight", "calls", at, float64(st.InFlight))
			if st.Next <= limit && (w.settled == nil || !w.settled()) || st.InFlight > 0 {
				finished = false
			}
		}
		if finished || at > e.Duration+grace {
			return nil
		}
		e.Progress.Show(fmt.Sprintf("carrying, %d · %d · %d · %d", ways[0].api.Stats().Events, ways[1].api.Stats().Events,
			ways[2].api.Stats().Events, ways[3].api.Stats().Events), float64(at)/float64(e.Duration+grace/6))
	}
}

// conclude notes a way's figures. Polling and naive webhooks are shown for
// what they are; of Longline's own, loss and overrun are failures.
func (w *way) conclude(limit uint64) {
	st, lost := w.api.Stats(), w.api.Lost(limit)
	w.run.SetLatency("", w.api.Delay())
	w.run.Set("events", "", float64(st.Events))
	w.run.Set("lost", "", float64(lost))
	w.run.Set("twice", "", float64(st.Duplicated))
	w.run.Set("calls", "", float64(st.Calls))
	w.run.Set("rejected", "", float64(st.Rejected))
	w.run.Set("timed out", "", float64(st.TimedOut))
	w.run.Set("at once", "", float64(st.Peak))
	if !w.sound {
		return
	}
	w.run.Faults.Lost = uint64(lost)
	if st.Rejected > 0 {
		w.run.Fail(fmt.Errorf("the CRM refused %d calls", st.Rejected))
	}
}

// pageSize is how many events a poll asks for at once.
const pageSize = 1000

// polling is a job that the customer runs every ten seconds: fetch what is
// new, bring it to the CRM, four calls at a time.
type polling struct {
	c       *longline.Client
	channel string
	scale   float64
}

func (p polling) to(api *crm.API) func(context.Context) error {
	return func(ctx context.Context) error {
		since := "earliest"
		tick := time.NewTicker(time.Duration(float64(10*time.Second) * p.scale))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			for {
				var page struct {
					Events []json.RawMessage
					Cursor string
				}
				path := fmt.Sprintf("/v1/channels/%s/events?limit=%d&since=%s", p.channel, pageSize, since)
				if err := p.c.Do(ctx, http.MethodGet, path, nil, &page); err != nil {
					if errors.Is(err, longline.ErrNotFound) {
						break // nothing was published yet
					}
					return fmt.Errorf("poll: %w", err)
				}
				if page.Cursor != "" {
					since = page.Cursor
				}
				if err := bring(ctx, api, page.Events, 4); err != nil {
					return err
				}
				if len(page.Events) < pageSize {
					break // the rest is for the next time
				}
			}
		}
	}
}

// bring calls the CRM with batches of events, so many calls at once.
func bring(ctx context.Context, api *crm.API, events []json.RawMessage, atOnce int) error {
	var marks []probe.Mark
	for _, e := range events {
		if m, ok := probe.ReadMark(e); ok {
			marks = append(marks, m)
		}
	}
	slots := make(chan struct{}, atOnce)
	errs := make(chan error, len(marks)/batchSize+1)
	var wg sync.WaitGroup
	for len(marks) > 0 {
		n := min(batchSize, len(marks))
		batch := marks[:n]
		marks = marks[n:]
		slots <- struct{}{}
		wg.Go(func() {
			errs <- api.Call(ctx, batch)
			<-slots
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("bring polled events: %w", err)
		}
	}
	return nil
}

// webhooks has its own clock, that of the events.
type webhooks struct {
	every  time.Duration
	sender *crm.Webhooks
	ready  chan struct{} // closed when start and limit are known

	start int64
	limit uint64
	sent  atomic.Uint64
}

// begin lets it send; events are due from start on.
func (h *webhooks) begin(start int64, limit uint64) {
	h.start, h.limit = start, limit
	close(h.ready)
}

// settled says that every event was delivered or given up.
func (h *webhooks) settled() bool {
	return h.sent.Load() == h.limit && h.sender.Pending() == 0
}

func (h *webhooks) to(api *crm.API) func(context.Context) error {
	return func(ctx context.Context) error {
		s, err := crm.Serve(api.Handler())
		if err != nil {
			return err
		}
		defer s.Close()
		defer h.sender.Wait()
		select {
		case <-ctx.Done():
			return nil
		case <-h.ready:
		}
		for seq := uint64(1); seq <= h.limit; seq++ {
			due := h.start + int64(seq-1)*int64(h.every)
			if d := time.Duration(due - measure.Now()); d > 0 {
				if pause(ctx, d) != nil {
					break
				}
			}
			h.sender.Send(ctx, s.URL, probe.AppendEvent(nil, "", probe.Mark{Seq: seq, At: due}, 256), nil)
			h.sent.Add(1)
		}
		return nil
	}
}

// callbacks has the gateway call the CRM: batches, keys in order, no more
// than four calls at once.
func (e *Env) callbacks(ctx context.Context, c *longline.Client, base, channel string, api *crm.API) (func(context.Context) error, error) {
	s, err := crm.Serve(api.Handler())
	if err != nil {
		return nil, err
	}
	definition := map[string]any{
		"channels": []string{channel}, "start": "earliest", "window": 4096,
		"callback": map[string]any{
			"url": s.URL, "mode": "always", "order": "key", "concurrency": 4, "rate": 5 / e.Scale, "timeout": "30s",
			"batch": map[string]any{"max_events": batchSize, "max_wait": time.Duration(float64(time.Second) * e.Scale).String()},
		},
	}
	name := base + "-callback"
	if err := c.Do(ctx, http.MethodPut, "/v1/subscriptions/"+name, definition, nil); err != nil {
		s.Close()
		return nil, fmt.Errorf("create subscription: %w", err)
	}
	return func(ctx context.Context) error {
		<-ctx.Done()
		// Even now the gateway must not be left with a receiver that is gone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err := c.Do(ctx, http.MethodDelete, "/v1/subscriptions/"+name, nil, nil)
		s.Close()
		return err
	}, nil
}

// sdk is the customer's own integration on the Go SDK.
func (e *Env) sdk(ctx context.Context, c *longline.Client, base, channel string, api *crm.API) (func(context.Context) error, error) {
	name := base + "-sdk"
	definition := map[string]any{"channels": []string{channel}, "start": "earliest", "window": 4096}
	if err := c.Do(ctx, http.MethodPut, "/v1/subscriptions/"+name, definition, nil); err != nil {
		return nil, fmt.Errorf("create subscription: %w", err)
	}
	line, err := c.Attach(name, longline.SubscriptionOptions{
		BatchSize: batchSize, Concurrency: 6, BatchWait: time.Duration(float64(200*time.Millisecond) * e.Scale),
		BatchHandler: func(ctx context.Context, events []longline.Event) error {
			marks := make([]probe.Mark, 0, len(events))
			for _, ev := range events {
				m, ok := probe.ReadMark(ev.Data)
				if !ok {
					return fmt.Errorf("event %s without its marks", ev.ID)
				}
				marks = append(marks, m)
			}
			return api.Call(ctx, marks)
		},
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		err := line.Run(ctx)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return errors.Join(err, c.Do(ctx, http.MethodDelete, "/v1/subscriptions/"+name, nil, nil))
	}, nil
}
