package gateway

import (
	"sync/atomic"

	"golang.org/x/time/rate"
)

// complaints bounds how often something is logged that each request meets, so
// that an outage is some lines and not one for each. It is safe for concurrent
// use.
type complaints struct {
	limit *rate.Limiter
	more  atomic.Int64 // left out since the last line
}

// newComplaintRate is five at once, then one a second.
func newComplaintRate() *rate.Limiter { return rate.NewLimiter(1, 5) }

// may tells whether to say it now, and how many were left out before.
func (c *complaints) may() (more int64, ok bool) {
	if !c.limit.Allow() {
		c.more.Add(1)
		return 0, false
	}
	return c.more.Swap(0), true
}
