package session

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// What a session sends in one batch at most.
const (
	batchBytes   = 64 << 10
	batchBuffers = 1024
)

// batch is a workspace: what one session sends in one go.
type batch struct {
	items   []*feed.Item
	bufs    [][]byte
	marks   []mark // one for each frame in bufs
	scanned []uint64
	scratch []byte
	room    int  // events that a durable session's window takes
	full    bool // there was no room for more
	keys    map[string]struct{}
	newest  time.Time   // of the last event's append
	traced  []delivered // events of them with a trace; empty where none are traced
	sends   uint        // that were made with this workspace
}

// mark says what a frame moves once it is handed over: a reader to an offset,
// or one of two queues.
type mark struct {
	reader int // of the session's, or one of the following
	offset uint64
}

const (
	ofControl = -1 // the queue of control messages
	ofRedrive = -2 // the queue of dead letters that are delivered again
)

func (b *batch) reset() {
	clear(b.items)
	clear(b.bufs)
	clear(b.traced)
	b.traced = b.traced[:0]
	b.items, b.bufs, b.marks, b.scanned, b.scratch = b.items[:0], b.bufs[:0], b.marks[:0], b.scanned[:0], b.scratch[:0]
	b.full = false
}

// appendControl appends a control message's frame.
func (b *batch) appendControl(frame []byte, stride int, m mark) {
	b.bufs = append(b.bufs, frame)
	for range stride - 1 {
		b.bufs = append(b.bufs, nil)
	}
	b.marks = append(b.marks, m)
}

// send sends what is pending, as far as the peer takes it, and says whether
// there is more to send at once. Called by the shared writers, and by Say.
func (s *Session) send(b *batch) (more bool) {
	s.queued.Store(false) // whatever comes from now on queues it again
	defer s.Contain("writer")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.conn == nil {
		return false
	}
	if s.blockedAt != 0 && !s.blocked.Load() {
		s.slow = s.slow || s.hub.now()-s.blockedAt >= slowAfter.Milliseconds()
		s.blockedAt = 0
	}
	b.reset()
	stride, queued := s.codec.Traits().Stride, len(s.control)
	size := 0
	for _, frame := range s.control {
		b.appendControl(frame, stride, mark{reader: ofControl})
		size += len(frame)
	}
	for i := range s.readers {
		b.scanned = append(b.scanned, s.readers[i].Offset())
	}
	// What has nothing to do with the peer, such as a heartbeat, brings a session
	// here whose line is blocked. The line is asked, but nothing is looked for that
	// it won't take: that may be a page of the log each time.
	resting, ending := s.blocked.Load(), s.ending
	if !resting {
		more = s.fillAll(b, size)
	}
	if s.ending && !ending {
		return true // the bye goes by itself
	}
	if len(s.control) != queued {
		return true // a gap was found: it goes before what follows it
	}
	frames, blocked, err := s.conn.Send(b.bufs, stride)
	s.handedOver(b, frames)
	if len(b.traced) > 0 {
		s.traceLocked(b, frames)
	}
	s.hub.opts.Metrics.frames.Add(float64(frames))
	if b.sends++; b.sends%latencySample == 0 {
		s.observeLatency(b, frames)
	}
	if !resting {
		s.slow = frames < len(b.marks) || more && s.slow
	}
	switch {
	case err != nil:
		s.goneLocked()
		return false
	case blocked:
		s.blockedLocked()
		return false
	}
	if b.full && s.durable != nil && s.durable.hurry() {
		more = true
	}
	if s.blocked.Swap(false) {
		// The line's Wake came before the last send noted that it was blocked:
		// events that came since have woken nobody.
		more = true
	}
	if d := s.durable; d != nil && d.rounds && d.ownership != nil && d.outstanding >= d.window {
		s.endLocked(wire.CloseRestart, "the window is full: coming back acknowledges", roundPause)
		return true
	}
	if s.ending && len(s.control) == 0 {
		s.conn.Finish()
		return false
	}
	return more
}

// fillAll appends what is pending besides size bytes of control messages, as much
// as a batch takes, and says whether that is not all. It stops where the session
// ends by it.
func (s *Session) fillAll(b *batch, size int) (more bool) {
	stride := s.codec.Traits().Stride
	if b.room = s.room(); s.durable != nil {
		size += s.fillRedrives(b)
	}
	first := s.firstReader()
	for n := range s.readers {
		i := n + first
		if i >= len(s.readers) {
			i -= len(s.readers)
		}
		if size < batchBytes && len(b.bufs)+stride <= batchBuffers {
			n, again := s.fill(b, i, batchBytes-size)
			size += n
			more = more || again
		} else {
			more = true
		}
		if s.ending {
			break
		}
	}
	return more
}

