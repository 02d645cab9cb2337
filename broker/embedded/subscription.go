package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/longline-push/longline/broker"
)

// subscriptions is the state of the durable part. mu makes each change one
// step; it is taken before a shard's mutex, never after.
type subscriptions struct {
	mu      sync.Mutex
	waiting atomic.Bool // there may be rowWaits
	// Changes are applied first, then they reach the operating system, with
	// whatever is written next. applied counts those, reached is how many of
	// them a killed process keeps.
	applied, reached atomic.Uint64
	earliest         int64 // no rowByTime lies before
	lastRef          uint64
	recheck          []byte               // rowWaits before this were listed since the start; nil: all
	nodes            map[string]time.Time // until when they are alive
	// moving holds the rowStanding of subscriptions that are owned, more or less:
	// whatever else writes such a row takes it out.
	moving *lru.Cache[string, []byte]

	listening sync.Mutex
	nextStop  int
	onDue     map[int]func(part int)
	listeners map[int]*listener
}

var _ broker.Durable = (*Broker)(nil)

func (s *subscriptions) init(b *Broker) error {
	s.nodes = make(map[string]time.Time)
	s.onDue = make(map[int]func(part int))
	s.listeners = make(map[int]*listener)
	moving, err := lru.New[string, []byte](maxMoving)
	if err != nil {
		return err
	}
	s.moving = moving
	return b.scan(rowKey(rowWaits), func(_, _ []byte) (bool, error) {
		s.waiting.Store(true)
		s.recheck = rowKey(rowWaits)
		return false, nil
	})
}

// maxMoving bounds how many rows are remembered: some 200 bytes each.
const maxMoving = 16 << 10

func (b *Broker) standing(name string) (s standing, ok bool, err error) {
	if row, ok := b.subs.moving.Get(name); ok {
		return s, true, s.parse(row)
	}
	ok, err = b.get(rowKey(rowStanding, name), s.parse)
	return s, ok, err
}

// Load implements broker.Subscriptions.
func (b *Broker) Load(ctx context.Context, name string) (broker.Subscription, error) {
	if err := b.enter(ctx); err != nil {
		return broker.Subscription{}, err
	}
	defer b.calls.leave()
	s, err := b.whole(name)
	if err == nil {
		err = b.reach(ctx) // what is shown stays
	}
	if err != nil {
		return broker.Subscription{}, unavailable(fmt.Errorf("load subscription %s: %w", name, err))
	}
	return s, nil
}

func (b *Broker) whole(name string) (s broker.Subscription, err error) {
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	var row subscription
	ok, err := b.get(rowKey(rowRecord, name), row.parse)
	if err == nil && !ok {
		err = broker.ErrNotFound
	}
	if err != nil {
		return s, err
	}
	return b.complete(name, row)
}

// complete adds the other rows of a subscription to its first.
func (b *Broker) complete(name string, row subscription) (broker.Subscription, error) {
	s := broker.Subscription{Name: name, Version: row.version, Record: row.record}
	at, _, err := b.standing(name)
	if err != nil {
		return s, fmt.Errorf("load subscription %s: %w", name, err)
	}
	s.Progress = at.Progress
	var counts letterCounts
	if _, err := b.get(rowKey(rowLetters, name), counts.parse); err != nil {
		return s, fmt.Errorf("load subscription %s: %w", name, err)
	}
	s.Dead, s.Redriving = int(counts.dead), int(counts.redriving)
	return s, nil
}

// List implements broker.Subscriptions.
func (b *Broker) List(ctx context.Context, prefix, after string, limit int) ([]broker.Subscription, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	from := rowKey(rowRecord, prefix)
	if after != "" && after >= prefix {
		from = append(rowKey(rowRecord, after), 0)
	}
	page, err := b.page(prefix, from, limit)
	if err == nil {
		err = b.reach(ctx) // what is shown stays
	}
	if err != nil {
		return nil, unavailable(fmt.Errorf("list subscriptions: %w", err))
	}
	return page, nil
}

