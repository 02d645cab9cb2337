package gateway

import (
	"crypto/rand"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/longline-push/longline/gateway/wire"
)

// maxRequestID is how long a client's own id of a request may be.
const maxRequestID = 128

// requestIDs makes what requests are called by which no client named them: the
// process's own beginning, and a number.
type requestIDs struct {
	begins string // random, so that nodes and restarts don't share names
	last   atomic.Uint64
}

func newRequestIDs() *requestIDs { return &requestIDs{begins: rand.Text()[:12] + "-"} }

// of names a request: as its client does by X-Request-Id, where that is one
// token (RFC 9110 §5.6.2) of at most maxRequestID characters, which harms no
// header, log or JSON; else anew.
func (ids *requestIDs) of(r *http.Request) string {
	if given := r.Header[wire.RequestIDHeader]; len(given) == 1 && isToken(given[0]) {
		return given[0]
	}
	id := append(make([]byte, 0, len(ids.begins)+13), ids.begins...)
	return string(strconv.AppendUint(id, ids.last.Add(1), 36))
}

func isToken(s string) bool {
	if s == "" || len(s) > maxRequestID {
		return false
	}
	for i := range len(s) {
		if !tokenCharacter[s[i]] {
			return false
		}
	}
	return true
}

var tokenCharacter = func() (is [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		is[c] = true
	}
	return is
}()

// logger is for lines about the request that w answers.
func (s *Server) logger(w http.ResponseWriter) *slog.Logger {
	return s.o.Logger.With("request", wire.RequestID(w))
}
