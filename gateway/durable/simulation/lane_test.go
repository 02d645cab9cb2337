package simulation

import (
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// window is how many events of a lane may be out, and as many acknowledged and not
// committed.
const window = 4

// lane delivers the events of a subscription, or of a partition, for whoever owns
// it: over a line, or by callback.
type lane struct {
	s    *sim
	n    *node
	sub  string // whose events
	part int    // -1: all
	call bool
	h    *holding

	epoch      string
	sent       uint64 // up to here everything was delivered, or isn't this lane's
	out        []out
	announced  uint64 // up to here it may have been delivered before
	ended      bool   // the ownership is over
	leaving    bool   // no more is delivered
	closed     bool   // and no more acknowledged
	owing      int    // acknowledged and not committed
	last       uint64 // committed
	parts      []*lane
	after      time.Duration // when its callback's turn is to be
	committing bool
	gathering  bool
}

// out is an event that was delivered and not acknowledged.
type out struct {
	offset uint64
	id     int
	done   bool
}

// delivered is how far events were delivered that may not be committed.
func (l *lane) delivered() event.Position {
	if l.h == nil || l.sent <= l.last {
		return nil
	}
	return at(l.epoch, l.sent)
}

// begin starts from the acknowledged position, and says what may come twice.
func (l *lane) begin(h *holding) {
	l.h = h
	if l.call && l.part < 0 && l.s.grouped(l.sub) && l.s.b.rows[l.sub] != nil && l.s.b.rows[l.sub].rec.Division != 0 {
		l.gather()
		return
	}
	state := l.s.b.log
	if c, ok := h.pos.Of(channel); ok {
		offset, _ := state.Locate(c.Epoch, c.Offset)
		l.sent = offset
	}
	l.epoch, l.last = state.Epoch, l.sent
	if c, ok := h.handed.Of(channel); ok {
		l.announced, _ = state.Locate(c.Epoch, c.Offset)
	}
	if h.doubt {
		left := h.reach
		for o := l.sent + 1; o <= state.Head && left > 0; o++ {
			if l.mine(o) {
				l.announced = max(l.announced, o)
				left--
			}
		}
	}
	if h.doubt = false; l.announced > l.sent {
		h.handed = at(l.epoch, l.announced)
	}
	l.step()
}

// gather acquires a group's partitions for its callback.
func (l *lane) gather() {
	division := l.s.b.rows[l.sub].rec.Division
	l.gathering = true
	waiting := partitions
	failed := false
	for p := range partitions {
		part := &lane{s: l.s, n: l.n, sub: l.sub, part: p, call: true}
		l.parts = append(l.parts, part)
		l.n.acquirePart(l.sub, division, l.h.owner, part, true, func(err error) {
			failed = failed || err != nil
			if waiting--; waiting > 0 {
				return
			}
			if l.gathering = false; failed {
				l.leave(0)
			}
			l.tend()
		})
	}
}

// tend parks a group's callback that has caught up, and gives up what is lost.
func (l *lane) tend() {
	if l.ended || l.leaving {
		for _, p := range l.parts {
			p.leave(0)
		}
		return
	}
	idle := true
	for _, p := range l.parts {
		if p.ended {
			l.leave(0)
			return
		}
		idle = idle && p.idle()
	}
	if idle {
		l.leaving = true
		for _, p := range l.parts {
			p.leaving = true
			l.n.release(p.h, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
				return durable.Release(s, p.h.right(), nil, false, 0, env)
			})
		}
		l.n.release(l.h, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
			return durable.Park(s, l.h.right(), env)
		})
		return
	}
	l.n.later(l.s.time(100, 500), l.tend)
}

// idle tells whether there is nothing to do.
func (l *lane) idle() bool {
	return l.h != nil && len(l.out) == 0 && l.h.next == nil && l.epoch == l.s.b.log.Epoch && l.sent == l.s.b.log.Head
}

func (l *lane) mine(offset uint64) bool {
	return l.part < 0 || key(l.s.b.ids[offset])%partitions == l.part
}

