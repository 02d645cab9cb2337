package hostile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// open shakes hands, on a connection of its own, and reads on until hello.
func (g *gateway) open(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /v1/ws?channel=acct-1&access_token=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", g.token)
	in := bufio.NewReader(c)
	answer, err := http.ReadResponse(in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v %v", answer, err)
	}
	if op, text, err := next(in); err != nil || op != 1 || !strings.Contains(string(text), `"op":"hello"`) {
		t.Fatalf("got %q %v, want hello", text, err)
	}
	return c, in
}

// next reads a server's frame.
func next(in *bufio.Reader) (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, err
	}
	size := int(head[1])
	if size == 126 {
		var long [2]byte
		if _, err := io.ReadFull(in, long[:]); err != nil {
			return 0, nil, err
		}
		size = int(binary.BigEndian.Uint16(long[:]))
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(in, payload)
	return head[0] & 15, payload, err
}

// frame is a client's, masked with zeros: first is its first byte.
func frame(first byte, payload string) string {
	switch n := len(payload); {
	case n < 126:
		return string([]byte{first, 0x80 | byte(n), 0, 0, 0, 0}) + payload
	case n < 1<<16:
		return string([]byte{first, 0xfe, byte(n >> 8), byte(n), 0, 0, 0, 0}) + payload
	default:
		return string(binary.BigEndian.AppendUint64([]byte{first, 0xff}, uint64(n))) + "\x00\x00\x00\x00" + payload
	}
}

// Whatever a client breaks of RFC 6455 ends its connection, by a close that says
// why, and nobody else's.
func TestFramesThatAreNone(t *testing.T) {
	g := start(t)
	bystander, _ := g.open(t)
	ping := `{"op":"ping"}`
	for _, c := range []struct {
		name, said string
		want       []int // close codes; 0: hung up without one
	}{
		{"not masked", "\x81\x02hi", []int{1002}},
		{"the first reserved bit", frame(0xc1, ping), []int{1002}},
		{"the second reserved bit", frame(0xa1, ping), []int{1002}},
		{"the third reserved bit", frame(0x91, ping), []int{1002}},
		{"a reserved bit of a ping", frame(0xc9, ""), []int{1002}},
		{"an unknown opcode of data", frame(0x87, ""), []int{1002}},
		{"an unknown opcode of control", frame(0x8f, ""), []int{1002}},
		{"a ping in pieces", frame(0x09, "a") + frame(0x80, "b"), []int{1002}},
		{"a close in pieces", frame(0x08, "\x03\xe8") + frame(0x80, "b"), []int{1002}},
		{"a ping of 126 bytes", frame(0x89, strings.Repeat("a", 126)), []int{1002}},
		{"a ping of a megabyte", frame(0x89, strings.Repeat("a", 1<<20)), []int{1002}},
		{"a rest of nothing", frame(0x80, "a"), []int{1002}},
		{"a beginning within another", frame(0x01, "{") + frame(0x01, "{"), []int{1002}},
		{"a length of 2^63", "\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00a", []int{1002, 1009}},
		{"a length of 2^64-1", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00a", []int{1002, 1009}},
		{"a length of 2^62", "\x81\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" + strings.Repeat("a", 8<<20), []int{1009}},
		{"a message of pieces that is too long", frame(0x01, strings.Repeat(" ", 60<<10)) + strings.Repeat(frame(0x00, strings.Repeat(" ", 60<<10)), 100), []int{1009}},
		{"no UTF-8", frame(0x81, "{\"op\":\"\xff\"}"), []int{1007}},
		{"half a letter", frame(0x81, "{\"op\":\"\xe2\x82"), []int{1007, 4400}},
		{"a letter in pieces", frame(0x01, "{\"op\":\"\xe2") + frame(0x80, "\x82\xac\"}") + frame(0x88, "\x03\xe8"), []int{1000}},
		{"bytes", frame(0x82, ping), []int{1003, 4400}},
		{"a close of one byte", frame(0x88, "\x03"), []int{1002}},
		{"a close with no code", frame(0x88, ""), []int{1000, 1005, 0}},
		{"a close with 999", frame(0x88, "\x03\xe7"), []int{1002}},
		{"a close with 1004", frame(0x88, "\x03\xec"), []int{1002}},
		{"a close with 1005", frame(0x88, "\x03\xed"), []int{1002}},
		{"a close with 1006", frame(0x88, "\x03\xee"), []int{1002}},
		{"a close with 1015", frame(0x88, "\x03\xf7"), []int{1002}},
		{"a close with 5000", frame(0x88, "\x13\x88"), []int{1002}},
		{"a close with a reason that is no text", frame(0x88, "\x03\xe8\xff\xfe"), []int{1000, 1002, 1007}},
		{"a close with 4999", frame(0x88, "\x13\x87"), []int{4999, 1000}},
		{"HTTP once more", "GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n", []int{1002}},
		{"a hundred thousand empty pieces", frame(0x01, "") + strings.Repeat(frame(0x00, ""), 100_000) + frame(0x80, "x") + frame(0x88, "\x03\xe8"), []int{1000, 1002, 1008, 4400}},
		{"a hundred thousand pings", strings.Repeat(frame(0x89, "abc"), 100_000) + frame(0x88, "\x03\xe8"), []int{1000, 1008, 4408, 4429, 0}},
		{"a hundred thousand pongs", strings.Repeat(frame(0x8a, "abc"), 100_000) + frame(0x88, "\x03\xe8"), []int{1000, 1008}},
		{"JSON deeper than a stack", frame(0x81, `{"op":`+strings.Repeat("[", 60_000)) + frame(0x88, "\x03\xe8"), []int{1000, 1009, 4400}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, in := g.open(t)
			go io.WriteString(conn, c.said) // it may be hung up on
			code := 0
			for {
				op, payload, err := next(in)
				if err != nil {
					break
				}
				if op == 8 && len(payload) >= 2 {
					code = int(binary.BigEndian.Uint16(payload))
				}
			}
			if !slices.Contains(c.want, code) {
				t.Errorf("closed with %d, want one of %v", code, c.want)
			}
		})
	}
	if _, err := io.WriteString(bystander, frame(0x81, ping)); err != nil {
		t.Errorf("somebody else's connection has ended: %v", err)
	}
	g.wantWell(t)
}

