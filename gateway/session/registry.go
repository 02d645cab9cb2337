package session

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// Info is a connection as an operator sees it.
type Info struct {
	Connection string `json:"connection"`
	Subject    string `json:"sub"`
	Address    string `json:"address,omitempty"` // the client's, if known
	Transport  string `json:"transport"`
	// Subscription is the durable one that is attached to; "": none.
	Subscription string   `json:"subscription,omitempty"`
	Channels     []string `json:"channels"`
	Position     string   `json:"position"`
	// Behind is how many events of the channels, of whatever type, lie beyond
	// the position, as far as the node knows.
	Behind  uint64    `json:"behind"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"`
}

// Sessions returns the sessions there are, in no order.
func (h *Hub) Sessions() []*Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*Session, 0, len(h.entries))
	for _, e := range h.entries {
		all = append(all, e.session)
	}
	return all
}

// Count returns how many sessions there are.
func (h *Hub) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.entries)
}

// Kind is what a connection is, for counting.
type Kind struct{ Transport, Session string }

// Kinds counts the connections there are by what they are; the usual kinds are
// there with 0 too.
func (h *Hub) Kinds() map[Kind]int {
	counts := make(map[Kind]int)
	for _, transport := range []string{"websocket", "sse"} {
		counts[Kind{transport, wire.SessionEphemeral}] = 0
		counts[Kind{transport, wire.SessionDurable}] = 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.entries {
		s := h.entries[i].session
		kind := Kind{s.codec.Traits().Name, wire.SessionEphemeral}
		if s.durable != nil { // static
			kind.Session = wire.SessionDurable
		}
		counts[kind]++
	}
	return counts
}

// Find returns the session of a connection's id, or nil.
func (h *Hub) Find(connection string) *Session {
	id, ok := parseConnectionID(connection)
	if !ok {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sessions[id]
}

// Info describes the session.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := Info{
		Connection: s.ID(), Subject: s.grant.Subject, Transport: s.codec.Traits().Name,
		Channels: make([]string, 0, len(s.readers)), Position: string(s.appendPosition(nil)),
		Since: time.UnixMilli(s.since).UTC(), Expires: s.grant.Expires().UTC(),
	}
	if s.address.IsValid() {
		i.Address = s.address.String()
	}
	for j := range s.readers {
		i.Channels = append(i.Channels, s.readers[j].Channel())
		i.Behind += s.readers[j].Behind()
	}
	if s.durable != nil {
		i.Subscription = s.durable.name
	}
	return i
}

// EndWhere ends the sessions whose grant is meant and returns how many.
func (h *Hub) EndWhere(meant func(*auth.Grant) bool, code wire.CloseCode, reason string) int {
	ended := 0
	for _, s := range h.Sessions() {
		if meant(s.Grant()) {
			s.End(code, reason, 0)
			ended++
		}
	}
	return ended
}

// Shut refuses new sessions, as Drain does, and leaves those there are.
func (h *Hub) Shut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
}

// Drain refuses new sessions and ends those there are, spread evenly over the
// time over; each is told to come back after a random time up to retry. It
// returns when all are closed or ctx ends.
func (h *Hub) Drain(ctx context.Context, over, retry time.Duration) {
	h.Shut()
	all := h.Sessions()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	const steps = 50
	step := time.NewTicker(max(over/steps, time.Millisecond))
	defer step.Stop()
	for batch := range slices.Chunk(all, len(all)/steps+1) {
		for _, s := range batch {
			s.End(wire.CloseRestart, "restart", rand.N(max(retry, time.Millisecond)))
		}
		select {
		case <-ctx.Done():
			return
		case <-step.C:
		}
	}
	for h.Count() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-step.C:
		}
	}
}

// Reopen takes new sessions again after Shut, or once Drain has returned.
func (h *Hub) Reopen() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = false
}

// retrySpread is when those come back whom a node can't take now.
func retrySpread() time.Duration { return time.Second + rand.N(4*time.Second) }
