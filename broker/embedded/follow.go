package embedded

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
)

// finish makes visible what r did, announces it and answers. It is called for
// one request after the other, in the order in which they were placed.
func (b *Broker) finish(r *request) {
	if r.kind == kindReach || r.kind == kindSync {
		r.done <- struct{}{}
		return
	}
	ch := r.channel
	r.shard.mu.Lock()
	// A log that was dropped meanwhile has nothing more to say.
	ours := r.err == nil && r.log == ch.log
	if ours && r.kind == kindAppend {
		ch.durable = max(ch.durable, r.last)
	}
	if ours && r.kind == kindCreate {
		r.state = ch.stateLocked()
	}
	follower, others, epoch := ch.follower, ch.others, ch.epoch
	ch.pins--
	waited := ours && ch.waited && (r.kind == kindDrop || r.kind == kindAppend && r.first <= r.last)
	name := r.name
	r.shard.mu.Unlock()

	if follower != nil && ours {
		switch {
		case r.kind == kindDrop:
			announce(follower, others, broker.Announcement{})
		case r.kind == kindAppend && r.first <= r.last:
			b.items = r.appendItems(b.items[:0])
			announce(follower, others, broker.Announcement{Epoch: epoch, Items: b.items, Head: r.last})
			clear(b.items)
		}
	}
	r.done <- struct{}{} // r is the caller's again
	if waited {
		b.wake(name)
	}
}

func announce(follower broker.Follower, others *[]broker.Follower, a broker.Announcement) {
	follower.Announce(a)
	if others != nil {
		for _, f := range *others {
			f.Announce(a)
		}
	}
}

func (r *request) appendItems(items []broker.Item) []broker.Item {
	at := time.UnixMilli(r.time)
	for i := range r.entries {
		if !r.places[i].Duplicate {
			items = append(items, broker.Item{Offset: r.places[i].Offset, Time: at, Data: r.entries[i].Data})
		}
	}
	return items
}

// Follow implements broker.Tail. A log that it makes lives in memory until
// something is appended or a subscription follows it.
func (b *Broker) Follow(ctx context.Context, channel string, f broker.Follower) (broker.State, error) {
	if err := b.enter(ctx); err != nil {
		return broker.State{}, err
	}
	defer b.calls.leave()
	for {
		c, s, err := b.pin(channel)
		if err != nil {
			return broker.State{}, fmt.Errorf("follow %s: %w: %w", channel, broker.ErrUnavailable, err)
		}
		s.mu.Lock()
		c.pins--
		if c.exists() {
			c.followLocked(f)
			state := c.stateLocked()
			s.mu.Unlock()
			return state, nil
		}
		s.mu.Unlock()
		r := newRequest(kindCreate, channel)
		if err := b.perform(ctx, r); err != nil {
			return broker.State{}, fmt.Errorf("follow %s: %w", channel, err)
		}
		r.free()
	}
}

// Unfollow implements broker.Tail.
func (b *Broker) Unfollow(channel string, f broker.Follower) {
	s := b.channels.of(channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.byName[channel]; c != nil {
		c.unfollowLocked(f)
	}
}

// Drop implements broker.Log.
func (b *Broker) Drop(ctx context.Context, channel string) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	r := newRequest(kindDrop, channel)
	if err := b.perform(ctx, r); err != nil {
		return fmt.Errorf("drop %s: %w", channel, err)
	}
	err := r.err
	r.free()
	return err
}

func (c *channel) followLocked(f broker.Follower) {
	switch {
	case c.follower == f:
	case c.follower == nil:
		c.follower = f
	case c.others == nil:
		c.others = &[]broker.Follower{f}
	case !slices.Contains(*c.others, f):
		others := append(slices.Clone(*c.others), f)
		c.others = &others
	}
}

func (c *channel) unfollowLocked(f broker.Follower) {
	var others []broker.Follower
	if c.others != nil {
		others = slices.DeleteFunc(slices.Clone(*c.others), func(o broker.Follower) bool { return o == f })
	}
	if c.follower == f {
		c.follower = nil
		if len(others) > 0 {
			c.follower, others = others[0], others[1:]
		}
	}
	c.others = nil
	if len(others) > 0 {
		c.others = &others
	}
}
