package longline

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// supply is a gateway in memory: an HTTP transport whose upgraded connections
// bring hello and then events, as the frames that a gateway sends, made
// beforehand, so that what is measured is the SDK. It keeps to a window as a
// gateway does, told by the acknowledgements.
type supply struct {
	window int
	last   int // events; a connection brings no more, and waits
	sent   atomic.Int64
}

func (f *supply) RoundTrip(r *http.Request) (*http.Response, error) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	h := http.Header{}
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	h.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	h.Set("Sec-WebSocket-Protocol", subprotocol)
	line := &fedLine{supply: f, next: firstEvent, acked: firstEvent - 1}
	line.room = sync.NewCond(&line.mu)
	line.buffer = appendServerFrame(nil, fmt.Sprintf(`{"op":"hello","connection":"c-1","node":"n1","session":"durable","cursor":"acct-42@k3f9zq-100000000","recovered":true,"window":%d,"heartbeat_ms":25000}`, f.window))
	line.out = line.buffer
	return &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: h, Body: line, Request: r}, nil
}

// appendServerFrame appends a text frame as servers send it (RFC 6455 §5.2).
func appendServerFrame(dst []byte, text string) []byte {
	dst = append(dst, 0x81)
	if len(text) < 126 {
		dst = append(dst, byte(len(text)))
	} else {
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(len(text)))
	}
	return append(dst, text...)
}

// prepared is the frame of an event, but for its number, nine digits in two
// places, and its contact's, three digits in two.
var prepared = appendServerFrame(nil, `{"specversion":"1.0","id":"0198f2d4-7b1c-7e55-8f9a-#########000","source":"/mailshots/42","type":"email.opened","time":"2026-11-22T13:31:00.123Z","subject":"contact-%%%@example.com","partitionkey":"contact-%%%@example.com","channel":"acct-42","cursor":"acct-42@k3f9zq-#########","datacontenttype":"application/json","data":{"ip":"203.0.113.7","agent":"Mozilla/5.0"}}`)

func appendPrepared(dst []byte, n int) []byte {
	from := len(dst)
	dst = append(dst, prepared...)
	frame := dst[from:]
	for i := 4; i < len(frame); i++ { // after the head
		digits := 0
		switch frame[i] {
		case '#':
			digits = 9
		case '%':
			digits = 3
		default:
			continue
		}
		for at, left := i+digits-1, n; at >= i; at, left = at-1, left/10 {
			frame[at] = byte('0' + left%10)
		}
		i += digits
	}
	return dst
}

// firstEvent has as many digits as the last.
const firstEvent = 100_000_001

// fedLine is one connection of a supply.
type fedLine struct {
	supply *supply

	mu     sync.Mutex
	room   *sync.Cond
	buffer []byte // out is the rest of it
	out    []byte
	next   int // event
	acked  int
	closed bool
}

func (l *fedLine) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.out) == 0 {
		if l.closed {
			return 0, io.EOF
		}
		const burst = 64
		l.buffer = l.buffer[:0]
		for n := 0; n < burst && l.next < firstEvent+l.supply.last && l.next-l.acked <= l.supply.window; n++ {
			l.buffer = appendPrepared(l.buffer, l.next)
			l.next++
			l.supply.sent.Add(1)
		}
		if l.out = l.buffer; len(l.out) == 0 {
			l.room.Wait()
		}
	}
	n := copy(b, l.out)
	l.out = l.out[n:]
	return n, nil
}

// Write takes the client's frames, which come whole.
func (l *fedLine) Write(b []byte) (int, error) {
	text, err := clientFrame(b)
	if err != nil {
		return 0, err
	}
	if _, cursor, ok := strings.Cut(text, `"cursor":"acct-42@k3f9zq-`); ok {
		var acked int
		if _, err := fmt.Sscanf(cursor, "%d", &acked); err != nil {
			return 0, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.acked = max(l.acked, acked)
		l.room.Broadcast()
	}
	return len(b), nil
}

// clientFrame unmasks a frame.
func clientFrame(b []byte) (string, error) {
	r := bufio.NewReader(bytes.NewReader(b))
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil || head[1]&0x80 == 0 {
		return "", errors.New("no masked frame")
	}
	size := int(head[1] & 0x7f)
	if size == 126 {
		var long uint16
		if err := binary.Read(r, binary.BigEndian, &long); err != nil {
			return "", err
		}
		size = int(long)
	}
	masked := make([]byte, 4+size)
	if _, err := io.ReadFull(r, masked); err != nil {
		return "", err
	}
	for i := range masked[4:] {
		masked[4+i] ^= masked[i%4]
	}
	return string(masked[4:]), nil
}

func (l *fedLine) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.room.Broadcast()
	return nil
}

// attachTo attaches to the supply.
func attachTo(t testing.TB, f *supply, o SubscriptionOptions) *Subscription {
	t.Helper()
	c, err := New("http://feed.example", Options{HTTPClient: &http.Client{Transport: f}, Transport: WebSocket, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return mustAttach(t, c, "crm", o)
}

// What the SDK itself costs of an event, from the socket to the handler and
// back to the acknowledgement:
//
//	go test -run '^$' -bench Events -cpu 1 ./client/go
func BenchmarkEvents(b *testing.B) {
	for _, window := range []int{256, 4096} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			b.ReportAllocs()
			done := make(chan struct{})
			var handled atomic.Int64
			sub := attachTo(b, &supply{window: window, last: b.N}, SubscriptionOptions{Concurrency: 8, Handler: func(context.Context, Event) error {
				if handled.Add(1) == int64(b.N) {
					close(done)
				}
				return nil
			}})
			b.ResetTimer()
			end := runSubscription(b, sub)
			<-done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			if err := end(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// What sharing requests is worth, with a hundred who publish one event each:
//
//	go test -run '^$' -bench Publish ./client/go
func BenchmarkPublish(b *testing.B) {
	g := newGateway(b)
	c := g.client(b, Options{})
	const callers = 100
	for name, publish := range map[string]func() error{
		"one request each": func() error {
			return c.Do(b.Context(), http.MethodPost, "/v1/channels/acct-42/events", map[string]any{"type": "email.opened", "id": newID()}, nil)
		},
		"shared": func() error {
			_, err := c.Publish(b.Context(), "acct-42", Event{Type: "email.opened"})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						if err := publish(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
