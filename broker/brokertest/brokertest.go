// Package brokertest is the contract of package broker as one test suite and
// one benchmark, for every broker to run.
package brokertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
)

// Broker is what a broker offers for the log.
type Broker interface {
	broker.Log
	broker.Tail
	Close() error
}

// Harness is a broker under test, empty when a test gets it.
type Harness struct {
	Broker Broker

	// Trim applies retention to every channel now, completely: what a broker
	// does by itself in its own time.
	Trim func(ctx context.Context) error

	// Reopen closes the broker in an orderly way and opens its data anew, with
	// the same options. nil: the data doesn't outlive the broker.
	Reopen func(t testing.TB) Broker

	// Lose ends the broker the hard way and opens what is left of its data as
	// a broker of another term, such that the first append to a log is a fork.
	// It need not forget anything. nil: can't be had.
	Lose func(t testing.TB) Broker
}

// New makes a harness. The brokers that come from it take their time from
// opt.Now alone, which tests move, and are closed by t.Cleanup.
type New func(t testing.TB, opt broker.Options) Harness

// Run runs the suite. Each test gets a harness of its own.
func Run(t *testing.T, open New) {
	tests := []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"AppendAnswersPlacesInOrder", testAppendPlaces},
		{"AppendIsAllOrNothing", testAppendAllOrNothing},
		{"AppendOfNothing", testAppendNothing},
		{"AppendKeepsAnyBytes", testAppendBytes},
		{"AppendersOfOneChannel", testAppendersOneChannel},
		{"AppendersOfManyChannels", testAppendersManyChannels},
		{"AppendAfterCancel", testAppendCancelled},
		{"AppendGivenUpIsWhatWasGiven", testAppendGivenUp},
		{"DedupeAnswersTheFirstPlace", testDedupe},
		{"DedupeWithinABatch", testDedupeBatch},
		{"DedupeConcurrently", testDedupeConcurrent},
		{"DedupeIsPerChannel", testDedupePerChannel},
		{"DedupeEndsWithTheWindow", testDedupeWindow},
		{"DedupeEndsWithADrop", testDedupeDrop},
		{"DedupeOutlivesARestart", testDedupeReopen},
		{"ReadPages", testReadPages},
		{"ReadAtLeastOneEvent", testReadLimit},
		{"ReadBeyondTheHead", testReadBeyond},
		{"ReadWhatIsMissing", testMissingChannel},
		{"TimesNeverGoBack", testTimes},
		{"OffsetAtATime", testOffsetAt},
		{"ChannelsAreListed", testChannels},
		{"DropMakesANewLog", testDrop},
		{"RestartKeepsAll", testReopen},
		{"AnotherTermForks", testTerms},
		{"AnotherTermForksOnlyOnce", testTermOnce},
		{"ForksAreBounded", testForksBounded},
		{"RetentionKeepsReplay", testRetentionReplay},
		{"RetentionByAge", testRetentionAge},
		{"RetentionByBytes", testRetentionBytes},
		{"RetentionNone", testRetentionNone},
		{"RetentionPerChannel", testRetentionPerChannel},
		{"RetentionByNeed", testRetentionNeed},
		{"RetentionOfAllTogether", testRetentionTotal},
		{"TrimmedToNothing", testTrimmedToNothing},
		{"FollowAnnounces", testFollow},
		{"FollowMakesTheChannel", testFollowCreates},
		{"FollowOfNothingLeavesNothing", testFollowLeavesNothing},
		{"FollowLeavesNoHole", testFollowNoHole},
		{"FollowersAreIndependent", testFollowers},
		{"FollowersHearOfADrop", testFollowDrop},
		{"CancelledContexts", testContexts},
		{"ClosedBroker", testClosed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &fixture{t: t, clock: NewClock(), ctx: t.Context()}
			f.open = func(opt broker.Options) {
				t.Helper()
				opt.Now = f.clock.Now
				f.h = open(t, opt)
				f.Broker = f.h.Broker
			}
			test.run(t, f)
		})
	}
}

// Clock is a clock that stands until it is moved. It is safe for concurrent
// use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at some whole second of the past.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

