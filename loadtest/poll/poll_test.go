package poll_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longline-push/longline/loadtest/poll"
)

func TestSourcesSpreadOverTheLoopback(t *testing.T) {
	target := netip.MustParseAddr("127.0.0.1")
	used := map[netip.Addr]int{}
	for lane := range 5 {
		for n := range 60_000 {
			a := poll.Source(target, lane, n)
			if !a.IsLoopback() || a == target {
				t.Fatalf("lane %d, connection %d: got %v", lane, n, a)
			}
			used[a]++
		}
	}
	for a, n := range used {
		if n > 28_000 {
			t.Errorf("%v has %d connections: more than there are ports", a, n)
		}
	}
	if got := poll.Source(netip.MustParseAddr("192.0.2.1"), 0, 0); got.IsValid() {
		t.Errorf("another machine: got %v, want the kernel's choice", got)
	}
}

// TestConversation takes a socket from dial to reset.
func TestConversation(t *testing.T) {
	listener, addr, err := poll.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(listener) })
	p, err := poll.Open(4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	fd, err := poll.Dial(addr, poll.Source(addr.Addr(), 3, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(fd, 7, 1, poll.Out); err != nil {
		t.Fatal(err)
	}
	wantEvent(t, p, poll.Event{Key: 7, Turn: 1, Mask: poll.Out})
	if err := poll.Connected(fd); err != nil {
		t.Fatal(err)
	}
	peer, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(peer) })
	var b [16]byte
	if _, err := poll.Read(fd, b[:]); !poll.Busy(err) {
		t.Errorf("nothing sent yet: got %v, want busy", err)
	}
	if n, err := poll.Write(peer, []byte("hello")); n != 5 || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if err := p.Change(fd, 7, 2, poll.In); err != nil {
		t.Fatal(err)
	}
	wantEvent(t, p, poll.Event{Key: 7, Turn: 2, Mask: poll.In})
	if n, err := poll.Read(fd, b[:]); err != nil || !bytes.Equal(b[:n], []byte("hello")) {
		t.Errorf("read %q, %v", b[:n], err)
	}
	poll.Reset(fd)
	if _, err := poll.Read(peer, b[:]); err != unix.ECONNRESET {
		t.Errorf("after a reset: got %v, want ECONNRESET", err)
	}
}

func wantEvent(t *testing.T, p *poll.Poller, want poll.Event) {
	t.Helper()
	events, err := p.Wait(5 * time.Second)
	if err != nil || len(events) != 1 || events[0] != want {
		t.Fatalf("got %+v, %v, want %+v", events, err, want)
	}
}

func TestWakeAndTimeout(t *testing.T) {
	p, err := poll.Open(4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	p.Wake()
	for _, timeout := range []time.Duration{-1, time.Millisecond} { // for ever, but woken; then not
		if events, err := p.Wait(timeout); err != nil || len(events) != 0 {
			t.Errorf("got %+v, %v, want nothing", events, err)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	listener, addr, err := poll.Listen()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(listener)
	p, err := poll.Open(4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	fd, err := poll.Dial(addr, netip.Addr{})
	if err != nil {
		return // refused at once
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := p.Add(fd, 1, 1, poll.Out); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := poll.Connected(fd); err == nil {
		t.Error("connected to nobody")
	}
}
