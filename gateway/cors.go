package gateway

import (
	"net/http"

	"github.com/longline-push/longline/gateway/wire"
)

// cors sets what lets pages of allowed origins use the API, and answers their
// preflights (Fetch §3.2); then it returns true. Pages of other origins get
// nothing: their browsers keep the answer from them.
func (s *Server) cors(w http.ResponseWriter, r *http.Request) (answered bool) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	switch {
	case s.o.Origins.Credentials(r):
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	case s.o.Origins.Allows(r): // by *, hence never with credentials
		h.Set("Access-Control-Allow-Origin", "*")
	default:
		return false
	}
	wanted := r.Header.Get("Access-Control-Request-Method")
	if r.Method != http.MethodOptions || wanted == "" {
		h.Set("Access-Control-Expose-Headers", "Retry-After, "+wire.RequestIDHeader)
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
	// ce-* can't be listed, and * doesn't cover Authorization.
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
		h.Add("Vary", "Access-Control-Request-Headers")
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
