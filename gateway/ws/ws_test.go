package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/feed/feedtest"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
	"github.com/longline-push/longline/gateway/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type gateway struct {
	*httptest.Server
	hub *session.Hub
	log *feedtest.Log
}

func newGateway(t *testing.T, tls bool) gateway {
	t.Helper()
	verifier := authtest.Verifier(t, auth.Options{})
	log := feedtest.New()
	hub := session.NewHub(session.Options{Broker: log, Times: log, Node: "n1"})
	server := httptest.NewUnstartedServer(&ws.Handler{Hub: hub, Verifier: verifier, Publisher: publisher{log}})
	if tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(func() {
		hub.Close()
		server.Close()
	})
	return gateway{server, hub, log}
}

// publisher appends without looking.
type publisher struct{ log *feedtest.Log }

func (p publisher) PublishJSON(_ context.Context, g *auth.Grant, channel string, events []byte) (json.RawMessage, error) {
	if !g.MayPublish(channel) {
		return nil, wire.Forbidden("token may not publish to %q", channel)
	}
	return fmt.Appendf(nil, `[{"id":"x","cursor":%q}]`, p.log.Append(channel, "t", "", string(events))), nil
}

func token(t *testing.T, m auth.Mintage) string { return authtest.Token(t, m) }

func (g gateway) dial(t *testing.T, query, token string, protocols ...string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	h := http.Header{}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	return websocket.Dial(ctx, g.URL+"/v1/ws?"+query, &websocket.DialOptions{HTTPClient: g.Client(), HTTPHeader: h, Subprotocols: protocols})
}

func (g gateway) mustDial(t *testing.T, query string) *websocket.Conn {
	t.Helper()
	c, _, err := g.dial(t, query, token(t, auth.Mintage{Subscribe: []string{"a", "b", "c.**"}, Publish: []string{"a"}}), ws.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

func read(t *testing.T, c *websocket.Conn) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, b, err := c.Read(ctx)
	return string(b), err
}

// wantFrame reads a frame that has all of these in it.
func wantFrame(t *testing.T, c *websocket.Conn, parts ...string) string {
	t.Helper()
	got, err := read(t, c)
	if err != nil {
		t.Fatalf("read: %v, want a frame with %q", err, parts)
	}
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("frame %s\nlacks %s", got, part)
		}
	}
	return got
}

func wantClose(t *testing.T, c *websocket.Conn, code wire.CloseCode) {
	t.Helper()
	for {
		got, err := read(t, c)
		if err == nil {
			if !strings.Contains(got, `"op":"bye"`) {
				t.Errorf("frame %s, want the end", got)
			}
			continue
		}
		if status := websocket.CloseStatus(err); int(status) != int(code) {
			t.Errorf("closed with %d (%v), want %d", status, err, code)
		}
		return
	}
}

func send(t *testing.T, c *websocket.Conn, typ websocket.MessageType, text string) {
	t.Helper()
	if err := c.Write(t.Context(), typ, []byte(text)); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func TestLive(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", tls), func(t *testing.T) {
			g := newGateway(t, tls)
			c := g.mustDial(t, "channel=a&since=earliest")
			wantFrame(t, c, `"op":"hello"`, `"session":"ephemeral"`, `"node":"n1"`, `"cursor":"a@e1-0"`, `"heartbeat_ms":25000`)
			for i := range 300 {
				g.log.Append("a", "t", "", fmt.Sprint(i))
			}
			for i := range 300 {
				wantFrame(t, c, fmt.Sprintf(`"cursor":"a@e1-%d"`, i+1), fmt.Sprintf(`"data":%d}`, i))
			}
			// Large ones go through, however the socket takes them.
			large := `"` + strings.Repeat("x", 200<<10) + `"`
			for range 20 {
				g.log.Append("a", "t", "", large)
			}
			c.SetReadLimit(1 << 20)
			for range 20 {
				if got := wantFrame(t, c, `"type":"t"`); len(got) < len(large) {
					t.Errorf("%d bytes, want more than %d", len(got), len(large))
				}
			}
			if err := c.Ping(within(t, c)); err != nil {
				t.Errorf("ping: %v", err)
			}
			if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Errorf("close: %v", err)
			}
			waitFor(t, func() bool { return g.hub.Count() == 0 })
		})
	}
}

