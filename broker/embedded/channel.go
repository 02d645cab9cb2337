package embedded

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// channel is what is known in memory of a channel in use. All of it is guarded
// by its shard's mutex. There are very many of these: keep it small.
//
// Offsets are given out by the committer (head); others see an event once it
// is as durable as Fsync asks (durable), so that nobody ever saw what a crash
// then takes back.
type channel struct {
	epoch string
	log   uint64 // 0: there is no log yet, or none any more

	first   uint64 // offset of the oldest event left
	head    uint64 // offset of the newest event placed
	durable uint64 // offset of the newest event answered
	sum     uint64 // sizes of all events up to head
	gone    uint64 // sizes of all events before first
	seen    uint64 // sum when the janitor last looked
	time    int64  // of the newest event, milliseconds

	follower broker.Follower    // nil: none
	others   *[]broker.Follower // if there are several; replaced, never changed
	forks    *[]broker.Fork     // replaced, never changed

	pins int32  // calls that use it; it stays in memory while > 0
	used uint32 // sweep of its last use
	ours bool   // the last append was of the present term
	live bool   // nothing is kept: retention none
	// stored: the log has a record. One to which nothing was appended, and that no
	// subscription follows, lives in memory alone.
	stored bool

	waited  bool // there may be who waits for it: see wake.go
	changed bool // it was appended to since the janitor's last visit: see visits.go
}

func (c *channel) exists() bool { return c.log != 0 }

func (c *channel) stateLocked() broker.State {
	s := broker.State{Epoch: c.epoch, First: c.first, Head: c.durable, Bytes: int64(c.sum - c.gone)}
	if c.forks != nil {
		s.Forks = *c.forks
	}
	if c.live {
		s.First, s.Bytes = c.durable+1, 0
	}
	return s
}

// idleLocked tells whether all that is known of it is on the disk as well.
func (c *channel) idleLocked() bool {
	return c.pins == 0 && c.follower == nil && c.head == c.durable
}

// transientLocked tells whether it has a log of which nothing is on the disk.
func (c *channel) transientLocked() bool { return c.exists() && (c.live || !c.stored) }

// resetLocked makes it a channel without a log.
func (c *channel) resetLocked() {
	*c = channel{first: 1, follower: c.follower, others: c.others, pins: c.pins, used: c.used, live: c.live, waited: c.waited}
}

// beginLocked gives it a new log.
func (c *channel) beginLocked() {
	c.resetLocked()
	c.log, c.epoch, c.ours = newLog(), newEpoch(), true
}

// forkLocked ends the epoch at the head: what an older term had appended
// beyond it, if anything, was forgotten.
func (c *channel) forkLocked() {
	var forks []broker.Fork
	if c.forks != nil {
		forks = *c.forks
	}
	forks = append(slices.Clone(forks), broker.Fork{Epoch: c.epoch, Head: c.head})
	forks = forks[max(0, len(forks)-broker.MaxForks):]
	c.forks, c.epoch, c.ours = &forks, newEpoch(), true
}

func (c *channel) recordLocked(term uint64) record {
	r := record{log: c.log, term: term, epoch: c.epoch}
	if c.forks != nil {
		r.forks = *c.forks
	}
	return r
}

const shards = 64

// channels are the channels in use.
type channels struct {
	seed   maphash.Seed
	shards [shards]shard
}

type shard struct {
	mu     sync.Mutex
	byName map[string]*channel
	// removed counts removals, so that who loads a channel from the disk
	// without ownership mu notices that it may be stale.
	removed uint64
}

func (c *channels) init() {
	c.seed = maphash.MakeSeed()
	for i := range c.shards {
		c.shards[i].byName = make(map[string]*channel)
	}
}

func (c *channels) of(name string) *shard {
	return &c.shards[maphash.String(c.seed, name)%shards]
}

