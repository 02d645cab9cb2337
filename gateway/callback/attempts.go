package callback

// attempts keeps the last calls of a worker, bounded. Repeated texts share
// their bytes (see headOf), so that a failing endpoint costs little.
type attempts struct {
	ring  []Attempt
	next  int
	count int // of all there were
}

// maxAttempts is how many are kept.
const maxAttempts = 10

func (a *attempts) add(t Attempt) {
	a.count++
	if a.ring == nil {
		a.ring = make([]Attempt, 0, maxAttempts)
	}
	if len(a.ring) < maxAttempts {
		a.ring = append(a.ring, t)
		return
	}
	a.ring[a.next] = t
	a.next = (a.next + 1) % maxAttempts
}

// lastBody is the body of the newest attempt.
func (a *attempts) lastBody() string {
	if len(a.ring) == 0 {
		return ""
	}
	return a.ring[(a.next+len(a.ring)-1)%len(a.ring)].Body
}

func (a *attempts) list() []Attempt {
	out := make([]Attempt, 0, len(a.ring))
	out = append(out, a.ring[a.next:]...)
	return append(out, a.ring[:a.next]...)
}
