package gateway

import (
	"net/http"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/stats"
	"github.com/longline-push/longline/gateway/wire"
)

// showStats answers what the nodes did lately: what this one has heard since it
// started.
func (s *Server) showStats(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	q := r.URL.Query()
	span, node := q.Get("span"), q.Get("node")
	if span == "" {
		span = stats.Spans()[0]
	}
	shown, err := s.stats.Show(span, node, time.Now())
	if err != nil {
		return wire.BadRequest("%v", err)
	}
	return writeJSON(w, shown)
}