// pin returns the channel, in memory until unpin, whether it has a log or not.
func (b *Broker) pin(name string) (*channel, *shard, error) {
	s := b.channels.of(name)
	sweep := b.janitor.sweep.Load()
	s.mu.Lock()
	for {
		if c := s.byName[name]; c != nil {
			c.pins++
			c.used = sweep
			s.mu.Unlock()
			return c, s, nil
		}
		removed := s.removed
		s.mu.Unlock()
		c, err := b.load(name)
		if err != nil {
			return nil, nil, err
		}
		s.mu.Lock()
		if s.byName[name] == nil && s.removed == removed {
			s.byName[strings.Clone(name)] = c
		}
	}
}

func (s *shard) unpin(c *channel) {
	s.mu.Lock()
	c.pins--
	s.mu.Unlock()
}

// peek returns a copy of what is known of a channel, without keeping it in
// memory for that. ErrNotFound if it has no log.
func (b *Broker) peek(name string) (channel, error) {
	s := b.channels.of(name)
	s.mu.Lock()
	c := s.byName[name]
	if c == nil {
		s.mu.Unlock()
		loaded, err := b.load(name)
		if err != nil {
			return channel{}, err
		}
		s.mu.Lock()
		if c = s.byName[name]; c == nil {
			c = loaded
		}
	}
	defer s.mu.Unlock()
	if !c.exists() {
		return channel{}, fmt.Errorf("channel %s: %w", name, broker.ErrNotFound)
	}
	return *c, nil
}

// load reads what the disk knows of a channel.
func (b *Broker) load(name string) (*channel, error) {
	waited, err := b.anyoneWaits(name)
	if err != nil {
		return nil, fmt.Errorf("load channel %s: %w", name, err)
	}
	c := &channel{live: b.opt.Retention(name).None, waited: waited}
	c.resetLocked()
	if c.live {
		return c, nil // what may be left of a log is none of its business
	}
	r, ok, err := b.readRecord(name)
	if err != nil || !ok {
		return c, err
	}
	c.log, c.epoch, c.ours, c.stored = r.log, r.epoch, r.term == b.term, true
	if len(r.forks) > 0 {
		c.forks = &r.forks
	}
	if err := b.loadLog(c); err != nil {
		return nil, fmt.Errorf("load channel %s: %w", name, err)
	}
	c.durable, c.seen = c.head, c.sum
	return c, nil
}

// loadLog finds the ends of a channel's log.
func (b *Broker) loadLog(c *channel) error {
	value, closer, err := b.db.Get(eventKey(c.log, 0))
	switch {
	case err == nil:
		t, err := parseTrimmed(value)
		_ = closer.Close()
		if err != nil {
			return err
		}
		c.first, c.head, c.gone, c.sum, c.time = t.first, t.first-1, t.sum, t.sum, t.time
	case !errors.Is(err, pebble.ErrNotFound):
		return err
	}
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: eventKey(c.log, c.first), UpperBound: afterLog(c.log)})
	if err != nil {
		return err
	}
	defer it.Close()
	if !it.Last() {
		return it.Error()
	}
	ms, sum, _, err := eventOf(it.Value())
	if err != nil {
		return err
	}
	c.head, c.sum, c.time = offsetOf(it.Key()), sum, ms
	return nil
}

func (b *Broker) readRecord(name string) (record, bool, error) {
	value, closer, err := b.db.Get(channelKey(name))
	if errors.Is(err, pebble.ErrNotFound) {
		return record{}, false, nil
	}
	if err != nil {
		return record{}, false, fmt.Errorf("load channel %s: %w", name, err)
	}
	defer closer.Close()
	r, err := parseRecord(value)
	if err != nil {
		return record{}, false, fmt.Errorf("load channel %s: %w", name, err)
	}
	return r, true, nil
}

// newLog returns a number for a log.
func newLog() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// newEpoch returns 8 random characters.
func newEpoch() string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	var b [8]byte
	for i := range b {
		b[i] = digits[rand.IntN(len(digits))]
	}
	return string(b[:])
}
