package redis

import (
	"context"
	"slices"
	"sync"
)

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
