package longline

import (
	"math/rand/v2"
	"time"
)

// backoff grows by doubling, with full jitter: the n-th wait is anywhere
// between nothing and least·2ⁿ, so that those who failed together don't come
// back together. Called by one goroutine.
type backoff struct {
	least, most time.Duration
	n           int
}

func (b *backoff) next() time.Duration {
	wait := jitter(b.least, b.most, b.n)
	b.n++
	return wait
}

func (b *backoff) reset() { b.n = 0 }

// jitter returns a wait for the n-th failure, counted from 0.
func jitter(least, most time.Duration, n int) time.Duration {
	ceiling := most
	if n < 32 && least<<n > 0 && least<<n < most {
		ceiling = least << n
	}
	if ceiling <= 0 {
		return 0
	}
	return rand.N(ceiling + 1)
}
