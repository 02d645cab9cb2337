package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

// live answers as long as the process does, 503 if it must be started anew.
func (s *Server) live(w http.ResponseWriter, _ *http.Request, _ *auth.Grant) error {
	if s.o.Broken != nil {
		if err := s.o.Broken(); err != nil {
			return wire.Unavailable(0, "the store failed: a restart is needed")
		}
	}
	return writeJSON(w, map[string]string{"status": "ok"})
}

// ready answers 200 only if an event that this node appended came back through
// its own feed within the last probe period.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request, _ *auth.Grant) error {
	if s.draining.Load() {
		return wire.Unavailable(s.o.ProbeEvery, "the node is draining")
	}
	if err := s.probe.result(); err != nil {
		return wire.Unavailable(s.o.ProbeEvery, "%s", err)
	}
	return writeJSON(w, map[string]string{"status": "ok"})
}

func (s *Server) listNodes(w http.ResponseWriter, _ *http.Request, _ *auth.Grant) error {
	return writeJSON(w, struct {
		Nodes []nodeInfo `json:"nodes"`
	}{s.probe.nodes()})
}

// listConnections lists this node's, the oldest first.
func (s *Server) listConnections(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	q := r.URL.Query()
	limit, err := limitOf(q.Get("limit"), listLimit, maxListed)
	if err != nil {
		return err
	}
	list := []session.Info{}
	for _, c := range s.o.Hub.Sessions() {
		info := c.Info()
		if sub := q.Get("sub"); sub != "" && sub != info.Subject {
			continue
		}
		if channel := q.Get("channel"); channel != "" && !slices.Contains(info.Channels, channel) {
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
	return writeJSON(w, struct {
		Node        string         `json:"node"`
		Total       int            `json:"total"`
		Connections []session.Info `json:"connections"`
	}{s.o.Hub.Node(), len(list), list[:min(limit, len(list))]})
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

// revoke answers once the revocation is durable, holds here, and the
// subscriptions that it pauses are paused. Nodes that hear of it, now or when
// they start, remember the token and nothing else: what was resumed since is
// not paused again.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	var rev auth.Revocation
	if err := readJSON(r, &rev); err != nil {
		return wire.BadRequest(`%v; want {"jti":"…"}, or {"sub":"…","before":"<RFC 3339 time>"}`, err)
	}
	if err := s.o.Revocations.Revoke(r.Context(), rev); err != nil {
		return err
	}
	if s.o.Revoked != nil {
		// An issuer who doesn't wait has issued it all the same.
		if err := s.o.Revoked(context.WithoutCancel(r.Context()), rev); err != nil {
			return fmt.Errorf("revoked, but not all subscriptions of it are paused; revoke again: %w", err)
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readJSON decodes a small body; the error completes a sentence.
func readJSON(r *http.Request, into any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return errors.New("body could not be read to its end")
	case len(body) > maxBody:
		return errors.New("body is too long")
	case len(body) == 0:
		return errors.New("body is empty")
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.New("body is not what is taken here: " + strings.TrimPrefix(err.Error(), "json: "))
	}
	if d.More() {
		return errors.New("something follows the object")
	}
	return nil
}
