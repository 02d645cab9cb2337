// Package broker says what a broker is: a log per channel, a live tail of it,
// the durable subscriptions that move through it, and the leases by which
// nodes own them. Package brokertest holds the same as a test suite that every
// broker passes.
//
// Events are opaque bytes here; see event.Stored for what they are to others.
package broker

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The errors that callers act on. Every other error means that something is
// wrong with the broker itself and is treated as ErrUnavailable.
var (
	// ErrUnavailable: the broker can't be reached or can't do its work now.
	// An append that fails with it may or may not have happened.
	ErrUnavailable = errors.New("broker is unavailable")
	// ErrNotFound: there is no such channel or subscription.
	ErrNotFound = errors.New("not found")
	// ErrClosed: the broker was closed.
	ErrClosed = errors.New("broker is closed")
)

// Log is an append-only log of events per channel. All methods may be called
// by many goroutines at once.
type Log interface {
	// Append adds entries to a channel in their order, all or none, and
	// returns one Appended per entry once they are durable in the broker's
	// sense. It creates the channel if need be. Concurrent calls share the
	// cost of durability. Entries whose Identity was seen within the
	// deduplication window are not added; what they became is returned. If
	// ctx ends first, the entries may yet be appended, as they were given: the
	// slice, though not their Data, is the caller's again once Append returned.
	Append(ctx context.Context, channel string, entries []Entry) ([]Appended, error)

	// Read returns what the log holds after offset, oldest first: at most
	// limit.Events events and about limit.Bytes bytes, but at least one event
	// if there is any. The page's State is that of the same moment; its Epoch
	// is for the caller to compare. Where events after offset are gone, the
	// page starts at the first that is left. ErrNotFound if the channel
	// doesn't exist.
	Read(ctx context.Context, channel string, offset uint64, limit Limit) (Page, error)

	// State returns the log's state; ErrNotFound if the channel doesn't exist.
	State(ctx context.Context, channel string) (State, error)

	// OffsetAt returns the offset of the last event appended before t, so that
	// reading after it yields those appended at t or later. It is 0 or
	// First-1 where all are later.
	OffsetAt(ctx context.Context, channel string, t time.Time) (uint64, error)

	// Channels lists existing channels in some order that lasts: those that
	// begin with prefix and come after the name after, limit at most. It costs
	// what the page takes, however many there are.
	Channels(ctx context.Context, prefix, after string, limit int) ([]string, error)

	// Drop removes the log. The channel's next use makes a new one with a new
	// epoch. Followers are told. ErrNotFound if the channel doesn't exist.
	Drop(ctx context.Context, channel string) error
}

// Tail tells of appended events as they happen.
type Tail interface {
	// Follow announces to f whatever is appended to channel from now on, until
	// Unfollow, and returns the state as of some moment after announcements
	// began; it creates the channel if need be. One to which nothing is ever
	// appended goes again, some minutes after the last follower and the last
	// subscription that follows it. Each follower of a channel hears of it; one
	// follower follows one channel once.
	Follow(ctx context.Context, channel string, f Follower) (State, error)
	// Unfollow ends announcements to f. One may still be under way when it
	// returns.
	Unfollow(channel string, f Follower)
}

// Follower takes a channel's announcements. Announce is called by the broker,
// never concurrently for one follower, and must not block or keep a.Items'
// backing array; the items' Data may be kept but never changed.
type Follower interface {
	Announce(a Announcement)
}

// Announcement says that a channel's log moved. It is a hint: announcements
// may be lost, repeated or come late, so a follower compares Epoch and offsets
// with what it has and reads the log where they don't fit.
type Announcement struct {
	// Epoch of the log, or "" if the broker only knows that something may
	// have happened (after a reconnect, a drop): compare with State.
	Epoch string
	// Items are the appended events, contiguous, or none if they were too
	// large to carry or are not known.
	Items []Item
	// Head is the offset of the newest event as of this announcement.
	Head uint64
}

// Entry is an event to append.
type Entry struct {
	// Identity is what deduplication compares, or "" for none: the event's
	// source and id as the publisher gave them.
	Identity string
	// Data is kept as it is; the broker does not look into it and keeps no
	// reference to the caller's slice after Append returned, except to hand it
	// to followers, so it must not be changed afterwards.
	Data []byte
}

// Appended says where an entry is in the log.
type Appended struct {
	Epoch     string
	Offset    uint64
	Duplicate bool // it was there already, at Epoch and Offset
}

