package callback

import (
	"context"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
)

// Source reads the events of a subscription's channels that match its types.
// It is called by one worker, never concurrently.
type Source interface {
	// Read returns events after the position, each channel's in its order:
	// limit at most, and no more once they have so many bytes. It doesn't wait for more to be published. A page with
	// neither events nor gaps at the position it was given means that there is
	// nothing more for now. broker.ErrFenced if the subscription is gone or
	// another's; any other error means: not now.
	Read(ctx context.Context, after event.Position, limit, bytes int) (Page, error)

	// Wake receives a value when there may be something to read after a Read
	// had nothing more. One that comes for nothing does no harm.
	Wake() <-chan struct{}

	// Rest lets go of whatever following the channels costs, until the next
	// Read.
	Rest()
}

// Page is a stretch of a subscription's events.
type Page struct {
	Events []Event
	// Gaps are what Events lacks though it should be there; they are behind
	// the position that Read was given.
	Gaps []Gap
	// Forked are channels whose log was forked: Events are of the new epoch.
	Forked []Forked
	// Position is where to read on: past all Events, all Gaps, and what the
	// types left out. It names all of the subscription's channels.
	Position event.Position
}

// Event is an event to deliver. Its bytes are only read.
type Event struct {
	Cursor event.Cursor
	ID     string
	Key    string // partitionkey
	JSON   []byte // as every transport sends it
	// Redelivery: another owner may have delivered it before.
	Redelivery bool
	// Redriven: it is a dead letter that was put back. It has no place in the
	// position; Progress.Redriven removes it when it is done.
	Redriven bool
	// Partition of a group that it belongs to.
	Partition int
}

// Gap says that the events of a channel after From up to To won't come.
type Gap struct {
	From, To event.Cursor
	Reason   string // as on the wire: retention, reset, corrupt
}

// Forked says where events of a channel's older epochs are now.
type Forked struct {
	Channel string
	cursor.Locator
}

// Progress keeps what became of events. Every method is fenced by the
// generation the worker was given: broker.ErrFenced means that the
// subscription has another owner now. Any other error means: not now; the
// worker tries again. Advance may run concurrently with the others.
type Progress interface {
	// Advance says that everything up to the position is done. It needs not be
	// durable when it returns.
	Advance(ctx context.Context, to event.Position) error

	// Bury keeps letters as dead, durably. The position moves past them by a
	// later Advance only, so it must do no harm to bury a letter twice.
	Bury(ctx context.Context, letters []Letter) error

	// Redriven removes dead letters, by their cursors, that were delivered again.
	Redriven(ctx context.Context, cursors []string) error

	// Notify tells what people may want to know. It must not block.
	Notify(n Notice)
}

// Divided is the Progress of a group, which gives up its partitions one by one.
type Divided interface {
	// ReleasePartition gives one up: everything of it up to done is done, up to
	// handed it may have been delivered. It doesn't wait.
	ReleasePartition(partition int, done, handed event.Position)
}

// Letter is an event that its receiver won't take.
type Letter struct {
	Event    Event
	Reason   string
	Attempts int
	Time     time.Time
}

// Notice is something worth telling about a subscription's callback.
type Notice struct {
	Kind   NoticeKind
	Status Status // as of then
	Gap    Gap    // of GapFound
	Letter Letter // of DeadLetter
}

// NoticeKind says what a Notice is about.
type NoticeKind int

const (
	// Failing: five calls in a row failed; the breaker is open.
	Failing NoticeKind = iota
	// Recovered: the first 2xx after Failing.
	Recovered
	// TurnedOff: the receiver answered 410; the callback is disabled.
	TurnedOff
	// DeadLetter: an event was buried.
	DeadLetter
	// GapFound: events are gone before they could be delivered.
	GapFound
)

var noticeNames = [...]string{"callback_failing", "callback_recovered", "callback_disabled", "deadletter", "gap"}

// String returns the end of the type of the gateway's own event for it.
func (k NoticeKind) String() string { return noticeNames[k] }

// Status is how a callback is doing, as GET of the subscription shows it.
type Status struct {
	Breaker     string     `json:"breaker"` // closed, open, half_open
	LastStatus  int        `json:"last_status,omitempty"`
	LastError   string     `json:"last_error,omitempty"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
	InFlight    int        `json:"in_flight"`
}

// Attempt is one callback that was sent and what came of it.
type Attempt struct {
	Time      time.Time `json:"time"`
	Status    int       `json:"status,omitempty"` // 0: no answer
	LatencyMS float64   `json:"latency_ms"`
	Error     string    `json:"error,omitempty"`
	Body      string    `json:"body,omitempty"` // the first 1 KiB of the answer, without our secrets
	Method    string    `json:"method,omitempty"`
	URL       string    `json:"url,omitempty"`
	Cursors   []string  `json:"cursors,omitempty"` // of the events
	IDs       []string  `json:"ids,omitempty"`     // likewise
	Replay    string    `json:"replay,omitempty"`  // the replay that it was part of
}
