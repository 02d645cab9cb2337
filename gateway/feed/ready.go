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

// Push puts a member on the list that its caller has marked.
func (r *Ready) Push(m Member) {
	r.mu.Lock()
	r.roomLocked(1)
	r.members = append(r.members, m)
	r.mu.Unlock()
	r.some.Signal()
}

// wake puts those members on the list that weren't marked. It lets go of the
// list now and then, so that the first are served while the last are marked.
func (r *Ready) wake(members []Member) {
	const most = 512
	for len(members) > 0 {
		some := members[:min(most, len(members))]
		members = members[len(some):]
		woken := false
		r.mu.Lock()
		r.roomLocked(len(some))
		for _, m := range some {
			if m.Mark() {
				r.members, woken = append(r.members, m), true
			}
		}
		r.mu.Unlock()
		if woken {
			r.some.Signal()
		}
	}
}

// roomLocked moves the list to the front of its array where that spares a
// larger one.
func (r *Ready) roomLocked(n int) {
	if r.first > 0 && len(r.members)+n > cap(r.members) {
		left := copy(r.members, r.members[r.first:])
		clear(r.members[left:])
		r.members, r.first = r.members[:left], 0
	}
}

// crowd is how many members must be left for one more writer to be woken:
// waking it costs as much as some sends.
const crowd = 128

// Pop takes up to len(into) members off, waiting for the first, and says
// whether it had to. It returns 0 once the list is closed.
func (r *Ready) Pop(into []Member) (n int, waited bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.first == len(r.members) && !r.closed {
		r.some.Wait()
		waited = true
	}
	if r.closed {
		return 0, waited
	}
	n = copy(into, r.members[r.first:])
	clear(r.members[r.first : r.first+n])
	if len(r.members)-r.first-n > crowd {
		r.some.Signal()
	}
	if r.first += n; r.first == len(r.members) {
		r.members, r.first = r.members[:0], 0
	}
	return n, waited
}

// Close makes every Pop return 0.
func (r *Ready) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.some.Broadcast()
}
