package redis

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
)

const (
	// carry is how many bytes of events an announcement carries; beyond them
	// it is a hint.
	carry = 64 << 10
	// What appends to one channel that share a script call may come to.
	maxJoined      = 500
	maxJoinedBytes = 1 << 20
)

// batch is the appends to one channel that share a script call.
type batch struct {
	events, bytes int
	identities    bool
	waiters       []*waiter
}

// waiter is one Append.
type waiter struct {
	entries []broker.Entry
	bytes   int
	named   bool // some entry has an identity
	expires time.Time
	done    chan outcome // takes one outcome
}

type outcome struct {
	places []broker.Appended
	err    error
}

// add lets w share the call if there is room. A call's keys depend on whether
// there are identities, so those with and those without don't mix.
func (b *batch) add(w *waiter) bool {
	if b.identities != w.named || b.events+len(w.entries) > maxJoined || b.bytes+w.bytes > maxJoinedBytes {
		return false
	}
	b.events, b.bytes = b.events+len(w.entries), b.bytes+w.bytes
	b.waiters = append(b.waiters, w)
	return true
}

// Append implements broker.Log.
func (b *Broker) Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error) {
	verb := "append to " + channel
	if err := b.usable(ctx); err != nil {
		return nil, unavailable(verb, err)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	// A clone, since who gives up uses the slice for the next publish while w
	// waits to be sent.
	w := &waiter{entries: slices.Clone(entries), expires: time.Now().Add(answerWithin), done: make(chan outcome, 1)}
	for _, e := range entries {
		w.bytes += len(e.Data)
		w.named = w.named || e.Identity != ""
	}
	bucket := bucketOf(channel)
	b.servers.bucket(bucket).link.join(channel, w, func() *call { return b.newAppend(bucket, channel, w) })

	timer := time.NewTimer(answerWithin)
	defer timer.Stop()
	select {
	case o := <-w.done:
		if o.err != nil {
			return nil, unavailable(verb, o.err)
		}
		return o.places, nil
	case <-ctx.Done():
		return nil, unavailable(verb, ctx.Err())
	case <-b.ctx.Done():
		return nil, unavailable(verb, broker.ErrClosed)
	case <-timer.C:
		return nil, unavailable(verb, b.servers.bucket(bucket).link.expired())
	}
}

func (b *Broker) newAppend(bucket int, channel string, w *waiter) *call {
	joint := &batch{identities: w.named, events: len(w.entries), bytes: w.bytes, waiters: []*waiter{w}}
	keys := b.keys.logKeys(bucket, channel)
	if w.named {
		ids := b.keys.ids(bucket, channel)
		keys = append(keys, ids[0], ids[1])
	}
	c := &call{bucket: bucket, script: appendScript, keys: keys, durable: true, expires: w.expires, batch: joint}
	c.finish = joint.finish
	c.fill = func() []any { return b.appendArgs(bucket, channel, joint) }
	return c
}

func (b *Broker) appendArgs(bucket int, channel string, joint *batch) []any {
	keep := "1"
	if b.options.Retention(channel).None {
		keep = "0"
	}
	args := make([]any, 0, 9+2*joint.events)
	args = append(args, newEpoch(), b.keys.topic(bucket, channel), b.publish, channel, keep,
		b.options.DedupeWindow.Milliseconds(), carry, b.clock(), b.keys.dueTopic(bucket))
	for _, w := range joint.waiters {
		for _, e := range w.entries {
			args = append(args, identity(e.Identity), e.Data)
		}
	}
	return args
}

// clock is the time to give to a script: "" for the server's own.
func (b *Broker) clock() any {
	if b.options.Now == nil {
		return ""
	}
	return b.options.Now().UnixMilli()
}

// identity is what is kept of an identity: 12 bytes of its SHA-256, so that
// none takes more room than another and two are never taken for one.
func identity(s string) []byte {
	if s == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(s))
	return sum[:12]
}

// finish tells each waiter where its events are.
func (b *batch) finish(answer any, err error) {
	var list []any
	if err == nil {
		list, _ = answer.([]any)
		if len(list) != 1+b.count() {
			err = fmt.Errorf("unexpected answer of %d elements", len(list))
		}
	}
	if err != nil {
		for _, w := range b.waiters {
			w.done <- outcome{err: err}
		}
		return
	}
	epoch, _ := list[0].(string)
	list = list[1:]
	for _, w := range b.waiters {
		places := make([]broker.Appended, len(w.entries))
		for i := range places {
			n, _ := list[i].(int64)
			places[i] = broker.Appended{Epoch: epoch, Offset: uint64(max(n, -n)), Duplicate: n < 0}
		}
		list = list[len(places):]
		w.done <- outcome{places: places}
	}
}

func (b *batch) count() int {
	n := 0
	for _, w := range b.waiters {
		n += len(w.entries)
	}
	return n
}
