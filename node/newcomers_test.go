package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Who has connected and not said yet what he wants keeps no node from ending, and
// is no request that was under way.
func TestShutdownDoesNotWaitForWhoAsksNothing(t *testing.T) {
	n, err := New(t.Context(), Options{Broker: "embedded:" + t.TempDir(), Drain: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	for _, said := range []string{"", "GET", "GET /livez HTTP/1.1\r\nHost: x\r\nX-A: "} {
		c, err := net.Dial("tcp", n.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := http.Get(n.URL() + "/livez") // they were taken before it was
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := errors.Join(<-ended, n.Shutdown()); err != nil {
		t.Errorf("it ended with: %v", err)
	}
}
