package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// lease is somebody who pulls: the owner of a subscription, or a member of its
// group.
type lease struct {
	p              *Puller
	name, consumer string
	wake           chan struct{} // there may be more to read
	over           chan struct{} // closed when the lease has ended
	ctx            context.Context
	cancel         context.CancelFunc // of ctx, when the lease ends

	// static after begin
	readers []cursor.Reader    // one a channel; a pull reads by copies of them
	whole   *durable.Ownership // of the subscription, or what is the group's own: its dead letters

	mu       sync.Mutex
	grant    *auth.Grant // of the last pull
	state    durable.State
	shares   []*share       // one; of a group one for each partition that it owns
	gaps     event.Position // the ends of those that were told of
	again    []durable.Redriven
	told     int            // of again: how many were given
	toldAt   event.Position // the position of the answer that gave them
	answered event.Position // how far the last answer got
	busy     bool
	ended    bool
	expires  *time.Timer
	ends     time.Time // when expires fires
	keep     time.Duration
	grouped  // of a group
}

var _ feed.Member = (*lease)(nil)

// attach returns the lease of this consumer, which owns the subscription or is
// a member of its group.
func (p *Puller) attach(ctx context.Context, g *auth.Grant, q request) (*lease, error) {
	if l := p.held(q.name, q.consumer); l != nil && l.enter(g) {
		return l, nil
	}
	l := &lease{p: p, name: q.name, consumer: q.consumer, wake: make(chan struct{}, 1), over: make(chan struct{}), grant: g, busy: true}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	err := l.acquire(ctx)
	if err != nil {
		l.leave()
		switch {
		case errors.Is(err, durable.ErrHeld):
			err = p.conflict(ctx, q.name)
		case errors.Is(err, durable.ErrFull):
			err = wire.RateLimited(5*time.Second, "subscription %q: %v", q.name, err)
		case errors.Is(err, durable.ErrAlways):
			err = wire.Conflict("subscription %q delivers by callback always (mode \"always\"); nobody can attach to it", q.name)
		}
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		go l.contained(l.leave)
		return nil, wire.Unavailable(time.Second, "the node is shutting down")
	}
	p.leases[who{q.name, q.consumer}] = l
	return l, nil
}

// acquire makes the lease the subscription's owner, or a member of its group.
func (l *lease) acquire(ctx context.Context) error {
	for {
		s := &share{l: l}
		h, err := l.p.o.Manager.Acquire(ctx, l.name, durable.Claim{Consumer: l.consumer, Kind: durable.Pull, Transport: "pull"}, s)
		switch {
		case errors.Is(err, durable.ErrGroup):
			if err = l.join(ctx); errors.Is(err, durable.ErrNoGroup) {
				continue // it was one until just now
			}
			return err
		case err != nil:
			return err
		}
		l.mu.Lock()
		s.ownership, l.whole, l.shares = h, h, []*share{s}
		l.mu.Unlock()
		if err := l.open(ctx, &h.State.Record); err != nil {
			return err
		}
		at, given, err := l.begin(ctx, h, 0, 0)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.state, s.at, s.given = h.State, at, given
		l.mu.Unlock()
		if h.State.Redriving > 0 {
			l.again, err = h.LettersAgain(ctx)
		}
		return err
	}
}

// open opens the subscription's channels.
func (l *lease) open(ctx context.Context, of *durable.Record) error {
	filter, err := l.p.o.Hub.Filters().Get(of.Selection())
	if err != nil {
		return err
	}
	for _, channel := range of.Definition.Channels {
		r, _, err := cursor.Open(ctx, l.p.o.Hub.Feeds(), channel, filter, cursor.Since{}, nil)
		if err != nil {
			return err
		}
		r.Join(l)
		l.readers = append(l.readers, r)
	}
	return nil
}

// begin returns where what was acquired begins, and up to where it may have
// been delivered before. It is kept to a partition of so many, or to all if
// that is none.
func (l *lease) begin(ctx context.Context, h *durable.Ownership, partition, of int) (at, given event.Position, err error) {
	at = slices.Clone(h.Position)
	for i := range l.readers {
		r := &l.readers[i]
		c, ok := at.Of(r.Channel())
		if !ok {
			c = r.Cursor()
			at = append(at, c)
		}
		from := r.From(c)
		from.Keep(partition, of)
		upTo, any, err := from.Redelivered(ctx, h.DeliveredUpTo, h.Doubt, h.Reach)
		if err != nil {
			return nil, nil, err
		}
		if any {
			given = append(given, upTo)
		}
	}
	h.Announced(given)
	return at, given, nil
}

