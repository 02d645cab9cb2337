package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// What a session sends in one turn at most.
const (
	turnBytes   = 64 << 10
	turnBuffers = 1024
)

// Turn is a workspace: what one session sends in one go.
type Turn struct {
	items   []*feed.Item
	bufs    [][]byte
	marks   []mark // one for each frame in bufs
	scanned []uint64
	scratch []byte
	room    int // events that a durable session's window takes
	keys    map[string]struct{}
}

// mark says what a frame moves once it is handed over: a track to an offset,
// or, where track is control, the queue of control messages.
type mark struct {
	track  int
	offset uint64
}

const (
	control = -1
	redrive = -2 // a dead letter that is delivered again
)

func (t *Turn) reset() {
	clear(t.items)
	clear(t.bufs)
	t.items, t.bufs, t.marks, t.scanned, t.scratch = t.items[:0], t.bufs[:0], t.marks[:0], t.scanned[:0], t.scratch[:0]
}

// Turn sends what is pending, as far as the peer takes it, and says whether
// there is more to send at once. Called by the shared writers, and by Say.
func (s *Session) Turn(t *Turn) (more bool) {
	s.queued.Store(false) // whatever comes from now on queues it again
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.conn == nil {
		return false
	}
	t.reset()
	stride, queued := s.codec.Traits().Stride, len(s.control)
	size := 0
	for _, b := range s.control {
		t.bufs = append(t.bufs, b)
		for range stride - 1 {
			t.bufs = append(t.bufs, nil)
		}
		t.marks = append(t.marks, mark{track: control})
		size += len(b)
	}
	if t.room = s.room(); s.held != nil {
		size += s.fillAgain(t)
	}
	for i := 0; i < len(s.tracks); i++ {
		t.scanned = append(t.scanned, s.tracks[i].offset)
		if size < turnBytes && len(t.bufs)+stride <= turnBuffers {
			n, again := s.fill(t, i, turnBytes-size)
			size += n
			more = more || again
		} else {
			more = true
		}
		if s.ending {
			return true // the bye takes a turn of its own
		}
	}
	if len(s.control) != queued {
		return true // a gap was found: it goes before what follows it
	}
	frames, blocked, err := s.conn.Send(t.bufs, stride)
	s.handedOver(t, frames)
	s.hub.opts.Metrics.frames.Add(float64(frames))
	switch {
	case err != nil:
		s.goneLocked()
		return false
	case blocked:
		s.blockedLocked()
		return false
	}
	if s.blocked.Swap(false) {
		// The line's Wake came before the last turn noted that it was blocked:
		// events that came since have woken nobody.
		more = true
	}
	s.slow = more && s.slow
	if d := s.held; d != nil && d.rounds && d.ownership != nil && d.unacked >= d.window {
		s.endLocked(wire.CloseRestart, "the window is full: coming back acknowledges", roundPause)
		return true
	}
	if s.ending && len(s.control) == 0 {
		s.conn.Finish()
		return false
	}
	return more
}

// handedOver moves what the first frames of a turn move.
func (s *Session) handedOver(t *Turn, frames int) {
	said := 0
	for _, m := range t.marks[:frames] {
		switch {
		case m.track == control:
			said++
		case m.track == redrive:
			s.held.handedAgain()
		default:
			s.tracks[m.track].offset = m.offset
			if s.held != nil {
				s.held.handed(m.track, m.offset)
			}
		}
	}
	if s.control = s.control[said:]; len(s.control) == 0 {
		s.control = nil
	}
	s.said = s.said || frames > 0
	if frames < len(t.marks) {
		return
	}
	for i, offset := range t.scanned {
		if offset > s.tracks[i].offset {
			s.tracks[i].offset, s.moved = offset, true
			if s.held != nil {
				s.held.lanes[i].sent = offset
			}
		}
	}
}

