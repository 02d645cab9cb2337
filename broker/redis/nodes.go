package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
)

// Join implements broker.Leases.
func (b *Broker) Join(ctx context.Context, n broker.Node, ttl time.Duration) error {
	n.Alive = false
	text, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("join as node %s: %w", n.ID, err)
	}
	if _, err := b.lease(ctx, n.ID, ttl, text); err != nil {
		return unavailable("join as node "+n.ID, err)
	}
	return nil
}

// Renew implements broker.Leases.
func (b *Broker) Renew(ctx context.Context, id string, ttl time.Duration) error {
	verb := "renew the lease of node " + id
	n, err := b.lease(ctx, id, ttl)
	if err != nil {
		return unavailable(verb, err)
	}
	if n == 0 {
		return fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	return nil
}

func (b *Broker) lease(ctx context.Context, id string, ttl time.Duration, more ...any) (int, error) {
	nodes, leases := b.keys.nodes()
	list, err := b.do(ctx, 0, leaseScript, []string{nodes, leases}, append([]any{id, ttl.Milliseconds()}, more...)...)
	return count(list), err
}

// Nodes implements broker.Leases.
func (b *Broker) Nodes(ctx context.Context) ([]broker.Node, error) {
	const verb = "list nodes"
	nodes, leases := b.keys.nodes()
	list, err := b.query(ctx, 0, nodesScript, []string{nodes, leases})
	if err != nil {
		return nil, unavailable(verb, err)
	}
	all := make([]broker.Node, 0, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		var n broker.Node
		text, _ := list[i].(string)
		if err := json.Unmarshal([]byte(text), &n); err != nil {
			return nil, unavailable(verb, err)
		}
		n.Alive = list[i+1] == int64(1)
		all = append(all, n)
	}
	slices.SortFunc(all, func(x, y broker.Node) int { return strings.Compare(x.ID, y.ID) })
	return all, nil
}

// Leave implements broker.Leases.
func (b *Broker) Leave(ctx context.Context, id string) error {
	nodes, leases := b.keys.nodes()
	if _, err := b.do(ctx, 0, leaveScript, []string{nodes, leases}, id); err != nil {
		return unavailable("forget node "+id, err)
	}
	return nil
}

// Send implements broker.Signals.
func (b *Broker) Send(ctx context.Context, to string, message []byte) error {
	bucket, topic := b.keys.signals(to)
	_, err := b.do(ctx, bucket, sendScript, []string{b.keys.due(bucket)}, b.publish, topic, message)
	if err != nil {
		return unavailable("send a signal", err)
	}
	return nil
}

// Listen implements broker.Signals.
func (b *Broker) Listen(ctx context.Context, node string, f func(message []byte)) (func(), error) {
	var mu sync.Mutex // two topics may be of two servers
	take := func(payload string) {
		mu.Lock()
		defer mu.Unlock()
		f([]byte(payload))
	}
	var stops []func()
	stop := sync.OnceFunc(func() {
		for _, stop := range stops {
			stop()
		}
	})
	for _, to := range []string{node, ""} {
		bucket, name := b.keys.signals(to)
		x, leave := b.tail.hear(bucket, name, take, nil)
		stops = append(stops, leave)
		if err := b.tail.await(ctx, x); err != nil {
			stop()
			return nil, unavailable("listen for signals", err)
		}
	}
	return stop, nil
}

// hearers are those who take a topic's messages.
type hearers struct {
	mu   sync.Mutex // held while taking: never two at once
	list []*hearer
}

type hearer struct {
	take   func(payload string)
	missed func() // may be nil
}

// hear has take called with each message to a topic until stop is called, and
// missed when messages may have been missed.
func (t *tail) hear(bucket int, name string, take func(string), missed func()) (x *topic, stop func()) {
	h := &hearer{take: take, missed: missed}
	t.mu.Lock()
	defer t.mu.Unlock()
	x = t.topics[name]
	if x == nil {
		all := &hearers{}
		x = &topic{name: name, bucket: bucket, hearers: all, take: all.take, missed: all.missed}
		t.subscribeLocked(x)
	}
	x.hearers.mu.Lock()
	x.hearers.list = append(x.hearers.list, h)
	x.hearers.mu.Unlock()
	return x, sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if x.hearers.remove(h) == 0 && t.topics[name] == x {
			t.unsubscribeLocked(x)
		}
	})
}

func (hs *hearers) remove(h *hearer) (left int) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.list = slices.DeleteFunc(hs.list, func(other *hearer) bool { return other == h })
	return len(hs.list)
}

func (hs *hearers) take(payload string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for _, h := range hs.list {
		h.take(payload)
	}
}

func (hs *hearers) missed() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for _, h := range hs.list {
		if h.missed != nil {
			h.missed()
		}
	}
}
