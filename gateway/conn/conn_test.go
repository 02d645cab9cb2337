package conn_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/conn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner counts what its line tells it.
type owner struct {
	wakes, reads chan struct{}
	read         func()
}

func newOwner() *owner {
	return &owner{wakes: make(chan struct{}, 1000), reads: make(chan struct{}, 1000)}
}

func (o *owner) Wake() { o.wakes <- struct{}{} }
func (o *owner) Read() {
	if o.read != nil {
		o.read()
	}
	o.reads <- struct{}{}
}

func wait(t *testing.T, c chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain for a %s", what)
	}
}

// connect returns a started socket and its peer.
func connect(t *testing.T, o *owner) (*conn.Socket, *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	peer, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var p conn.Poller
	s := p.Wrap(accepted)
	if s == nil {
		t.Fatalf("a TCP connection is no socket on %s", runtime.GOOS)
	}
	if err := p.Start(s, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		peer.Close()
		p.Close()
	})
	return s, peer.(*net.TCPConn)
}

func TestFramesNeverInterleaveHoweverTheSocketTakesThem(t *testing.T) {
	o := newOwner()
	s, peer := connect(t, o)
	const frames, size = 400, 5000
	var want bytes.Buffer
	all := make([][]byte, 0, 2*frames)
	for i := range frames {
		head, body := fmt.Appendf(nil, "<%d:", i), append(bytes.Repeat([]byte{byte('a' + i%26)}, size), '>')
		want.Write(head)
		want.Write(body)
		all = append(all, head, body)
	}
	got := make(chan []byte)
	start := make(chan struct{})
	go func() {
		<-start // so that the socket fills up first
		b := make([]byte, want.Len())
		io.ReadFull(peer, b)
		got <- b
	}()
	blocked := 0
	for left := all; len(left) > 0; {
		n, full, err := s.Send(left, 2)
		if err != nil {
			t.Fatal(err)
		}
		left = left[2*n:]
		if full {
			if blocked++; blocked == 1 {
				close(start)
			}
			wait(t, o.wakes, "wake")
		}
	}
	for { // the rest of a frame that was begun
		if _, full, err := s.Send(nil, 2); err != nil {
			t.Fatal(err)
		} else if !full {
			break
		}
		wait(t, o.wakes, "wake")
	}
	if blocked == 0 {
		t.Error("two megabytes never filled the socket")
	}
	if b := <-got; !bytes.Equal(b, want.Bytes()) {
		t.Error("what arrived is not what was sent")
	}
}

