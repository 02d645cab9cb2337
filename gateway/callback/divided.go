package callback

import (
	"slices"

	"github.com/longline-push/longline/event"
)

// A worker that yields a group gives up each partition as soon as no call of it
// is in flight: its next owner needn't wait for the calls of others.

// releaseIdleLocked gives up the partitions of which nothing is in flight, once
// the worker yields.
func (w *Worker) releaseIdleLocked() {
	d, ok := w.progress.(Divided)
	if !ok || w.sub.Partitions == 0 || w.over != Yielded {
		return
	}
	if w.released == nil {
		w.released = make([]bool, w.sub.Partitions)
	}
	for p := range w.released {
		if !w.released[p] && !w.q.flying(p) {
			w.released[p] = true
			d.ReleasePartition(p, w.q.positionOf(p), w.q.handedOf(p))
		}
	}
}

// flying tells whether an event of a partition is in flight.
func (q *queue) flying(partition int) bool {
	return slices.ContainsFunc(q.items, func(it *item) bool {
		return it.state == sending && it.ev.Partition == partition && !q.retries(it)
	})
}

// retries tells whether an event waits to be tried again.
func (q *queue) retries(it *item) bool {
	return slices.ContainsFunc(q.retry, func(u *unit) bool { return slices.Contains(u.items, it) })
}

// positionOf is position for one partition of a group.
func (q *queue) positionOf(partition int) event.Position {
	p := slices.Clone(q.read)
	for i := range p {
		for _, it := range q.items {
			if c := it.ev.Cursor; c.Channel == p[i].Channel && it.state != done && it.ev.Partition == partition && !it.ev.Redriven {
				p[i] = c
				p[i].Offset--
				break
			}
		}
	}
	return p
}

// handedOf is handed for one partition of a group.
func (q *queue) handedOf(partition int) (p event.Position) {
	note := func(it *item) {
		if it.tried && !it.ev.Redriven && it.ev.Partition == partition {
			p = further(p, it.ev.Cursor)
		}
	}
	for _, it := range q.items {
		note(it)
	}
	for _, it := range q.held {
		note(it)
	}
	return p
}
