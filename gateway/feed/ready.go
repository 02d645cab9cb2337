package feed

import "sync"

// Ready is the list of members that have something to do: each is on it at
// most once, as long as it was marked before it was pushed.
type Ready struct {
	mu      sync.Mutex
	some    sync.Cond
	members []Member // from first on
	first   int
	closed  bool
}

// NewReady returns an empty list.
func NewReady() *Ready {
	r := &Ready{}
	r.some.L = &r.mu
	return r
}

// Push puts marked members on the list.
func (r *Ready) Push(members ...Member) { r.push(members) }

func (r *Ready) push(members []Member) {
	if len(members) == 0 {
		return
	}
	r.mu.Lock()
	if r.first > 0 && len(r.members)+len(members) > cap(r.members) {
		n := copy(r.members, r.members[r.first:])
		clear(r.members[n:])
		r.members, r.first = r.members[:n], 0
	}
	r.members = append(r.members, members...)
	r.mu.Unlock()
	r.some.Signal()
}

// crowd is how many members must be left for one more writer to be woken:
// waking it costs as much as some sends.
const crowd = 128

// Pop takes up to len(into) members off, waiting for the first. It returns 0
// once the list is closed.
func (r *Ready) Pop(into []Member) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.first == len(r.members) && !r.closed {
		r.some.Wait()
	}
	if r.closed {
		return 0
	}
	n := copy(into, r.members[r.first:])
	clear(r.members[r.first : r.first+n])
	if len(r.members)-r.first-n > crowd {
		r.some.Signal()
	}
	if r.first += n; r.first == len(r.members) {
		r.members, r.first = r.members[:0], 0
		if cap(r.members) > 4096 {
			r.members = nil
		}
	}
	return n
}

// Close makes every Pop return 0.
func (r *Ready) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.some.Broadcast()
}
