package swarm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/poll"
	"github.com/longline-push/longline/loadtest/probe"
	"github.com/longline-push/longline/loadtest/wire"
)

// read takes what has arrived for a client and goes through it. Bytes of an
// incomplete item wait in the client; whole ones are never copied.
func (l *loop) read(i int32) {
	c := &l.conns[i]
	if len(c.rest) > len(l.buf)/2 {
		l.buf = make([]byte, 4*len(c.rest))
	}
	kept := copy(l.buf, c.rest)
	n, err := poll.Read(c.fd, l.buf[kept:])
	if err != nil {
		if !poll.Busy(err) {
			l.lose(i, fmt.Errorf("read: %w", err))
		}
		return
	}
	if n == 0 {
		l.lose(i, errors.New("connection closed by the gateway"))
		return
	}
	l.state.Bytes += uint64(n)
	b := l.buf[:kept+n]
	if c.phase == asking && c.extra.head == 0 {
		size, err := l.answer(c, b)
		if err != nil {
			l.lose(i, err)
			return
		}
		if size == 0 {
			c.rest = append(c.rest[:0], b...)
			return
		}
		c.extra.head = size
		b, kept = b[size:], 0
	}
	if c.chunked {
		fresh, err := c.extra.chunks.Decode(b[kept:])
		if err != nil {
			l.lose(i, err)
			return
		}
		b = b[:kept+len(fresh)]
	}
	turn := c.turn
	now := measure.Now()
	var used int
	if l.spec.Transport == WebSocket {
		used, err = l.frames(i, b, now)
	} else {
		used, err = l.blocks(i, b, now)
	}
	if c.turn != turn || c.fd < 0 {
		return
	}
	if err != nil {
		l.lose(i, err)
		return
	}
	if rest := b[used:]; len(rest) > 0 {
		c.rest = append(c.rest[:0], rest...)
	} else if c.rest != nil {
		c.rest = nil
	}
}

// frames goes through the WebSocket frames of b and returns how much it used.
func (l *loop) frames(i int32, b []byte, now int64) (int, error) {
	c := &l.conns[i]
	ch := &l.channels[(l.spec.First+int(i))%l.spec.Channels]
	used := 0
	for used < len(b) {
		if n := l.again(c, ch, b[used:], now); n > 0 {
			used += n
			continue
		}
		f, n, err := wire.NextFrame(b[used:])
		if err != nil {
			return used, err
		}
		if n == 0 {
			break
		}
		raw := b[used : used+n]
		used += n
		switch f.Op {
		case wire.OpText:
			if bytes.HasPrefix(f.Payload, []byte(`{"op":`)) {
				err = l.control(i, "", f.Payload)
			} else if !l.event(c, ch, f.Payload, raw, now) {
				err = l.control(i, "", f.Payload)
			}
		case wire.OpPing:
			c.out = wire.AppendClientFrame(c.out, wire.OpPong, f.Payload)
			l.flush(i)
		case wire.OpClose:
			err = closed(f.Payload)
		case wire.OpBinary:
			err = errors.New("unexpected binary frame")
		}
		if err != nil || c.fd < 0 {
			return used, err
		}
	}
	return used, nil
}

// closed is a close frame as an error.
func closed(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("closed by the gateway without a code")
	}
	return fmt.Errorf("closed by the gateway: %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}

// blocks goes through the SSE events of b and returns how much it used.
func (l *loop) blocks(i int32, b []byte, now int64) (int, error) {
	c := &l.conns[i]
	ch := &l.channels[(l.spec.First+int(i))%l.spec.Channels]
	used := 0
	for used < len(b) {
		if n := l.again(c, ch, b[used:], now); n > 0 {
			used += n
			continue
		}
		block, n := wire.NextBlock(b[used:])
		if n == 0 {
			break
		}
		raw := b[used : used+n]
		used += n
		if op, ok := strings.CutPrefix(string(block.Event), "longline."); ok {
			if err := l.control(i, op, block.Data); err != nil || c.fd < 0 {
				return used, err
			}
			continue
		}
		if block.Data != nil && !l.event(c, ch, block.Data, raw, now) {
			return used, fmt.Errorf("event without its marks: %.120q", block.Data)
		}
	}
	return used, nil
}

// again recognizes the event that this client expects next by the bytes in
// which another client of the channel got it, and returns how many they are.
func (l *loop) again(c *conn, ch *channel, b []byte, now int64) int {
	if ch.recent == nil {
		return 0
	}
	k := &ch.recent[c.book.Next()%recentEvents]
	if k.seq == 0 || k.seq != c.book.Next() || !bytes.HasPrefix(b, k.raw) {
		return 0
	}
	l.enter(c, c.book.See(k.seq, k.offset), k.at, now)
	return len(k.raw)
}

// event looks into an event and enters it; false if it isn't one of ours.
func (l *loop) event(c *conn, ch *channel, event, raw []byte, now int64) bool {
	a, ok := probe.Read(event)
	if !ok {
		return false
	}
	if ch.epoch != string(a.Epoch) {
		ch.epoch = string(a.Epoch)
	}
	if ch.recent != nil {
		k := &ch.recent[a.Seq%recentEvents]
		k.seq, k.offset, k.at = a.Seq, a.Offset, a.At
		k.raw = append(k.raw[:0], raw...)
	}
	l.enter(c, l.book(c, a), a.At, now)
	return true
}

// book enters an arrival in the client's ledger. On a shared channel that one
// follows the offsets, and each publisher's events have one of their own.
func (l *loop) book(c *conn, a probe.Arrival) (fresh bool) {
	if !l.spec.Shared {
		return c.book.See(a.Seq, a.Offset)
	}
	if c.extra.others == nil {
		c.extra.others = map[int]*ledger.Ledger{}
	}
	own := c.extra.others[a.By]
	if own == nil {
		started := ledger.From(1)
		if l.spec.AnyStart {
			started = ledger.Ledger{}
		}
		own = &started
		c.extra.others[a.By] = own
	}
	c.book.See(a.Offset, a.Offset)
	return own.See(a.Seq, 0)
}

// settle closes the ledgers of a client. Heads are by channel, then, of a
// shared channel, by publisher; nil: whatever came last is taken as the head.
func (l *loop) settle(i int, heads []uint64) ledger.Faults {
	c := &l.conns[i]
	ch := (l.spec.First + i) % l.spec.Channels
	switch {
	case heads == nil:
		return c.book.Close(max(c.book.Next(), 1) - 1)
	case !l.spec.Shared:
		return c.book.Close(heads[ch])
	}
	var f ledger.Faults
	f.Holes = c.book.Close(c.book.Offset()).Holes
	for by := 0; ch+by*l.spec.Channels < len(heads); by++ {
		head := heads[ch+by*l.spec.Channels]
		switch {
		case c.extra != nil && c.extra.others[by] != nil:
			f.Add(c.extra.others[by].Close(head))
		case !l.spec.AnyStart:
			f.Lost += head
		}
	}
	return f
}

// enter counts an arrival.
func (l *loop) enter(c *conn, fresh bool, at, now int64) {
	if !fresh {
		return
	}
	l.state.Delivered++
	l.state.LastEventAt = now
	l.state.Latency.Record(time.Duration(now - at))
	if c.fresh {
		c.fresh = false
		l.state.Resumed++
		l.state.LastResumeAt = now
	}
}
