package crm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/longline-push/longline/loadtest/probe"
)

// Marks reads the marks out of a body: one CloudEvent or an array of them.
func Marks(body []byte) ([]probe.Mark, error) {
	var raw []json.RawMessage
	if b := bytes.TrimSpace(body); len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &raw); err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
	} else {
		raw = []json.RawMessage{b}
	}
	marks := make([]probe.Mark, 0, len(raw))
	for _, e := range raw {
		m, ok := probe.ReadMark(e)
		if !ok {
			return nil, fmt.Errorf("event without its marks: %.100s", e)
		}
		marks = append(marks, m)
	}
	return marks, nil
}

// Handler takes events by HTTP POST, as webhooks and callbacks bring them, and
// makes one call of the API for each request.
func (a *API) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		marks, err := Marks(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		switch err := a.Call(r.Context(), marks); {
		case errors.Is(err, ErrOverrun):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// A Server is a handler on a loopback port of its own.
type Server struct {
	URL  string
	srv  http.Server
	done chan struct{}
}

// Serve starts one.
func Serve(h http.Handler) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	s := &Server{URL: "http://" + l.Addr().String(), srv: http.Server{Handler: h}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = s.srv.Serve(l) // ends by Close
	}()
	return s, nil
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.srv.Close()
	<-s.done
}
