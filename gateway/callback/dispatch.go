package callback

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/shape"
	"github.com/longline-push/longline/gateway/webhook"
)

// DispatcherOptions of NewDispatcher; all but Filters and Logger are required.
type DispatcherOptions struct {
	Manager  *durable.Manager
	Schedule broker.Schedule
	Feeds    *feed.Feeds
	Engine   *Engine
	// Private returns what of a callback is kept sealed.
	Private func(s durable.State) (Private, error)
	// Filters compiles what subscriptions take; nil: not shared with sessions.
	Filters *cursor.Filters
	Logger  *slog.Logger // nil: none
}

// Private is what of a callback is kept sealed.
type Private struct {
	Secrets []webhook.Secret // the newest first
	Headers map[string]string
	Auth    *shape.Auth // nil: none
}

// Dispatcher claims subscriptions whose callback is due, as long as the node
// has room, and hands them to the engine. Run must run for it to do so.
type Dispatcher struct {
	o          DispatcherOptions
	pace       *rate.Limiter
	mu         sync.Mutex
	deliveries map[*delivery]struct{}
}

// How subscriptions are claimed: in small batches, at a pace that spreads what
// becomes due at once, and hidden from others while that takes.
const (
	claimBatch  = 32
	claimPace   = 1000 // a second
	claimHide   = 5 * time.Second
	claimAtOnce = 8
	lookEvery   = time.Second
)

// NewDispatcher returns a dispatcher.
func NewDispatcher(o DispatcherOptions) *Dispatcher {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Filters == nil {
		o.Filters = new(cursor.Filters)
	}
	return &Dispatcher{o: o, pace: rate.NewLimiter(claimPace, 4*claimBatch), deliveries: map[*delivery]struct{}{}}
}

// Run claims what becomes due until ctx ends. What was claimed is delivered
// until Engine.Close.
func (d *Dispatcher) Run(ctx context.Context) {
	hints := hints{told: make(chan struct{}, 1)}
	stop := d.o.Schedule.OnDue(hints.add)
	defer stop()
	var notes sync.WaitGroup
	defer notes.Wait()
	notes.Go(func() { d.keepNotes(ctx) })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var parts []int // all of them
		select {
		case <-ctx.Done():
			return
		case <-hints.told:
			if parts = hints.take(); len(parts) == 0 {
				continue
			}
		case <-tick.C:
		}
		if err := d.claim(ctx, parts); err != nil && ctx.Err() == nil {
			d.o.Logger.Debug("claim due callbacks", "error", err)
		}
	}
}

// hints are the parts of the schedule in which something became due. What is
// told while they are being looked at waits, once each.
type hints struct {
	told chan struct{}

	mu    sync.Mutex
	parts []int
}

func (h *hints) add(part int) {
	h.mu.Lock()
	if !slices.Contains(h.parts, part) {
		h.parts = append(h.parts, part)
	}
	h.mu.Unlock()
	select {
	case h.told <- struct{}{}:
	default:
	}
}

func (h *hints) take() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	parts := h.parts
	h.parts = nil
	return parts
}

// claim claims all that is due in these parts of the schedule, nil for all, and
// that there is room for. What there is no room for is found a second later.
func (d *Dispatcher) claim(ctx context.Context, parts []int) error {
	for {
		n := min(d.o.Engine.Room(), claimBatch)
		if n == 0 || d.o.Manager.Quiet() {
			return nil
		}
		tickets, left, err := d.o.Schedule.Due(ctx, parts, n, claimHide)
		if err != nil {
			return err
		}
		if err := d.pace.WaitN(ctx, len(tickets)); err != nil {
			return err
		}
		served := make([]broker.Ticket, len(tickets))
		var group errgroup.Group
		group.SetLimit(claimAtOnce)
		for i, t := range tickets {
			group.Go(func() (err error) {
				defer d.o.Engine.opt.Guard.Contain("claim", nil) // it is due again before long
				ok, err := d.serve(ctx, t.Name)
				if ok {
					served[i] = t
				}
				return err
			})
		}
		err = group.Wait()
		served = slices.DeleteFunc(served, func(t broker.Ticket) bool { return t.Name == "" })
		if len(served) > 0 {
			if err := d.o.Schedule.Done(ctx, served); err != nil {
				return err
			}
		}
		if err != nil || len(left) == 0 {
			return err
		}
		parts = left
	}
}

// serve sees to one subscription that is due, and tells whether that is done.
func (d *Dispatcher) serve(ctx context.Context, name string) (served bool, err error) {
	var p *delivery
	h, served, err := d.o.Manager.Due(ctx, name, func(s durable.State) durable.Holder {
		p = &delivery{d: d, name: name, started: !s.Parked}
		return p
	})
	if h != nil && !d.o.Engine.opt.Guard.Do("claim", func() { p.begin(ctx, h) }) {
		h.Release(nil, brokenPause)
	}
	return served, err
}

// keepNotes keeps for other nodes what the callbacks of this one are doing:
// soon where there is trouble, seldom where all is well.
func (d *Dispatcher) keepNotes(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.mu.Lock()
		deliveries := make([]*delivery, 0, len(d.deliveries))
		for p := range d.deliveries {
			deliveries = append(deliveries, p)
		}
		d.mu.Unlock()
		for _, p := range deliveries {
			if ctx.Err() == nil {
				d.o.Engine.opt.Guard.Do("note", func() { p.noteIfDue(ctx, time.Now()) })
			}
		}
	}
}

func (d *Dispatcher) add(p *delivery, there bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if there {
		d.deliveries[p] = struct{}{}
	} else {
		delete(d.deliveries, p)
	}
}
