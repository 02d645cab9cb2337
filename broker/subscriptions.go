package broker

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/longline-push/longline/event"
)

// What subscriptions answer besides the errors of a log.
var (
	// ErrConflict: the record is not at the version the caller had read.
	// Nothing was changed; load it and decide again.
	ErrConflict = errors.New("changed meanwhile")
	// ErrFenced: the generation is not the present one, or the subscription
	// is gone. Nothing was changed; the caller owns it no longer.
	ErrFenced = errors.New("owned by another")
)

// IsPartition tells whether name is a partition's. A subscription that is shared
// has partitions, subscriptions by the name of their own "<subscription>/<n>",
// which lie where it does.
func IsPartition(name string) bool { return strings.IndexByte(name, '/') >= 0 }

// Subscriptions keeps durable subscriptions: a record that only its writers
// understand, guarded by a version, and the acknowledged position, guarded by
// a generation. Who may do what when is decided above, by comparing and
// setting; a broker keeps the two guards and the indexes. All methods may be
// called by many goroutines at once.
//
// A log keeps what a subscription that follows its channel (Update.Channels)
// has not acknowledged, as far as Retention allows; one without a cursor for
// the channel needs nothing. What it is worth to a broker to know the least
// acknowledged offset of a channel, it derives from these entries itself.
type Subscriptions interface {
	// Load returns a subscription as it is now; ErrNotFound if there is none.
	Load(ctx context.Context, name string) (Subscription, error)

	// Store makes the subscription what u says, with all its indexes, in one
	// step, if its version is still u.Version; ErrConflict if not. The version
	// is then greater by a VersionStep. A call that fails otherwise may have
	// taken effect.
	Store(ctx context.Context, u Update) error

	// Delete removes the subscription and all that belongs to it: position,
	// indexes, dead letters, attempts, note, partitions. ErrConflict unless its
	// version is version,
	// ErrNotFound if it is gone.
	Delete(ctx context.Context, name string, version uint64) error

	// List returns subscriptions, not partitions, in some order that lasts: those that begin
	// with prefix and come after the name after, limit of them unless there are no
	// more. It costs what
	// the page takes, however many there are.
	List(ctx context.Context, prefix, after string, limit int) ([]Subscription, error)

	// Created lists the names of subscriptions, not partitions, whose Creator is
	// creator, in some order that lasts: those after the name after, limit at most. It costs what
	// the page takes, however many there are of others.
	Created(ctx context.Context, creator, after string, limit int) ([]string, error)

	// Advance moves acknowledged positions forward and returns, in order, the
	// indexes of the moves that were refused with the meaning of ErrFenced.
	// This is the hot path: thousands of moves a second, hundreds in a call.
	// It neither reads nor changes records, versions and indexes. When it
	// returns, a killed process keeps the moves, and so does whatever Load has
	// shown; a lost machine may forget them, unless one is Durable, and then
	// comes a redelivery. Later durable writes must not survive a crash that it
	// does not.
	Advance(ctx context.Context, moves []Move) (fenced []int, err error)

	// Look returns generation and position of many subscriptions at once, in
	// the order of names; the zero Progress for those that are gone. Nodes ask
	// for all they own every few seconds.
	Look(ctx context.Context, names []string) ([]Progress, error)
}

// Progress is the part of a subscription that its owner follows.
type Progress struct {
	Generation uint64         // never 0 for a subscription that exists
	Position   event.Position // what is acknowledged, per channel, in byte order of the channels
}

// Subscription is a subscription as a broker keeps it.
type Subscription struct {
	Name string
	// Version grows with each Store. It goes on where the subscription is
	// deleted and made again, so none ever means two records.
	Version uint64
	Progress
	Record    []byte // as given to Store; up to a few KiB
	Dead      int    // dead letters that are kept
	Redriving int    // those of them that are to be delivered again
}

