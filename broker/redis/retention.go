package redis

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

const (
	// trimPiece is how many events one script call removes at most, so that it
	// doesn't hold up others for long.
	trimPiece = 20_000
	// maxBacklogs is how many backlogs of a bucket are looked at for
	// MaxTotalBytes.
	maxBacklogs = 64
)

// Trim applies retention to every channel now. By itself the broker does so in
// its own time.
func (b *Broker) Trim(ctx context.Context) error {
	j := newJanitor(b)
	for after := ""; ; {
		names, err := b.listNames(ctx, b.keys.names, "", after, maxVisited)
		if err == nil && len(names) > 0 {
			after = names[len(names)-1]
			err = j.retain(ctx, names, true, time.Second)
		}
		if err != nil {
			return unavailable("apply retention", err)
		}
		if len(names) == 0 {
			break
		}
	}
	if err := j.bound(ctx); err != nil {
		return unavailable("apply retention", err)
	}
	return nil
}

// subject is a channel that is visited.
type subject struct {
	channel string
	needed  int64 // the offset up to which nobody needs it any more; -1: all
	// What trim found: where the log stands, and the offset up to which replay
	// would remove.
	first, head, replay uint64
}

// retain applies retention to channels. Only where it is known for sure who
// needs what does anything go that somebody may need.
func (j *janitor) retain(ctx context.Context, channels []string, sure bool, every time.Duration) error {
	subjects := make([]subject, len(channels))
	for i, channel := range channels {
		subjects[i] = subject{channel: channel, needed: 0}
	}
	// Most channels hold nothing that replay wouldn't keep: of those it needn't
	// be asked who needs what.
	trimmed, err := j.trim(ctx, subjects, every)
	if err != nil {
		return err
	}
	var spare []subject
	var empty []string
	for _, s := range trimmed {
		switch {
		case s.head == 0:
			empty = append(empty, s.channel)
		case s.replay >= s.first && s.head >= s.first:
			s.needed = -1
			spare = append(spare, s)
		}
	}
	if err := j.collect(ctx, empty); err != nil || !sure || len(spare) == 0 {
		return err
	}
	if err := j.needs(ctx, spare); err != nil {
		return err
	}
	_, err = j.trim(ctx, spare, every)
	return err
}

// needs fills in up to where subscriptions have acknowledged; nothing where one
// can't be asked.
func (j *janitor) needs(ctx context.Context, subjects []subject) error {
	b := j.b
	channels := make([]string, len(subjects))
	for i, s := range subjects {
		channels[i] = s.channel
	}
	followers, err := b.queryEach(ctx, channels, func(i, bucket int) question {
		return question{needsScript, []string{b.keys.following(bucket, channels[i])}, nil}
	})
	if err != nil {
		return err
	}
	logs, err := b.queryEach(ctx, channels, func(i, bucket int) question {
		return question{stateScript, b.stateKeys(bucket, channels[i]), nil}
	})
	if err != nil {
		return err
	}
	type follower struct {
		subject int
		version uint64
	}
	var names []string
	var of []follower
	for i, list := range followers {
		for k := 0; k+1 < len(list); k += 2 {
			name, _ := list[k].(string)
			names, of = append(names, name), append(of, follower{i, uintOf(list[k+1])})
		}
	}
	if len(names) == 0 {
		return nil
	}
	standings, missing, err := b.queryReachable(ctx, names, func(i, bucket int) question {
		return question{standingScript, []string{b.keys.position(bucket, names[i])}, nil}
	})
	if standings == nil {
		return err
	}
	for n, f := range of {
		s := &subjects[f.subject]
		if missing[n] {
			s.needed = 0
			continue
		}
		at := standingOf(standings[n])
		if at.Generation == 0 {
			j.orphan(ctx, orphan{s.channel, names[n]}, f.version)
			continue
		}
		if c, ok := at.Position.Of(s.channel); ok {
			offset, _ := stateOf(logs[f.subject]).Locate(c.Epoch, c.Offset)
			if s.needed < 0 || int64(offset) < s.needed {
				s.needed = int64(offset)
			}
		}
	}
	return nil
}

// orphan removes an entry that was one a round ago as well.
func (j *janitor) orphan(ctx context.Context, o orphan, version uint64) {
	if was, ok := j.orphans[o]; ok && was == version {
		j.b.unmark(ctx, o.name, version, nil, []string{o.channel})
		return
	}
	j.found[o] = version
}

