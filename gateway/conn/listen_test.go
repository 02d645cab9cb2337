package conn_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/conn"
)

// accept returns an accepted connection and its peer.
func accept(t *testing.T) (accepted net.Conn, peer *net.TCPConn) {
	t.Helper()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := conn.Listen(plain)
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		accepted.Close()
		dialed.Close()
	})
	return accepted, dialed.(*net.TCPConn)
}

// More than any socket takes at once, and a peer that begins to read late.
func TestListenedConnectionsCarryEverything(t *testing.T) {
	accepted, peer := accept(t)
	sent := make([]byte, 16<<20)
	rand.Read(sent)
	go func() {
		if n, err := accepted.Write(sent); n != len(sent) || err != nil {
			t.Errorf("wrote %d of %d bytes: %v", n, len(sent), err)
		}
		accepted.Close()
	}()
	if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came, or others: %v", len(got), len(sent), err)
	}
}

func TestListenedConnectionsReadToTheEnd(t *testing.T) {
	accepted, peer := accept(t)
	sent := make([]byte, 1<<20)
	rand.Read(sent)
	go func() {
		peer.Write(sent)
		peer.CloseWrite()
	}()
	if got, err := io.ReadAll(accepted); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came, or others: %v", len(got), len(sent), err)
	}
}

// The errors are those that net/http knows from net's own connections.
func TestErrorsOfListenedConnections(t *testing.T) {
	accepted, peer := accept(t)
	if n, err := accepted.Read(nil); n != 0 || err != nil {
		t.Errorf("reading nothing: %d, %v", n, err)
	}
	accepted.SetReadDeadline(time.Now().Add(time.Millisecond))
	var timeout net.Error
	if _, err := accepted.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	accepted.SetReadDeadline(time.Time{})
	peer.SetLinger(0)
	peer.Close() // a reset
	var op *net.OpError
	if _, err := accepted.Read(make([]byte, 1)); !errors.As(err, &op) || op.Op != "read" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %v", err)
	}
	if _, err := accepted.Write([]byte("x")); !errors.As(err, &op) || op.Op != "write" || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("writing after a reset: %v", err)
	}
	accepted.Close()
	if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after closing: %v", err)
	}
}
