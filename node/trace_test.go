package node_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

// otlpReceiver is an OTLP receiver that keeps what it gets.
type otlpReceiver struct {
	*httptest.Server

	mu    sync.Mutex
	spans []*otlp.Span
	raw   strings.Builder
}

func newOTLPReceiver(t *testing.T) *otlpReceiver {
	r := &otlpReceiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		text, err := io.ReadAll(q.Body)
		var got collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(text, &got)
		}
		if err != nil || q.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", q.URL, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.raw.Write(text)
		for _, of := range got.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

// only returns the one span of a name.
func (r *otlpReceiver) only(t *testing.T, name string) *otlp.Span {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*otlp.Span
	for _, s := range r.spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans %q, want one", len(found), name)
	}
	return found[0]
}

// An event's own trace goes from its publish to whoever gets it; one whose
// publisher doesn't trace it leaves nothing.
func TestTraceOfAnEvent(t *testing.T) {
	collected := newOTLPReceiver(t)
	called := make(chan http.Header, 10)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { called <- r.Header }))
	defer endpoint.Close()
	n, err := node.New(t.Context(), node.Options{Broker: "embedded:" + t.TempDir(), OTLPEndpoint: collected.URL, Drain: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	token, err := n.Mint(auth.Mintage{Subject: "s", Admin: true, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path, body string) *http.Response {
		t.Helper()
		r, err := http.NewRequest(method, n.URL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s", method, path, resp.Status)
		}
		return resp
	}
	ask("PUT", "/v1/subscriptions/crm", `{"channels":["acct-1"],"callback":{"url":"`+endpoint.URL+`/secret-path","mode":"always","headers":{"X-Key":"a-secret-of-the-user"}}}`).Body.Close()
	stream := ask("GET", "/v1/sse?channel=acct-1", "")
	lines := bufio.NewScanner(stream.Body)
	next := func(id string) {
		t.Helper()
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), `"id":"`+id+`"`) {
				return
			}
		}
		t.Fatalf("no %s: %v", id, lines.Err())
	}
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	ask("POST", "/v1/channels/acct-1/events", `{"type":"t","id":"untraced"}`).Body.Close()
	ask("POST", "/v1/channels/acct-1/events", `{"type":"t","id":"unsampled","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}`).Body.Close()
	ask("POST", "/v1/channels/acct-1/events", `{"type":"t","id":"traced","traceparent":"00-`+trace+"-"+parent+`-01","tracestate":"a=b","data":"what the data says"}`).Body.Close()
	next("untraced")
	next("traced")
	if h := <-called; h.Get("Traceparent") != "" {
		t.Errorf("the callback of an untraced event has traceparent %q", h.Get("Traceparent"))
	}
	if h := <-called; h.Get("Traceparent") != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00" {
		t.Errorf("the callback of an unsampled event has traceparent %q, want the event's own", h.Get("Traceparent"))
	}
	header := <-called
	stream.Body.Close()
	cancel()
	<-ended
	if err := n.Shutdown(); err != nil {
		t.Error(err)
	}

	publish := collected.only(t, "publish")
	for _, s := range []*otlp.Span{publish, collected.only(t, "deliver"), collected.only(t, "callback")} {
		if hex.EncodeToString(s.TraceId) != trace || hex.EncodeToString(s.ParentSpanId) != parent {
			t.Errorf("%s is of trace %x, parent %x; want the event's", s.Name, s.TraceId, s.ParentSpanId)
		}
	}
	if s := collected.only(t, "append"); string(s.ParentSpanId) != string(publish.SpanId) {
		t.Errorf("append is a child of %x, want of publish", s.ParentSpanId)
	}
	want := "00-" + trace + "-" + hex.EncodeToString(collected.only(t, "callback").SpanId) + "-01"
	if got := header.Get("Traceparent") + " " + header.Get("Tracestate"); got != want+" a=b" {
		t.Errorf("the callback's traceparent is %q, want %q, its own span", got, want)
	}
	for _, secret := range []string{token, "secret-path", "a-secret-of-the-user", "what the data says"} {
		if strings.Contains(collected.raw.String(), secret) {
			t.Errorf("spans hold %q", secret)
		}
	}
	if len(collected.spans) != 4 {
		t.Errorf("%d spans, want 4", len(collected.spans))
	}
}

func TestWrongTraceOptionsAreAnError(t *testing.T) {
	for _, o := range []node.Options{{OTLPEndpoint: "127.0.0.1:4318"}, {OTLPEndpoint: "http://u:p@host"}, {OTLPEndpoint: "http://127.0.0.1:4318", OTLPSample: 2}} {
		o.Broker = "embedded:" + t.TempDir()
		_, err := node.New(t.Context(), o)
		var wrong *node.OptionError
		if !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), "otlp-endpoint, otlp-sample: ") || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%+v: %v", o.OTLPEndpoint, err)
		}
	}
}