// trim applies retention to channels and returns where those that exist stand.
func (j *janitor) trim(ctx context.Context, subjects []subject, every time.Duration) (trimmed []subject, err error) {
	b := j.b
	for len(subjects) > 0 {
		channels := make([]string, len(subjects))
		for i, s := range subjects {
			channels[i] = s.channel
		}
		lists, err := b.queryEach(ctx, channels, func(i, bucket int) question {
			r, k := b.options.Retention(channels[i]), b.keys
			if r.None {
				r = broker.Retention{} // what was kept before goes
			}
			return question{trimScript, []string{k.meta(bucket, channels[i]), k.log(bucket, channels[i]), k.changed(bucket),
				k.visits(bucket), k.bytes(bucket), k.backlogs(bucket)}, []any{
				r.ReplayAge.Milliseconds(), r.ReplayEvents, r.MaxAge.Milliseconds(), r.MaxBytes, subjects[i].needed, trimPiece, b.clock(),
				channels[i], every.Milliseconds(), j.looked[bucket],
			}}
		})
		if err != nil {
			return nil, err
		}
		var left []subject
		for i, list := range lists {
			s := subjects[i]
			if len(list) < 5 {
				continue // dropped meanwhile
			}
			s.first, s.head, s.replay = uintOf(list[1]), uintOf(list[2]), uintOf(list[4])
			if uintOf(list[0]) == 1 {
				left = append(left, s)
			} else {
				trimmed = append(trimmed, s)
			}
		}
		subjects = left
	}
	return trimmed, nil
}

// collect removes those of empty logs that nobody follows.
func (j *janitor) collect(ctx context.Context, channels []string) error {
	b, k := j.b, j.b.keys
	if len(channels) == 0 {
		return nil
	}
	count := "NUMSUB"
	if b.config.mode == cluster {
		count = "SHARDNUMSUB"
	}
	listeners := make([]*goredis.Cmd, len(channels))
	for i, channel := range channels {
		// One at a time: in a cluster each is of its own slot.
		bucket := bucketOf(channel)
		listeners[i] = b.servers.bucket(bucket).client.Do(ctx, "PUBSUB", count, k.topic(bucket, channel))
	}
	return b.doEach(ctx, len(channels), func(i int) *call {
		bucket, followed := bucketOf(channels[i]), 1 // where nobody can tell
		if list, err := listeners[i].Slice(); err == nil && len(list) == 2 && list[1] == int64(0) {
			followed = 0
		}
		return &call{bucket: bucket, script: collectScript, keys: []string{k.meta(bucket, channels[i]), k.log(bucket, channels[i]),
			k.changed(bucket), k.names(bucket), k.visits(bucket), k.following(bucket, channels[i])},
			args: []any{channels[i], followed, lonely.Milliseconds(), b.clock()}}
	}, nil)
}

// bound cuts the largest backlogs where all logs together are too large.
func (j *janitor) bound(ctx context.Context) error {
	limit := j.b.options.MaxTotalBytes
	most := limit / 10 * 8
	if most <= 0 {
		return nil
	}
	total, err := j.weigh(ctx)
	if err != nil || total <= most {
		return err
	}
	backlogs, err := j.backlogs(ctx)
	if err != nil {
		return err
	}
	for _, z := range backlogs {
		if total <= most {
			return nil
		}
		channel, _ := z.Member.(string)
		// The first call tells up to where replay would cut, the second cuts.
		found, err := j.trim(ctx, []subject{{channel: channel}}, j.b.options.TrimEvery)
		if err != nil {
			return err
		}
		if len(found) == 0 || found[0].replay < found[0].first {
			continue
		}
		if _, err := j.trim(ctx, []subject{{channel: channel, needed: int64(found[0].replay)}}, j.b.options.TrimEvery); err != nil {
			return err
		}
		total -= int64(z.Score)
		j.b.log.Warn("max_total_bytes is near: a backlog was cut to what replay keeps", "channel", channel, "bytes", int64(z.Score))
	}
	if total > limit {
		j.b.log.Warn("the logs are larger than max_total_bytes, with nothing kept by need alone left to cut", "bytes", total)
	}
	return nil
}

// weigh returns how many bytes all logs hold, as far as they can be asked.
func (j *janitor) weigh(ctx context.Context) (total int64, err error) {
	err = j.b.askEach(ctx, allBuckets, func(ctx context.Context, p goredis.Pipeliner, bucket int) goredis.Cmder {
		return p.Get(ctx, j.b.keys.bytes(bucket))
	}, func(_ int, answer goredis.Cmder) {
		n, _ := strconv.ParseInt(answer.(*goredis.StringCmd).Val(), 10, 64)
		total += n
	})
	if total > 0 {
		return total, nil
	}
	return 0, err
}

// backlogs returns the channels that keep most by need alone, the largest first.
func (j *janitor) backlogs(ctx context.Context) (all []goredis.Z, err error) {
	err = j.b.askEach(ctx, allBuckets, func(ctx context.Context, p goredis.Pipeliner, bucket int) goredis.Cmder {
		return p.ZRevRangeWithScores(ctx, j.b.keys.backlogs(bucket), 0, maxBacklogs-1)
	}, func(_ int, answer goredis.Cmder) { all = append(all, answer.(*goredis.ZSliceCmd).Val()...) })
	if len(all) == 0 {
		return nil, err
	}
	slices.SortFunc(all, func(x, y goredis.Z) int { return cmp.Compare(y.Score, x.Score) })
	return all, nil
}
