package longline

import (
	"sync"
	"time"
)

// pace spaces calls out to a rate, with bursts of one second's worth. The
// zero value has no limit. Safe for concurrent use.
type pace struct {
	every time.Duration // between calls; 0: no limit
	burst time.Duration // how far behind schedule it may catch up

	mu   sync.Mutex
	next time.Time // when the next call is due, by a schedule without bursts
}

func newPace(perSecond float64) *pace {
	if perSecond <= 0 {
		return &pace{}
	}
	every := time.Duration(float64(time.Second) / perSecond)
	return &pace{every: every, burst: max(time.Second-every, 0)}
}

// take reserves a call and returns how long to wait before making it.
func (p *pace) take(now time.Time) time.Duration {
	if p.every == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if earliest := now.Add(-p.burst); p.next.Before(earliest) {
		p.next = earliest
	}
	wait := max(p.next.Sub(now), 0)
	p.next = p.next.Add(p.every)
	return wait
}
