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

// candidate is an entry of a bucket that is due.
type candidate struct {
	bucket int
	entry  string
	at     float64
}

// Due implements broker.Schedule. Every bucket is asked what is due, in one
// round trip per master; the oldest are then claimed.
func (b *Broker) Due(ctx context.Context, limit int, hide time.Duration) ([]broker.Ticket, error) {
	const verb = "ask what is due"
	if err := b.usable(ctx); err != nil {
		return nil, unavailable(verb, err)
	}
	var mu sync.Mutex
	var found []candidate
	err := b.eachServer(ctx, func(ctx context.Context, s *server, owned []int) error {
		list, err := b.dueAt(ctx, s, owned, limit)
		mu.Lock()
		defer mu.Unlock()
		found = append(found, list...)
		return err
	})
	if err != nil && len(found) == 0 {
		return nil, unavailable(verb, err)
	}
	slices.SortFunc(found, func(x, y candidate) int { return cmp.Compare(x.at, y.at) })
	found = found[:min(limit, len(found))]

	byBucket := make(map[int][]any)
	var order []int
	for _, c := range found {
		if byBucket[c.bucket] == nil {
			order = append(order, c.bucket)
			byBucket[c.bucket] = []any{max(1, hide.Milliseconds())}
		}
		byBucket[c.bucket] = append(byBucket[c.bucket], c.entry)
	}
	var tickets []broker.Ticket
	err = b.doEach(ctx, len(order), func(i int) *call {
		return &call{bucket: order[i], script: claimScript, keys: []string{b.keys.due(order[i])}, args: byBucket[order[i]]}
	}, func(i int, answer any) {
		list := listOf(answer)
		for j := 0; j+1 < len(list); j += 2 {
			entry, _ := list[j].(string)
			till, _ := list[j+1].(string)
			if len(entry) > 1 {
				tickets = append(tickets, broker.Ticket{Name: entry[1:], Ref: fmt.Sprintf("%d %s %s", order[i], till, entry[:1])})
			}
		}
	})
	if err != nil && len(tickets) == 0 {
		return nil, unavailable(verb, err)
	}
	return tickets, nil
}

// dueAt returns entries of buckets at s that are due by its clock.
func (b *Broker) dueAt(ctx context.Context, s *server, owned []int, limit int) ([]candidate, error) {
	clock, err := s.client.Time(ctx).Result()
	if err != nil {
		return nil, err
	}
	now := strconv.FormatInt(clock.UnixMilli(), 10)
	pages := make([]*goredis.ZSliceCmd, len(owned))
	_, err = s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, bucket := range owned {
			pages[i] = p.ZRangeByScoreWithScores(ctx, b.keys.due(bucket),
				&goredis.ZRangeBy{Min: "-inf", Max: now, Count: int64(limit)})
		}
		return nil
	})
	var found []candidate
	for i, page := range pages {
		for _, z := range page.Val() {
			entry, _ := z.Member.(string)
			found = append(found, candidate{bucket: owned[i], entry: entry, at: z.Score})
		}
	}
	if err != nil {
		b.servers.refresh()
	}
	return found, err
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
func (b *Broker) OnDue(f func()) (stop func()) {
	var stops []func()
	for bucket := range buckets {
		_, stop := b.tail.hear(bucket, b.keys.dueTopic(bucket), func(string) { f() }, f)
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
	const verb = "list what a node owns"
	if err := b.usable(ctx); err != nil {
		return nil, unavailable(verb, err)
	}
	from := 0
	if after != "" {
		from = bucketOf(after)
	}
	start := node + "\x00"
	pages := make([][]string, buckets)
	err := b.eachServer(ctx, func(ctx context.Context, s *server, owned []int) error {
		cmds := make(map[int]*goredis.StringSliceCmd)
		_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, bucket := range owned {
				first := "[" + start
				switch {
				case bucket < from:
					continue
				case bucket == from && after != "":
					first = "(" + start + after
				}
				cmds[bucket] = p.ZRangeByLex(ctx, b.keys.owned(bucket),
					&goredis.ZRangeBy{Min: first, Max: "(" + node + "\x01", Count: int64(limit)})
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