// handedOver moves what the first frames of a batch move.
func (s *Session) handedOver(b *batch, frames int) {
	said := 0
	for _, m := range b.marks[:frames] {
		switch {
		case m.reader == ofControl:
			said++
		case m.reader == ofRedrive:
			s.durable.handedRedrive()
		default:
			s.readers[m.reader].Advance(m.offset)
			if s.durable != nil {
				s.durable.handed(m.reader, m.offset)
			}
		}
	}
	if s.control = s.control[said:]; len(s.control) == 0 {
		s.control = nil
		s.settleLocked()
		if s.durable != nil && s.durable.untold {
			s.toldLocked()
		}
	}
	s.said = s.said || frames > 0
	if frames < len(b.marks) {
		return
	}
	for i, offset := range b.scanned {
		if offset > s.readers[i].Offset() {
			s.readers[i].Advance(offset)
			s.moved = true
			if d := s.durable; d != nil {
				d.channels[i].deliveredUpTo = offset
				s.replayedLocked(i)
			}
		}
	}
}

// slowAfter is when a peer doesn't keep up whose line took all it was given, but
// is written to in the background: such a line is blocked after each send.
const slowAfter = 250 * time.Millisecond

// blockedLocked notes that the peer takes nothing more for now.
func (s *Session) blockedLocked() {
	// A page would be held for as long as the peer pleases: it is read again.
	for i := range s.readers {
		s.readers[i].Rest()
	}
	if s.blocked.Swap(true) {
		return // still: a turn for a heartbeat is no progress
	}
	s.blockedAt = max(s.hub.now(), 1)
	if !s.ending {
		s.hub.watch(s, s.hub.opts.WriteTimeout)
	}
}

// fill appends a channel's pending events. It returns their bytes and whether
// there is more to send.
func (s *Session) fill(b *batch, i int, limit int) (size int, more bool) {
	room := s.roomIn(b, i)
	r := &s.readers[i]
	if room <= 0 {
		b.full = true
		// An ack makes room, or its commit. Where the log was forked it may be of the new epoch,
		// from somebody else, and counts here once the reader is there too.
		if !s.ownsLocked(i) || !r.Elsewhere() {
			return 0, false
		}
		r.Rest()
	}
	conflating := s.lag == LagConflate && s.slow
	if conflating {
		limit = 1 << 30 // everything pending, of which little will be left
	}
	step := r.Next(&b.items, batchBuffers, limit)
	switch {
	case step.Move != nil:
		s.movedTo(i, step.Move)
		b.scanned[i] = r.Offset()
		return 0, true
	case step.Behind:
		s.fallBehind(i, step.Head)
		b.scanned[i] = r.Offset()
		return 0, false
	}
	if room <= 0 {
		return 0, false
	}
	items, more := step.Items, step.More
	if conflating && len(items) > 0 {
		return s.fillConflated(b, i, items), more
	}
	stride := s.codec.Traits().Stride
	for n, item := range items {
		b.scanned[i] = item.Offset
		if !r.Match(item) {
			continue
		}
		s.appendEvent(b, i, item)
		b.room--
		if room--; room == 0 {
			b.full = true
			return size, false
		}
		if size += len(item.JSON()); size >= limit || len(b.bufs)+stride > batchBuffers {
			return size, more || n+1 < len(items)
		}
	}
	return size, more
}

func (s *Session) appendEvent(b *batch, i int, item *feed.Item) {
	var position []byte
	if len(s.readers) > 1 && s.codec.Traits().Positions && !s.shared() {
		// As of this event: with what else this batch sends.
		from := len(b.scratch)
		for j := range s.readers {
			if j > 0 {
				b.scratch = append(b.scratch, ',')
			}
			c := s.readers[j].Cursor()
			c.Offset = b.scanned[j]
			b.scratch = c.Append(b.scratch)
		}
		position = b.scratch[from:len(b.scratch):len(b.scratch)]
	}
	b.bufs, b.scratch = s.codec.AppendEvent(b.bufs, b.scratch, item, position)
	b.marks, b.newest = append(b.marks, mark{i, item.Offset}), item.Appended
	if s.hub.opts.Trace != nil && item.Traced().Left.Load() > 0 {
		b.traced = append(b.traced, delivered{len(b.marks) - 1, item})
	}
	if s.shared() {
		s.durable.channels[i].part.batched++
	}
}

