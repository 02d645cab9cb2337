package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// maxTold is how many bytes of connections a node tells another of.
const maxTold = 256 << 10

// asking asks a node for its connections. ID is of the question, and of its
// answer.
type asking struct {
	ID      string `json:"id"`
	Node    string `json:"node"`
	Subject string `json:"sub,omitempty"`
	Channel string `json:"channel,omitempty"`
	Limit   int    `json:"limit"`
}

// listed is what a node says of its connections, the oldest first.
type listed struct {
	ID          string         `json:"id,omitempty"`
	Node        string         `json:"node"`
	Total       int            `json:"total"`
	Connections []session.Info `json:"connections"`
}

// listConnections lists those of this node or, through the broker, of another.
func (s *Server) listConnections(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	q := r.URL.Query()
	limit, err := limitOf(q.Get("limit"), listLimit, maxListed)
	if err != nil {
		return err
	}
	ask := asking{Node: q.Get("node"), Subject: q.Get("sub"), Channel: q.Get("channel"), Limit: limit}
	if ask.Node == "" || ask.Node == s.o.Hub.Node() {
		return writeJSON(w, s.connections(ask))
	}
	if !slices.ContainsFunc(s.probe.nodes(), func(n nodeInfo) bool { return n.Node == ask.Node }) {
		return wire.NotFound("there is no node %.80q; GET /v1/nodes lists those heard of lately", ask.Node)
	}
	answer, err := s.probe.ask(r.Context(), ask)
	if err != nil {
		return err
	}
	answer.ID = ""
	return writeJSON(w, answer)
}

// connections are this node's that are asked for.
func (s *Server) connections(ask asking) listed {
	list := []session.Info{}
	for _, c := range s.o.Hub.Sessions() {
		info := c.Info()
		if ask.Subject != "" && ask.Subject != info.Subject || ask.Channel != "" && !slices.Contains(info.Channels, ask.Channel) {
			continue
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b session.Info) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.Connection, b.Connection)
	})
	return listed{ask.ID, s.o.Hub.Node(), len(list), list[:min(ask.Limit, len(list))]}
}

// ask asks a node through the broker and waits for its answer.
func (p *probe) ask(ctx context.Context, what asking) (listed, error) {
	what.ID = uuid.NewString()
	answer := make(chan listed, 1)
	p.mu.Lock()
	p.asked[what.ID] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.asked, what.ID)
	}()
	if err := p.tell(ctx, what.ID, typeAsk, what); err != nil {
		return listed{}, err
	}
	select {
	case l := <-answer:
		return l, nil
	case <-ctx.Done():
		return listed{}, ctx.Err()
	case <-time.After(2 * p.server.o.ProbeEvery):
		return listed{}, wire.Unavailable(p.server.o.ProbeEvery, "node %.80q did not answer; GET /v1/nodes says when it was last heard of", what.Node)
	}
}

// answerHere answers a question that is meant for this node.
func (p *probe) answerHere(ctx context.Context, ask asking) {
	if ask.Node != p.server.o.Hub.Node() {
		return
	}
	l := p.server.connections(ask)
	for len(l.Connections) > 0 {
		if b, err := json.Marshal(l.Connections); err != nil || len(b) <= maxTold {
			break
		}
		l.Connections = l.Connections[:len(l.Connections)/2]
	}
	if err := p.tell(ctx, uuid.NewString(), typeAnswer, l); err != nil {
		p.server.o.Logger.Debug("a node's question can't be answered", "error", err)
	}
}

// answered hands an answer to whoever waits for it here.
func (p *probe) answered(l listed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if to := p.asked[l.ID]; to != nil {
		select {
		case to <- l:
		default: // an answer that was told twice
		}
	}
}

// closeConnection closes one of this node's, 204, or tells the other nodes to,
// 202: only they know whether they have it.
func (s *Server) closeConnection(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	id := r.PathValue("id")
	switch {
	case s.closeHere(id):
		w.WriteHeader(http.StatusNoContent)
		return nil
	case len(s.probe.nodes()) < 2:
		return wire.NotFound("there is no connection %.80q", id)
	}
	if err := s.probe.tell(r.Context(), uuid.NewString(), typeClose, closing{id}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// closeHere closes a connection and tells whether there was one.
func (s *Server) closeHere(id string) bool {
	c := s.o.Hub.Find(id)
	if c == nil {
		return false
	}
	c.End(wire.CloseGoingAway, "closed by an operator", 0)
	return true
}
