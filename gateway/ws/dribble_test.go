package ws_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/feed/feedtest"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/ws"
)

// Each byte is in time, the message isn't: such a peer holds a reader and what
// it has sent.
func TestAMessageThatDribblesEndsTheConnection(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			log := feedtest.New()
			hub := session.NewHub(session.Options{Broker: log, Times: log, MessageTimeout: 50 * time.Millisecond})
			server := httptest.NewUnstartedServer(&ws.Handler{Hub: hub, Verifier: authtest.Verifier(t, auth.Options{}), Publisher: publisher{log}})
			if secure {
				server.StartTLS()
			} else {
				server.Start()
			}
			t.Cleanup(func() { hub.Close(); server.Close() })
			const peers = 30
			for range peers {
				var c net.Conn
				var err error
				if secure {
					c, err = tls.Dial("tcp", server.Listener.Addr().String(), server.Client().Transport.(*http.Transport).TLSClientConfig)
				} else {
					c, err = net.Dial("tcp", server.Listener.Addr().String())
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				fmt.Fprintf(c, "GET /v1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
					"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n", token(t, auth.Mintage{Publish: []string{"a"}}))
				if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
					t.Fatal(err)
				}
				go func() {
					_, err := c.Write([]byte("\x81\xff\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00")) // 4 MiB follow
					for err == nil {
						time.Sleep(5 * time.Millisecond)
						_, err = c.Write([]byte("x"))
					}
				}()
			}
			waitFor(t, func() bool { return hub.Count() == 0 })
		})
	}
}
