package embedded

import (
	"io"
	"syscall"
	"unsafe"
)

// rawSyscall says that writeUntold may be called.
const rawSyscall = true

// writeUntold is a write of which the scheduler isn't told: should it block, it
// takes a processor with it.
func writeUntold(fd uintptr, p []byte) (n int, err error) {
	for n < len(p) {
		r, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p[n])), uintptr(len(p)-n))
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return n, errno
		case r == 0:
			return n, io.ErrUnexpectedEOF
		default:
			n += int(r)
		}
	}
	return n, nil
}
