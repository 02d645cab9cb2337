// Package pull serves durable subscriptions to those who can hold no
// connection and take no callback: they ask for events, and acknowledge them
// with the next question.
package pull

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// Options of New; all are required.
type Options struct {
	Log     broker.Log
	Hub     *session.Hub
	Manager *durable.Manager
}

// Puller answers pulls. Between two of them it holds the subscription for the
// one who pulls.
type Puller struct {
	o Options

	mu     sync.Mutex
	visits map[string]*visit // by subscription
	closed bool
	timers sync.WaitGroup // of visits that wait for their next pull
}

// New makes a Puller.
func New(o Options) *Puller { return &Puller{o: o, visits: make(map[string]*visit)} }

// Close releases what is held. No pull may be under way.
func (p *Puller) Close() {
	p.mu.Lock()
	p.closed = true
	all := p.visits
	p.visits = nil
	p.mu.Unlock()
	for _, v := range all {
		v.leave()
	}
	p.timers.Wait()
}

// What a pull may ask for.
const (
	defaultMax  = 100
	maxMax      = 1000
	defaultWait = 0
	maxWait     = 50 * time.Second // the server's write time-out is more
	defaultHold = 5 * time.Minute
	maxHold     = time.Hour
	maxBytes    = 4 << 20
)

// request is what a pull asks for.
type request struct {
	name, consumer string
	max            int
	wait, hold     time.Duration
	ack            event.Position
}

func parse(q url.Values, name string, g *auth.Grant) (request, error) {
	r := request{name: name, consumer: q.Get("consumer"), max: defaultMax, wait: defaultWait, hold: defaultHold}
	if r.consumer == "" {
		r.consumer = g.Subject
	}
	if len(r.consumer) > durable.MaxName {
		return r, wire.BadRequest("consumer has %d bytes; want %d at most", len(r.consumer), durable.MaxName)
	}
	var err error
	if text := q.Get("max"); text != "" {
		if r.max, err = strconv.Atoi(text); err != nil || r.max < 1 || r.max > maxMax {
			return r, wire.BadRequest("max is %.40q; want a number from 1 to %d", text, maxMax)
		}
	}
	for _, d := range []struct {
		field string
		into  *time.Duration
		most  time.Duration
	}{{"wait", &r.wait, maxWait}, {"hold", &r.hold, maxHold}} {
		if text := q.Get(d.field); text != "" {
			if *d.into, err = time.ParseDuration(text); err != nil || *d.into < 0 || *d.into > d.most {
				return r, wire.BadRequest("%s is %.40q; want a time from 0s to %v", d.field, text, d.most)
			}
		}
	}
	if r.ack, err = event.ParsePosition(q.Get("ack")); err != nil {
		return r, wire.BadRequest("ack: %v", err)
	}
	return r, nil
}

// ServePull answers GET /v1/subscriptions/{name}/events.
func (p *Puller) ServePull(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	q, err := parse(r.URL.Query(), r.PathValue("name"), g)
	if err != nil {
		return err
	}
	state, err := p.o.Hub.Subscription(r.Context(), g, q.name)
	if err != nil {
		return err
	}
	if len(q.ack) > 0 {
		if err := p.ack(r.Context(), g, state, q); err != nil {
			return err
		}
	}
	v, err := p.attach(r.Context(), q)
	if err != nil {
		return err
	}
	out, err := v.pull(r.Context(), q)
	if err != nil || out.count == 0 {
		v.leave()
	} else {
		v.hold(q.hold)
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(out.bytes)
	return nil
}

// ack takes the acknowledgement that came with a pull.
func (p *Puller) ack(ctx context.Context, g *auth.Grant, s durable.State, q request) error {
	for {
		to, err := s.Located(ctx, p.o.Log, q.ack)
		if err != nil {
			return err
		}
		err = p.o.Manager.Ack(ctx, s, to, "")
		if !errors.Is(err, broker.ErrFenced) {
			break
		}
		if s, err = p.o.Hub.Subscription(ctx, g, q.name); err != nil {
			return err
		}
	}
	p.mu.Lock()
	v := p.visits[q.name]
	p.mu.Unlock()
	if v != nil {
		return v.ackedAgain(ctx)
	}
	return nil
}

// attach returns the visit of this consumer, which owns the subscription.
func (p *Puller) attach(ctx context.Context, q request) (*visit, error) {
	p.mu.Lock()
	v := p.visits[q.name]
	p.mu.Unlock()
	if v != nil && v.consumer == q.consumer && v.enter() {
		return v, nil
	}
	v = &visit{p: p, name: q.name, consumer: q.consumer, wake: make(chan struct{}, 1), over: make(chan struct{}), busy: true}
	h, err := p.o.Manager.Acquire(ctx, q.name, durable.Claim{Consumer: q.consumer, Kind: durable.Pull, Transport: "pull"}, v)
	switch {
	case errors.Is(err, durable.ErrHeld):
		e := wire.Conflict("another consumer is attached to subscription %q", q.name)
		e.RetryAfter = 2 * time.Second
		return nil, e
	case errors.Is(err, durable.ErrAlways):
		return nil, wire.Conflict("subscription %q delivers by callback always (mode \"always\"); nobody can attach to it", q.name)
	case err != nil:
		return nil, err
	}
	if err := v.begin(ctx, h); err != nil {
		v.leave()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		go v.leave()
		return nil, wire.Unavailable(time.Second, "the node is shutting down")
	}
	p.visits[q.name] = v
	return v, nil
}

// visit is somebody who pulls, as the owner of a subscription.
type visit struct {
	p              *Puller
	name, consumer string
	wake           chan struct{} // there may be more to read
	over           chan struct{} // closed when the ownership is gone

	// static after begin
	ownership *durable.Ownership
	filter    *session.Filter
	feeds     []*feed.Feed

	mu      sync.Mutex
	state   durable.State
	at      event.Position // acknowledged, and what was left out behind that
	given   event.Position // up to here events were given
	again   []durable.Redriven
	told    int // of again: how many were given
	busy    bool
	ended   bool
	expires *time.Timer
	keep    time.Duration
}

var (
	_ durable.Holder = (*visit)(nil)
	_ feed.Member    = (*visit)(nil)
)

func (v *visit) begin(ctx context.Context, h *durable.Ownership) error {
	def := h.State.Definition
	v.mu.Lock()
	v.ownership, v.state, v.at = h, h.State, slices.Clone(h.Position)
	v.mu.Unlock()
	var err error
	if v.filter, err = v.p.o.Hub.FilterOf(def.Types); err != nil {
		return err
	}
	for _, channel := range def.Channels {
		f, err := v.p.o.Hub.Feeds().Open(ctx, channel)
		if err != nil {
			return err
		}
		f.Join(v)
		v.feeds = append(v.feeds, f)
	}
	if h.State.Redriving > 0 {
		v.again, err = h.LettersAgain(ctx)
	}
	return err
}

// enter takes the visit for a pull, unless one is under way or it has ended.
func (v *visit) enter() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.busy || v.ended {
		return false
	}
	v.busy = true
	v.stopLocked()
	return true
}

