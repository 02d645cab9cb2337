package callback_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
)

// egress is an HTTP proxy that connects wherever it is asked to.
type egress struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []string
	status int // to answer with; 0: it connects
}

func newEgress(t *testing.T) *egress {
	t.Helper()
	p := &egress{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.Host)
		status := p.status
		p.mu.Unlock()
		user, password, _ := parseProxyAuth(r)
		if user != "me" || password != "hush" {
			status = http.StatusProxyAuthRequired
		}
		if status != 0 || r.Method != http.MethodConnect {
			w.WriteHeader(max(status, 400))
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		c, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() { io.Copy(to, buffered); to.(*net.TCPConn).CloseWrite() }()
		io.Copy(c, to)
		c.Close()
		to.Close()
	}))
	t.Cleanup(p.Close)
	return p
}

func parseProxyAuth(r *http.Request) (user, password string, ok bool) {
	r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
	return r.BasicAuth()
}

func (p *egress) dialing(t *testing.T) callback.Dialing {
	t.Helper()
	u, err := url.Parse(strings.Replace(p.URL, "http://", "http://me:hush@", 1))
	if err != nil {
		t.Fatal(err)
	}
	return callback.Dialing{Loopback: true, Proxy: u}
}

func (p *egress) answer(status int) {
	p.mu.Lock()
	p.status = status
	p.mu.Unlock()
}

func (p *egress) askedFor() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.asked, " ")
}

func TestThroughTheProxy(t *testing.T) {
	p := newEgress(t)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	if got := attempt(t, callback.Options{Dialing: p.dialing(t)}, receiver.URL, 0); got.Status != 200 {
		t.Errorf("got %+v, want 200 through the proxy", got)
	}
	wantText(t, "asked for", p.askedFor(), "CONNECT "+strings.TrimPrefix(receiver.URL, "http://"))
}

func TestTheProxyIsNotAskedForForbiddenAddresses(t *testing.T) {
	p := newEgress(t)
	d := p.dialing(t)
	d.Loopback = false
	for _, to := range []string{"http://127.0.0.1:8080/", "https://10.0.0.1/", "http://localhost:8080/", "http://[::1]/"} {
		if got := attempt(t, callback.Options{Dialing: d}, to, 0); got.Status != 0 || !strings.Contains(got.Error, "may not connect") {
			t.Errorf("%s: got %+v, want it refused", to, got)
		}
	}
	wantText(t, "asked for", p.askedFor(), "")
}

// TestAFailingProxyIsNotTheEndpointsFault: the breaker stays closed, nothing
// is suspected, and all is delivered when the proxy is well again.
func TestAFailingProxyIsNotTheEndpointsFault(t *testing.T) {
	p := newEgress(t)
	p.answer(http.StatusServiceUnavailable)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	m := newMemory()
	m.publish(repeat("", 5)...)
	e := callback.New(callback.Options{Dialing: p.dialing(t), Linger: time.Millisecond})
	ended := make(chan callback.Result, 1)
	w, err := e.Deliver(callback.Subscription{
		Name: "crm-42", Target: callback.Target{URL: receiver.URL}, Position: event.Position{cursor(0)},
	}, m, m, func(r callback.Result) { ended <- r })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the proxy was asked twice", func() bool { return strings.Count(p.askedFor(), "CONNECT") >= 2 })
	if s := w.Status(); s.Breaker != "closed" || s.LastError != "the gateway's proxy for callbacks answered 503" {
		t.Errorf("status is %+v, want a closed breaker and what the proxy answered", s)
	}
	p.answer(0)
	if r := <-ended; r.Outcome != callback.CaughtUp || m.position() != 5 || m.noticed() != "" {
		t.Errorf("got outcome %v at %d, noticed %q; want all delivered without a word", r.Outcome, m.position(), m.noticed())
	}
	ctx, cancel := contextFor(5 * time.Second)
	defer cancel()
	e.Close(ctx)
}