// within reads c in the background, as the library wants it for pings.
func within(t *testing.T, c *websocket.Conn) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	c.CloseRead(ctx)
	return ctx
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestOps(t *testing.T) {
	g := newGateway(t, false)
	c := g.mustDial(t, "")
	wantFrame(t, c, `"op":"hello"`)
	for _, tt := range []struct{ say, want string }{
		{`{"op":"ping","ref":1}`, `{"op":"ok","ref":1}`},
		{`{"op":"ping"}`, `{"op":"ok"}`},
		{`{"op":"subscribe","ref":2,"channels":["a","c.d"],"types":["t.*","t"]}`, `{"op":"ok","ref":2,"cursor":"a@e1-0,c.d@e2-0"}`},
		{`{"op":"publish","ref":3,"channel":"b","events":[1]}`, `"code":"forbidden","detail":"token may not publish to \"b\""`},
		{`{"op":"publish","ref":3,"channel":"b"}`, `"code":"bad_request"`},
		{`{"op":"subscribe","ref":4,"channels":["zz"]}`, `"code":"forbidden","detail":"token may not subscribe to \"zz\""`},
		{`{"op":"subscribe","ref":4}`, `subscribe needs channels`},
		{`{"op":"subscribe","channels":["a"],"since":"b@e1-1"}`, `is of channel \"b\", which was not asked for`},
		{`{"op":"subscribe","channels":["b"],"since":"b@e1-18446744073709551616"}`, `does not fit 64 bits`},
		{`{"op":"subscribe","channels":["b"],"since":"yesterday"}`, `want a cursor`},
		{`{"op":"subscribe","channels":["b"],"types":["a.**.b"]}`, `a last \"**\"`},
		{`{"op":"subscribe","channels":["b"],"filter":"event.kind == 1 ||"}`, `"detail":"filter: line 1, column 19: `},
		{`{"op":"subscribe","channels":["b"],"filter":7}`, `frame's filter is a JSON number; want a string`},
		{`{"op":"subscribe","channels":["b"],"lag":"never"}`, `want catchup, conflate, latest or close`},
		{`{"op":"subscribe","channels":["a/b"]}`, `channel \"a/b\"`},
		{`{"op":"subscribe","channels":[7]}`, `want a list of channel names`},
		{`{"op":"unsubscribe","ref":5,"channels":["b"]}`, `not subscribed to \"b\"`},
		{`{"op":"unsubscribe","ref":5,"channels":["c.d"]}`, `{"op":"ok","ref":5}`},
		{`{"op":"ack","cursor":"a@e1-1"}`, `is for durable sessions`},
		{`{"op":"dance","ref":6}`, `{"op":"error","ref":6,"code":"bad_request","detail":"unknown op \"dance\": want subscribe`},
		{`{"ref":6}`, `frame has no op`},
		{`{"op":"ping","ref":"x"}`, `"code":"bad_request","detail":"frame's ref is a JSON string; want an integer of 64 bits"`},
		{`{"op":"ping","ref":1.5}`, `want an integer of 64 bits`},
		{`{"op":"ping","ref":9223372036854775808}`, `want an integer of 64 bits`},
		{`{"op":"subscribe","channels":{},"ref":9}`, `"ref":9,"code":"bad_request","detail":"frame's channels is a JSON object; want a list of channel names"`},
		{`{"\u006fp":"ping","ref":10,"ref":11,"lag":null,"more":[{}]}`, `{"op":"ok","ref":11}`},
		{`{"op":"ping","ref":12`, `"detail":"frame is not JSON (RFC 8259)`},
		{`{"op":7}`, `frame's op is a JSON number; want a string`},
		{`{"op":"subscribe","channels":"a"}`, `frame's channels is a JSON string; want a list of channel names`},
		{`{"op":"ping"}{"op":"ping"}`, `"detail":"frame holds more than one JSON object"`},
		{`[1]`, `frame is not a JSON object`},
		{`nonsense`, `frame is not a JSON object`},
		{` `, `frame is not a JSON object`},
		{`{"op":"auth","token":"x"}`, `"code":"unauthorized"`},
		{`{"op":"auth","ref":7,"token":"` + token(t, auth.Mintage{Subscribe: []string{"b"}}) + `"}`, `token may not subscribe to \"a\", which is in use`},
		{`{"op":"auth","ref":7,"token":"` + token(t, auth.Mintage{Subscribe: []string{"a"}}) + `"}`, `{"op":"ok","ref":7}`},
		{`{"op":"publish","ref":8,"channel":"a","events":[1]}`, `may not publish`}, // renewed without
	} {
		send(t, c, websocket.MessageText, tt.say)
		wantFrame(t, c, tt.want)
	}
}

