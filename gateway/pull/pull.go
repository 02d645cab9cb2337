// Package pull serves durable subscriptions to those who can hold no
// connection and take no callback: they ask for events, and acknowledge them
// with the next question.
//
//	request ─▶ lease (who pulls) ─▶ shares (what it owns: all, or of a group its
//	                │               partitions, each with a position of its own)
//	                └─▶ answer: one way through the log for all shares
package pull

import (
	"net/http"
	"sync"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
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

// Puller answers pulls. Between two of them it holds what it gave for the one
// who pulls.
type Puller struct {
	o        Options
	draining chan struct{} // closed when nobody is to wait any more

	mu      sync.Mutex
	leases  map[who]*lease
	closed  bool
	drain   sync.Once
	running sync.WaitGroup // timers and goroutines of leases
}

// who pulls what.
type who struct{ name, consumer string }

// New makes a Puller.
func New(o Options) *Puller {
	return &Puller{o: o, draining: make(chan struct{}), leases: make(map[who]*lease)}
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
	p.running.Wait()
}

// EndWhere ends what is held for those whose grant is meant, pulls that wait
// included.
func (p *Puller) EndWhere(meant func(*auth.Grant) bool) {
	p.mu.Lock()
	all := make([]*lease, 0, len(p.leases))
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

// held returns what somebody pulls here, or nil.
func (p *Puller) held(name, consumer string) *lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leases[who{name, consumer}]
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
	if q.partition != durable.AllPartitions && state.Definition.Group == nil {
		return wire.BadRequest("partition is for subscriptions with a group; %q has none", q.name)
	}
	if len(q.ack) > 0 {
		if err := p.ack(r.Context(), g, state, q); err != nil {
			return err
		}
		if state.Replay != nil { // it may have ended by that
			if _, err := p.o.Hub.Subscription(r.Context(), g, q.name); err != nil {
				return err
			}
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
	if keep := l.keeps(q, &out); err != nil || keep == 0 {
		l.leave()
		if err == nil && q.hold == 0 {
			p.released(r.Context(), l)
		}
	} else {
		l.hold(keep)
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
	o := state.Owner
	if state.Definition.Group != nil {
		o = state.MemberOf(q.consumer)
	}
	if o != nil && o.Kind != durable.Call {
		if o.Kind != durable.Pull || o.Consumer != q.consumer {
			return p.conflict(r.Context(), q.name)
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