func TestAControlFrameNeverBlocksNorSplitsAnEvent(t *testing.T) {
	o := newOwner()
	s, peer := connect(t, o)
	event := append(bytes.Repeat([]byte("e"), 100_000), '.')
	for {
		if _, full, err := s.Send([][]byte{event}, 1); err != nil {
			t.Fatal(err)
		} else if full {
			break
		}
	}
	pong := func(n byte) []byte { return []byte{0x8a, 1, n} }
	for n := range byte(50) { // only the newest is kept
		if m, err := s.Write(pong(n)); m != 3 || err != nil {
			t.Fatal(m, err)
		}
	}
	var got bytes.Buffer
	done := make(chan struct{})
	go func() { io.Copy(&got, peer); close(done) }()
	wait(t, o.wakes, "wake")
	for {
		_, full, err := s.Send(nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		if !full {
			break
		}
		wait(t, o.wakes, "wake")
	}
	s.Finish()
	<-done
	rest := bytes.ReplaceAll(got.Bytes(), event, nil)
	if !bytes.Equal(rest, pong(49)) {
		t.Errorf("besides whole events %x arrived, want the newest pong", rest[:min(20, len(rest))])
	}
}

func TestReadingComesAndGoes(t *testing.T) {
	o := newOwner()
	var s *conn.Socket
	var mu sync.Mutex
	var got []byte
	o.read = func() {
		b := make([]byte, 4)
		for {
			s.Begin(false)
			n, err := s.Read(b)
			mu.Lock()
			got = append(got, b[:n]...)
			mu.Unlock()
			if errors.Is(err, conn.ErrWouldBlock) {
				return
			}
			if err != nil {
				return
			}
		}
	}
	starting := make(chan struct{})
	inner := o.read
	o.read = func() { <-starting; inner() }
	s, peer := connect(t, o)
	close(starting)
	for i := range 100 {
		fmt.Fprintf(peer, "%d,", i)
		for {
			wait(t, o.reads, "read")
			mu.Lock()
			ok := bytes.HasSuffix(got, fmt.Appendf(nil, "%d,", i))
			mu.Unlock()
			if ok {
				break
			}
		}
	}
	if s.Gone() {
		t.Error("gone although it was only quiet")
	}
	peer.Close()
	for !s.Gone() {
		wait(t, o.reads, "read")
	}
}

func TestAClosedLineRefuses(t *testing.T) {
	s, _ := connect(t, newOwner())
	s.Close()
	s.Close()
	if _, _, err := s.Send([][]byte{{1}}, 1); err == nil {
		t.Error("a closed line takes a frame")
	}
	if n, err := s.Write([]byte{0x8a, 0}); n != 2 || err != nil {
		t.Errorf("the library is told %d, %v", n, err)
	}
}

// sink is a Stream's peer whose writes wait for the gate.
type sink struct {
	gate chan struct{} // nil: writes fail

	mu   sync.Mutex
	got  []byte
	ends []string
	cut  chan struct{}
}

func (p *sink) Write(b []byte) error {
	if p.gate == nil {
		return io.ErrClosedPipe
	}
	select {
	case <-p.gate:
	case <-p.cut:
		return net.ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, b...)
	return nil
}

func (p *sink) note(end string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = append(p.ends, end)
}

func (p *sink) End() { p.note("end") }
func (p *sink) Cut() { p.note("cut"); close(p.cut) }

func TestStream(t *testing.T) {
	o := newOwner()
	p := &sink{gate: make(chan struct{}, 10), cut: make(chan struct{})}
	s := conn.NewStream(o, p)
	if n, full, err := s.Send([][]byte{[]byte("a"), []byte("b")}, 1); n != 2 || !full || err != nil {
		t.Fatal(n, full, err)
	}
	if n, full, _ := s.Send([][]byte{[]byte("c")}, 1); n != 0 || !full {
		t.Error("took more while writing")
	}
	s.Write([]byte{0x8a, 0})
	p.gate <- struct{}{}
	p.gate <- struct{}{}
	wait(t, o.wakes, "wake")
	s.Send([][]byte{[]byte("d")}, 1)
	s.Finish()
	p.gate <- struct{}{}
	s.Wait()
	s.Close()
	if string(p.got) != "ab\x8a\x00d" || fmt.Sprint(p.ends) != "[end cut]" {
		t.Errorf("wrote %q, then %v", p.got, p.ends)
	}
}

func TestAFinishedStreamWaitsOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &sink{gate: make(chan struct{}), cut: make(chan struct{})}
		s := conn.NewStream(newOwner(), p)
		s.Send([][]byte{[]byte("a")}, 1)
		began := time.Now()
		s.Finish()
		s.Wait()
		if took := time.Since(began); took != conn.Linger || fmt.Sprint(p.ends) != "[cut]" {
			t.Errorf("ended by %v after %v, want by a cut after %v", p.ends, took, conn.Linger)
		}
	})
}

func TestAStreamWhoseWriteFailsIsDead(t *testing.T) {
	p := &sink{cut: make(chan struct{})}
	s := conn.NewStream(newOwner(), p)
	s.Send([][]byte{[]byte("a")}, 1)
	<-p.cut
	s.Wait()
	if _, _, err := s.Send([][]byte{[]byte("b")}, 1); err == nil {
		t.Error("takes more")
	}
}
