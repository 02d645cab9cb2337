package simulation

import "slices"

// book is what became of each event of a subscription.
type book struct {
	s    *sim
	name string
	seen map[int]*sighting
	last map[int]first // of each key
	gaps []span
	over uint64 // up to this offset somebody skipped events
}

// sighting is how an event came, last.
type sighting struct {
	gen     uint64
	handled bool
	stale   bool // by one who had lost the right, and hadn't heard of it
}

type first struct {
	epoch  string
	offset uint64
}

// span is events that were said not to come, by offsets in an epoch.
type span struct{ after, upTo uint64 }

func newBook(s *sim, name string) *book {
	return &book{s: s, name: name, seen: map[int]*sighting{}, last: map[int]first{}}
}

func (b *book) given(l *lane, offset uint64, id int) {
	s := b.s
	r := s.b.rows[l.h.name]
	present := r != nil && r.gen == l.h.gen
	if l.call && !s.b.alive(l.h.owner.Node) {
		s.break_("%s: event %d was called by %s, whose lease had ended", b.name, id, l.h.owner.Node)
	}
	was, seen := b.seen[id]
	if seen && present && !was.stale && was.handled && was.gen != l.h.gen && offset > l.announced && !s.forgot {
		s.break_("%s: event %d, at %d, came twice: by generation %d and now by %d of %s (%s), which was told up to %d", b.name, id, offset, was.gen, l.h.gen, l.h.owner.Node, l.h.name, l.announced)
	}
	if !seen {
		if last, ok := b.last[key(id)]; ok && present && last.epoch == l.epoch && last.offset > offset {
			s.break_("%s: event %d, at %d, first came after %d", b.name, id, offset, last.offset)
		}
		if present {
			b.last[key(id)] = first{l.epoch, offset}
		}
		was = &sighting{}
		b.seen[id] = was
	}
	was.gen, was.stale = l.h.gen, was.stale || !present
}

func (b *book) handled(id int) { b.seen[id].handled = true }

// gap notes that a lane was told that it goes on after an offset.
func (b *book) gap(l *lane, upTo uint64) {
	if upTo <= l.sent {
		return
	}
	if upTo > b.s.b.cut {
		b.s.break_("%s: a gap up to %d, though retention took %d at most", b.name, upTo, b.s.b.cut)
	}
	b.gaps = append(b.gaps, span{l.sent, upTo})
}

// sought notes that the position was moved by hand: what comes now may have come.
func (b *book) sought(to uint64) {
	b.over = max(b.over, to)
	b.mended()
}

// mended notes that what comes now may have come, in whatever order.
func (b *book) mended() {
	clear(b.last)
	for _, was := range b.seen {
		was.stale = true
	}
}

// balance wants each event that is there to have been handled, to be in a gap or
// skipped.
func (b *book) balance() {
	for offset := uint64(1); offset <= b.s.b.log.Head; offset++ {
		was := b.seen[b.s.b.ids[offset]]
		if was != nil && was.handled || offset <= b.over || slices.ContainsFunc(b.gaps, func(g span) bool { return offset > g.after && offset <= g.upTo }) {
			continue
		}
		b.s.break_("%s: event %d, at %d, is LOST", b.name, b.s.b.ids[offset], offset)
	}
}