func (s *Session) blockedLocked() {
	s.slow = true
	// A page would be held for as long as the peer pleases: it is read again.
	for i := range s.tracks {
		s.tracks[i].page = nil
	}
	if s.blocked.Swap(true) {
		return // still: a turn for a heartbeat is no progress
	}
	s.blockedAt = time.Now().UnixMilli()
	if !s.ending {
		s.hub.watch(s, s.hub.opts.WriteTimeout)
	}
}

// fill appends a channel's pending events. It returns their bytes and whether
// there is more to send.
func (s *Session) fill(t *Turn, i int, most int) (size int, more bool) {
	if t.room <= 0 {
		return 0, false // an ack makes room
	}
	tr := &s.tracks[i]
	conflating := s.lag == LagConflate && s.slow
	if conflating {
		most = 1 << 30 // everything pending, of which little will be left
	}
	items, more, ok := s.pending(t, tr, most)
	if !ok {
		return 0, false
	}
	if conflating {
		return s.fillConflated(t, i, items), more
	}
	stride := s.codec.Traits().Stride
	for n, item := range items {
		t.scanned[i] = item.Offset
		if !tr.filter.Match(item.Type()) {
			continue
		}
		s.appendEvent(t, i, item)
		if t.room--; t.room == 0 {
			return size, false
		}
		if size += len(item.JSON()); size >= most || len(t.bufs)+stride > turnBuffers {
			return size, more || n+1 < len(items)
		}
	}
	return size, more
}

func (s *Session) appendEvent(t *Turn, i int, item *feed.Item) {
	var position []byte
	if len(s.tracks) > 1 && s.codec.Traits().Positions {
		// As of this event: with what else this turn sends.
		from := len(t.scratch)
		for j := range s.tracks {
			if j > 0 {
				t.scratch = append(t.scratch, ',')
			}
			c := s.tracks[j].cursor()
			if j < len(t.scanned) {
				c.Offset = t.scanned[j]
			}
			t.scratch = c.Append(t.scratch)
		}
		position = t.scratch[from:len(t.scratch):len(t.scratch)]
	}
	t.bufs, t.scratch = s.codec.AppendEvent(t.bufs, t.scratch, item, position)
	t.marks = append(t.marks, mark{i, item.Offset})
}

// pending returns what follows a track's offset: from the page it is reading,
// or from the ring. ok is false if there is nothing to send now.
func (s *Session) pending(t *Turn, tr *track, most int) (items []*feed.Item, more, ok bool) {
	if tr.reading {
		return nil, false, false
	}
	if page := tr.page; page != nil {
		if page.State.Epoch == tr.epoch {
			items = page.After(tr.offset)
		}
		if len(items) > 0 {
			return items, true, true
		}
		tr.page = nil
	}
	for {
		var view feed.View
		t.items, view = tr.feed.Take(t.items[:0], tr.epoch, tr.offset, turnBuffers, most)
		if view.State.Epoch != tr.epoch {
			s.moveTo(tr, relocate(tr.cursor(), view.State), view.State.Epoch)
			continue
		}
		if view.Behind {
			s.fallBehind(tr, view)
			return nil, false, false
		}
		tr.followed = true
		if len(t.items) == 0 {
			return nil, false, false
		}
		return t.items, t.items[len(t.items)-1].Offset < view.State.Head, true
	}
}

// moveTo places a track anew and tells of what lies between.
func (s *Session) moveTo(tr *track, p place, epoch string) {
	if s.held != nil {
		s.placedLocked(tr, p, epoch)
	}
	tr.epoch, tr.offset, tr.page = epoch, p.offset, nil
	if p.gap != nil {
		s.sayLocked(*p.gap, string(s.appendPosition(nil)))
	}
}

