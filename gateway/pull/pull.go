// Package pull serves durable subscriptions to those who can hold no
// connection and take no callback: they ask for events, and acknowledge them
// with the next question.
package pull

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/guard"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// Options of New; all are required.
type Options struct {
	Log     broker.Log
	Hub     *session.Hub
	Manager *durable.Manager
	Guard   *guard.Guard // notes panics; may be nil
}

// Puller answers pulls. Between two of them it holds the subscription for the
// one who pulls.
type Puller struct {
	o        Options
	draining chan struct{} // closed when nobody is to wait any more

	mu     sync.Mutex
	leases map[string]*pullLease // by subscription
	closed bool
	drain  sync.Once
	timers sync.WaitGroup // of leases that wait for their next pull
}

// New makes a Puller.
func New(o Options) *Puller {
	return &Puller{o: o, draining: make(chan struct{}), leases: make(map[string]*pullLease)}
}

// Drain ends the pulls that wait, with what there is, and lets no other wait:
// the node is about to shut down. Who pulls next does so by a new connection,
// which may lead to another node.
func (p *Puller) Drain() { p.drain.Do(func() { close(p.draining) }) }

// Close releases what is held. No pull may be under way.
func (p *Puller) Close() {
	p.mu.Lock()
	p.closed = true
	all := p.leases
	p.leases = nil
	p.mu.Unlock()
	for _, l := range all {
		l.leave()
	}
	p.timers.Wait()
}

// EndWhere ends what is held for those whose grant is meant, pulls that wait
// included.
func (p *Puller) EndWhere(meant func(*auth.Grant) bool) {
	p.mu.Lock()
	all := make([]*pullLease, 0, len(p.leases))
	for _, l := range p.leases {
		all = append(all, l)
	}
	p.mu.Unlock()
	for _, l := range all {
		l.mu.Lock()
		g := l.grant
		l.mu.Unlock()
		if meant(g) {
			l.leave()
		}
	}
}

// What a pull may ask for.
const (
	defaultMax  = 100
	maxMax      = 1000
	defaultWait = 0
	maxWait     = 50 * time.Second // the server's write time-out is more
	defaultHold = 30 * time.Second
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
	l, err := p.attach(r.Context(), g, q)
	if err != nil {
		return err
	}
	// Asked once EndWhere finds the lease, and again when it has waited, no
	// revocation slips through.
	var out answer
	if err = p.o.Hub.Holds(g); err == nil {
		out, err = l.pull(r.Context(), q)
		if revoked := p.o.Hub.Holds(g); revoked != nil {
			err = revoked
		}
	}
	if err != nil || !out.held(q) {
		l.leave()
		if err == nil && q.hold == 0 {
			p.released(r.Context(), l)
		}
	} else {
		l.hold(q.hold)
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	select {
	case <-p.draining:
		h.Set("Connection", "close")
		h.Set("Retry-After", "1")
	default:
	}
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
		err = p.o.Manager.Ack(ctx, s, q.ack, to, "")
		if errors.Is(err, durable.ErrGroup) {
			return wire.Conflict("subscription %q is shared by a group: it is acknowledged on the connections of its members", q.name)
		}
		if !errors.Is(err, broker.ErrFenced) {
			break
		}
		if s, err = p.o.Hub.Subscription(ctx, g, q.name); err != nil {
			return err
		}
	}
	p.mu.Lock()
	l := p.leases[q.name]
	p.mu.Unlock()
	if l != nil {
		return l.ackedAgain(ctx, q.ack)
	}
	return nil
}

// attach returns the lease of this consumer, which owns the subscription.
func (p *Puller) attach(ctx context.Context, g *auth.Grant, q request) (*pullLease, error) {
	p.mu.Lock()
	l := p.leases[q.name]
	p.mu.Unlock()
	if l != nil && l.consumer == q.consumer && l.enter(g) {
		return l, nil
	}
	l = &pullLease{p: p, name: q.name, consumer: q.consumer, wake: make(chan struct{}, 1), over: make(chan struct{}), grant: g, busy: true}
	h, err := p.o.Manager.Acquire(ctx, q.name, durable.Claim{Consumer: q.consumer, Kind: durable.Pull, Transport: "pull"}, l)
	switch {
	case errors.Is(err, durable.ErrHeld):
		return nil, p.held(ctx, q.name)
	case errors.Is(err, durable.ErrGroup):
		return nil, wire.Conflict("subscription %q is shared by a group, whose members attach by WebSocket or SSE", q.name)
	case errors.Is(err, durable.ErrAlways):
		return nil, wire.Conflict("subscription %q delivers by callback always (mode \"always\"); nobody can attach to it", q.name)
	case err != nil:
		return nil, err
	}
	if err := l.begin(ctx, h); err != nil {
		l.leave()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		go l.contained(l.leave)
		return nil, wire.Unavailable(time.Second, "the node is shutting down")
	}
	p.leases[q.name] = l
	return l, nil
}