// Update is what a subscription is to be. All of its fields count each time,
// zero ones too, but for the position, of which only the named channels change.
type Update struct {
	Name    string
	Version uint64 // of the record it replaces; 0: there must be none
	// Generation fences moves of any other one. Who makes it sees to it that no
	// two owners ever have the same.
	Generation uint64
	Record     []byte

	// Set places these channels at these cursors, also back. Forget removes
	// the cursors of these channels.
	Set    event.Position
	Forget []string

	// Channels are what the subscription follows.
	Channels []string
	// Creator is who made it, for Created; "" for nobody.
	Creator string
	// Node is the incarnation that owns it, for Owned; "" for none.
	Node string
	// Due says when the subscription becomes due, counted from now on the
	// broker's clock; Never for no time, 0 or less for at once.
	Due time.Duration
	// Wait makes it due as well as soon as the log of one of these channels
	// differs from the cursor: its head lies beyond it, now or after an
	// append, or its epoch is another, now or after a drop. This costs nothing
	// until it happens: a hundred thousand may wait.
	Wait event.Position

	// Undivided removes the subscription's partitions in the same step, so that
	// whoever owns one is fenced.
	Undivided bool
	// Least, of one that is Undivided, moves what Set places forward to the least
	// of the partitions' cursors as they are in that step, in channels where all
	// are of its epoch: what they acknowledged since they were read is kept.
	Least bool

	// Durable makes the call return only once the change is durable. It is
	// set for what a person was promised (definitions, seeks, pauses), not for
	// comings and goings of owners, which a crash ends anyway. A broker whose
	// machines take over from each other may take it as set.
	Durable bool
}

// VersionStep is by how much a version grows: at random, so that two writers do
// not come to the same one where a broker forgot what the first had stored.
// Versions stay below 1<<53 for some 1<<33 of them.
func VersionStep() uint64 { return 1 + rand.Uint64N(1<<20) }

// Never is the Due of an update after which no time makes it due.
const Never time.Duration = 1<<63 - 1

// Move acknowledges: per channel, everything up to the cursor is done. A
// cursor of the epoch that is stored moves it forward or does nothing; one of
// another epoch replaces it. Channels not named stay.
type Move struct {
	Name       string
	Generation uint64
	Position   event.Position
	// Durable makes the call return only once its moves are as durable as what
	// was appended.
	Durable bool
}

// Schedule tells which subscriptions need somebody: a callback's time has
// come, an owner died, an event was appended for one that waits. All methods
// may be called by many goroutines at once.
type Schedule interface {
	// Due hands out up to limit subscriptions that are due (or were lately, in
	// seldom cases: an entry that a Store left behind), the longest due first
	// as far as that is cheap, and hides each from further calls on any
	// node for the time hide, after which it is due again unless a Store made
	// it not so or Done dropped its ticket. Which tickets are served is the
	// caller's affair: it loads the subscription and may find it owned.
	//
	// It looks at these parts of the schedule, nil for all; left are those in
	// which more may be due than was handed out. Whoever waits for a channel
	// that changed is moved to what is due here, some at a time, so a call may
	// hand out nothing and leave its part.
	Due(ctx context.Context, parts []int, limit int, hide time.Duration) (tickets []Ticket, left []int, err error)

	// Done drops tickets whose subscriptions were looked after: they are no
	// longer due, unless an append or a Store made them due once more since
	// the ticket was issued; those stay due, and are not hidden.
	Done(ctx context.Context, tickets []Ticket) error

	// OnDue calls f soon after (some ms) something became due in a part of the
	// schedule by other means than the passing of time, until stop is called.
	// f must not block. It is a hint that may come for nothing and may be lost:
	// callers ask Due for all parts every second anyway. Where several changes
	// meet in a part before anybody asked, it is told of once.
	OnDue(f func(part int)) (stop func())

	// Owned lists the names of subscriptions whose Node is node, in some
	// order that lasts: those after the name after, limit at most.
	Owned(ctx context.Context, node, after string, limit int) ([]string, error)
}

// Ticket is a subscription handed out by Due.
type Ticket struct {
	Name string
	Ref  string // the broker's own; what Done needs to know it by
}

