package gateway

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	js "github.com/longline-push/longline/client/js"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/console"
	"github.com/longline-push/longline/gateway/wire"
)

//go:embed openapi.json
var openAPI []byte

var pages = console.Handler()

// page serves the console.
func (s *Server) page(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	pages.ServeHTTP(w, r)
	return nil
}

func (s *Server) pagePart(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	if !console.Has(r.PathValue("part")) {
		return notFound(r)
	}
	pages.ServeHTTP(w, r)
	return nil
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request, _ *auth.Grant) error {
	return writeBody(w, openAPI)
}

// module serves the JS SDK. Any page may import it; what it can do there, the
// page's origin and token decide.
func (s *Server) module(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Del("Access-Control-Allow-Credentials")
	h.Set("ETag", moduleTag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(js.Module))
	return nil
}

// moduleTag lets browsers ask whether they still have it.
var moduleTag = fmt.Sprintf("%q", hex.EncodeToString(hash(js.Module)))

func hash(b []byte) []byte { h := sha256.Sum256(b); return h[:12] }

func notFound(r *http.Request) error {
	return wire.NotFound("there is nothing at %.200q; /v1/openapi.json says what there is", r.URL.Path)
}
