package swarm_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/loadtest/child"
	"github.com/longline-push/longline/loadtest/floor"
	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/swarm"
	"github.com/longline-push/longline/loadtest/wire"
)

func TestMain(m *testing.M) {
	child.Run(map[string]child.Main{floor.Role: floor.Run, swarm.Role: swarm.RunChild})
	goleak.VerifyTestMain(m)
}

func startFloor(t *testing.T) *floor.Process {
	t.Helper()
	f, err := floor.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f
}

// mustListen starts a swarm and waits until all of it listens.
func mustListen(t *testing.T, spec swarm.Spec) *swarm.Swarm {
	t.Helper()
	s, err := swarm.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	if err := s.Wait(t.Context(), 10*time.Second, nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// wantState polls until the state is as wanted.
func wantState(t *testing.T, s *swarm.Swarm, what string, ok func(swarm.State) bool) swarm.State {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		st, err := s.State()
		if err != nil {
			t.Fatal(err)
		}
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %s within 10s: %+v", what, st)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestEveryClientGetsEveryEvent(t *testing.T) {
	f := startFloor(t)
	for _, transport := range []string{swarm.WebSocket, swarm.SSE} {
		for _, channels := range []int{1, 7, 50} {
			for _, by := range []string{pump.HTTP, pump.WebSocket} {
				t.Run(fmt.Sprintf("%s, %d channels, by %s", transport, channels, by), func(t *testing.T) {
					base := fmt.Sprintf("t.%s.%d.%s", transport, channels, by)
					s := mustListen(t, swarm.Spec{Target: f.Addr, Transport: transport, Clients: 50, Channels: channels, Base: base})
					p, err := pump.Start(pump.Options{Target: f.Addr, Transport: by, Base: base, Channels: channels, Conns: min(channels, 3), Batch: 3, Limit: 300})
					if err != nil {
						t.Fatal(err)
					}
					<-p.Done()
					if err := p.Stop(0); err != nil {
						t.Fatal(err)
					}
					var want uint64
					for ch, head := range p.Heads() {
						for i := range 50 {
							if i%channels == ch {
								want += head
							}
						}
					}
					wantState(t, s, "all delivered", func(st swarm.State) bool { return st.Delivered == want })
					st, err := s.Settle(p.Heads())
					if err != nil {
						t.Fatal(err)
					}
					if err := st.Faults.Err(); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

func TestPublishersThatShareAChannel(t *testing.T) {
	f := startFloor(t)
	s := mustListen(t, swarm.Spec{Target: f.Addr, Transport: swarm.WebSocket, Clients: 2, Channels: 2, Base: "t", Shared: true})
	p, err := pump.Start(pump.Options{Target: f.Addr, Base: "t", Channels: 2, Conns: 8, Limit: 400})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	wantState(t, s, "all delivered", func(st swarm.State) bool { return st.Delivered == 400 })
	heads := p.Heads()
	if len(heads) != 8 {
		t.Fatalf("got %d strands, want 8", len(heads))
	}
	st, err := s.Settle(heads)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Faults.Err(); err != nil {
		t.Error(err)
	}
	heads[3] += 2 // pretend that one publisher's last two were lost
	if st, err = s.Settle(heads); err != nil || st.Faults.Lost != 2 {
		t.Errorf("got %+v, error %v, want 2 lost", st.Faults, err)
	}
}

func TestLossShows(t *testing.T) {
	f := startFloor(t)
	s := mustListen(t, swarm.Spec{Target: f.Addr, Transport: swarm.SSE, Clients: 3, Channels: 1, Base: "t"})
	st, err := s.Settle([]uint64{4})
	if err != nil {
		t.Fatal(err)
	}
	if want := (ledger.Faults{Lost: 12}); st.Faults != want {
		t.Errorf("got %+v, want %+v", st.Faults, want)
	}
}

// stage is a gateway that plays a script to each client.
func stage(t *testing.T, script func(w *bufio.ReadWriter, request *http.Request)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			rw := bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
			if req, err := http.ReadRequest(rw.Reader); err == nil {
				script(rw, req)
				rw.Flush()
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

func frame(text string) string { return string(wire.AppendFrame(nil, wire.OpText, []byte(text))) }

func event(seq, offset int) string {
	return fmt.Sprintf(`{"specversion":"1.0","cursor":"t.0@e-%d","data":{"seq":%d,"at":1,"pad":""}}`, offset, seq)
}

func TestDisorderAndDuplicatesShow(t *testing.T) {
	order := []int{1, 2, 4, 3, 3, 5, 2}
	want := ledger.Faults{Disordered: 1, Duplicated: 2, Holes: 1, Lost: 1}
	for _, transport := range []string{swarm.WebSocket, swarm.SSE} {
		addr := stage(t, func(w *bufio.ReadWriter, _ *http.Request) {
			if transport == swarm.WebSocket {
				w.WriteString(switching + frame(`{"op":"hello"}`))
				for _, n := range order {
					w.WriteString(frame(event(n, n)))
				}
				return
			}
			w.WriteString("HTTP/1.1 200 OK\r\n\r\nretry: 10\n\nevent: longline.hello\ndata: {}\n\n")
			for _, n := range order {
				fmt.Fprintf(w, "id: t.0@e-%d\ndata: %s\n\n", n, event(n, n))
			}
		})
		s, err := swarm.Start(swarm.Spec{Target: addr, Transport: transport, Clients: 1, Base: "t"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		wantState(t, s, "cut off", func(st swarm.State) bool { return st.Dropped == 1 })
		st, err := s.Settle([]uint64{6})
		if err != nil || st.Faults != want {
			t.Errorf("%s: got %+v, error %v, want %+v", transport, st.Faults, err, want)
		}
	}
}

func TestComesBackWhereItWas(t *testing.T) {
	asked := make(chan string, 10)
	addr := stage(t, func(w *bufio.ReadWriter, r *http.Request) {
		since := r.URL.Query().Get("since")
		asked <- since
		w.WriteString(switching + frame(`{"op":"hello"}`))
		next := 1
		if since != "" {
			fmt.Sscanf(since, "t.0@e-%d", &next)
			next++
		}
		w.WriteString(frame(event(next, next)) + frame(event(next+1, next+1)))
		w.WriteString(frame(`{"op":"bye","code":1012,"reason":"restart","reconnect":true}`))
	})
	s, err := swarm.Start(swarm.Spec{Target: addr, Transport: swarm.WebSocket, Clients: 1, Base: "t", Reconnect: true, RetryMax: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	st := wantState(t, s, "resumed twice", func(st swarm.State) bool { return st.Resumed >= 2 })
	if st.Faults.Err() != nil || !strings.Contains(st.LastError, "restart") {
		t.Errorf("got %+v", st)
	}
	got := []string{<-asked, <-asked, <-asked}
	if want := []string{"", "t.0@e-2", "t.0@e-4"}; !slices.Equal(got, want) {
		t.Errorf("asked since %q, want %q", got, want)
	}
}

func TestRefusalsAreTold(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 403 Forbidden\r\n\r\nnot you":                                                  "not you",
		switching + frame(`{"op":"bye","code":4401,"reason":"token expired","reconnect":false}`): "token expired",
		"\x00\x01nonsense\r\n\r\n":                                                               "refused",
		"":                                                                                       "closed by the gateway",
	} {
		addr := stage(t, func(w *bufio.ReadWriter, _ *http.Request) { w.WriteString(answer) })
		s, err := swarm.Start(swarm.Spec{Target: addr, Transport: swarm.WebSocket, Clients: 1, Base: "t"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		if err := s.Wait(t.Context(), 5*time.Second, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answer %q: got %v, want an error with %q", answer, err, want)
		}
	}
}

func TestBusyGatewayIsAskedAgain(t *testing.T) {
	first := true
	addr := stage(t, func(w *bufio.ReadWriter, _ *http.Request) {
		if first {
			first = false
			w.WriteString("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n")
			return
		}
		w.WriteString(switching + frame(`{"op":"hello"}`))
	})
	s, err := swarm.Start(swarm.Spec{Target: addr, Transport: swarm.WebSocket, Clients: 1, Base: "t"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	st := wantState(t, s, "connected", func(st swarm.State) bool { return st.Connects == 1 })
	if st.Deferred != 1 || st.Refused != 0 {
		t.Errorf("got %d deferred, %d refused, want 1, 0", st.Deferred, st.Refused)
	}
}

func TestChunkedStream(t *testing.T) {
	addr := stage(t, func(w *bufio.ReadWriter, _ *http.Request) {
		w.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		body := "event: longline.hello\ndata: {}\n\ndata: " + event(1, 1) + "\n\n"
		for len(body) > 0 {
			n := min(7, len(body))
			fmt.Fprintf(w, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
	})
	s, err := swarm.Start(swarm.Spec{Target: addr, Transport: swarm.SSE, Clients: 1, Base: "t"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	wantState(t, s, "delivered", func(st swarm.State) bool { return st.Delivered == 1 })
}

func TestSpecsThatAreRefused(t *testing.T) {
	for _, spec := range []swarm.Spec{
		{Target: "127.0.0.1:1", Transport: "carrier pigeon", Clients: 1},
		{Target: "127.0.0.1:1", Transport: swarm.SSE},
		{Target: "nowhere", Transport: swarm.SSE, Clients: 1},
	} {
		if s, err := swarm.Start(spec); err == nil {
			s.Stop()
			t.Errorf("%+v: got no error", spec)
		}
	}
}