// Item is an event in a log.
type Item struct {
	Offset uint64
	Time   time.Time // of the append, milliseconds; never before the previous item's
	Data   []byte    // as given to Append; read only
}

// Limit bounds a page.
type Limit struct {
	Events int // 0: 1,000
	Bytes  int // 0: 1 MiB
}

// WithDefaults fills in what is not set.
func (l Limit) WithDefaults() Limit {
	if l.Events <= 0 {
		l.Events = 1000
	}
	if l.Bytes <= 0 {
		l.Bytes = 1 << 20
	}
	return l
}

// Page is a stretch of a log, without holes.
type Page struct {
	Items []Item
	State State
}

// State is where a log stands. Offsets First to Head are there; none if
// First > Head.
type State struct {
	Epoch string
	First uint64 // offset of the oldest event that is left, at least 1
	Head  uint64 // offset of the newest event ever appended, 0 if none
	Bytes int64  // stored, approximately
	Forks []Fork // older epochs, oldest first, the last MaxForks of them
}

// Fork ends an older epoch: offsets up to Head mean the same in the epoch that
// followed; those beyond it were forgotten.
type Fork struct {
	Epoch string
	Head  uint64
}

// MaxForks is how many forks a log remembers.
const MaxForks = 32

// Place says what a cursor of any epoch means in the log as it is now.
type Place int

const (
	// Here: the offset means the same in the present epoch.
	Here Place = iota
	// Forked: the offset lies beyond a fork; what is in the log after the
	// returned offset takes the place of what was forgotten.
	Forked
	// Unknown: the epoch is not known; the log starts anew at offset 0.
	Unknown
	// Beyond: the epoch is the present one but the offset is beyond the head.
	Beyond
)

// Locate says where offset of epoch is now: the offset to read after and what
// kind of place it is. For Here and Forked the offset is at most Head.
func (s State) Locate(epoch string, offset uint64) (uint64, Place) {
	if epoch == s.Epoch {
		if offset > s.Head {
			return s.Head, Beyond
		}
		return offset, Here
	}
	for i, f := range s.Forks {
		if f.Epoch != epoch {
			continue
		}
		// A later fork may have forgotten more than this one did.
		least := f.Head
		for _, later := range s.Forks[i:] {
			least = min(least, later.Head)
		}
		if offset > least {
			return least, Forked
		}
		return offset, Here
	}
	return 0, Unknown
}

// Retention says how long a channel's events are kept.
type Retention struct {
	// Events are kept at least so long or so many, whichever is more, ...
	ReplayAge    time.Duration // default 10 minutes
	ReplayEvents int           // default 1,000
	// ... and until every durable subscription has acknowledged them, at most
	// so long and so much, where 0 is no bound:
	MaxAge   time.Duration // default 72 h
	MaxBytes int64         // default 1 GiB
	// None keeps nothing: the channel is live only.
	None bool
}

// DefaultRetention is what a channel gets if nothing else is said.
var DefaultRetention = Retention{
	ReplayAge: 10 * time.Minute, ReplayEvents: 1000, MaxAge: 72 * time.Hour, MaxBytes: 1 << 30,
}

// Check returns an error that names the first value that makes no sense.
func (r Retention) Check() error {
	switch {
	case r.ReplayAge < 0 || r.ReplayEvents < 0 || r.MaxAge < 0 || r.MaxBytes < 0:
		return errors.New("retention: values must not be negative")
	case r.MaxAge > 0 && r.MaxAge < r.ReplayAge:
		return fmt.Errorf("retention: max_age %v is less than replay %v", r.MaxAge, r.ReplayAge)
	}
	return nil
}

// Options are common to all brokers.
type Options struct {
	// Retention of a channel; called seldom, from any goroutine. nil:
	// DefaultRetention for all.
	Retention func(channel string) Retention
	// MaxTotalBytes bounds all logs together: above 80 % of it the largest
	// backlogs that are kept by need alone are cut to replay. 0: no bound.
	MaxTotalBytes int64
	// DedupeWindow is how long identities are remembered. 0: 10 minutes.
	DedupeWindow time.Duration
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// WithDefaults fills in what is not set.
func (o Options) WithDefaults() Options {
	if o.Retention == nil {
		o.Retention = func(string) Retention { return DefaultRetention }
	}
	if o.DedupeWindow == 0 {
		o.DedupeWindow = 10 * time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}
