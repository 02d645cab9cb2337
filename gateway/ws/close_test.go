package ws_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/ws"
)

// A client that says goodbye is answered, whatever else there was to send to
// it: without the answer it can't tell a goodbye from a broken network.
func TestEachCloseIsAnswered(t *testing.T) {
	const closes = 500 // for each of four
	for _, tls := range []bool{false, true} {
		for _, backlog := range []bool{false, true} {
			t.Run(fmt.Sprintf("tls=%v,backlog=%v", tls, backlog), func(t *testing.T) {
				g := newGateway(t, tls)
				query := "channel=a"
				if backlog {
					// More than sockets take from a client that doesn't read.
					event := `"` + strings.Repeat("x", 16<<10) + `"`
					for range 64 {
						g.log.Append("a", "t", "", event)
					}
					query += "&since=earliest"
				}
				bearer := token(t, auth.Mintage{Subscribe: []string{"a"}})
				var left sync.WaitGroup
				turns, failed := make(chan int, closes), make(chan error, closes)
				for i := range closes {
					turns <- i
				}
				close(turns)
				for range 16 {
					left.Go(func() {
						for i := range turns {
							say := g.closeByLibrary
							if i%2 == 0 {
								say = g.closeByHand
							}
							if err := say(t, query, bearer); err != nil {
								failed <- err
							}
						}
					})
				}
				left.Wait()
				close(failed)
				if n := len(failed); n > 0 {
					t.Errorf("%d of %d closes were not answered, the first: %v", n, closes, <-failed)
				}
				waitFor(t, func() bool { return g.hub.Count() == 0 })
			})
		}
	}
}

func (g gateway) closeByLibrary(t *testing.T, query, bearer string) error {
	c, _, err := g.dial(t, query, bearer, ws.Protocol)
	if err != nil {
		return err
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	if _, err := read(t, c); err != nil {
		return err
	}
	return c.Close(websocket.StatusNormalClosure, "")
}

// closeByHand reads every frame up to the close frame and the stream's end.
func (g gateway) closeByHand(_ *testing.T, query, bearer string) (err error) {
	var c net.Conn
	if address := g.Listener.Addr().String(); strings.HasPrefix(g.URL, "https") {
		c, err = tls.Dial("tcp", address, g.Client().Transport.(*http.Transport).TLSClientConfig)
	} else {
		c, err = net.Dial("tcp", address)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /v1/ws?%s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: longline.v1\r\nAuthorization: Bearer %s\r\n\r\n", query, bearer)
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("handshake: %v, %v", response, err)
	}
	if _, _, err := readFrame(r); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if _, err := c.Write([]byte("\x88\x82\x00\x00\x00\x00\x03\xe8")); err != nil {
		return err
	}
	for {
		op, body, err := readFrame(r)
		if err != nil {
			return fmt.Errorf("no close frame: %w", err)
		}
		if op != 8 {
			continue
		}
		if len(body) != 2 || binary.BigEndian.Uint16(body) != 1000 {
			return fmt.Errorf("close frame %x, want 1000", body)
		}
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			return fmt.Errorf("%d bytes and %v after the close frame", len(rest), err)
		}
		return nil
	}
}

// readFrame reads an unmasked frame (RFC 6455 §5.2).
func readFrame(r *bufio.Reader) (op byte, body []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&0xf0 != 0x80 || head[1]&0x80 != 0 {
		return 0, nil, errors.New("not a frame of a server's")
	}
	size := uint64(head[1])
	switch size {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(r, b[:])
		size = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(r, b[:])
		size = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, size)
	_, err = io.ReadFull(r, body)
	return head[0] & 0xf, body, err
}
