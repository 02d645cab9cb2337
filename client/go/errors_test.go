package longline

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// askAs makes a call that fails, and returns its error.
func askAs(t *testing.T, url string) *Error {
	t.Helper()
	c, err := New(url, Options{HTTPClient: newHTTPClient(t)})
	if err != nil {
		t.Fatal(err)
	}
	var e *Error
	if err := c.Do(t.Context(), "GET", "/v1/channels", nil, nil); !errors.As(err, &e) {
		t.Fatalf("got %v, want an error of the gateway", err)
	}
	return e
}

func TestErrorsNameTheRequest(t *testing.T) {
	var asked atomic.Value
	for name, tt := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string // "": what the client named it
	}{
		"the gateway named it anew": {func(w http.ResponseWriter) {
			w.Header().Set("X-Request-Id", "k7-12")
			w.WriteHeader(403)
		}, "k7-12"},
		"a proxy named none": {func(w http.ResponseWriter) { w.WriteHeader(502) }, ""},
		"the answer was cut": {func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Store(r.Header.Get("X-Request-Id"))
				tt.answer(w)
			}))
			defer server.Close()
			e := askAs(t, server.URL)
			want := tt.want
			if want == "" {
				want = asked.Load().(string)
			}
			if want == "" || e.RequestID != want || !strings.Contains(e.Error(), "(request "+want+")") {
				t.Errorf("got %v of request %q, want %q", e, e.RequestID, want)
			}
		})
	}
	e := askAs(t, "http://127.0.0.1:1")
	if e.RequestID == "" || !errors.Is(e, ErrUnavailable) {
		t.Errorf("nobody listens: got %v, want it to have a name all the same", e)
	}
}

func TestRefusedLinesNameTheRequest(t *testing.T) {
	g := newGateway(t)
	for _, transport := range []Transport{WebSocket, SSE} {
		c := g.client(t, Options{Transport: transport})
		err := mustAttach(t, c, "crm-none", SubscriptionOptions{Handler: nothing}).Run(t.Context())
		var e *Error
		if !errors.As(err, &e) || e.Code != "not_found" || e.RequestID == "" {
			t.Errorf("%s: got %v, want not_found with the request's name", transport, err)
		}
	}
}

// A gateway that can't take acknowledgements for a while is told of.
func TestPostsOfAcksTriedAgainAreToldOf(t *testing.T) {
	var log bytes.Buffer
	posts := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if posts++; posts == 1 {
			w.WriteHeader(503)
		}
	}))
	defer server.Close()
	c, err := New(server.URL, Options{HTTPClient: newHTTPClient(t), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	line := &sseConn{sub: mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing})}
	if err := line.ack(context.Background(), ack{position: "a@k-1", partition: noPartition}); err != nil || posts != 2 {
		t.Fatalf("%d posts, error %v; want the second taken", posts, err)
	}
	if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "will try again") || !strings.Contains(got, "503") {
		t.Errorf("log is %q, want a warning", got)
	}
}
