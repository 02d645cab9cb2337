package gateway

import (
	"io"
	"net/http"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// backup answers with a copy of the data, as a tar. One that ends before its
// last file, RESTORED, isn't whole: whatever failed then can't be told any more.
func (s *Server) backup(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	if s.o.Backup == nil {
		return wire.Conflict("the data is on Redis, not here: back that up, e.g. by its RDB files")
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-tar")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	out := &patient{ResponseWriter: w, control: http.NewResponseController(w)}
	err := s.o.Backup(r.Context(), out)
	if err != nil && !out.begun {
		h.Del("Content-Type")
		return err
	}
	if err != nil {
		s.logger(w).Error("a backup was cut short", "error", err)
	}
	return nil
}

// patient lets each write take its time instead of all of them together.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

var _ io.Writer = (*patient)(nil)

func (p *patient) Write(b []byte) (int, error) {
	p.begun = true
	_ = p.control.SetWriteDeadline(time.Now().Add(time.Minute)) // where it can't be set there is none
	return p.ResponseWriter.Write(b)
}
