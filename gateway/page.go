package gateway

import (
	_ "embed"
	"net/http"

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

func notFound(r *http.Request) error {
	return wire.NotFound("there is nothing at %.200q; /v1/openapi.json says what there is", r.URL.Path)
}
