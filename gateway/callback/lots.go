package callback

import "sync"

// lots shares a node's parallel calls among the workers that want more than
// one. Each may hold an even share, so that one with slow calls can't take
// what another needs; a worker's first call needs no lot.
type lots struct {
	total int

	mu      sync.Mutex
	used    int
	workers int // that may want some
}

func (l *lots) join() {
	l.mu.Lock()
	l.workers++
	l.mu.Unlock()
}

func (l *lots) leave() {
	l.mu.Lock()
	l.workers--
	l.mu.Unlock()
}

// take takes a lot for a worker that holds so many, if its share allows it.
func (l *lots) take(held int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used >= l.total || held >= max(l.total/max(l.workers, 1), 1) {
		return false
	}
	l.used++
	return true
}

func (l *lots) put() {
	l.mu.Lock()
	l.used--
	l.mu.Unlock()
}