func TestPublishedOverTheSocketArrivesThere(t *testing.T) {
	g := newGateway(t, false)
	c := g.mustDial(t, "channel=a")
	wantFrame(t, c, `"op":"hello"`)
	send(t, c, websocket.MessageText, `{"op":"publish","ref":1,"channel":"a","events":[1]}`)
	got := wantFrame(t, c) + wantFrame(t, c)
	for _, want := range []string{`{"op":"ok","ref":1,"events":[{"id":"x","cursor":"a@e1-1"}]}`, `"data":[1]`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %s", got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	g := newGateway(t, false)
	good := token(t, auth.Mintage{Subscribe: []string{"a"}, MaxConnections: 1})
	for _, tt := range []struct {
		name, query, token string
		close              wire.CloseCode
		status             int
	}{
		{"no token", "channel=a", "", 4401, 401},
		{"not a token", "channel=a", "x.y.z", 4401, 401},
		{"another channel", "channel=b", good, 4403, 403},
		{"a bad name", "channel=a%2fb", good, 4400, 400},
		{"a bad pattern", "channel=a&types=a.**.b", good, 4400, 400},
		{"a bad cursor", "channel=a&since=a@1", good, 4400, 400},
		{"a cursor of 2^64", "channel=a&since=a@e1-18446744073709551616", good, 4400, 400},
		{"a cursor of another channel", "channel=a&since=b@e1-1", good, 4400, 400},
		{"a bad lag", "channel=a&lag=x", good, 4400, 400},
		{"a channel twice", "channel=a&channel=a", good, 4400, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// With longline.v1 a browser learns why.
			c, _, err := g.dial(t, tt.query, tt.token, ws.Protocol)
			if err != nil {
				t.Fatal(err)
			}
			wantFrame(t, c, `"op":"bye"`, fmt.Sprintf(`"code":%d`, tt.close), `"reconnect":false`)
			wantClose(t, c, tt.close)
			// Without, it is the status.
			_, response, err := g.dial(t, tt.query, tt.token)
			if err == nil || response.StatusCode != tt.status {
				t.Fatalf("got %v, want %d", err, tt.status)
			}
			if got := response.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type %s", got)
			}
		})
	}
	t.Run("one connection too many", func(t *testing.T) {
		c, _, err := g.dial(t, "channel=a", good, ws.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		_, response, err := g.dial(t, "channel=a", good, ws.Protocol)
		if err == nil || response.StatusCode != 429 || response.Header.Get("Retry-After") == "" {
			t.Fatalf("got %v, %v, want 429 with Retry-After", response, err)
		}
	})
	t.Run("another origin", func(t *testing.T) {
		_, response, err := websocket.Dial(t.Context(), g.URL, &websocket.DialOptions{
			HTTPHeader: http.Header{"Origin": {"https://evil.example"}, "Authorization": {"Bearer " + good}}, Subprotocols: []string{ws.Protocol},
		})
		if err == nil || response.StatusCode != 403 {
			t.Fatalf("got %v, want 403", err)
		}
	})
	t.Run("no WebSocket", func(t *testing.T) {
		response, err := http.Get(g.URL)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 400 {
			t.Errorf("got %d, want 400", response.StatusCode)
		}
	})
}

