package pump

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/poll"
	"github.com/longline-push/longline/loadtest/probe"
	"github.com/longline-push/longline/loadtest/wire"
)

// due is a publish to come. Its at is 0 in a closed loop.
type due struct {
	strand int
	at     int64
}

// job is the publish that a connection is at.
type job struct {
	due
	first uint64 // sequence number of its first event
	body  []byte
}

// conn is one publisher.
type conn struct {
	at    int // its place
	fd    int // -1: not connected
	turn  int32
	job   *job
	queue []due

	ready   bool // connected and, for WebSocket, greeted
	upgrade bool // the WebSocket upgrade was answered
	retryAt int64
	out     []byte
	rest    []byte
	turnOf  int // picks the next strand of a closed loop
	ref     int64
	spare   job
}

// nextStrand goes round the strands that are this connection's own.
func (c *conn) nextStrand(o Options) int {
	strand := c.at + c.turnOf*o.Conns
	if strand >= o.strands() {
		c.turnOf, strand = 0, c.at
	}
	c.turnOf++
	return strand
}

// begin makes the events of a publish and sends them if it can.
func (p *Pump) begin(c *conn, d due) {
	p.mu.Lock()
	first := p.next[d.strand] + 1
	p.next[d.strand] += uint64(p.opts.Batch)
	p.mu.Unlock()
	if d.at == 0 {
		d.at = measure.Now()
	}
	c.spare.due, c.spare.first = d, first
	b := c.spare.body[:0]
	if p.opts.Batch > 1 || p.opts.Transport == WebSocket {
		b = append(b, '[')
	}
	for i := range uint64(p.opts.Batch) {
		if i > 0 {
			b = append(b, ',')
		}
		id := ""
		if p.opts.Retry {
			id = strconv.Itoa(d.strand) + "-" + strconv.FormatUint(first+i, 10)
		}
		key := ""
		if p.opts.Keys > 0 {
			key = "k" + strconv.FormatUint((first+i)%uint64(p.opts.Keys), 10)
		}
		b = probe.AppendKeyed(b, id, key, probe.Mark{Seq: first + i, At: d.at, By: d.strand / p.opts.Channels}, p.opts.Size)
	}
	if p.opts.Batch > 1 || p.opts.Transport == WebSocket {
		b = append(b, ']')
	}
	c.spare.body = b
	c.job = &c.spare
	if c.fd >= 0 && c.ready {
		p.send(c)
	}
}

func (p *Pump) dial(c *conn) {
	fd, err := poll.Dial(p.target, poll.Source(p.target.Addr(), p.opts.Lane, c.at))
	if err != nil {
		p.broken(c, err)
		return
	}
	c.fd = fd
	c.turn++
	c.ready, c.upgrade, c.rest, c.out = false, false, nil, c.out[:0]
	if err := p.poller.Add(fd, int32(c.at), c.turn, poll.In|poll.Out); err != nil {
		p.broken(c, err)
	}
}

// channelName is the name of the i-th channel.
func (p *Pump) channelName(i int) string {
	if p.opts.Channel != nil {
		return p.opts.Channel(p.opts.Base, i)
	}
	return p.opts.Base + "." + strconv.Itoa(i)
}

// send writes the job's request.
func (p *Pump) send(c *conn) {
	name := p.channelName(c.job.strand % p.opts.Channels)
	if p.opts.Transport == WebSocket {
		c.ref++
		payload := append(append([]byte(`{"op":"publish","ref":`), strconv.FormatInt(c.ref, 10)...), `,"channel":"`...)
		payload = append(append(payload, name...), `","events":`...)
		payload = append(append(payload, c.job.body...), '}')
		c.out = wire.AppendClientFrame(c.out, wire.OpText, payload)
	} else {
		b := append(append(c.out, "POST /v1/channels/"...), name...)
		b = append(append(b, "/events HTTP/1.1\r\nHost: "...), p.opts.Target...)
		if p.token != "" {
			b = append(append(b, "\r\nAuthorization: Bearer "...), p.token...)
		}
		b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(c.job.body)), 10), "\r\n\r\n"...)
		c.out = append(b, c.job.body...)
	}
	p.flush(c)
}

