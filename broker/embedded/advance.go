package embedded

import (
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// Advance implements broker.Subscriptions.
func (b *Broker) Advance(ctx context.Context, moves []broker.Move) (fenced []int, err error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	if err := b.trouble.now().err; err != nil {
		return nil, fmt.Errorf("advance: %w", err)
	}
	if fenced, err = b.advance(moves); err != nil {
		return nil, unavailable(fmt.Errorf("advance: %w", err))
	}
	// Also where nothing changed: what was there may not be written yet.
	if slices.ContainsFunc(moves, func(m broker.Move) bool { return m.Durable }) {
		err = b.harden(ctx)
	} else {
		err = b.reach(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("advance: %w", err)
	}
	return fenced, nil
}

// advance does all but to wait.
func (b *Broker) advance(moves []broker.Move) (fenced []int, err error) {
	batch := b.db.NewBatch()
	defer batch.Close()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	type moved struct {
		standing
		changed bool
	}
	seen := make(map[string]*moved, len(moves))
	for i, m := range moves {
		s := seen[m.Name]
		if s == nil {
			s = &moved{}
			if s.standing, _, err = b.standing(m.Name); err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
			seen[m.Name] = s
		}
		if s.Generation == 0 || s.Generation != m.Generation {
			fenced = append(fenced, i)
			continue
		}
		s.changed = s.advance(m.Position) || s.changed
	}
	rows := make(map[string][]byte, len(seen))
	for name, s := range seen {
		if s.changed {
			rows[name] = s.append(nil)
			_ = batch.Set(rowKey(rowStanding, name), rows[name], nil)
		}
	}
	if batch.Empty() {
		return fenced, nil
	}
	if err := b.applySoonLocked(batch); err != nil {
		return nil, err
	}
	for name, row := range rows {
		b.subs.moving.Add(name, row)
	}
	return fenced, nil
}

// applySoonLocked commits what need not reach the operating system at once. It
// does within a second, and before anything that is committed later.
func (b *Broker) applySoonLocked(batch *pebble.Batch) error {
	if err := b.apply(batch, pebble.NoSync); err != nil {
		return err
	}
	b.subs.applied.Add(1)
	return nil
}

// reach notes that the first n changes survive this process.
func (s *subscriptions) reach(n uint64) {
	for was := s.reached.Load(); was < n && !s.reached.CompareAndSwap(was, n); was = s.reached.Load() {
	}
}

// reachNow makes all that was committed survive this process.
func (b *Broker) reachNow() error {
	before := b.subs.applied.Load()
	if b.subs.reached.Load() >= before {
		return nil
	}
	batch := b.db.NewBatch()
	defer batch.Close()
	_ = batch.LogData(nil, nil)
	if err := b.apply(batch, pebble.Sync); err != nil {
		return err
	}
	b.subs.reach(before)
	return nil
}

// harden makes all that was committed as durable as Fsync says.
func (b *Broker) harden(ctx context.Context) error { return b.pass(ctx, kindSync) }

// pass sends a request that changes nothing the way of all others.
func (b *Broker) pass(ctx context.Context, k kind) error {
	outage := b.trouble.now()
	if outage.err != nil {
		return outage.err
	}
	r := newRequest(k, "")
	b.queue.put(r)
	if err := b.await(ctx, r, outage); err != nil {
		return err
	}
	r.free()
	return nil
}