// held tells who stands by behind whom, and until when at most if that one
// pulls at this node.
func (p *Puller) held(ctx context.Context, name string) error {
	by := "another consumer"
	if s, err := p.o.Manager.Load(ctx, name); err == nil && s.Owner != nil {
		by = fmt.Sprintf("consumer %q (%s)", s.Owner.Consumer, s.Owner.Transport)
	}
	until := ""
	p.mu.Lock()
	if l := p.leases[name]; l != nil {
		until = l.until()
	}
	p.mu.Unlock()
	e := wire.Conflict("subscription %q is %s's%s", name, by, until)
	e.RetryAfter = 2 * time.Second
	return e
}

// ServeRelease answers DELETE /v1/subscriptions/{name}/events: what a pull
// holds is given up at once, on whatever node. Held by somebody who doesn't
// pull, or by another consumer, it stays: 409.
func (p *Puller) ServeRelease(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	q, err := parse(r.URL.Query(), r.PathValue("name"), g)
	if err != nil {
		return err
	}
	state, err := p.o.Hub.Subscription(r.Context(), g, q.name)
	if err != nil {
		return err
	}
	if o := state.Owner; o != nil && o.Kind != durable.Call {
		if o.Kind != durable.Pull || o.Consumer != q.consumer {
			return p.held(r.Context(), q.name)
		}
		// Whoever holds it, here or elsewhere, is this consumer: attaching takes
		// it over, and leaving gives it up for everybody.
		l, err := p.attach(r.Context(), g, q)
		if err != nil {
			return err
		}
		l.leave()
		p.released(r.Context(), l)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// released waits until a lease that was left is nobody's in the broker too,
// so that who was answered finds it so. A release is stored soon; where it
// isn't, it still will be.
func (p *Puller) released(ctx context.Context, l *pullLease) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for {
		s, err := p.o.Manager.Load(ctx, l.name)
		if err != nil || s.Owner == nil || s.Generation != l.ownership.Generation {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// pullLease is somebody who pulls, as the owner of a subscription.
type pullLease struct {
	p              *Puller
	name, consumer string
	wake           chan struct{} // there may be more to read
	over           chan struct{} // closed when the ownership is gone

	// static after begin
	ownership *durable.Ownership
	readers   []cursor.Reader // one a channel; a pull reads by copies of them

	mu      sync.Mutex
	grant   *auth.Grant // of the last pull
	state   durable.State
	at      event.Position // acknowledged, and what was left out behind that
	given   event.Position // up to here events were given, by this lease or before it
	gaps    event.Position // the ends of those that were told of
	again   []durable.Redriven
	told    int            // of again: how many were given
	toldAt  event.Position // the position of the answer that gave them
	busy    bool
	ended   bool
	expires *time.Timer
	ends    time.Time // when expires fires
	keep    time.Duration
}

var (
	_ durable.Holder    = (*pullLease)(nil)
	_ durable.Deliverer = (*pullLease)(nil)
	_ feed.Member       = (*pullLease)(nil)
)

func (l *pullLease) begin(ctx context.Context, h *durable.Ownership) error {
	def := h.State.Definition
	l.mu.Lock()
	l.ownership = h
	l.mu.Unlock()
	filter, err := l.p.o.Hub.Filters().Get(def.Selection())
	if err != nil {
		return err
	}
	at, given := slices.Clone(h.Position), event.Position(nil)
	for _, channel := range def.Channels {
		r, _, err := cursor.Open(ctx, l.p.o.Hub.Feeds(), channel, filter, cursor.Since{}, nil)
		if err != nil {
			return err
		}
		r.Join(l)
		l.readers = append(l.readers, r)
		c, ok := at.Of(channel)
		if !ok {
			c = r.Cursor()
			at = append(at, c)
		}
		from := r.From(c)
		upTo, any, err := from.Redelivered(ctx, h.Handed, h.Doubt, def.Window)
		if err != nil {
			return err
		}
		if any {
			given = append(given, upTo)
		}
	}
	h.Announced(given)
	l.mu.Lock()
	l.state, l.at, l.given = h.State, at, given
	l.mu.Unlock()
	if h.State.Redriving > 0 {
		l.again, err = h.LettersAgain(ctx)
	}
	return err
}

// enter takes the lease for a pull, unless one is under way or it has ended.
func (l *pullLease) enter(g *auth.Grant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy || l.ended {
		return false
	}
	l.busy, l.grant = true, g
	l.stopLocked()
	return true
}

// hold keeps the subscription for the next pull.
func (l *pullLease) hold(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy, l.keep = false, d
	if !l.ended {
		l.p.timers.Add(1)
		l.ends = time.Now().Add(d)
		l.expires = time.AfterFunc(d, func() { defer l.p.timers.Done(); l.contained(l.leave) })
	}
}

func (l *pullLease) stopLocked() {
	if l.expires != nil && l.expires.Stop() {
		l.p.timers.Done()
	}
	l.expires = nil
}

// until says when the hold ends unless there is another pull or ack.
func (l *pullLease) until() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.expires == nil {
		return ""
	}
	return fmt.Sprintf(", until %s at most unless that one pulls or acknowledges again", l.ends.UTC().Format(time.RFC3339))
}

// leave gives the subscription up.
func (l *pullLease) leave() {
	if !l.finish() {
		return
	}
	l.mu.Lock()
	h, given := l.ownership, l.given
	l.mu.Unlock()
	if h != nil {
		h.Release(given, 0)
	}
}

// finish lets go of everything but the ownership; false if that was done.
func (l *pullLease) finish() bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.ended = true
	close(l.over)
	l.stopLocked()
	readers := l.readers
	l.mu.Unlock()
	for i := range readers {
		readers[i].Leave(l)
		readers[i].Close()
	}
	l.p.mu.Lock()
	if l.p.leases[l.name] == l {
		delete(l.p.leases, l.name)
	}
	l.p.mu.Unlock()
	return true
}

// Mark implements feed.Member: a pull waits by itself.
func (l *pullLease) Mark() bool {
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return false
}

// Ended implements durable.Holder.
func (l *pullLease) Ended(wire.CloseCode, string) { go l.finish() }

// Delivered implements durable.Deliverer.
func (l *pullLease) Delivered() event.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.given
}

// Suspended implements durable.Holder.
func (l *pullLease) Suspended() { go l.finish() }

// Yield implements durable.Holder: whoever pulls yields to nobody.
func (l *pullLease) Yield() {}

// Changed implements durable.Holder.
func (l *pullLease) Changed(s durable.State) {
	l.mu.Lock()
	l.state.Record = s.Record
	l.mu.Unlock()
	l.Mark()
}

// Acked implements durable.Holder. An acknowledgement renews the hold.
func (l *pullLease) Acked(p event.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved := false
	for _, c := range p {
		i := slices.IndexFunc(l.at, func(at event.Cursor) bool { return at.Channel == c.Channel })
		if i >= 0 && (l.at[i].Epoch != c.Epoch || l.at[i].Offset < c.Offset) {
			l.at[i], moved = c, true
		}
	}
	if moved && !l.busy && !l.ended && l.expires != nil && l.expires.Stop() {
		l.ends = time.Now().Add(l.keep)
		l.expires.Reset(l.keep)
	}
}

// Redrive implements durable.Holder: the next pull finds them.
func (l *pullLease) Redrive() {
	go l.contained(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		letters, err := l.ownership.LettersAgain(ctx)
		if err != nil {
			return
		}
		l.mu.Lock()
		l.again, l.told = letters, 0
		l.mu.Unlock()
		l.Mark()
	})
}

