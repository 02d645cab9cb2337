package conn

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listen returns a listener whose connections are read and written by raw
// system calls. A socket of Go's never blocks in one, yet the ordinary call
// tells the scheduler that it might, and that wakes the runtime's monitor
// thread whenever the process was idle before: for a server that has a little
// to do all the time, a sixth of what it does.
func Listen(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c, nil
	}
	return &listened{tcp, raw}, nil
}

// listened is a connection from Listen.
type listened struct {
	*net.TCPConn
	raw syscall.RawConn
}

// Read implements net.Conn.
func (c *listened) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	if err := c.raw.Read(func(fd uintptr) bool {
		n, errno = rawRead(fd, b)
		return errno != unix.EAGAIN
	}); err != nil {
		return 0, err
	}
	switch {
	case errno != 0:
		return 0, c.failed("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (c *listened) Write(b []byte) (n int, err error) {
	var errno syscall.Errno
	if err := c.raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			var written int
			if written, errno = rawWrite(fd, b[n:]); errno != 0 {
				return errno != unix.EAGAIN
			}
			n += written
		}
		return true
	}); err != nil {
		return n, err
	}
	if errno != 0 {
		return n, c.failed("write", errno)
	}
	return n, nil
}

// failed is the error that net's own connections return.
func (c *listened) failed(op string, errno syscall.Errno) error {
	return &net.OpError{
		Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(),
		Err: os.NewSyscallError(op, errno),
	}
}

func rawRead(fd uintptr, b []byte) (int, syscall.Errno) {
	return raw(unix.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
}

func rawWrite(fd uintptr, b []byte) (int, syscall.Errno) {
	return raw(unix.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
}

// raw is a system call that takes a descriptor, a pointer and a length and
// doesn't block. The scheduler isn't told of it.
func raw(trap, fd uintptr, p unsafe.Pointer, n int) (int, syscall.Errno) {
	for {
		r, _, errno := unix.RawSyscall(trap, fd, uintptr(p), uintptr(n))
		if errno != unix.EINTR {
			return int(r), errno
		}
	}
}
