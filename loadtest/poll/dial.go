package poll

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// portsPerSource is how many connections share one source address: well below
// the ephemeral ports that Linux gives one address pair (28,232 by default).
const portsPerSource = 8192

// Source is the source address of the n-th connection to a loopback target: a
// new one within 127.0.0.0/8 every few thousand, so that ports don't run out.
// Each lane (a process, a group of clients) has its own range. For any other
// target it is the zero Addr: the kernel chooses.
func Source(target netip.Addr, lane, n int) netip.Addr {
	if !target.Is4() || target.As4()[0] != 127 {
		return netip.Addr{}
	}
	i := n / portsPerSource
	return netip.AddrFrom4([4]byte{127, byte(16 + lane%200), byte(i % 256), byte(1 + i/256%250)})
}

// Dial begins a non-blocking connect and returns the socket; it is writable
// once connected (see Connected). A zero source is left to the kernel.
func Dial(target netip.AddrPort, source netip.Addr) (int, error) {
	family := unix.AF_INET
	if target.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	if source.IsValid() {
		// The port is chosen at connect, by the whole 4-tuple, not at bind.
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("bind to %v: %w", source, err)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.Connect(fd, sockaddr(target)); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %v: %w", target, err)
	}
	return fd, nil
}

// Connected tells how a connect begun by Dial ended.
func Connected(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if code != 0 {
		return fmt.Errorf("connect: %w", unix.Errno(code))
	}
	return nil
}

// Listen opens a non-blocking listener on a free loopback port.
func Listen() (int, netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, netip.AddrPort{}, fmt.Errorf("make socket: %w", err)
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(loopback, 0))); err == nil {
		err = unix.Listen(fd, 4096)
	}
	var local unix.Sockaddr
	if err == nil {
		local, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, netip.AddrPort{}, fmt.Errorf("listen: %w", err)
	}
	return fd, netip.AddrPortFrom(loopback, uint16(local.(*unix.SockaddrInet4).Port)), nil
}

// Reset closes a socket with RST: ten thousand closed clients leave no
// TIME_WAIT behind that would hold their ports for the next run.
func Reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// Resolve finds the address of host:port, preferring IPv4.
func Resolve(hostport string) (netip.AddrPort, error) {
	a, err := net.ResolveTCPAddr("tcp", hostport)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("resolve %q: %w", hostport, err)
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
