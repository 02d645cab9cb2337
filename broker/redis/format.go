package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// Format is the version of what keys hold. Each bucket has its own, so that none
// is taken for migrated that a failover put back. Whoever changes keys so that an
// older longline would misread them raises it, and has migrate make them of the
// one before. Data of before there was a version is format 1.
//
//	2  letters are named by cursors, what somebody created is indexed
const Format = 2

// settleFormat refuses data of a newer longline, and migrates an older one's.
// While nodes of an older one are up, as in a rolling upgrade, they write in
// their way: migration waits until they have ended.
func (b *Broker) settleFormat(ctx context.Context) error {
	stale, err := b.staleBuckets(ctx)
	if err != nil || len(stale) == 0 {
		return err
	}
	older, err := b.olderNodes(ctx)
	if err != nil {
		return fmt.Errorf("is an older longline up? %w", err)
	}
	if older == 0 {
		return b.migrate(ctx, stale)
	}
	b.log.Info("nodes of an older longline are up; what they write is migrated once they have ended", "nodes", older)
	b.wg.Go(func() {
		for sleep(b.ctx, b.options.LookEvery) {
			older, err := b.olderNodes(b.ctx)
			if err == nil && older == 0 {
				err = b.migrate(b.ctx, stale)
			}
			switch {
			case err != nil:
				b.log.Debug("migrate", "error", err)
			case older == 0:
				return
			}
		}
	})
	return nil
}

// staleBuckets are those of an older format, or of none.
func (b *Broker) staleBuckets(ctx context.Context) (stale []int, err error) {
	newer := 0
	err = b.askEach(ctx, allBuckets, func(ctx context.Context, p goredis.Pipeliner, i int) goredis.Cmder {
		return p.MGet(ctx, b.keys.format(i)) // nil is no error here
	}, func(i int, answer goredis.Cmder) {
		text, _ := answer.(*goredis.SliceCmd).Val()[0].(string)
		format, _ := strconv.Atoi(text)
		if newer = max(newer, format); format < Format {
			stale = append(stale, i)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the format of the data: %w", err)
	}
	if newer > Format {
		return nil, fmt.Errorf("the data has format %d, which a newer longline wrote; this one reads formats up to %d: start the newer one, or use another ?prefix= or database", newer, Format)
	}
	return stale, nil
}

// olderNodes counts the nodes that are up and write an older format.
func (b *Broker) olderNodes(ctx context.Context) (n int, err error) {
	nodes, _, err := b.leaseCopies(ctx)
	for _, node := range nodes {
		if node.Alive && node.Format < Format {
			n++
		}
	}
	return n, err
}

// migrate makes all subscriptions ones of this format, then the buckets. It may
// be done by several nodes at once, and again.
func (b *Broker) migrate(ctx context.Context, stale []int) error {
	count := 0
	for after := ""; ; {
		names, err := b.listNames(ctx, b.keys.subscriptions, "", after, maxStates)
		if err != nil {
			return fmt.Errorf("migrate subscriptions: %w", err)
		}
		if len(names) == 0 {
			break
		}
		after = names[len(names)-1]
		names = slices.DeleteFunc(names, broker.IsPartition)
		if err := b.migrateSome(ctx, names); err != nil {
			return fmt.Errorf("migrate subscriptions: %w", err)
		}
		count += len(names)
	}
	err := b.doEach(ctx, len(stale), func(i int) *call {
		return &call{bucket: stale[i], script: putScript, keys: []string{b.keys.format(stale[i])}, args: []any{Format}}
	}, nil)
	if err != nil { // a Redis that is full, say: the next start does it all again
		b.log.Warn("the format of the data can't be noted", "error", err)
	}
	if count > 0 {
		b.log.Info("data migrated", "to", Format, "subscriptions", count)
	}
	return nil
}

func (b *Broker) migrateSome(ctx context.Context, names []string) error {
	lists, err := b.queryEach(ctx, names, func(i, bucket int) question {
		return question{loadScript, b.loadKeys(bucket, names[i]), nil}
	})
	if err != nil {
		return err
	}
	var calls []*call
	for i, list := range lists {
		if len(list) < 4 {
			continue
		}
		s := subscriptionOf(names[i], list)
		if creator := broker.CreatorIn(s.Record); creator != "" {
			bucket := bucketOf(s.Name)
			calls = append(calls, &call{bucket: bucket, script: creatorScript, args: []any{s.Name}, durable: true,
				keys: []string{b.keys.subscription(bucket, s.Name), b.keys.created(bucket, creator)}})
		}
		if s.Dead > 0 {
			if err := b.nameLetters(ctx, s.Name); err != nil {
				return err
			}
		}
	}
	for some := range slices.Chunk(calls, maxCalls) {
		if err := b.doEach(ctx, len(some), func(i int) *call { return some[i] }, nil); err != nil {
			return err
		}
	}
	return nil
}

// nameLetters gives a subscription's letters the names of format 2.
func (b *Broker) nameLetters(ctx context.Context, name string) error {
	bucket := bucketOf(name)
	order, texts := b.keys.letters(bucket, name)
	keys := []string{b.keys.subscription(bucket, name), order, texts, b.keys.redriven(bucket, name)}
	for after := uint64(0); ; {
		page, err := b.Dead(ctx, name, after, lettersPiece)
		if err != nil || len(page) == 0 {
			return err
		}
		var args []any
		for _, l := range page {
			after = l.Seq
			if cursor := broker.CursorIn(l.Data); cursor != "" && cursor != l.Cursor {
				args = append(args, l.Cursor, cursor)
			}
		}
		if len(args) > 0 {
			if _, err := b.doAs(ctx, true, bucket, renameScript, keys, args...); err != nil {
				return err
			}
		}
	}
}