func TestATokenInTheSubprotocolIsNotEchoed(t *testing.T) {
	g := newGateway(t, false)
	c, response, err := g.dial(t, "channel=a", "", ws.Protocol, "bearer."+token(t, auth.Mintage{Subscribe: []string{"a"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if got := response.Header.Get("Sec-WebSocket-Protocol"); got != ws.Protocol {
		t.Errorf("subprotocol %q, want %q", got, ws.Protocol)
	}
	wantFrame(t, c, `"op":"hello"`)
}

func TestCloudEventsSubprotocolCarriesEventsOnly(t *testing.T) {
	g := newGateway(t, false)
	g.log.Append("a", "t", "", "1")
	c, _, err := g.dial(t, "channel=a&since=a@zz-5", token(t, auth.Mintage{Subscribe: []string{"a"}}), ws.CloudEvents)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if got := c.Subprotocol(); got != ws.CloudEvents {
		t.Errorf("subprotocol %q", got)
	}
	wantFrame(t, c, `{"specversion":"1.0"`, `"data":1}`)
	g.hub.EndWhere(func(*auth.Grant) bool { return true }, wire.CloseUnauthorized, "revoked")
	_, err = read(t, c)
	if got := websocket.CloseStatus(err); int(got) != int(wire.CloseUnauthorized) {
		t.Errorf("closed with %v, want 4401", err)
	}
}

func TestBreaches(t *testing.T) {
	g := newGateway(t, false)
	t.Run("binary", func(t *testing.T) {
		c := g.mustDial(t, "channel=a")
		wantFrame(t, c, `"op":"hello"`)
		send(t, c, websocket.MessageBinary, `{"op":"ping"}`)
		wantClose(t, c, wire.CloseBadRequest)
	})
	t.Run("invalid UTF-8", func(t *testing.T) {
		c := g.mustDial(t, "channel=a")
		wantFrame(t, c, `"op":"hello"`)
		send(t, c, websocket.MessageText, "{\"op\":\"\xff\"}")
		wantClose(t, c, wire.CloseInvalidUTF8)
	})
	t.Run("65 KiB from one who may not publish", func(t *testing.T) {
		c, _, err := g.dial(t, "channel=a", token(t, auth.Mintage{Subscribe: []string{"a"}}), ws.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		wantFrame(t, c, `"op":"hello"`)
		send(t, c, websocket.MessageText, strings.Repeat(" ", 65<<10))
		wantClose(t, c, wire.CloseTooLarge)
	})
	t.Run("1 MiB from one who may", func(t *testing.T) {
		c := g.mustDial(t, "channel=a")
		wantFrame(t, c, `"op":"hello"`)
		send(t, c, websocket.MessageText, `{"op":"ping"`+strings.Repeat(" ", 1<<20)+`}`)
		wantFrame(t, c, `"op":"ok"`)
	})
	for name, frame := range map[string][]byte{
		"an unmasked frame":        {0x81, 0x02, 'h', 'i'},
		"reserved bits":            {0xc1, 0x80, 0, 0, 0, 0},
		"an unknown opcode":        {0x83, 0x80, 0, 0, 0, 0},
		"a fragmented ping":        {0x09, 0x80, 0, 0, 0, 0},
		"a continuation of none":   {0x80, 0x80, 0, 0, 0, 0},
		"a close of one byte":      {0x88, 0x81, 0, 0, 0, 0, 3},
		"a ping of 126 bytes":      append([]byte{0x89, 0xfe, 0, 126, 0, 0, 0, 0}, make([]byte, 126)...),
		"a message within another": {0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			conn, in := rawDial(t, g)
			conn.Write(frame)
			if got := closeCode(t, in); got != int(wire.CloseProtocol) {
				t.Errorf("closed with %d, want 1002", got)
			}
			io.Copy(io.Discard, in)
		})
	}
	waitFor(t, func() bool { return g.hub.Count() == 0 })
}

// rawDial shakes hands without a library and reads the hello.
func rawDial(t *testing.T, g gateway) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", g.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET /v1/ws?channel=a&access_token=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		token(t, auth.Mintage{Subscribe: []string{"a"}}))
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil || response.StatusCode != 101 {
		t.Fatalf("handshake: %v, %v", response, err)
	}
	if op, text := frame(t, in); op != 1 || !bytes.Contains(text, []byte(`"op":"hello"`)) {
		t.Fatalf("got %s, want hello", text)
	}
	return conn, in
}

// frame reads a server's frame of less than 64 KiB.
func frame(t *testing.T, in *bufio.Reader) (op byte, payload []byte) {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		t.Fatalf("read frame: %v", err)
	}
	size := int(head[1])
	if size == 126 {
		long := make([]byte, 2)
		io.ReadFull(in, long)
		size = int(long[0])<<8 | int(long[1])
	}
	payload = make([]byte, size)
	if _, err := io.ReadFull(in, payload); err != nil {
		t.Fatalf("read frame: %v", err)
	}
	return head[0] & 15, payload
}

func closeCode(t *testing.T, in *bufio.Reader) int {
	t.Helper()
	for {
		if op, payload := frame(t, in); op == 8 {
			return int(payload[0])<<8 | int(payload[1])
		}
	}
}

func TestFramesInPiecesAndTogether(t *testing.T) {
	g := newGateway(t, false)
	conn, in := rawDial(t, g)
	ping := []byte("\x89\x81\x00\x00\x00\x00!")
	text := append([]byte{0x81, 0x80 | 13, 0, 0, 0, 0}, `{"op":"ping"}`...)
	fragmented := append([]byte{0x01, 0x80 | 5, 0, 0, 0, 0}, `{"op"`...)
	fragmented = append(fragmented, ping...) // between the fragments
	fragmented = append(append(fragmented, 0x80, 0x80|8, 0, 0, 0, 0), `:"ping"}`...)
	all := bytes.Join([][]byte{ping, text, fragmented, ping, ping, text}, nil)
	for _, step := range []int{1, 7, len(all)} {
		for b := range slicesOf(all, step) {
			conn.Write(b)
			waitIdle()
		}
		got := map[byte]int{}
		for got[1] < 3 || got[10] < 4 {
			op, _ := frame(t, in)
			got[op]++
		}
	}
	conn.Write([]byte("\x88\x82\x00\x00\x00\x00\x03\xe8")) // 1000
	if got := closeCode(t, in); got != 1000 {
		t.Errorf("close answered with %d, want 1000", got)
	}
}

// waitIdle lets the other side read a piece by itself, most of the time.
func waitIdle() { time.Sleep(100 * time.Microsecond) }

func slicesOf(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			m := min(n, len(b))
			if !yield(b[:m]) {
				return
			}
			b = b[m:]
		}
	}
}