func (b *Broker) page(prefix string, from []byte, limit int) (page []broker.Subscription, err error) {
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	err = b.scanFrom(rowKey(rowRecord, prefix), from, func(key, value []byte) (bool, error) {
		if len(page) == limit {
			return false, nil
		}
		if broker.IsPartition(string(key[2:])) {
			return true, nil
		}
		var row subscription
		if err := row.parse(value); err != nil {
			return false, fmt.Errorf("read %q: %w", key, err)
		}
		s, err := b.complete(string(key[2:]), row)
		page = append(page, s)
		return true, err
	})
	return page, err
}

// Look implements broker.Subscriptions.
func (b *Broker) Look(ctx context.Context, names []string) ([]broker.Progress, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	progresses := make([]broker.Progress, len(names))
	for i, name := range names {
		s, err := b.look(name)
		if err != nil {
			return nil, unavailable(fmt.Errorf("look at subscription %s: %w", name, err))
		}
		progresses[i] = s.Progress
	}
	return progresses, nil
}

// look reads a standing that will be asked for again soon: its owner lives.
func (b *Broker) look(name string) (standing, error) {
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	s, found, err := b.standing(name)
	if found && err == nil && !b.subs.moving.Contains(name) {
		b.subs.moving.Add(name, s.append(nil))
	}
	return s, err
}

// Store implements broker.Subscriptions.
func (b *Broker) Store(ctx context.Context, u broker.Update) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	if err := b.trouble.now().err; err != nil {
		return fmt.Errorf("store subscription %s: %w", u.Name, err)
	}
	if err := b.keepLogs(ctx, u); err != nil {
		return fmt.Errorf("store subscription %s: %w", u.Name, err)
	}
	due, err := b.store(u)
	if err != nil {
		return unavailable(fmt.Errorf("store subscription %s: %w", u.Name, err))
	}
	if due {
		b.tellDue()
	}
	if u.Durable {
		if err := b.harden(ctx); err != nil {
			return fmt.Errorf("store subscription %s: %w", u.Name, err)
		}
	}
	return nil
}

// keepLogs has the logs survive that a subscription is to follow and that live in
// memory alone: its cursors are of their epochs.
func (b *Broker) keepLogs(ctx context.Context, u broker.Update) error {
	channels := slices.Clone(u.Channels)
	for _, c := range slices.Concat(u.Set, u.Wait) {
		if !slices.Contains(channels, c.Channel) {
			channels = append(channels, c.Channel)
		}
	}
	for _, channel := range channels {
		s := b.channels.of(channel)
		s.mu.Lock()
		c := s.byName[channel]
		inMemory := c != nil && c.exists() && !c.stored && !c.live
		s.mu.Unlock()
		if !inMemory {
			continue
		}
		r := newRequest(kindKeep, channel)
		if err := b.perform(ctx, r); err != nil {
			return err
		}
		r.free()
	}
	return nil
}

// store does all but to wait; due tells that the subscription is due at once.
func (b *Broker) store(u broker.Update) (due bool, err error) {
	batch := b.db.NewBatch()
	defer batch.Close()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	var old subscription
	if _, err := b.get(rowKey(rowRecord, u.Name), old.parse); err != nil {
		return false, err
	}
	if old.version != u.Version {
		return false, broker.ErrConflict
	}
	last := old.version
	if last == 0 {
		if last, _, err = b.getUint64(keyVersions); err != nil {
			return false, err
		}
	}
	s, _, err := b.standing(u.Name)
	if err != nil {
		return false, err
	}
	s.Generation = u.Generation
	for _, channel := range u.Forget {
		s.forget(channel)
	}
	for _, c := range u.Set {
		s.place(c)
	}
	if u.Undivided && u.Least {
		if err := b.reachLeast(u, &s); err != nil {
			return false, err
		}
	}
	next := subscription{version: last + broker.VersionStep(), record: u.Record, node: u.Node, channels: u.Channels}
	if !broker.IsPartition(u.Name) {
		next.creator = u.Creator
	}
	for _, c := range u.Wait {
		next.waits = append(next.waits, c.Channel)
	}
	_ = batch.Set(rowKey(rowRecord, u.Name), next.append(nil), nil)
	_ = batch.Set(rowKey(rowStanding, u.Name), s.append(nil), nil)
	b.subs.moving.Remove(u.Name)
	index(batch, u.Name, &old, &next)
	for _, c := range u.Wait {
		_ = batch.Set(rowKey(rowWaits, c.Channel, u.Name), appendCursor(nil, c), nil)
	}
	if u.Undivided {
		if err := b.pruneLocked(batch, u.Name, next.version); err != nil {
			return false, err
		}
	}
	gone, err := b.awaitLocked(u.Wait)
	if err != nil {
		return false, err
	}
	due = gone || u.Due <= 0
	switch {
	case due:
		err = b.scheduleLocked(batch, u.Name, 0)
	case u.Due == broker.Never:
		err = b.unscheduleLocked(batch, u.Name)
	default:
		err = b.scheduleLocked(batch, u.Name, u.Due)
	}
	if err != nil {
		return false, err
	}
	return due, b.applySoonLocked(batch)
}

