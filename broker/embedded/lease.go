package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
)

// Join implements broker.Leases. Leases live in memory: there is one process,
// and with it end all of its nodes; what they were is kept.
func (b *Broker) Join(ctx context.Context, n broker.Node, ttl time.Duration) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	n.Alive = false
	value, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("join as %s: %w", n.ID, err)
	}
	batch := b.db.NewBatch()
	defer batch.Close()
	_ = batch.Set(rowKey(rowNode, n.ID), value, nil)
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	if err := b.applySoonLocked(batch); err != nil {
		return unavailable(fmt.Errorf("join as %s: %w", n.ID, err))
	}
	b.subs.nodes[n.ID] = b.opt.Now().Add(ttl)
	return nil
}

// Renew implements broker.Leases.
func (b *Broker) Renew(ctx context.Context, id string, ttl time.Duration) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	now := b.opt.Now()
	until, ok := b.subs.nodes[id]
	if !ok || !now.Before(until) {
		delete(b.subs.nodes, id)
		return fmt.Errorf("renew the lease of %s: %w", id, broker.ErrNotFound)
	}
	b.subs.nodes[id] = now.Add(ttl)
	return nil
}

// Nodes implements broker.Leases.
func (b *Broker) Nodes(ctx context.Context) ([]broker.Node, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	var nodes []broker.Node
	err := b.scan(rowKey(rowNode), func(key, value []byte) (bool, error) {
		var n broker.Node
		if err := json.Unmarshal(value, &n); err != nil {
			return false, fmt.Errorf("read %q: %w", key, err)
		}
		n.Alive = b.opt.Now().Before(b.subs.nodes[n.ID])
		nodes = append(nodes, n)
		return true, nil
	})
	if err != nil {
		return nil, unavailable(fmt.Errorf("list nodes: %w", err))
	}
	return nodes, nil
}

// Leave implements broker.Leases.
func (b *Broker) Leave(ctx context.Context, id string) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	batch := b.db.NewBatch()
	defer batch.Close()
	_ = batch.Delete(rowKey(rowNode, id), nil)
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	delete(b.subs.nodes, id)
	if err := b.applySoonLocked(batch); err != nil {
		return unavailable(fmt.Errorf("leave as %s: %w", id, err))
	}
	return nil
}

// listener hands messages to a function, one at a time.
type listener struct {
	node string
	f    func([]byte)

	mu      sync.Mutex
	waiting [][]byte
	wake    chan struct{}
	stopped chan struct{}
}

// maxSignals is how many messages may wait for a listener; more are lost.
const maxSignals = 8192

func (l *listener) put(message []byte) {
	l.mu.Lock()
	if len(l.waiting) < maxSignals {
		l.waiting = append(l.waiting, message)
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *listener) take() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.waiting
	l.waiting = nil
	return taken
}

// run ends when the listener is stopped or the broker closes.
func (l *listener) run(closed <-chan struct{}) {
	for {
		select {
		case <-l.wake:
		case <-l.stopped:
			return
		case <-closed:
			return
		}
		for _, m := range l.take() {
			select {
			case <-l.stopped:
				return
			default:
				l.f(m)
			}
		}
	}
}

// Send implements broker.Signals. All nodes are in this process.
func (b *Broker) Send(ctx context.Context, to string, message []byte) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	message = slices.Clone(message)
	b.subs.listening.Lock()
	defer b.subs.listening.Unlock()
	for _, l := range b.subs.listeners {
		if to == "" || to == l.node {
			l.put(message)
		}
	}
	return nil
}

// Listen implements broker.Signals.
func (b *Broker) Listen(ctx context.Context, node string, f func(message []byte)) (stop func(), err error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	l := &listener{node: node, f: f, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	s := &b.subs
	s.listening.Lock()
	defer s.listening.Unlock()
	s.nextStop++
	n := s.nextStop
	s.listeners[n] = l
	b.workers.Go(func() { l.run(b.stop) })
	return sync.OnceFunc(func() {
		s.listening.Lock()
		delete(s.listeners, n)
		s.listening.Unlock()
		close(l.stopped)
	}), nil
}
