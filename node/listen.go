package node

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listen says the way out where another gateway on this machine is first.
func listen(option, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		other := "127.0.0.1:0 for any free port"
		if option == "admin-listen" {
			other += ", or an empty one for no metrics and profiles"
		}
		return nil, fmt.Errorf("--%s %s: in use, by another gateway or program; want another address, e.g. %s", option, address, other)
	}
	if err != nil {
		return nil, fmt.Errorf("--%s %s: %w", option, address, err)
	}
	return l, nil
}

// loopback returns an error unless address is of this machine's loopback.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%q is not a loopback address", host)
	}
	return nil
}

// descriptors is how many sockets may be accepted: the limit on open files less
// a reserve for the store, the broker's connections and callbacks. The Go
// runtime has raised the soft limit to the hard one.
func descriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur > 1<<30 {
		return 0
	}
	reserve := min(max(512, int(limit.Cur)/8), 8192)
	return max(int(limit.Cur)-reserve, int(limit.Cur)/2)
}
