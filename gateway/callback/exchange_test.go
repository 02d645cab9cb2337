package callback_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
)

// attempt delivers one event to a real receiver and returns what came of the
// first call.
func attempt(t *testing.T, o callback.Options, to string, timeout time.Duration) callback.Attempt {
	t.Helper()
	m := newMemory()
	m.publish("")
	e := callback.New(o)
	w, err := e.Deliver(callback.Subscription{
		Name: "crm-42", Timeout: timeout, Position: event.Position{cursor(0)},
		Target: callback.Target{URL: to, Headers: map[string]string{"X-Tenant": "42"}},
	}, m, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	poll, deadline := time.NewTicker(time.Millisecond), time.Now().Add(10*time.Second)
	defer poll.Stop()
	for len(w.Attempts()) == 0 && time.Now().Before(deadline) {
		<-poll.C
	}
	ctx, cancel := contextFor(10 * time.Second)
	defer cancel()
	e.Close(ctx)
	got := w.Attempts()
	if len(got) == 0 {
		t.Fatal("no attempt was made")
	}
	return got[0]
}

var loopback = callback.Options{Dialing: callback.Dialing{Loopback: true}}

func TestMisbehavingReceivers(t *testing.T) {
	bomb := gzipped(make([]byte, 16<<20))
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		timeout time.Duration
		status  int
		err     string
		body    string
	}{
		{"answers 500", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "broken", 500) }, 0, 500, "answered 500", "broken\n"},
		{"hangs", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, 100 * time.Millisecond, 0, "timed out after 100ms", ""},
		{"resets", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}, 0, 0, "connection reset", ""},
		{"closes", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, 0, 0, "connection closed before the whole answer", ""},
		{"answers byte by byte", func(w http.ResponseWriter, r *http.Request) {
			for {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(10 * time.Millisecond):
					w.Write([]byte("x"))
					w.(http.Flusher).Flush()
				}
			}
		}, 200 * time.Millisecond, 200, "timed out after 200ms", "xxx"},
		{"sends a gzip bomb", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb)
		}, 0, 200, "", strings.Repeat("\x00", 1024)},
		{"sends a body without end", func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, 0, 200, "", strings.Repeat("\x00", 1024)},
		{"sends headers without end", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := fmt.Fprintf(conn, "X-More: %s\r\n", strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}, 0, 0, "the exchange failed", ""},
		{"is not HTTP", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			conn.Close()
		}, 0, 0, "the answer is not HTTP", ""},
		{"switches protocols", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
			io.Copy(io.Discard, conn)
			conn.Close()
		}, 0, 101, "answered 101", ""},
		{"answers with bytes that are no text", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("a\xffb")) }, 0, 200, "", "a\uFFFDb"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(tc.handler)
			defer s.Close()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got := attempt(t, loopback, s.URL, tc.timeout)
			runtime.ReadMemStats(&after)
			if got.Status != tc.status || got.Error != tc.err {
				t.Errorf("got %d %q, want %d %q", got.Status, got.Error, tc.status, tc.err)
			}
			if !strings.HasPrefix(got.Body, tc.body) || len(got.Body) > 1024+8 {
				t.Errorf("got a body of %d bytes, %.20q…; want %.20q…", len(got.Body), got.Body, tc.body)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
				t.Errorf("the exchange allocated %d bytes", used)
			}
		})
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func TestRedirectIsNotFollowed(t *testing.T) {
	var inside atomic.Int32
	private := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer private.Close()
	public := httptest.NewServer(http.RedirectHandler(private.URL, http.StatusTemporaryRedirect))
	defer public.Close()
	got := attempt(t, loopback, public.URL, 0)
	if got.Status != 307 || inside.Load() != 0 {
		t.Errorf("got %+v and %d calls inside", got, inside.Load())
	}
}