// hello begins the WebSocket upgrade.
func (p *Pump) hello(c *conn) {
	c.out = fmt.Appendf(c.out, "GET /v1/ws HTTP/1.1\r\nHost: %s\r\n", p.opts.Target)
	if p.token != "" {
		c.out = fmt.Appendf(c.out, "Authorization: Bearer %s\r\n", p.token)
	}
	c.out = append(c.out, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: bG9hZHRlc3QtY2xpZW50IQ==\r\nSec-WebSocket-Protocol: longline.v1\r\n\r\n"...)
	p.flush(c)
}

func (p *Pump) flush(c *conn) {
	n, err := poll.Write(c.fd, c.out)
	if err != nil && !poll.Busy(err) {
		p.broken(c, fmt.Errorf("write: %w", err))
		return
	}
	rest := copy(c.out, c.out[n:])
	c.out = c.out[:rest]
	if rest > 0 {
		if err := p.poller.Change(c.fd, int32(c.at), c.turn, poll.In|poll.Out); err != nil {
			p.broken(c, err)
		}
	}
}

func (p *Pump) ready(c *conn, mask uint32) {
	if mask&poll.Out != 0 {
		connecting := !c.ready && !c.upgrade && len(c.out) == 0 && c.rest == nil
		if connecting {
			if err := poll.Connected(c.fd); err != nil {
				p.broken(c, err)
				return
			}
		}
		if err := p.poller.Change(c.fd, int32(c.at), c.turn, poll.In); err != nil {
			p.broken(c, err)
			return
		}
		switch {
		case !connecting:
			p.flush(c)
		case p.opts.Transport == WebSocket:
			p.hello(c)
		default:
			c.ready = true
			if c.job != nil {
				p.send(c)
			}
		}
		if c.fd < 0 {
			return
		}
	}
	if mask&(poll.In|poll.Err) != 0 {
		p.read(c)
	}
}

func (p *Pump) read(c *conn) {
	kept := copy(p.buf, c.rest)
	n, err := poll.Read(c.fd, p.buf[kept:])
	switch {
	case poll.Busy(err):
		return
	case err != nil:
		p.broken(c, fmt.Errorf("read: %w", err))
		return
	case n == 0:
		p.broken(c, errors.New("connection closed by the gateway"))
		return
	}
	b := p.buf[:kept+n]
	for len(b) > 0 {
		var used int
		if p.opts.Transport == WebSocket && c.upgrade {
			used, err = p.frame(c, b)
		} else {
			used, err = p.response(c, b)
		}
		if err != nil {
			p.broken(c, err)
			return
		}
		if used == 0 {
			break
		}
		b = b[used:]
	}
	if len(b) == len(p.buf) {
		p.buf = make([]byte, 2*len(p.buf))
	}
	c.rest = append(c.rest[:0], b...)
}

// response reads an HTTP response; it returns its size, 0 for "not yet whole".
func (p *Pump) response(c *conn, b []byte) (int, error) {
	head, n, err := wire.NextHead(b)
	if n == 0 || err != nil {
		return 0, err
	}
	if head.Status == 101 {
		c.upgrade = true
		return n, nil
	}
	body := b[n:]
	if head.Chunked {
		// Decoded from a copy: an answer that isn't whole is read again.
		var d wire.Dechunker
		if body, err = d.Decode(append([]byte(nil), body...)); err != nil {
			return 0, err
		}
		if !d.Done {
			return 0, nil
		}
		n = len(b)
	} else {
		if len(body) < head.Length {
			return 0, nil
		}
		body = body[:max(head.Length, 0)]
		n += len(body)
	}
	if head.Status != 200 {
		return 0, fmt.Errorf("%w: %s: %.300s", ErrRefused, head.First, body)
	}
	return n, p.finish(c)
}

// frame reads a WebSocket frame; it returns its size, 0 for "not yet whole".
func (p *Pump) frame(c *conn, b []byte) (int, error) {
	f, n, err := wire.NextFrame(b)
	if n == 0 || err != nil {
		return 0, err
	}
	switch f.Op {
	case wire.OpPing:
		c.out = wire.AppendClientFrame(c.out, wire.OpPong, f.Payload)
		p.flush(c)
	case wire.OpClose:
		return 0, fmt.Errorf("closed by the gateway: %q", f.Payload)
	case wire.OpText:
		return n, p.message(c, f.Payload)
	}
	return n, nil
}

// finish enters the answer to the present job.
func (p *Pump) finish(c *conn) error {
	if c.job == nil {
		return errors.New("an answer came to no publish")
	}
	now := measure.Now()
	p.mu.Lock()
	s := &p.state
	s.Answered += uint64(p.opts.Batch)
	s.LastAt = now
	s.Latency.Record(time.Duration(now - c.job.at))
	p.answered[c.job.strand] = c.job.first + uint64(p.opts.Batch) - 1
	p.mu.Unlock()
	c.job = nil
	if len(c.queue) > 0 {
		next := c.queue[0]
		c.queue = c.queue[1:]
		p.begin(c, next)
	}
	return nil
}

// broken ends a connection. With Retry its job is sent again on the next one;
// an idle one may end for good reasons.
func (p *Pump) broken(c *conn, why error) {
	if c.fd >= 0 {
		poll.Reset(c.fd)
	}
	c.fd, c.ready, c.rest = -1, false, nil
	c.out = c.out[:0]
	c.retryAt = measure.Now() + int64(50*time.Millisecond)
	if c.job == nil {
		return
	}
	p.mu.Lock()
	p.state.Failures++
	p.mu.Unlock()
	if !p.opts.Retry {
		p.fail(fmt.Errorf("publish to %s: %w", p.opts.Target, why))
	}
}
