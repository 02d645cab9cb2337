package callback

import "sync"

// quota shares a node's parallel calls among the workers that want more than
// one. Each may hold an even share, so that one with slow calls can't take
// what another needs; a worker's first call needs none.
type quota struct {
	total int

	mu      sync.Mutex
	used    int
	workers int // that may want some
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

// take takes a call for a worker that holds so many, if its share allows it.
func (q *quota) take(held int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used >= q.total || held >= max(q.total/max(q.workers, 1), 1) {
		return false
	}
	q.used++
	return true
}

func (q *quota) put() {
	q.mu.Lock()
	q.used--
	q.mu.Unlock()
}
