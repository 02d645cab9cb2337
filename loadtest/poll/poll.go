// Package poll is the load tester's thin edge to epoll and to non-blocking
// sockets: one Poller per thread, level-triggered, with a nanosecond time-out.
//
// The tester shares its machine with the gateway that it measures, so what it
// spends per event is taken away from the subject: reads and writes go to the
// kernel directly, without the runtime's netpoller or a goroutine per socket.
package poll

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Interest in a socket; errors and hang-ups are always reported.
const (
	In  = unix.EPOLLIN
	Out = unix.EPOLLOUT
	Err = unix.EPOLLERR | unix.EPOLLHUP
)

// wakeKey marks the Poller's own eventfd among the keys of its owner.
const wakeKey = -1

// Event says that the descriptor added under Key and Turn is ready. Turn
// distinguishes descriptors that had one key after another, so that an event
// queued for a closed one isn't taken for its successor's.
type Event struct {
	Key  int32
	Turn int32
	Mask uint32
}

// A Poller waits for many descriptors. All methods except Wake belong to the
// goroutine that owns it.
type Poller struct {
	ep, wake int
	raw      []unix.EpollEvent
	ready    []Event
}

// Open makes a Poller that reports up to batch events at once.
func Open(batch int) (*Poller, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	p := &Poller{ep: ep, wake: wake, raw: make([]unix.EpollEvent, batch), ready: make([]Event, 0, batch)}
	if err := p.Add(wake, wakeKey, 0, In); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Add starts to watch fd; key must not be negative.
func (p *Poller) Add(fd int, key, turn int32, mask uint32) error {
	e := unix.EpollEvent{Events: mask, Fd: key, Pad: turn}
	if err := unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

// Change replaces what fd is watched for.
func (p *Poller) Change(fd int, key, turn int32, mask uint32) error {
	e := unix.EpollEvent{Events: mask, Fd: key, Pad: turn}
	if err := unix.EpollCtl(p.ep, unix.EPOLL_CTL_MOD, fd, &e); err != nil {
		return fmt.Errorf("change watch: %w", err)
	}
	return nil
}

// Wait returns what is ready, after timeout at the latest; a negative timeout
// waits for ever. The slice is valid until the next Wait.
func (p *Poller) Wait(timeout time.Duration) ([]Event, error) {
	var ts *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(int64(timeout))
		ts = &t
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.ep),
		uintptr(unsafe.Pointer(&p.raw[0])), uintptr(len(p.raw)), uintptr(unsafe.Pointer(ts)), 0, 0)
	if errno == unix.EINTR {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("wait for sockets: %w", errno)
	}
	p.ready = p.ready[:0]
	for _, e := range p.raw[:n] {
		if e.Fd == wakeKey {
			var b [8]byte
			Read(p.wake, b[:])
			continue
		}
		p.ready = append(p.ready, Event{Key: e.Fd, Turn: e.Pad, Mask: e.Events})
	}
	return p.ready, nil
}

// Wake ends a Wait that is under way, or else the next one. Any goroutine may
// call it, until Close.
func (p *Poller) Wake() {
	one := [8]byte{1}
	Write(p.wake, one[:])
}

// Close gives the descriptors back; sockets added stay open.
func (p *Poller) Close() {
	unix.Close(p.wake)
	unix.Close(p.ep)
}

// Read reads from a non-blocking descriptor: 0 bytes and no error mean its
// end, EAGAIN that there is nothing yet.
func Read(fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Write writes what the socket takes at once. A peer that is gone is an
// error, never a signal: the Go runtime ignores SIGPIPE on sockets.
func Write(fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Busy says that err only means "not now".
func Busy(err error) bool { return err == syscall.EAGAIN || err == syscall.EINTR }