func TestPrivateAddressesAreRefusedAtDial(t *testing.T) {
	var called atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called.Add(1) }))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	other := netip.MustParsePrefix("10.0.0.0/8")
	for _, tc := range []struct {
		name string
		d    callback.Dialing
		host string
		ok   bool
	}{
		{"an address", callback.Dialing{}, "127.0.0.1", false},
		{"a name for it", callback.Dialing{}, "localhost", false},
		{"in the clothes of IPv6", callback.Dialing{}, "[::ffff:127.0.0.1]", false},
		{"another network is allowed", callback.Dialing{Allow: []netip.Prefix{other}}, "localhost", false},
		{"its port is allowed", callback.Dialing{Ports: []uint16{mustPort(t, port)}}, "localhost", false},
		{"allowed by its network", callback.Dialing{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, "localhost", true},
		{"allowed as loopback", callback.Dialing{Loopback: true}, "localhost", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// The environment's proxy would be asked to dial for us.
			t.Setenv("HTTP_PROXY", s.URL)
			called.Store(0)
			got := attempt(t, callback.Options{Dialing: tc.d}, "http://"+tc.host+":"+port+"/", 0)
			if (called.Load() > 0) != tc.ok {
				t.Errorf("called %d times, want called: %v", called.Load(), tc.ok)
			}
			if !tc.ok && (got.Error != "callbacks may not connect to this address or port" || got.Status != 0) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func mustPort(t *testing.T, text string) uint16 {
	t.Helper()
	var n uint16
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestErrorsTellNothingOfTheNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	tlsServer := httptest.NewUnstartedServer(http.NotFoundHandler())
	tlsServer.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsServer.StartTLS()
	defer tlsServer.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for to, want := range map[string]string{
		"http://" + closed:                      "connection refused",
		"http://nowhere.invalid:8080/":          "the name could not be resolved",
		tlsServer.URL:                           "TLS: the certificate is not valid for this name or not trusted",
		"https://" + plain.URL[len("http://"):]: "TLS: the receiver does not speak TLS",
	} {
		if got := attempt(t, loopback, to, 5*time.Second).Error; got != want {
			t.Errorf("%s: got %q, want %q", to, got, want)
		}
	}
}

func TestHTTP2AndPooling(t *testing.T) {
	var conns atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("X-Tenant") != "42" || r.Header.Get("Idempotency-Key") != "" {
			t.Errorf("got %s with %v", r.Proto, r.Header)
		}
	}))
	s.EnableHTTP2 = true
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.StartTLS()
	defer s.Close()
	via := callback.Dialing{Loopback: true}.Transport()
	defer via.CloseIdleConnections()
	via.TLSClientConfig = &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	m := newMemory()
	m.publish(repeat("", 50)...)
	e := callback.New(callback.Options{Transport: via, Linger: time.Millisecond})
	ended := make(chan callback.Result, 1)
	if _, err := e.Deliver(callback.Subscription{
		Name: "crm-42", Position: event.Position{cursor(0)}, Target: callback.Target{URL: s.URL, Headers: map[string]string{"x-tenant": "42"}},
	}, m, m, func(r callback.Result) { ended <- r }); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.Outcome != callback.CaughtUp || conns.Load() != 1 {
		t.Errorf("got outcome %v over %d connections, want 1", r.Outcome, conns.Load())
	}
}

// A receiver that ends a connection without an answer may have the event: what
// is made once more for that says so.
func TestConnectionClosedWithoutAnAnswer(t *testing.T) {
	var mu sync.Mutex
	seen, repeats := map[string]bool{}, 0
	calls := map[string]int{} // by connection
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		id := r.Header.Get("Webhook-Id")
		if seen[id] {
			repeats++
			if r.Header.Get("Longline-Redelivery") != "true" {
				t.Errorf("%s came twice without a word, as attempt %s", id, r.Header.Get("Longline-Attempt"))
			}
		}
		seen[id] = true
		if calls[r.RemoteAddr]++; calls[r.RemoteAddr]%2 == 0 {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	m := newMemory()
	m.publish(repeat("", 10)...)
	e := callback.New(callback.Options{Dialing: callback.Dialing{Loopback: true}, Linger: time.Millisecond})
	ended := make(chan callback.Result, 1)
	if _, err := e.Deliver(callback.Subscription{Name: "crm-42", Target: callback.Target{URL: server.URL}, Position: event.Position{cursor(0)}},
		m, m, func(r callback.Result) { ended <- r }); err != nil {
		t.Fatal(err)
	}
	<-ended
	ctx, cancel := contextFor(time.Second)
	defer cancel()
	e.Close(ctx)
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 10 || repeats == 0 {
		t.Errorf("%d events came, %d of them again; want 10, some of them again", len(seen), repeats)
	}
}

// A receiver that closes idle connections must not cost an attempt.
func TestConnectionClosedWhileIdle(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.Copy(io.Discard, r.Body)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			c.Close() // without having said so
		}
	}()
	m := newMemory()
	m.publish(repeat("", 30)...)
	e := callback.New(callback.Options{Dialing: callback.Dialing{Loopback: true}, Linger: time.Millisecond})
	ended := make(chan callback.Result, 1)
	if _, err := e.Deliver(callback.Subscription{Name: "crm-42", Target: callback.Target{URL: "http://" + l.Addr().String()}, Position: event.Position{cursor(0)}},
		m, m, func(r callback.Result) { ended <- r }); err != nil {
		t.Fatal(err)
	}
	r := <-ended
	for _, a := range r.Attempts {
		if a.Status != 200 {
			t.Errorf("an attempt came to %+v", a)
		}
	}
	ctx, cancel := contextFor(time.Second)
	defer cancel()
	e.Close(ctx)
	l.Close()
	<-served
}