// hold keeps the subscription for the next pull.
func (v *visit) hold(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.busy, v.keep = false, d
	if !v.ended {
		v.p.timers.Add(1)
		v.expires = time.AfterFunc(d, func() { defer v.p.timers.Done(); v.leave() })
	}
}

func (v *visit) stopLocked() {
	if v.expires != nil && v.expires.Stop() {
		v.p.timers.Done()
	}
	v.expires = nil
}

// leave gives the subscription up.
func (v *visit) leave() {
	if !v.finish() {
		return
	}
	v.mu.Lock()
	h, given := v.ownership, v.given
	v.mu.Unlock()
	if h != nil {
		h.Release(given, 0)
	}
}

// finish lets go of everything but the ownership; false if that was done.
func (v *visit) finish() bool {
	v.mu.Lock()
	if v.ended {
		v.mu.Unlock()
		return false
	}
	v.ended = true
	close(v.over)
	v.stopLocked()
	feeds := v.feeds
	v.mu.Unlock()
	for _, f := range feeds {
		f.Leave(v)
		f.Release()
	}
	v.p.mu.Lock()
	if v.p.visits[v.name] == v {
		delete(v.p.visits, v.name)
	}
	v.p.mu.Unlock()
	return true
}

// Mark implements feed.Member: a pull waits by itself.
func (v *visit) Mark() bool {
	select {
	case v.wake <- struct{}{}:
	default:
	}
	return false
}

// Ended implements durable.Holder.
func (v *visit) Ended(wire.CloseCode, string) { go v.finish() }

// Suspended implements durable.Holder.
func (v *visit) Suspended() { go v.finish() }

// Yield implements durable.Holder: whoever pulls yields to nobody.
func (v *visit) Yield() {}

// Changed implements durable.Holder.
func (v *visit) Changed(s durable.State) {
	v.mu.Lock()
	v.state.Record = s.Record
	v.mu.Unlock()
	v.Mark()
}

// Acked implements durable.Holder. An acknowledgement renews the hold.
func (v *visit) Acked(p event.Position) {
	v.mu.Lock()
	defer v.mu.Unlock()
	moved := false
	for _, c := range p {
		i := slices.IndexFunc(v.at, func(at event.Cursor) bool { return at.Channel == c.Channel })
		if i >= 0 && (v.at[i].Epoch != c.Epoch || v.at[i].Offset < c.Offset) {
			v.at[i], moved = c, true
		}
	}
	if moved && !v.busy && !v.ended && v.expires != nil && v.expires.Stop() {
		v.expires.Reset(v.keep)
	}
}

// Redrive implements durable.Holder: the next pull finds them.
func (v *visit) Redrive() {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		letters, err := v.ownership.LettersAgain(ctx)
		if err != nil {
			return
		}
		v.mu.Lock()
		v.again, v.told = letters, 0
		v.mu.Unlock()
		v.Mark()
	}()
}

// ackedAgain removes the dead letters that were given with the last pull.
func (v *visit) ackedAgain(ctx context.Context) error {
	v.mu.Lock()
	var ids []string
	for _, l := range v.again[:v.told] {
		ids = append(ids, l.ID)
	}
	h := v.ownership
	v.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	if err := h.Remove(ctx, ids); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.again, v.told = v.again[min(len(ids), len(v.again)):], 0
	return nil
}
