package longline

import (
	"context"
	"time"
)

// Handler handles one event. The event is done when it returns nil; other
// errors have it called again later, but for Reject. It is called by several
// goroutines at once if Concurrency allows, never for two events of one key.
type Handler func(ctx context.Context, e Event) error

// BatchHandler handles several events, all or, by Reject with ids, some.
type BatchHandler func(ctx context.Context, events []Event) error

// SubscriptionOptions say how a subscription's events are handled. One of Handler and
// BatchHandler must be set, or the subscription be read by Events.
type SubscriptionOptions struct {
	Handler      Handler
	BatchHandler BatchHandler
	// BatchSize is the most events a BatchHandler gets at once. Default: 100.
	BatchSize int
	// BatchWait is how long an event waits for company. Default: 0, so that a
	// batch is what came while the handler was busy.
	BatchWait time.Duration

	// Concurrency is how many calls of the handler there may be at once.
	// Default: 1, and then all events come in order. With more, the events of
	// one key (CloudEvents' partitionkey) still come in order, one at a time;
	// those without a key in any order.
	Concurrency int
	// Rate is how many calls of the handler may begin per second, in bursts of
	// one second's worth at most. Default: no limit.
	Rate float64
	// Retry says how events are tried again that the handler failed at: without
	// end, unless it says otherwise. Other keys go on meanwhile.
	Retry Retry

	// Window is how many events may be received and not done: it bounds
	// memory. On a durable subscription, the default is the subscription's own; below
	// 100 it also bounds throughput, since acknowledgements are sent 20 times a
	// second or for 100 events. On an ephemeral subscription the default is 1024.
	Window int
	// Consumer names who attaches. A second subscription of the same consumer takes
	// the subscription over and ends the first with ErrTakenOver; one of
	// another consumer stands by until the first is gone. Default: one of its
	// own for each subscription, so that more processes stand by for the first. Durable
	// subscriptions only.
	Consumer string
	// Grace is how long handlers may go on when Run's context has ended,
	// before theirs ends too. Default: 10 s.
	Grace time.Duration
	// FailFast has Run return an error if its first attempt to connect fails,
	// whatever the reason, instead of trying on.
	FailFast bool

	// Secrets are the callback's, "whsec_…": any of them may have signed.
	Secrets []string
	// Remember is how many events are remembered as done, so that what is
	// announced as possibly coming twice is handled once. Default: 10000.
	// Durable subscriptions only, as is Store.
	Remember int
	// Store, if set, remembers beyond this process.
	Store Store

	// OnState is told how the subscription is, OnGap what won't come,
	// OnPartitions which of a group's are this consumer's. They are called by
	// one goroutine and hold up the subscription.
	OnState      func(State)
	OnGap        func(Gap)
	OnPartitions func(Partitions)
	// OnReject is told which events were rejected and why; on an ephemeral
	// subscription nobody else is. It may be called by several goroutines at once.
	OnReject func(Event, error)
}

// Store remembers handled events, for those who run several processes or
// want to know across restarts. Its methods may be called by several
// goroutines at once; an error from Handled counts as one of the handler.
type Store interface {
	// Handled tells whether MarkHandled was called for the key. It is asked
	// only for events announced as possibly coming twice.
	Handled(ctx context.Context, key string) (bool, error)
	MarkHandled(ctx context.Context, key string) error
}

// Selection says what an ephemeral subscription brings.
type Selection struct {
	Channels []string
	Types    []string // patterns; none: all
	Filter   string   // CEL over event that says yes or no; "": all
	// Since is a cursor or position (exclusive), "earliest", "latest" (the
	// default), or an RFC 3339 time.
	Since string
	// Lag says what happens when the subscription can't keep up: "catchup" (the
	// default) reads on from the log, "conflate" keeps the newest event per
	// key, "latest" skips to the head, "close" closes.
	Lag string
}

// Gap tells that the events after From up to and including To, both cursors
// of Channel, won't come.
type Gap struct {
	Channel, From, To string
	Reason            string // "retention", "reset", "conflated" or "lag"
}

// Partitions are those of a group that events come of, out of Of. The other
// Members have the rest.
type Partitions struct {
	Mine        []int
	Of, Members int
}

// Phase is what a subscription is doing.
type Phase string

// The phases of a subscription.
const (
	Connecting Phase = "connecting"
	Live       Phase = "live"    // events come
	Standby    Phase = "standby" // another consumer is attached; this is next
	Waiting    Phase = "waiting" // disconnected, will connect again after Retry
	Closed     Phase = "closed"  // Run is about to return
)

// State is how a subscription is.
type State struct {
	Phase      Phase
	Transport  Transport     // when Live or Standby
	Connection string        // the gateway's name for it, when Live
	Recovered  bool          // when Live: nothing was missed since last time
	Err        error         // when Waiting or Closed: why
	Retry      time.Duration // when Waiting
	Partitions []int         // when Live, in a group: those of this consumer
	Of         int           // how many the group has; 0: it is none
}