// fallBehind sees to a track whose next events are not in the ring.
func (s *Session) fallBehind(tr *track, v feed.View) {
	if tr.followed {
		switch s.lag {
		case LagLatest:
			head := tr.cursor()
			head.Offset = v.State.Head
			s.moveTo(tr, place{head.Offset, gap(tr.cursor(), head, wire.GapLag)}, tr.epoch)
			s.push()
			return
		case LagClose:
			s.endLocked(wire.CloseTimeout, "the client can't keep up and asked to be closed then", time.Second)
			s.push()
			return
		}
		s.slow = true
		if d := s.held; d != nil && d.ownership != nil {
			tr.followed = false // told once, until it has caught up
			d.ownership.Tell("lagging", map[string]any{"channel": tr.feed.Channel(), "events": v.State.Head - tr.offset})
		}
	}
	tr.reading = true
	s.hub.opts.Metrics.catchUps.Inc()
	f, offset := tr.feed, tr.offset
	if !s.hub.spawn(func(ctx context.Context) { s.catchUp(ctx, f, offset, v.Oldest) }) {
		tr.reading = false
	}
}

// catchUp reads the page of the log that a track needs next and has it sent.
func (s *Session) catchUp(ctx context.Context, f *feed.Feed, offset, oldest uint64) {
	wait := 50 * time.Millisecond
	for {
		page, err := f.Page(ctx, offset)
		s.mu.Lock()
		tr := s.find(f)
		if tr == nil || s.over || s.ending {
			s.mu.Unlock()
			return
		}
		if err == nil || errors.Is(err, broker.ErrNotFound) {
			tr.reading = false
			if err == nil {
				s.turnPage(tr, page, oldest)
			}
			s.mu.Unlock()
			s.push()
			return
		}
		s.mu.Unlock()
		// The broker is away: the session waits with it.
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(wait)):
			wait = min(2*wait, 2*time.Second)
		}
	}
}

// turnPage gives a track the page that follows its offset, after a gap if the
// log no longer has what comes next.
func (s *Session) turnPage(tr *track, page *feed.Page, oldest uint64) {
	if page.State.Epoch != tr.epoch {
		s.moveTo(tr, relocate(tr.cursor(), page.State), page.State.Epoch)
		return
	}
	next := oldest // the log has nothing before what the ring had
	items := page.After(tr.offset)
	if len(items) > 0 {
		next = items[0].Offset
	}
	if next > tr.offset+1 {
		to := tr.cursor()
		to.Offset = next - 1
		s.moveTo(tr, place{to.Offset, gap(tr.cursor(), to, wire.GapRetention)}, tr.epoch)
	}
	if len(items) > 0 {
		tr.page = page
	}
}

// fillConflated appends the newest event of each key, and a gap for each run
// of events that this leaves out. Events without a key are all kept.
func (s *Session) fillConflated(t *Turn, i int, items []*feed.Item) (size int) {
	tr := &s.tracks[i]
	if t.keys == nil {
		t.keys = make(map[string]struct{})
	}
	clear(t.keys)
	keep := make([]bool, len(items))
	for n := len(items) - 1; n >= 0; n-- {
		item := items[n]
		if !tr.filter.Match(item.Type()) {
			continue
		}
		key := item.Key()
		_, newer := t.keys[key]
		keep[n] = key == "" || !newer
		t.keys[key] = struct{}{}
	}
	from := tr.cursor()
	left := from.Offset // the last event that was left out
	tell := func() {
		if left > from.Offset {
			to := from
			to.Offset = left
			b := s.codec.Control(*gap(from, to, wire.GapConflated), "")
			s.hub.opts.Metrics.gaps.WithLabelValues(wire.GapConflated).Inc()
			t.bufs = append(t.bufs, b)
			for range s.codec.Traits().Stride - 1 {
				t.bufs = append(t.bufs, nil)
			}
			t.marks = append(t.marks, mark{i, left})
		}
	}
	for n, item := range items {
		if !keep[n] {
			if tr.filter.Match(item.Type()) {
				left = item.Offset
			}
			continue
		}
		tell()
		t.scanned[i] = item.Offset
		s.appendEvent(t, i, item)
		size += len(item.JSON())
		from.Offset, left = item.Offset, item.Offset
	}
	t.scanned[i] = items[len(items)-1].Offset
	clear(t.keys) // its keys point into the events
	return size
}