// Now returns where the clock stands.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Move moves the clock, also back.
func (c *Clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is one test's broker, clock and vocabulary.
type fixture struct {
	Broker
	t     *testing.T
	ctx   context.Context
	h     Harness
	clock *Clock
	open  func(broker.Options)
}

// start opens the broker with default options.
func (f *fixture) start() { f.t.Helper(); f.open(broker.Options{}) }

func (f *fixture) reopen() {
	f.t.Helper()
	if f.h.Reopen == nil {
		return // nothing outlives this broker; the test goes on with what it has
	}
	f.Broker = f.h.Reopen(f.t)
}

func (f *fixture) trim() {
	f.t.Helper()
	if err := f.h.Trim(f.ctx); err != nil {
		f.t.Fatalf("trim: %v", err)
	}
}

func (f *fixture) mustAppend(channel string, entries ...broker.Entry) []broker.Appended {
	f.t.Helper()
	got, err := f.Append(f.ctx, channel, entries)
	if err != nil {
		f.t.Fatalf("append to %s: %v", channel, err)
	}
	if len(got) != len(entries) {
		f.t.Fatalf("append of %d entries answered %d places", len(entries), len(got))
	}
	return got
}

// mustFill appends n events e1, e2, …, numbered on from the head.
func (f *fixture) mustFill(channel string, n int) {
	f.t.Helper()
	head := uint64(0)
	if s, err := f.State(f.ctx, channel); err == nil {
		head = s.Head
	}
	for i := range n {
		f.mustAppend(channel, text(fmt.Sprintf("e%d", head+uint64(i)+1)))
	}
}

func (f *fixture) mustState(channel string) broker.State {
	f.t.Helper()
	s, err := f.State(f.ctx, channel)
	if err != nil {
		f.t.Fatalf("state of %s: %v", channel, err)
	}
	return s
}

func (f *fixture) mustRead(channel string, offset uint64, limit broker.Limit) broker.Page {
	f.t.Helper()
	p, err := f.Read(f.ctx, channel, offset, limit)
	if err != nil {
		f.t.Fatalf("read %s after %d: %v", channel, offset, err)
	}
	for i, item := range p.Items {
		if i > 0 && item.Offset != p.Items[i-1].Offset+1 {
			f.t.Fatalf("page of %s has a hole: %d follows %d", channel, item.Offset, p.Items[i-1].Offset)
		}
		if item.Offset > p.State.Head || item.Offset < p.State.First {
			f.t.Fatalf("page of %s holds %d, its state says %d to %d", channel, item.Offset, p.State.First, p.State.Head)
		}
	}
	return p
}

// wantLog checks everything that is in a log: its events' data, which stand at
// the offsets from first on.
func (f *fixture) wantLog(channel string, first uint64, want ...string) {
	f.t.Helper()
	var got []string
	for offset := uint64(0); ; {
		p := f.mustRead(channel, offset, broker.Limit{})
		if len(p.Items) == 0 {
			break
		}
		if offset == 0 && p.Items[0].Offset != first {
			f.t.Fatalf("log %s starts at %d, want %d", channel, p.Items[0].Offset, first)
		}
		for _, item := range p.Items {
			got = append(got, string(item.Data))
		}
		offset = p.Items[len(p.Items)-1].Offset
	}
	if !slices.Equal(got, want) {
		f.t.Fatalf("log %s:\ngot  %s\nwant %s", channel, brief(got), brief(want))
	}
	s := f.mustState(channel)
	if s.First != first || s.Head != first+uint64(len(want))-1 {
		f.t.Fatalf("state of %s is %d to %d, want %d to %d", channel, s.First, s.Head, first, first+uint64(len(want))-1)
	}
}

// eventually waits until check returns "" and fails with its last answer if
// that takes longer than anything here should.
func (f *fixture) eventually(check func() string) {
	f.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		wrong := check()
		if wrong == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			f.t.Fatalf("still after 20 s: %s", wrong)
		}
	}
}

func text(data string) broker.Entry { return broker.Entry{Data: []byte(data)} }

func named(identity, data string) broker.Entry {
	return broker.Entry{Identity: identity, Data: []byte(data)}
}

// numbered is what mustFill wrote at the offsets from to to.
func numbered(from, to int) []string {
	var s []string
	for i := from; i <= to; i++ {
		s = append(s, fmt.Sprintf("e%d", i))
	}
	return s
}

func brief(s []string) string {
	if len(s) > 24 {
		return fmt.Sprintf("%d events: %s … %s", len(s), strings.Join(s[:8], " "), strings.Join(s[len(s)-8:], " "))
	}
	return fmt.Sprintf("%d events: %s", len(s), strings.Join(s, " "))
}
