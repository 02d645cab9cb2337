package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// takePiece is how many of those that wait for woken channels one call looks at.
const takePiece = 500

// Due implements broker.Schedule. A part is a bucket.
func (b *Broker) Due(ctx context.Context, parts []int, limit int, hide time.Duration) ([]broker.Ticket, []int, error) {
	const verb = "ask what is due"
	if err := b.usable(ctx); err != nil {
		return nil, nil, unavailable(verb, err)
	}
	if parts == nil {
		var err error
		if parts, err = b.partsDue(ctx); err != nil && len(parts) == 0 {
			return nil, nil, unavailable(verb, err)
		}
	}
	for _, bucket := range parts {
		if bucket < 0 || bucket >= buckets {
			return nil, nil, fmt.Errorf("%s: %d is not a part of this broker's schedule", verb, bucket)
		}
	}
	asked := parts[:min(limit, len(parts))]
	left := slices.Clone(parts[len(asked):])
	var tickets []broker.Ticket
	err := b.doEach(ctx, len(asked), func(i int) *call {
		k, bucket, wanted := b.keys, asked[i], limit/len(asked)
		if i < limit%len(asked) {
			wanted++
		}
		return &call{bucket: bucket, script: takeScript,
			keys: []string{k.due(bucket), k.waiting(bucket), k.woken(bucket), k.moves(bucket)},
			args: []any{max(1, hide.Milliseconds()), wanted, takePiece}}
	}, func(i int, answer any) {
		list := listOf(answer)
		if len(list) > 0 && list[0] == int64(1) {
			left = append(left, asked[i])
		}
		for j := 1; j+1 < len(list); j += 2 {
			entry, _ := list[j].(string)
			till, _ := list[j+1].(string)
			if len(entry) > 1 {
				tickets = append(tickets, broker.Ticket{Name: entry[1:], Ref: fmt.Sprintf("%d %s %s", asked[i], till, entry[:1])})
			}
		}
	})
	if err != nil && len(tickets) == 0 {
		return nil, left, unavailable(verb, err)
	}
	return tickets, left, nil
}

// partsDue returns the buckets in which something is due or woken, the longest
// due first.
func (b *Broker) partsDue(ctx context.Context) ([]int, error) {
	type part struct {
		bucket int
		since  float64
	}
	var mu sync.Mutex
	var found []part
	err := b.eachServer(ctx, func(ctx context.Context, s *server, owned []int) error {
		clock, err := s.client.Time(ctx).Result()
		if err != nil {
			b.servers.refresh()
			return err
		}
		now := float64(clock.UnixMilli())
		oldest, woken := make([]*goredis.ZSliceCmd, len(owned)), make([]*goredis.IntCmd, len(owned))
		_, err = s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for i, bucket := range owned {
				oldest[i] = p.ZRangeWithScores(ctx, b.keys.due(bucket), 0, 0)
				woken[i] = p.Exists(ctx, b.keys.woken(bucket))
			}
			return nil
		})
		if err != nil {
			b.servers.refresh()
		}
		mu.Lock()
		defer mu.Unlock()
		for i, bucket := range owned {
			switch z := oldest[i].Val(); {
			case len(z) > 0 && z[0].Score <= now:
				found = append(found, part{bucket, z[0].Score})
			case woken[i].Val() > 0:
				found = append(found, part{bucket, now})
			}
		}
		return err
	})
	slices.SortFunc(found, func(x, y part) int { return cmp.Compare(x.since, y.since) })
	parts := make([]int, len(found))
	for i, p := range found {
		parts[i] = p.bucket
	}
	return parts, err
}

// Done implements broker.Schedule.
func (b *Broker) Done(ctx context.Context, tickets []broker.Ticket) error {
	byBucket := make(map[int][]any)
	var order []int
	for _, t := range tickets {
		ref := strings.Split(t.Ref, " ")
		bucket, err := strconv.Atoi(ref[0])
		if len(ref) != 3 || err != nil || bucket < 0 || bucket >= buckets {
			return fmt.Errorf("drop tickets: %q is not a ticket of this broker", t.Ref)
		}
		if byBucket[bucket] == nil {
			order = append(order, bucket)
		}
		byBucket[bucket] = append(byBucket[bucket], ref[2]+t.Name, ref[1])
	}
	err := b.doEach(ctx, len(order), func(i int) *call {
		return &call{bucket: order[i], script: doneScript, keys: []string{b.keys.due(order[i])}, args: byBucket[order[i]]}
	}, nil)
	if err != nil {
		return unavailable("drop tickets", err)
	}
	return nil
}

// OnDue implements broker.Schedule.
func (b *Broker) OnDue(f func(part int)) (stop func()) {
	var stops []func()
	for bucket := range buckets {
		tell := func() { f(bucket) }
		_, stop := b.tail.hear(bucket, b.keys.dueTopic(bucket), func(string) { tell() }, tell)
		stops = append(stops, stop)
	}
	return sync.OnceFunc(func() {
		for _, stop := range stops {
			stop()
		}
	})
}

// Owned implements broker.Schedule. Their order is by bucket, then by name.
func (b *Broker) Owned(ctx context.Context, node, after string, limit int) ([]string, error) {
	start := node + "\x00"
	return b.namesOf(ctx, "list what a node owns", after, limit, start, func(bucket int) (string, *goredis.ZRangeBy) {
		return b.keys.owned(bucket), &goredis.ZRangeBy{Min: "[" + start, Max: "(" + node + "\x01"}
	})
}

// Created implements broker.Subscriptions.
func (b *Broker) Created(ctx context.Context, creator, after string, limit int) ([]string, error) {
	return b.namesOf(ctx, "list what somebody created", after, limit, "", func(bucket int) (string, *goredis.ZRangeBy) {
		return b.keys.created(bucket, creator), &goredis.ZRangeBy{Min: "-", Max: "+"}
	})
}

// namesOf lists the names of a set that each bucket has a part of, whose members
// are the names after start: bucket by bucket.
func (b *Broker) namesOf(ctx context.Context, verb, after string, limit int, start string, of func(bucket int) (key string, all *goredis.ZRangeBy)) ([]string, error) {
	if err := b.usable(ctx); err != nil {
		return nil, unavailable(verb, err)
	}
	from := 0
	if after != "" {
		from = bucketOf(after)
	}
	pages := make([][]string, buckets)
	err := b.eachServer(ctx, func(ctx context.Context, s *server, owned []int) error {
		cmds := make(map[int]*goredis.StringSliceCmd)
		_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, bucket := range owned {
				if bucket < from {
					continue
				}
				key, r := of(bucket)
				if r.Count = int64(limit); bucket == from && after != "" {
					r.Min = "(" + start + after
				}
				cmds[bucket] = p.ZRangeByLex(ctx, key, r)
			}
			return nil
		})
		for bucket, cmd := range cmds {
			pages[bucket] = cmd.Val()
		}
		return err
	})
	if err != nil {
		return nil, unavailable(verb, err)
	}
	var names []string
	for _, page := range pages {
		for _, member := range page {
			if len(names) < limit {
				names = append(names, strings.TrimPrefix(member, start))
			}
		}
	}
	return names, nil
}