func TestAPeerThatVanishesIsForgotten(t *testing.T) {
	g := newGateway(t, false)
	conn, _ := rawDial(t, g)
	conn.(*net.TCPConn).SetLinger(0) // a reset
	conn.Close()
	waitFor(t, func() bool { return g.hub.Count() == 0 })
}

func TestAPeerThatNeverReadsHoldsLittle(t *testing.T) {
	g := newGateway(t, false)
	conn, _ := rawDial(t, g)
	quick := g.mustDial(t, "channel=a")
	wantFrame(t, quick, `"op":"hello"`)
	quick.SetReadLimit(1 << 20)
	large := `"` + strings.Repeat("x", 16<<10) + `"`
	for range 2000 { // 32 MiB, and the other gets them all
		g.log.Append("a", "t", "", large)
		wantFrame(t, quick, `"type":"t"`)
	}
	conn.Close()
	waitFor(t, func() bool { return g.hub.Count() == 1 })
	if errors.Is(quick.Ping(within(t, quick)), context.DeadlineExceeded) {
		t.Error("the quick one suffered")
	}
}

func TestAPublishMayBeAsLongAsABody(t *testing.T) {
	log := feedtest.New()
	hub := session.NewHub(session.Options{Broker: log, Times: log})
	server := httptest.NewServer(&ws.Handler{
		Hub: hub, Verifier: authtest.Verifier(t, auth.Options{}), Publisher: publisher{log}, MaxBody: 100 << 10,
	})
	t.Cleanup(func() { hub.Close(); server.Close() })
	g := gateway{server, hub, log}
	c := g.mustDial(t, "")
	wantFrame(t, c, `"op":"hello"`)
	frame := func(bytes int) string {
		return `{"op":"publish","ref":1,"channel":"a","events":["` + strings.Repeat("x", bytes-4) + `"]}`
	}
	send(t, c, websocket.MessageText, frame(100<<10))
	wantFrame(t, c, `"op":"ok"`)
	send(t, c, websocket.MessageText, frame(102<<10))
	wantClose(t, c, wire.CloseTooLarge)
}