// DeadLetters keeps the events that a subscription's consumer refused. All
// methods may be called by many goroutines at once.
type DeadLetters interface {
	// Bury adds dead letters and moves the position, both or neither, durably.
	// A letter whose Cursor is there already takes its place, without its Redrive
	// mark. ErrFenced if the generation is not the present one. dropped counts
	// the letters that fell out because there were more than MaxDeadLetters, or
	// more than one and more than MaxDeadBytes, or some older than MaxDeadAge; the
	// oldest go first.
	Bury(ctx context.Context, b Burial) (dropped int, err error)

	// Dead returns letters in the order they were buried: those after the
	// sequence number after, limit at most. A subscription that doesn't exist
	// has none.
	Dead(ctx context.Context, name string, after uint64, limit int) ([]Letter, error)

	// Redrive marks the letters of these cursors, nil for all, to be delivered
	// again, and returns how many now bear the mark that did not before. They
	// stay until Remove. Many are marked in pieces, so that nobody else waits for
	// long; a call that fails may have marked some.
	Redrive(ctx context.Context, name string, cursors []string) (int, error)

	// Remove drops the letters of these cursors, nil for all, and returns how
	// many there were.
	Remove(ctx context.Context, name string, cursors []string) (int, error)
}

// How many dead letters of a subscription are kept, how much data, and for how
// long.
const (
	MaxDeadLetters = 10_000
	MaxDeadBytes   = 64 << 20
	MaxDeadAge     = 72 * time.Hour
)

// Burial is a step of an owner: letters to keep, and where the position goes
// with that, as in a Move.
type Burial struct {
	Name       string
	Generation uint64
	Letters    []Letter
	Position   event.Position
}

// Letter is a dead letter.
type Letter struct {
	Seq     uint64 // given by the broker: 1, 2, 3, … per subscription
	Cursor  string // of the event, and so the letter's name: there is one each
	Time    time.Time
	Data    []byte // the event, reason and attempts; the broker doesn't look into it
	Redrive bool   // to be delivered again
}

// Notes keeps what an owner wants others to see of its doings, such as how its
// callback does: up to some KiB per subscription, the last one wins, never waited for, allowed to be lost. Both methods may be called by
// many goroutines at once.
type Notes interface {
	// SetNote replaces the note; ErrFenced if the generation is not the
	// present one.
	SetNote(ctx context.Context, name string, generation uint64, note []byte) error
	// Note returns the note, nil if there is none.
	Note(ctx context.Context, name string) ([]byte, error)
}

// Leases tells which nodes are alive. A node is one incarnation of a gateway
// process: it has a new random ID after each start and whenever its lease
// ended. All methods may be called by many goroutines at once.
type Leases interface {
	// Join makes the node known and alive for ttl. It remains known, if only
	// as dead, until Leave, also when the broker is restarted.
	Join(ctx context.Context, n Node, ttl time.Duration) error
	// Renew keeps the node alive for another ttl, counted from some moment of
	// the call. ErrNotFound once its lease has ended: what is dead stays dead.
	Renew(ctx context.Context, id string, ttl time.Duration) error
	// Nodes returns all known nodes in byte order of their IDs.
	Nodes(ctx context.Context) ([]Node, error)
	// Leave forgets the node, dead or alive. Callers first see to what it
	// owned. No error if it isn't known.
	Leave(ctx context.Context, id string) error
}

// Node is an incarnation of a gateway process.
type Node struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // for people: host and address
	Started time.Time `json:"started"`
	Alive   bool      `json:"alive"` // set by Nodes
}

// Signals carries small messages between nodes, some ms late, at most once:
// whatever depends on one has another way to find out. Both methods may be
// called by many goroutines at once.
type Signals interface {
	// Send sends message (≤ 16 KiB) to the node with that ID, or to all, this
	// one included, where to is "". nil doesn't mean that it arrived.
	Send(ctx context.Context, to string, message []byte) error
	// Listen calls f with each message to node or to all until stop is called,
	// one at a time and in the order of each sender. f must not block.
	Listen(ctx context.Context, node string, f func(message []byte)) (stop func(), err error)
}

// Durable is what a broker offers for durable subscriptions.
type Durable interface {
	Subscriptions
	Schedule
	DeadLetters
	Attempts
	Notes
	Leases
	Signals
}