// contained is what a goroutine or a timer of the lease's own runs.
func (l *pullLease) contained(f func()) { l.p.o.Guard.Do("pull", f) }

// ackedAgain removes those of the dead letters given with the last pull that an
// acknowledgement covers: it is of their own cursor, or of the position that
// they came with, or a later one. Whoever acknowledges less than that may not
// have them yet.
func (l *pullLease) ackedAgain(ctx context.Context, acked event.Position) error {
	l.mu.Lock()
	var cursors []string
	for _, letter := range l.again[:l.told] {
		if l.coversLocked(acked, letter) {
			cursors = append(cursors, letter.Cursor)
		}
	}
	h := l.ownership
	l.mu.Unlock()
	if len(cursors) == 0 {
		return nil
	}
	if err := h.Remove(ctx, cursors); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := func(r durable.Redriven) bool { return slices.Contains(cursors, r.Cursor) }
	l.again, l.told = slices.DeleteFunc(slices.Clone(l.again), gone), max(0, l.told-len(cursors))
	return nil
}

func (l *pullLease) coversLocked(acked event.Position, letter durable.Redriven) bool {
	own, err := event.ParseCursor(letter.Cursor)
	if err != nil {
		return true // nobody could ever name it
	}
	c, ok := acked.Of(own.Channel)
	at, told := l.toldAt.Of(own.Channel)
	return ok && (c == own || told && c.Epoch == at.Epoch && c.Offset >= at.Offset)
}