// index makes the indexes of a subscription follow its row.
func index(batch *pebble.Batch, name string, old, next *subscription) {
	for _, channel := range old.channels {
		if !slices.Contains(next.channels, channel) {
			_ = batch.Delete(rowKey(rowFollows, channel, name), nil)
		}
	}
	for _, channel := range next.channels {
		if !slices.Contains(old.channels, channel) {
			_ = batch.Set(rowKey(rowFollows, channel, name), nil, nil)
		}
	}
	for _, channel := range old.waits {
		if !slices.Contains(next.waits, channel) {
			_ = batch.Delete(rowKey(rowWaits, channel, name), nil)
		}
	}
	for _, of := range []struct {
		row       byte
		old, next string
	}{{rowOwner, old.node, next.node}, {rowCreator, old.creator, next.creator}} {
		if of.old == of.next {
			continue
		}
		if of.old != "" {
			_ = batch.Delete(rowKey(of.row, of.old, name), nil)
		}
		if of.next != "" {
			_ = batch.Set(rowKey(of.row, of.next, name), nil, nil)
		}
	}
}

// Delete implements broker.Subscriptions.
func (b *Broker) Delete(ctx context.Context, name string, version uint64) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	if err := b.delete(name, version); err != nil {
		return unavailable(fmt.Errorf("delete subscription %s: %w", name, err))
	}
	if err := b.harden(ctx); err != nil {
		return fmt.Errorf("delete subscription %s: %w", name, err)
	}
	return nil
}

func (b *Broker) delete(name string, version uint64) error {
	batch := b.db.NewBatch()
	defer batch.Close()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	var old subscription
	found, err := b.get(rowKey(rowRecord, name), old.parse)
	switch {
	case err != nil:
		return err
	case !found:
		return broker.ErrNotFound
	case old.version != version:
		return broker.ErrConflict
	}
	if err := b.pruneLocked(batch, name, version); err != nil {
		return err
	}
	if err := b.dropLocked(batch, name, &old); err != nil {
		return err
	}
	return b.applySoonLocked(batch)
}

// dropLocked removes all rows of a subscription.
func (b *Broker) dropLocked(batch *pebble.Batch, name string, old *subscription) error {
	index(batch, name, old, &subscription{})
	b.subs.moving.Remove(name)
	for _, row := range []byte{rowRecord, rowStanding, rowLetters, rowAttempts, rowNote} {
		_ = batch.Delete(rowKey(row, name), nil)
	}
	for _, row := range []byte{rowLetter, rowLetterOf, rowRedrive, rowAttempt} {
		letters := rowKey(row, name, "")
		_ = batch.DeleteRange(letters, afterPrefix(letters), nil)
	}
	return b.unscheduleLocked(batch, name)
}

// reach waits until all that was committed survives this process. Many who wait
// share one write, among them and with appends.
func (b *Broker) reach(ctx context.Context) error {
	if b.subs.reached.Load() >= b.subs.applied.Load() {
		return nil
	}
	return b.pass(ctx, kindReach)
}

func isNotFound(err error) bool { return errors.Is(err, broker.ErrNotFound) }
