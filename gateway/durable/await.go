package durable

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// yieldLook is how often a subscription is looked at whose callback yields.
const yieldLook = 100 * time.Millisecond

// Await returns when it may be worth to acquire one of some held subscriptions
// again.
func (k *Manager) Await(ctx context.Context, names ...string) error {
	return k.awaitFree(ctx, time.Second+rand.N(time.Second), names...)
}

func (k *Manager) awaitFree(ctx context.Context, most time.Duration, names ...string) error {
	free, stop := k.Watch(names...)
	defer stop()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-free:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Watch returns a channel that gets a value when somebody gives one of some
// subscriptions up, as far as this node hears of it, until stop is called.
func (k *Manager) Watch(names ...string) (freed <-chan struct{}, stop func()) {
	free := make(chan struct{}, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range names {
		k.standing[name] = append(k.standing[name], free)
	}
	return free, func() { k.unstand(names, free) }
}

func (k *Manager) unstand(names []string, free chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range names {
		list := slices.DeleteFunc(k.standing[name], func(c chan struct{}) bool { return c == free })
		if len(list) == 0 {
			delete(k.standing, name)
		} else {
			k.standing[name] = list
		}
	}
}

func (k *Manager) freed(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.standing[name] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
