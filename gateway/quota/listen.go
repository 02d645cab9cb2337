package quota

import (
	"net"
	"sync/atomic"
	"time"
)

// Listen returns a listener whose connections are charged to the budget from
// Accept until they are closed. One too many is told 503, if it speaks plain
// HTTP, and closed: what is beyond the limit belongs to the store and to
// callbacks.
func (b *Budget) Listen(l net.Listener, plain bool) net.Listener {
	return &listener{Listener: l, budget: b, plain: plain}
}

type listener struct {
	net.Listener
	budget  *Budget
	plain   bool
	telling atomic.Int32 // connections that are being refused with a reason
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.budget.sockets.Take(1) == nil {
			return &Conn{Conn: c, sockets: l.budget.sockets}, nil
		}
		l.budget.Refused(l.budget.sockets)
		l.refuse(c)
	}
}

// Of those beyond the limit, so many at a time are told why.
const (
	told       = 32
	tellWithin = time.Second
)

const fullAnswer = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n" +
	"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n\r\n" +
	`{"type":"about:blank","title":"Service Unavailable","status":503,"code":"unavailable","detail":"the node has as many connections as it takes"}` + "\n"

func (l *listener) refuse(c net.Conn) {
	if !l.plain || l.telling.Add(1) > told {
		if l.plain {
			l.telling.Add(-1)
		}
		c.Close()
		return
	}
	go func() {
		defer l.telling.Add(-1)
		defer c.Close()
		c.SetDeadline(time.Now().Add(tellWithin))
		var request [4096]byte
		c.Read(request[:]) // or closing would reset the connection before the answer is read
		c.Write([]byte(fullAnswer))
	}()
}

// Conn is a connection that counts.
type Conn struct {
	net.Conn
	sockets *Account
	closed  atomic.Bool
}

// NetConn is the connection below, for those who use its descriptor. They must
// close this one.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.sockets.Give(1)
	}
	return err
}
