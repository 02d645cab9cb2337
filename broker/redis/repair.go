package redis

import (
	"context"
	"slices"
	"strings"
	"time"
)

// repairEvery spaces out repairs that could not reach all they had to.
const repairEvery = 5 * time.Second

// repair enters what subscriptions say into the buckets whose master is another
// than before and may have forgotten it: that they follow its channels, and that
// they wait for them. It tells which buckets are as they should be.
func (j *janitor) repair(ctx context.Context) (whole [buckets]bool, err error) {
	b := j.b
	var stale [buckets]bool
	err = b.doEach(ctx, buckets, func(i int) *call {
		return &call{bucket: i, script: repairedScript, keys: []string{b.keys.repaired(i)}}
	}, func(i int, answer any) { stale[i], whole[i] = answer == int64(0), answer == int64(1) })
	if err != nil {
		b.log.Debug("some buckets can't be repaired", "error", err)
	}
	if !slices.Contains(stale[:], true) {
		return whole, nil
	}
	for after := ""; ; {
		names, err := b.listNames(ctx, b.keys.subscriptions, "", after, maxStates)
		if err != nil {
			return whole, err
		}
		if len(names) == 0 {
			break
		}
		after = names[len(names)-1]
		lists, err := b.queryEach(ctx, names, func(i, of int) question {
			return question{waitsScript, []string{b.keys.subscription(of, names[i]), b.keys.position(of, names[i])}, nil}
		})
		if err != nil {
			return whole, err
		}
		var calls []*call
		for i, list := range lists {
			if len(list) >= 3 {
				calls = b.remind(calls, &stale, names[i], list)
			}
		}
		for some := range slices.Chunk(calls, maxCalls) {
			if err := b.doEach(ctx, len(some), func(i int) *call { return some[i] }, nil); err != nil {
				return whole, err
			}
		}
	}
	for i, s := range stale {
		if !s {
			continue
		}
		if _, err := b.do(ctx, i, putScript, []string{b.keys.repaired(i)}); err != nil {
			return whole, err
		}
		whole[i] = true
	}
	return whole, nil
}

// remind adds the calls that enter into stale buckets what waits.lua tells of a
// subscription.
func (b *Broker) remind(calls []*call, stale *[buckets]bool, name string, list []any) []*call {
	version := uintOf(list[0])
	waited, _ := list[1].(string)
	followed, _ := list[2].(string)
	for _, channel := range split(followed) {
		if bucket := bucketOf(channel); stale[bucket] {
			calls = append(calls, &call{bucket: bucket, script: markScript,
				keys: []string{b.keys.following(bucket, channel)}, args: []any{name, version}})
		}
	}
	if waited == "" {
		return calls
	}
	position := standingOf(list[3:]).Position
	for channel := range strings.SplitSeq(waited, ",") {
		if bucket := bucketOf(channel); stale[bucket] {
			c, _ := position.Of(channel)
			calls = append(calls, &call{bucket: bucket, script: waitScript,
				keys: []string{b.keys.meta(bucket, channel), b.keys.waiting(bucket), b.keys.due(bucket)},
				args: []any{channel, name, version, c.Epoch, c.Offset, b.publish, b.keys.dueTopic(bucket)}})
		}
	}
	return calls
}
