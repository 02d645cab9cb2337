package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// Read implements broker.Log.
func (b *Broker) Read(ctx context.Context, channel string, offset uint64, limit broker.Limit) (broker.Page, error) {
	verb := "read " + channel
	limit = limit.WithDefaults()
	bucket := bucketOf(channel)
	const most = 1 << 53 // Lua's numbers
	list, err := b.query(ctx, bucket, readScript, []string{b.keys.meta(bucket, channel), b.keys.log(bucket, channel)},
		min(offset, most-1), limit.Events, limit.Bytes)
	if err != nil {
		return broker.Page{}, unavailable(verb, err)
	}
	if len(list) < 6 {
		return broker.Page{}, fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	page := broker.Page{State: stateOf(list)}
	first := uintOf(list[5])
	rest := list[6:]
	page.Items = make([]broker.Item, len(rest)/2)
	for i := range page.Items {
		data, _ := rest[2*i+1].(string)
		page.Items[i] = broker.Item{
			Offset: first + uint64(i), Time: time.UnixMilli(int64(uintOf(rest[2*i]))), Data: []byte(data),
		}
	}
	return page, nil
}

// State implements broker.Log.
func (b *Broker) State(ctx context.Context, channel string) (broker.State, error) {
	verb := "state of " + channel
	bucket := bucketOf(channel)
	list, err := b.query(ctx, bucket, stateScript, b.stateKeys(bucket, channel))
	if err != nil {
		return broker.State{}, unavailable(verb, err)
	}
	s := stateOf(list)
	if s.Epoch == "" {
		return s, fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	return s, nil
}

func (b *Broker) stateKeys(bucket int, channel string) []string {
	return []string{b.keys.meta(bucket, channel), b.keys.counter(bucket), b.keys.changed(bucket)}
}

// OffsetAt implements broker.Log.
func (b *Broker) OffsetAt(ctx context.Context, channel string, t time.Time) (uint64, error) {
	verb := "find a time in " + channel
	bucket := bucketOf(channel)
	// An event's time is whole milliseconds: before t means before t rounded up.
	ms := t.Add(time.Millisecond - time.Nanosecond).UnixMilli()
	list, err := b.query(ctx, bucket, atScript, []string{b.keys.meta(bucket, channel), b.keys.log(bucket, channel)}, ms)
	if err != nil {
		return 0, unavailable(verb, err)
	}
	if len(list) == 0 {
		return 0, fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	return uintOf(list[0]), nil
}

// Channels implements broker.Log.
func (b *Broker) Channels(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	names, err := b.listNames(ctx, b.keys.names, prefix, after, limit)
	if err != nil {
		return nil, unavailable("list channels", err)
	}
	return names, nil
}

// listNames pages through names that are kept in a sorted set per bucket, one
// bucket after the other: those that come after the name after. A page asks no
// more buckets than it takes to fill it, or somewhat more.
func (b *Broker) listNames(ctx context.Context, key func(bucket int) string, prefix, after string, limit int) ([]string, error) {
	to := "+"
	if prefix != "" {
		to = "(" + prefix + "\xff"
	}
	bucket := 0
	if after != "" {
		bucket = bucketOf(after)
	}
	var names []string
	for some := 1; len(names) < limit && bucket < buckets; some *= 2 {
		list := make([]int, min(some, buckets-bucket))
		for i := range list {
			list[i] = bucket + i
		}
		pages := make([][]string, len(list))
		err := b.askEach(ctx, list, func(ctx context.Context, p goredis.Pipeliner, i int) goredis.Cmder {
			from := "[" + prefix
			if after >= prefix && after != "" && list[i] == bucketOf(after) {
				from = "(" + after
			}
			return p.ZRangeByLex(ctx, key(list[i]), &goredis.ZRangeBy{Min: from, Max: to, Count: int64(limit - len(names))})
		}, func(i int, answer goredis.Cmder) { pages[i] = answer.(*goredis.StringSliceCmd).Val() })
		if err != nil {
			return nil, err
		}
		names = append(names, slices.Concat(pages...)...)
		bucket += len(list)
	}
	return names[:min(limit, len(names))], nil
}

// Drop implements broker.Log.
func (b *Broker) Drop(ctx context.Context, channel string) error {
	verb := "drop " + channel
	bucket := bucketOf(channel)
	ids := b.keys.ids(bucket, channel)
	list, err := b.query(ctx, bucket, dropScript, append(b.keys.logKeys(bucket, channel), ids[0], ids[1], b.keys.bytes(bucket)),
		b.keys.topic(bucket, channel), b.publish, channel, b.keys.dueTopic(bucket))
	if err != nil {
		return unavailable(verb, err)
	}
	if len(list) == 0 {
		return fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	return nil
}

// stateOf reads epoch, first, head, bytes and forks.
func stateOf(list []any) broker.State {
	if len(list) < 5 {
		return broker.State{}
	}
	epoch, _ := list[0].(string)
	s := broker.State{Epoch: epoch, First: uintOf(list[1]), Head: uintOf(list[2]), Bytes: int64(uintOf(list[3]))}
	if forks, _ := list[4].(string); forks != "" {
		for fork := range strings.SplitSeq(forks, ",") {
			epoch, head, _ := strings.Cut(fork, ":")
			s.Forks = append(s.Forks, broker.Fork{Epoch: epoch, Head: uintOf(head)})
		}
	}
	return s
}
