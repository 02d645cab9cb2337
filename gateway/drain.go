package gateway

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// maxRetry is how soon a connection comes back to another node, at most; the
// grace of callbacks must be longer.
const maxRetry = 2 * time.Second

// byesPerSecond is as many as need no more spreading.
const byesPerSecond = 500

// operatorDrain is within which time a node that an operator drains has said
// bye to everybody.
const operatorDrain = 30 * time.Second

// Drain makes the node not ready, takes no new connections, and says bye to
// those there are, spread over the time there is, most of it at most. It
// returns when all are gone or ctx ends. over is the whole time for shutdown,
// which this is for: no operator undoes it.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.drains.mu.Lock()
	s.drains.over = true
	s.drains.mu.Unlock()
	s.drain(ctx, over)
}

func (s *Server) drain(ctx context.Context, over time.Duration) {
	s.draining.Store(true)
	spread := time.Duration(s.o.Hub.Count()) * time.Second / byesPerSecond
	s.o.Hub.Drain(ctx, min(spread, over*8/10), maxRetry)
}

// draining asks a node to drain, or to take connections again.
type draining struct {
	Node  string `json:"node"`
	Drain bool   `json:"drain"`
}

// drains is the draining that an operator asked for.
type drains struct {
	mu     sync.Mutex
	over   bool               // nothing more is begun or undone
	cancel context.CancelFunc // nil: none is under way
	wait   sync.WaitGroup
}

// drainHere drains this node, or has it take connections again. A drained node
// goes on answering requests and calling callbacks.
func (s *Server) drainHere(drain bool) {
	d := &s.drains
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over || drain == (d.cancel != nil) {
		return
	}
	if !drain {
		d.cancel()
		d.wait.Wait()
		d.cancel = nil
		s.o.Hub.Reopen()
		s.draining.Store(false)
		s.o.Logger.Info("takes connections again, as an operator asked")
		return
	}
	s.o.Logger.Info("draining, as an operator asked", "connections", s.o.Hub.Count())
	ctx, cancel := context.WithTimeout(context.Background(), operatorDrain)
	d.cancel = cancel
	s.draining.Store(true)
	s.o.Hub.Shut() // before it is answered
	d.wait.Go(func() { s.drain(ctx, operatorDrain) })
}

// end ends what is under way and begins nothing more.
func (d *drains) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.cancel != nil {
		d.cancel()
	}
	d.wait.Wait()
}

// drainNode has a node drained; it answers before that is done.
func (s *Server) drainNode(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	return s.tellDrain(w, r, true)
}

// undrainNode has a node take connections again.
func (s *Server) undrainNode(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	return s.tellDrain(w, r, false)
}

func (s *Server) tellDrain(w http.ResponseWriter, r *http.Request, drain bool) error {
	node := r.PathValue("node")
	if node == s.o.Hub.Node() {
		s.drainHere(drain)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	for _, known := range s.probe.nodes() {
		if known.Node == node {
			if err := s.probe.tell(r.Context(), uuid.NewString(), typeDrain, draining{node, drain}); err != nil {
				return err
			}
			w.WriteHeader(http.StatusAccepted)
			return nil
		}
	}
	return wire.NotFound("there is no node %.80q; GET /v1/nodes lists those heard of lately", node)
}
