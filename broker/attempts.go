package broker

import (
	"context"
	"time"
)

// Attempts keeps what callbacks tried and what came of it: a history of each
// subscription, bounded, that goes with it. It may be lost in a crash; nothing
// but curiosity depends on it. Both methods may be called by many goroutines at
// once.
type Attempts interface {
	// Record adds attempts, each subscription's in their order. Those of
	// subscriptions that don't exist are left out. Where a subscription has more
	// than MaxAttempts then, or more data than MaxAttemptBytes, or some older than
	// MaxAttemptAge, the oldest go, the newest one never. A call that fails may
	// have added some.
	Record(ctx context.Context, attempts []Attempt) error

	// Attempts returns attempts of a subscription, newest first: those with a Seq
	// below before, where 0 is no bound, limit at most. None if it doesn't exist.
	Attempts(ctx context.Context, name string, before uint64, limit int) ([]Attempt, error)
}

// How many attempts of a subscription are kept, how much data, and for how long.
const (
	MaxAttempts     = 10_000
	MaxAttemptBytes = 4 << 20
	MaxAttemptAge   = 72 * time.Hour
)

// Attempt is one callback that was made.
type Attempt struct {
	Name string    // the subscription's
	Seq  uint64    // given by the broker: 1, 2, 3, … per subscription
	Time time.Time // milliseconds
	Data []byte    // what came of it; the broker doesn't look into it
}
