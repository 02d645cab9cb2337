package conn

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poller watches sockets, so that an idle one costs no goroutine. It is an
// epoll instance that is itself watched by the runtime's poller, hence holds
// no thread either. Sockets are registered once, edge-triggered: nothing is
// re-armed per message. The zero value is ready; Close ends it.
type Poller struct {
	// MessageTimeout (MessageTimeout) is how long a peer may take over a
	// message. Static.
	MessageTimeout time.Duration

	fd      int
	file    *os.File // of fd; its Fd method would make it blocking
	raw     syscall.RawConn
	stopped chan struct{}
	readers readers

	mu      sync.RWMutex
	closed  bool
	sockets []*Socket // by file descriptor
}

// sendBuffer bounds what a slow peer hides in the kernel.
const sendBuffer = 128 << 10

// userTimeout is how long sent bytes may stay unacknowledged before the kernel
// gives a peer up (TCP_USER_TIMEOUT).
const userTimeout = 30 * time.Second

// start makes the epoll instance with the first socket.
func (p *Poller) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	if p.file != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fmt.Errorf("create epoll: %w", err)
	}
	file := os.NewFile(uintptr(fd), "epoll")
	if p.raw, err = file.SyscallConn(); err != nil {
		file.Close()
		return fmt.Errorf("watch epoll: %w", err)
	}
	p.fd, p.file, p.stopped = fd, file, make(chan struct{})
	go p.run()
	return nil
}

// Close ends the watching, and closes sockets that their owners finished.
func (p *Poller) Close() {
	p.mu.Lock()
	p.closed = true
	file, left := p.file, slices.Clone(p.sockets)
	p.mu.Unlock()
	for _, s := range left {
		if s != nil {
			s.Close()
		}
	}
	if file != nil {
		file.Close()
		<-p.stopped
	}
	p.readers.close()
}

// Wrap prepares a hijacked connection: a Socket, to be started, or nil if it
// isn't plain TCP.
func (p *Poller) Wrap(conn net.Conn) *Socket {
	var tcp *net.TCPConn
	below := conn
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		below = c.NetConn() // of one that is counted; TLS has something to say itself
	}
	if _, ok := conn.(*tls.Conn); ok {
		return nil
	}
	switch c := below.(type) {
	case *net.TCPConn:
		tcp = c
	case *listened:
		tcp = c.TCPConn
	default:
		return nil
	}
	control, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	s := &Socket{Conn: tcp, outer: conn, poller: p, fd: -1}
	err = control.Control(func(fd uintptr) {
		s.fd = int(fd)
		unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer/2) // the kernel doubles it
	})
	if err != nil {
		return nil
	}
	return s
}

// Start begins the watching. What came in before is read at once.
func (p *Poller) Start(s *Socket, owner Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errClosed
	}
	if err := p.start(); err != nil {
		return err
	}
	s.owner = owner
	p.mu.Lock()
	for len(p.sockets) <= s.fd {
		p.sockets = append(p.sockets, make([]*Socket, max(64, len(p.sockets)))...)
	}
	p.sockets[s.fd] = s
	p.mu.Unlock()
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(s.fd)}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	return nil
}

func (p *Poller) remove(s *Socket) {
	p.mu.Lock()
	// Closing the descriptor takes it out of epoll.
	if s.fd < len(p.sockets) && p.sockets[s.fd] == s {
		p.sockets[s.fd] = nil
	}
	p.mu.Unlock()
}

func (p *Poller) run() {
	defer close(p.stopped)
	events := make([]unix.EpollEvent, 256)
	ready := make([]*Socket, len(events))
	for {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			// As raw as reads and writes, and as short: it doesn't wait.
			r, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
			n = int(r)
			return n > 0 || errno != 0 && errno != unix.EINTR
		})
		if err != nil {
			return
		}
		p.mu.RLock()
		for i, event := range events[:max(n, 0)] {
			ready[i] = nil
			if int(event.Fd) < len(p.sockets) {
				ready[i] = p.sockets[event.Fd]
			}
		}
		p.mu.RUnlock()
		for i, event := range events[:max(n, 0)] {
			s := ready[i]
			if s == nil {
				continue
			}
			if event.Events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
				s.writable()
			}
			if event.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
				s.readable()
			}
		}
	}
}

// writable ends a block. What had to wait goes out with the owner's next Send.
func (s *Socket) writable() {
	s.mu.Lock()
	was := s.blocked
	s.blocked = false
	owner := s.owner
	if was && s.finishing {
		s.flushLocked()
		owner = nil
	}
	s.mu.Unlock()
	if was && owner != nil {
		owner.Wake()
	}
}

func (s *Socket) readable() {
	for {
		switch was := s.reads.Load(); {
		case was == idle && s.reads.CompareAndSwap(idle, busy):
			s.poller.readers.read(s)
			return
		case was == again || was == busy && s.reads.CompareAndSwap(busy, again):
			return
		}
	}
}

// serve lets the owner read until nothing more is there.
func (s *Socket) serve() {
	for {
		s.mu.Lock()
		owner := s.owner
		s.mu.Unlock()
		if owner == nil {
			return
		}
		owner.Read()
		if s.reads.CompareAndSwap(busy, idle) {
			return
		}
		s.reads.Store(busy)
	}
}

// recv reads what is there, without waiting.
func (s *Socket) recv(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return 0, net.ErrClosed
	}
	switch n, errno := rawRead(uintptr(s.fd), b); {
	case errno == unix.EAGAIN:
		return 0, ErrWouldBlock
	case errno != 0:
		return 0, fmt.Errorf("read: %w", errno)
	case n == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

// maxBuffers is how many buffers one writev takes (IOV_MAX).
const maxBuffers = 1024

var vectorPool = sync.Pool{New: func() any { return new([maxBuffers]unix.Iovec) }}

// writev hands as many bytes to the socket as it takes at once. sent tells
// whether that was all.
func writev(fd int, bufs [][]byte) (n int, sent bool, err error) {
	vectors := vectorPool.Get().(*[maxBuffers]unix.Iovec)
	defer vectorPool.Put(vectors)
	for len(bufs) > 0 {
		taken, filled, total := 0, 0, 0
		for taken < len(bufs) && filled < maxBuffers {
			if b := bufs[taken]; len(b) > 0 {
				vectors[filled].Base = &b[0]
				vectors[filled].SetLen(len(b))
				filled, total = filled+1, total+len(b)
			}
			taken++
		}
		if filled > 0 {
			var written int
			var errno syscall.Errno
			if filled == 1 { // the usual case has a cheaper call
				written, errno = raw(unix.SYS_WRITE, uintptr(fd), unsafe.Pointer(vectors[0].Base), total)
			} else {
				written, errno = raw(unix.SYS_WRITEV, uintptr(fd), unsafe.Pointer(vectors), filled)
			}
			clear(vectors[:filled]) // hold no event longer than needed
			if errno == unix.EAGAIN {
				return n, false, nil
			}
			if errno != 0 {
				return n, false, fmt.Errorf("write: %w", errno)
			}
			if n += written; written < total {
				return n, false, nil
			}
		}
		bufs = bufs[taken:]
	}
	return n, true, nil
}
