//go:build !linux

package conn

import (
	"net"
	"time"
)

// Listen returns l.
func Listen(l net.Listener) net.Listener { return l }

// Poller is a placeholder where there is no epoll: every line is a Stream.
type Poller struct {
	MessageTimeout time.Duration
	readers        readers
}

// Close does nothing.
func (p *Poller) Close() {}

// Wrap returns nil: the caller uses a Stream.
func (p *Poller) Wrap(net.Conn) *Socket { return nil }

// Start is never called, as Wrap returns no socket.
func (p *Poller) Start(*Socket, Owner) error { return errClosed }

func (p *Poller) remove(*Socket) {}

func (s *Socket) serve() {}

func (s *Socket) recv([]byte) (int, error) { return 0, errClosed }

func writev(int, [][]byte) (int, bool, error) { return 0, false, errClosed }