// forked tells those by which it delivers that a log has another epoch.
func (l *lease) forked(channel string, to cursor.Locator) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.shares {
		if s.ownership != nil {
			s.ownership.Forked(channel, to)
		}
	}
}

// enter takes the lease for a pull, unless one is under way or it has ended.
func (l *lease) enter(g *auth.Grant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy || l.ended {
		return false
	}
	l.busy, l.grant = true, g
	l.stopLocked()
	return true
}

// keeps is how long the lease stays after an answer; 0 if it doesn't. A member
// of a group stays for a while in any case: its partitions would move else, and
// come back with the next pull.
func (l *lease) keeps(q request, a *answer) time.Duration {
	keep := q.hold
	if a.count == 0 && len(a.gaps) == 0 {
		keep = 0
	}
	if l.member() {
		keep = max(keep, memberStays)
	}
	return keep
}

// hold keeps what was given for the next pull.
func (l *lease) hold(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy, l.keep = false, d
	if !l.ended {
		l.p.running.Add(1)
		l.ends = time.Now().Add(d)
		l.expires = time.AfterFunc(d, func() { defer l.p.running.Done(); l.contained(l.leave) })
	}
}

func (l *lease) stopLocked() {
	if l.expires != nil && l.expires.Stop() {
		l.p.running.Done()
	}
	l.expires = nil
}

// renewLocked begins the hold anew: something was acknowledged.
func (l *lease) renewLocked() {
	if !l.busy && !l.ended && l.expires != nil && l.expires.Stop() {
		l.ends = time.Now().Add(l.keep)
		l.expires.Reset(l.keep)
	}
}

// until says when the hold ends unless there is another pull or ack.
func (l *lease) until() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.expires == nil {
		return ""
	}
	return fmt.Sprintf(", until %s at most unless that one pulls or acknowledges again", l.ends.UTC().Format(time.RFC3339))
}

// conflict tells who stands by behind whom, and until when at most if that one
// pulls at this node.
func (p *Puller) conflict(ctx context.Context, name string) error {
	by, until := "another consumer", ""
	if s, err := p.o.Manager.Load(ctx, name); err == nil && s.Owner != nil {
		by = fmt.Sprintf("consumer %q (%s)", s.Owner.Consumer, s.Owner.Transport)
		if l := p.held(name, s.Owner.Consumer); l != nil {
			until = l.until()
		}
	}
	e := wire.Conflict("subscription %q is %s's%s", name, by, until)
	e.RetryAfter = 2 * time.Second
	return e
}

// leave gives everything up.
func (l *lease) leave() {
	if !l.finish() {
		return
	}
	l.mu.Lock()
	shares, m, reached := l.shares, l.membership, l.answered
	l.shares = nil
	l.mu.Unlock()
	for _, s := range shares {
		if s.ownership != nil {
			s.ownership.ReleaseAt(s.given, reached, 0)
		}
	}
	if m != nil {
		m.Leave()
	}
}

// finish lets go of everything but what is owned; false if that was done.
func (l *lease) finish() bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.ended = true
	l.cancel()
	close(l.over)
	l.stopLocked()
	for _, s := range l.shares {
		s.stopLocked()
	}
	readers := l.readers
	l.mu.Unlock()
	for i := range readers {
		readers[i].Leave(l)
		readers[i].Close()
	}
	l.p.mu.Lock()
	if key := (who{l.name, l.consumer}); l.p.leases[key] == l {
		delete(l.p.leases, key)
	}
	l.p.mu.Unlock()
	return true
}

// released waits until what was left is nobody's in the broker too, so that who
// was answered finds it so. A release is stored soon; where it isn't, it still
// will be.
func (p *Puller) released(ctx context.Context, l *lease) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for {
		s, err := p.o.Manager.Load(ctx, l.name)
		if err != nil || !s.Has(l.connection) && (s.Owner == nil || s.Generation != l.whole.Generation) {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// Mark implements feed.Member: a pull waits by itself.
func (l *lease) Mark() bool {
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return false
}

// contained is what a goroutine or a timer of the lease's own runs.
func (l *lease) contained(f func()) { l.p.o.Guard.Do("pull", f) }

// spawn runs f in a goroutine that Close waits for.
func (l *lease) spawn(f func()) { l.p.running.Go(func() { l.contained(f) }) }
