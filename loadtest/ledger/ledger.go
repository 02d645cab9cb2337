// Package ledger keeps the account that makes a measurement worth something:
// every event arrived once and in order, or it says what didn't.
package ledger

import "fmt"

// Faults are the ways in which a stream of events went wrong, counted. Their
// zero value is a flawless stream.
type Faults struct {
	Lost       uint64 // published, never arrived
	Duplicated uint64 // arrived again
	Disordered uint64 // arrived after a later one
	Holes      uint64 // an offset doesn't follow the one before it
	Strange    uint64 // arrived, but was never published in this run
}

// Add adds another's counts.
func (f *Faults) Add(o Faults) {
	f.Lost += o.Lost
	f.Duplicated += o.Duplicated
	f.Disordered += o.Disordered
	f.Holes += o.Holes
	f.Strange += o.Strange
}

// Err names what is wrong; nil if nothing is.
func (f Faults) Err() error {
	if f == (Faults{}) {
		return nil
	}
	return fmt.Errorf("%d events lost, %d duplicated, %d out of order, %d holes in offsets, %d unknown",
		f.Lost, f.Duplicated, f.Disordered, f.Holes, f.Strange)
}

// A span is the sequence numbers from first to last.
type span struct{ first, last uint64 }

// A Ledger follows one subscriber of one channel. Its zero value starts at
// whatever arrives first. It isn't safe for concurrent use.
type Ledger struct {
	next    uint64 // the sequence number that must come; 0: any
	offset  uint64 // of the last event; 0: none yet
	missing []span // passed over, ascending; each may still arrive late
	faults  Faults
}

// From returns a ledger that expects the sequence number next first.
func From(next uint64) Ledger { return Ledger{next: next} }

// Next is the sequence number expected next, 0 if any is taken.
func (l *Ledger) Next() uint64 { return l.next }

// Offset is the offset of the last event in order, 0 before the first.
func (l *Ledger) Offset() uint64 { return l.offset }

// See enters the arrival of an event. It reports whether the event is new,
// that is neither a duplicate nor impossible.
func (l *Ledger) See(seq, offset uint64) bool {
	if seq == 0 {
		l.faults.Strange++
		return false
	}
	if l.next == 0 {
		l.next = seq
	}
	switch {
	case seq == l.next:
		l.next++
	case seq > l.next:
		l.missing = append(l.missing, span{l.next, seq - 1})
		l.next = seq + 1
	case l.found(seq):
		l.faults.Disordered++
		return true
	default:
		l.faults.Duplicated++
		return false
	}
	if offset != 0 {
		if l.offset != 0 && offset != l.offset+1 {
			l.faults.Holes++
		}
		l.offset = offset
	}
	return true
}

// found takes seq out of the missing ones, if it is among them.
func (l *Ledger) found(seq uint64) bool {
	for i, s := range l.missing {
		if seq < s.first || seq > s.last {
			continue
		}
		rest := append([]span(nil), l.missing[i+1:]...)
		l.missing = l.missing[:i]
		if seq > s.first {
			l.missing = append(l.missing, span{s.first, seq - 1})
		}
		if seq < s.last {
			l.missing = append(l.missing, span{seq + 1, s.last})
		}
		l.missing = append(l.missing, rest...)
		return true
	}
	return false
}

// Pending is how many of the events up to head haven't arrived.
func (l *Ledger) Pending(head uint64) uint64 {
	var n uint64
	for _, s := range l.missing {
		if s.first <= head {
			n += min(s.last, head) - s.first + 1
		}
	}
	if l.next != 0 && head >= l.next {
		n += head - l.next + 1
	}
	return n
}

// Close settles the account when nothing more will come: head is the last
// sequence number published to the channel.
func (l *Ledger) Close(head uint64) Faults {
	f := l.faults
	f.Lost = l.Pending(head)
	if l.next > head+1 {
		f.Strange += l.next - head - 1
	}
	return f
}