// step delivers what may be delivered, and comes again.
func (l *lane) step() {
	if l.ended || !l.n.up {
		return
	}
	if !l.leaving {
		l.deliver()
		if l.call && l.part < 0 && l.idle() {
			l.leaving = true
			l.n.release(l.h, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
				return durable.Park(s, l.h.right(), env)
			})
			return
		}
	}
	l.n.later(l.s.time(5, 60), l.step)
}

func (l *lane) deliver() {
	b, k := l.s.b, l.s.book(l.sub)
	if l.epoch != b.log.Epoch {
		offset, _ := b.log.Locate(l.epoch, l.sent)
		l.announced, _ = b.log.Locate(l.epoch, l.announced)
		kept := l.out[:0]
		for _, o := range l.out {
			if o.offset <= offset {
				kept = append(kept, o)
			}
		}
		l.out, l.sent, l.last, l.epoch = kept, offset, min(l.last, offset), b.log.Epoch
		if c, ok := l.h.handed.Of(channel); ok {
			to, _ := b.log.Locate(c.Epoch, c.Offset)
			l.h.handed = at(l.epoch, to)
		}
	}
	if l.n.cut && l.s.below(2) == 0 {
		return // it reads the log, but for what its ring has
	}
	if l.sent+1 < b.log.First {
		k.gap(l, b.log.First-1)
		l.sent = b.log.First - 1
		l.acknowledge()
	}
	for l.sent < b.log.Head && len(l.out)+l.owing < window {
		if l.sent++; !l.mine(l.sent) {
			l.acknowledge()
			continue
		}
		id := b.ids[l.sent]
		k.given(l, l.sent, id)
		l.out = append(l.out, out{offset: l.sent, id: id})
		l.process(l.sent, id)
		return
	}
}

// process has the consumer do its work: it fails now and then, if it is a callback.
func (l *lane) process(offset uint64, id int) {
	l.s.after(l.s.time(1, 300), func() { // a consumer goes on whatever happens to nodes
		if l.call && (l.ended || !l.n.up) {
			return
		}
		if l.call && l.s.trouble && l.s.below(10) == 0 {
			l.process(offset, id)
			return
		}
		for i := range l.out {
			if o := &l.out[i]; o.offset == offset && o.id == id {
				o.done = true
				l.s.book(l.sub).handled(id)
			}
		}
		l.acknowledge()
	})
}

// acknowledge commits what is done without a hole.
func (l *lane) acknowledge() {
	if l.ended || l.closed || l.h == nil || l.h.gone {
		return
	}
	done := 0
	for done < len(l.out) && l.out[done].done {
		done++
	}
	l.out = l.out[done:]
	l.owing += done
	upTo := l.sent
	if len(l.out) > 0 {
		upTo = l.out[0].offset - 1
	}
	if upTo > l.last {
		l.h.next = &event.Cursor{Channel: channel, Epoch: l.epoch, Offset: upTo}
	}
}

func (l *lane) committed(to event.Cursor, events int) {
	if to.Epoch == l.epoch {
		l.last = max(l.last, to.Offset)
	}
	l.owing -= events
}

// leave gives the lane up: nothing new is delivered, what is out has two seconds.
func (l *lane) leave(after time.Duration) {
	if l.leaving || l.ended {
		return
	}
	l.leaving, l.after = true, after
	if l.parts != nil {
		for _, p := range l.parts {
			p.leave(0)
		}
	}
	deadline := l.s.now + durable.YieldTime
	var wait func()
	wait = func() {
		switch {
		case l.ended || l.h == nil || l.gathering && l.s.now < deadline:
			if !l.ended && l.s.now < deadline+durable.YieldTime {
				l.n.later(50*time.Millisecond, wait)
			}
		case len(l.out) > 0 && l.s.now < deadline && (l.call || l.part >= 0):
			l.n.later(50*time.Millisecond, wait)
		default:
			handed := l.h.handedBeyond(nil)
			if len(l.out) > 0 {
				handed = l.h.handedBeyond(at(l.epoch, l.out[len(l.out)-1].offset))
			}
			doubt := l.h.doubt
			l.out, l.closed = nil, true
			l.n.release(l.h, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
				return durable.Release(s, l.h.right(), handed, doubt, after, env)
			})
		}
	}
	wait()
}