// latencySample: one send in so many is measured, which costs nothing to
// speak of.
const latencySample = 16

// observeLatency notes how long the last event of a batch took from its append
// to the peer's socket, if the session keeps up and all was taken.
func (s *Session) observeLatency(b *batch, frames int) {
	if frames == 0 || frames < len(b.marks) {
		return
	}
	if i := b.marks[frames-1].reader; i >= 0 && s.readers[i].Followed() {
		s.hub.opts.Metrics.latency.Observe(time.Since(b.newest).Seconds())
	}
}

// movedTo follows a reader that has moved, and tells what is lost by it.
func (s *Session) movedTo(i int, m *cursor.Move) {
	if m == nil {
		return
	}
	gap := m.Gap()
	if s.durable != nil {
		s.placedLocked(i, m)
	}
	if gap != nil {
		s.sayLocked(*gap, s.positionLocked())
	}
}

// fallBehind sees to a reader whose next events are not in the ring, of a
// channel whose newest event is at head.
func (s *Session) fallBehind(i int, head uint64) {
	r := &s.readers[i]
	if r.Followed() && head > r.Offset() {
		switch s.lag {
		case LagLatest:
			s.movedTo(i, r.Skip(head, wire.GapLag))
			s.push()
			return
		case LagClose:
			s.endLocked(wire.CloseTimeout, "the client can't keep up and asked to be closed then", time.Second)
			s.push()
			return
		}
		s.slow = true
		if d := s.durable; d != nil && d.ownership != nil {
			r.Unfollow() // told once, until it has caught up
			d.ownership.Publish("lagging", map[string]any{"channel": r.Channel(), "events": head - r.Offset()})
		}
	}
	s.hub.opts.Metrics.catchUps.Inc()
	q := r.Ask()
	if !s.hub.spawn(func(ctx context.Context) { s.catchUp(ctx, q) }) {
		r.Forget(q)
	}
}

// catchUp asks the log what a reader wants to know, as often as it takes, and
// has the session go on from there.
func (s *Session) catchUp(ctx context.Context, q *cursor.Question) {
	defer s.Contain("catchUp")
	wait := 50 * time.Millisecond
	for {
		page, err := q.Answer(ctx)
		s.mu.Lock()
		i := s.askerOf(q)
		if i >= 0 && err == nil {
			s.movedTo(i, s.readers[i].Settle(q, page))
		}
		s.mu.Unlock()
		if i < 0 {
			return // whoever asked is gone
		}
		if err == nil {
			s.push()
			return
		}
		// The broker is away: the session waits with it.
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(wait)):
			wait = min(2*wait, 2*time.Second)
		}
	}
}

// askerOf returns which reader waits for the answer to q, or -1.
func (s *Session) askerOf(q *cursor.Question) int {
	if s.over || s.ending {
		return -1
	}
	for i := range s.readers {
		if s.readers[i].Asked(q) {
			return i
		}
	}
	return -1
}

// fillConflated appends the newest event of each key, and a gap for each run
// of events that this leaves out. Events without a key are all kept.
func (s *Session) fillConflated(b *batch, i int, items []*feed.Item) (size int) {
	r := &s.readers[i]
	if b.keys == nil {
		b.keys = make(map[string]struct{})
	}
	clear(b.keys)
	keep, taken := make([]bool, len(items)), make([]bool, len(items))
	for n := len(items) - 1; n >= 0; n-- {
		item := items[n]
		if taken[n] = r.Match(item); !taken[n] {
			continue
		}
		key := item.Key()
		_, newer := b.keys[key]
		keep[n] = key == "" || !newer
		b.keys[key] = struct{}{}
	}
	from := r.Cursor()
	left := from.Offset // the last event that was left out
	tell := func() {
		if left > from.Offset {
			to := from
			to.Offset = left
			m := cursor.Move{From: from, To: to, Reason: wire.GapConflated}
			s.hub.opts.Metrics.gaps.WithLabelValues(wire.GapConflated).Inc()
			b.appendControl(s.codec.Control(*m.Gap(), ""), s.codec.Traits().Stride, mark{i, left})
		}
	}
	for n, item := range items {
		if !keep[n] {
			if taken[n] {
				left = item.Offset
			}
			continue
		}
		tell()
		b.scanned[i] = item.Offset
		s.appendEvent(b, i, item)
		size += len(item.JSON())
		from.Offset, left = item.Offset, item.Offset
	}
	b.scanned[i] = items[len(items)-1].Offset
	clear(b.keys) // its keys point into the events
	return size
}
