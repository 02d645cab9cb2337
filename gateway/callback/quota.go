package callback

import "sync"

// quota shares something of which a node has only so much among the workers
// that want it: calls in flight beyond a worker's first, and bytes of events
// beyond the next one. Each may hold an even share, so that one with slow calls
// or a long backlog can't take what another needs.
type quota struct {
	total int

	mu      sync.Mutex
	used    int
	workers int // that may want some
	kept    int // of used, by workers that are asleep; the others share the rest
}

func (q *quota) join() {
	q.mu.Lock()
	q.workers++
	q.mu.Unlock()
}

func (q *quota) leave() {
	q.mu.Lock()
	q.workers--
	q.mu.Unlock()
}

// rest takes a worker that falls asleep, and keeps so much meanwhile, from those
// that may want some.
func (q *quota) rest(keeps int) {
	q.mu.Lock()
	q.workers--
	q.kept += keeps
	q.mu.Unlock()
}

// wake is the opposite of rest.
func (q *quota) wake(kept int) {
	q.mu.Lock()
	q.workers++
	q.kept -= kept
	q.mu.Unlock()
}

// take takes up to n for a worker that holds so much, as far as its share
// allows it, and returns how much that was.
func (q *quota) take(n, held int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	share := max((q.total-q.kept)/max(q.workers, 1), 1)
	n = max(min(n, q.total-q.used, share-held), 0)
	q.used += n
	return n
}

// put gives back; what is negative is taken, whatever the share.
func (q *quota) put(n int) {
	q.mu.Lock()
	q.used -= n
	q.mu.Unlock()
}
