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

// openFiles is the limit on open files, 0 for none. The Go runtime has raised the
// soft limit to the hard one.
func openFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur > 1<<30 {
		return 0
	}
	return int(limit.Cur)
}

// descriptors is how many sockets may be accepted: the limit on open files less
// a reserve for the store, the broker's connections and callbacks; 0: any number.
func descriptors() int {
	limit := openFiles()
	reserve := min(max(512, limit/8), 8192)
	return max(limit-reserve, limit/2)
}

// maxCallbackSockets is as many as calls ever take: a first one of each worker,
// those beyond it, and what is kept for the next.
const maxCallbackSockets = 8192

// callbackSockets is how many connections callbacks may have where so many are
// accepted: half of what these leave. The other half is the store's, the
// broker's, and what is open for a moment only, such as lookups of names.
func callbackSockets(accepted int) int {
	limit := openFiles()
	if limit == 0 {
		return maxCallbackSockets
	}
	return min(max((limit-accepted)/2, 8), maxCallbackSockets)
}
