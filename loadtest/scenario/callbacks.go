package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	longline "github.com/longline-push/longline/client/go"
	"github.com/longline-push/longline/loadtest/crm"
	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/token"
)

const (
	allFast = "all fast"
	mixed   = "a third slow, a third dead"
)

// callbacks asks whether receivers that are slow or dead cost the fast ones.
var callbacks = Scenario{
	Name:       "callbacks",
	Brief:      "subscriptions that nobody holds, delivered by callback; with slow and dead receivers among them, in turns with fast ones alone: latency of the fast, loss, order",
	Defaults:   Options{Connections: 300, Rate: 500, Publishers: []int{16}, Duration: 15 * time.Second, Warmup: 2 * time.Second},
	Interleave: true,
	Cases: func(o Options) []Case {
		var cases []Case
		for _, v := range []string{allFast, mixed} {
			cases = append(cases, Case{
				Name: fmt.Sprintf("%d subscriptions, %s", o.Connections, v), Variant: v,
				Connections: o.Connections, Rate: o.Rate, Publishers: o.Publishers[0],
			})
		}
		return cases
	},
	Run:   runCallbacks,
	Judge: against(allFast),
}

// receivers take the callbacks of all subscriptions; the path says whose.
type receivers struct {
	slow time.Duration

	mu        sync.Mutex
	books     []ledger.Ledger
	first     int // subscriptions up to which the fast are measured
	latency   *measure.Histogram
	calls     int
	delivered uint64
	announced int // calls that said they may be redeliveries
}

func (r *receivers) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	kind, number := path.Split(strings.TrimPrefix(req.URL.Path, "/"))
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 || i >= len(r.books) {
		http.Error(w, "no such receiver", http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, 16<<20))
	if err != nil {
		return
	}
	switch kind {
	case "dead/":
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	case "slow/":
		if pause(req.Context(), r.slow) != nil {
			return
		}
	}
	marks, err := crm.Marks(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	now := measure.Now()
	again := req.Header.Get("Longline-Redelivery") == "true" || (req.Header.Get("Longline-Attempt") != "" && req.Header.Get("Longline-Attempt") != "1")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if again {
		r.announced++
	}
	for _, m := range marks {
		if again && m.Seq < r.books[i].Next() {
			continue // announced
		}
		if r.books[i].See(m.Seq, 0) {
			r.delivered++
		}
		if i < r.first {
			r.latency.Record(time.Duration(now - m.At))
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// kindOf says what the i-th receiver is like.
func kindOf(variant string, i, n int) string {
	switch {
	case variant == allFast || i < n/3:
		return "fast"
	case i < 2*(n/3):
		return "slow"
	default:
		return "dead"
	}
}

func runCallbacks(ctx context.Context, e *Env) error {
	base, n := newBase(), e.Case.Connections
	r := &receivers{slow: 2 * time.Second, books: make([]ledger.Ledger, n), first: max(n/3, 1), latency: measure.NewHistogram()}
	for i := range r.books {
		r.books[i] = ledger.From(1)
	}
	s, err := crm.Serve(r)
	if err != nil {
		return err
	}
	defer s.Close()
	t, err := e.Target.Tokens.For("loadtest-callbacks", token.Grant{Subscribe: []string{base + ".**"}, Subscriptions: []string{base + "-*"}})
	if err != nil {
		return err
	}
	c, err := longline.New("http://"+e.Target.Addr, longline.Options{Token: t})
	if err != nil {
		return err
	}
	name := func(i int) string { return fmt.Sprintf("/v1/subscriptions/%s-%d", base, i) }
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		_ = each(n, func(i int) error { return c.Do(ctx, http.MethodDelete, name(i), nil, nil) }) // a courtesy
	}()
	err = each(n, func(i int) error {
		kind := kindOf(e.Case.Variant, i, n)
		e.Progress.Show("creating subscriptions", float64(i)/float64(n))
		return c.Do(ctx, http.MethodPut, name(i), map[string]any{
			"channels": []string{base + "." + strconv.Itoa(i)}, "start": "earliest",
			"callback": map[string]any{
				"url": fmt.Sprintf("%s/%s/%d", s.URL, kind, i), "mode": "always", "timeout": "10s",
				"batch": map[string]any{"max_events": 100},
			},
		}, nil)
	})
	if err != nil {
		return fmt.Errorf("create subscriptions: %w", err)
	}
	p, err := pump.Start(e.publisher(pump.Options{Base: base, Channels: n, Conns: min(e.Case.Publishers, n), Rate: e.Case.Rate}))
	if err != nil {
		return err
	}
	defer p.Stop(0)
	e.Progress.Show("warming up", 0)
	if err := pause(ctx, e.Warmup); err != nil {
		return err
	}
	r.mu.Lock()
	r.latency.Reset()
	calls, delivered := r.calls, r.delivered
	r.mu.Unlock()
	before, known := e.usage()
	began := time.Now()
	for time.Since(began) < e.Duration {
		if err := pause(ctx, min(e.Duration/40+time.Millisecond, time.Second)); err != nil {
			return err
		}
		if err := p.Err(); err != nil {
			return err
		}
		r.mu.Lock()
		e.Run.Add("delivered", "events", time.Since(began), float64(r.delivered-delivered))
		e.Progress.Show(fmt.Sprintf("calling back, %d delivered", r.delivered), float64(time.Since(began))/float64(e.Duration))
		r.mu.Unlock()
	}
	took := time.Since(began)
	after, _ := e.usage()
	r.mu.Lock()
	e.Run.Set("calls/s", "", float64(r.calls-calls)/took.Seconds())
	e.Run.Set("deliveries/s", "", float64(r.delivered-delivered)/took.Seconds())
	if known {
		e.Run.Set("CPU per delivery", "µs", micros(after.CPU-before.CPU)/max(float64(r.delivered-delivered), 1))
		e.Run.Set("RSS", "MiB", float64(after.RSS)/(1<<20))
	}
	r.mu.Unlock()
	if err := p.Stop(patience); err != nil {
		return err
	}
	return e.settleCallbacks(ctx, r, p.Heads())
}

// settleCallbacks waits for what is under way to the living and closes their
// ledgers.
func (e *Env) settleCallbacks(ctx context.Context, r *receivers, heads []uint64) error {
	pending := func() (n uint64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i := range r.books {
			if kindOf(e.Case.Variant, i, len(r.books)) != "dead" {
				n += r.books[i].Pending(heads[i])
			}
		}
		return n
	}
	last, since := pending(), time.Now()
	for left := last; left > 0 && time.Since(since) < patience; left = pending() {
		if left < last {
			last, since = left, time.Now()
		}
		e.Progress.Show(fmt.Sprintf("waiting for %d events", left), 1)
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.books {
		if kindOf(e.Case.Variant, i, len(r.books)) != "dead" {
			e.Run.Faults.Add(r.books[i].Close(heads[i]))
		} else if r.books[i].Next() != 1 {
			e.Run.Fail(errors.New("a receiver that never answered 2xx took events"))
		}
	}
	e.Run.SetLatency("", r.latency)
	e.Run.Set("announced redeliveries", "", float64(r.announced))
	return nil
}

// each calls f for 0 to n-1, some at a time, and returns the first error.
func each(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make(chan error, n)
	slots := make(chan struct{}, 16)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			errs <- f(i)
			<-slots
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