// Pings that nobody reads the answers of cost the gateway no memory.
func TestPingsWhoseAnswersNobodyReads(t *testing.T) {
	g := start(t)
	warm, _ := g.open(t)
	_ = warm.Close()
	before := g.resident(t)
	pings := strings.Repeat(frame(0x89, strings.Repeat("p", 125)), 10_000)
	for range 10 {
		c, _ := g.open(t)
		go func() {
			for range 20 {
				if _, err := io.WriteString(c, pings); err != nil {
					return
				}
			}
		}()
	}
	g.wantWell(t)
	if now := g.resident(t); now > before+100<<20 {
		t.Errorf("%d MiB where there were %d", now>>20, before>>20)
	}
}

// resident is how many bytes of memory the process has.
func (g *gateway) resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// Many who begin to ask and never end leave those who are there alone, and their
// places are free once they are gone. There are as many as fit into the files that
// the gateway may open, and half as many again.
func TestCrowdThatNeverSaysWhatItWants(t *testing.T) {
	const files = 400
	g := startWith(t, files)
	here, in := g.open(t)
	var crowd []net.Conn
	for n := range files * 3 / 2 {
		c, err := net.DialTimeout("tcp", g.Addr, 5*time.Second)
		if err != nil {
			break // it has enough
		}
		crowd = append(crowd, c)
		_, _ = io.WriteString(c, []string{"", "G", "GET /v1/ws HTTP/1.1\r\nHost: x\r\nX-A: ", "POST /v1/channels/acct-1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"}[n%4])
	}
	if len(crowd) < files/2 {
		t.Errorf("only %d came", len(crowd))
	}
	event := `{"op":"publish","ref":1,"channel":"acct-1","events":[{"type":"t"}]}`
	if _, err := io.WriteString(here, frame(0x81, event)); err != nil {
		t.Fatal(err)
	}
	for came := false; !came; {
		op, text, err := next(in)
		if err != nil {
			t.Fatalf("who was there before gets nothing any more: %v", err)
		}
		came = op == 1 && strings.Contains(string(text), `"specversion"`)
	}
	for _, c := range crowd {
		_ = c.Close()
	}
	g.wantWell(t)
}
