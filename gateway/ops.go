package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/longline-push/longline/gateway/auth"
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
