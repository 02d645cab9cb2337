package redis

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// trimPiece is how many events one script call removes at most, so that it
// doesn't hold up others for long.
const trimPiece = 20_000

// maxBacklogs is how many backlogs are remembered for MaxTotalBytes.
const maxBacklogs = 64

// janitor applies retention and tidies up, on one node at a time: a bucket
// every now and then, all of them once in TrimEvery.
type janitor struct {
	b    *Broker
	name string
	// reigns counts masters met on links; one that is new may have forgotten
	// who waits.
	reigns atomic.Uint64

	// owned by run
	total    int64
	channels int // that were visited last
	backlogs []backlog
	orphans  map[orphan]uint64 // found in the round before
	found    map[orphan]uint64 // found in this one
	looked   [buckets]uint64   // a bucket's sequence a round ago
	repaired uint64            // reigns as of the last repair
}

// backlog is what a log keeps by need alone.
type backlog struct {
	channel string
	cut     uint64 // what replay would cut
	bytes   int64
}

// orphan is an entry of a subscription that doesn't exist. It may be about to.
// One is looked for where it may hold events back.
type orphan struct{ channel, name string }

func newJanitor(b *Broker) *janitor {
	return &janitor{b: b, name: newEpoch(), found: make(map[orphan]uint64)}
}

// visited is how many buckets are visited together.
const visited = 16

// run works until ctx ends.
func (j *janitor) run(ctx context.Context, every time.Duration) {
	for next := 0; sleep(ctx, jitter(every*visited/buckets)+j.pause()); {
		// A node that stops is followed by another soon.
		leads, err := j.lead(ctx, max(every, 2*time.Second))
		if err != nil || !leads {
			continue
		}
		if reigns := j.reigns.Load(); reigns != j.repaired {
			if err := j.repair(ctx); err != nil {
				j.b.log.Debug("repair what waits", "error", err)
			} else {
				j.repaired = reigns
			}
		}
		if err := j.visit(ctx, next, next+visited); err != nil {
			j.b.log.Debug("apply retention", "error", err)
			continue
		}
		if next = (next + visited) % buckets; next == 0 {
			j.end(ctx)
		}
	}
}

// perChannel spaces out visits, so that many channels cost no more of Redis than
// few, but take longer.
const perChannel = time.Millisecond

func (j *janitor) pause() time.Duration {
	d := time.Duration(j.channels) * perChannel
	j.channels = 0
	return d
}

func (j *janitor) lead(ctx context.Context, ttl time.Duration) (bool, error) {
	list, err := j.b.do(ctx, 0, leadScript, []string{j.b.keys.tags[0] + "janitor"}, j.name, ttl.Milliseconds())
	return count(list) == 1, err
}

// Trim applies retention to every channel now. By itself the broker does so in
// its own time.
func (b *Broker) Trim(ctx context.Context) error {
	j := newJanitor(b)
	if err := j.visit(ctx, 0, buckets); err != nil {
		return unavailable("apply retention", err)
	}
	if err := j.bound(ctx); err != nil {
		return unavailable("apply retention", err)
	}
	return nil
}

// end ends a round.
func (j *janitor) end(ctx context.Context) {
	if err := j.bound(ctx); err != nil {
		j.b.log.Debug("apply retention", "error", err)
	}
	j.total, j.backlogs = 0, nil
	j.orphans, j.found = j.found, make(map[orphan]uint64)
}

// subject is a channel that is visited.
type subject struct {
	channel string
	needed  int64 // the offset up to which nobody needs it any more; -1: all
	// What trim found: where the log stands, and the offset up to which replay
	// would remove.
	first, head, replay uint64
	bytes               int64
}

// visit applies retention to the channels of the buckets from to to.
func (j *janitor) visit(ctx context.Context, from, to int) error {
	names, err := j.b.namesIn(ctx, from, to, j.b.keys.names)
	if err != nil {
		return err
	}
	if err := j.sweep(ctx, from, to); err != nil {
		return err
	}
	j.channels += len(names)
	subjects := make([]subject, len(names))
	for i, name := range names {
		subjects[i] = subject{channel: name, needed: 0}
	}
	// Most channels hold nothing that replay wouldn't keep: of those it needn't
	// be asked who needs what.
	spare, err := j.trim(ctx, subjects)
	if err != nil || len(spare) == 0 {
		return err
	}
	for i := range spare {
		spare[i].needed = -1
	}
	if err := j.needs(ctx, spare); err != nil {
		return err
	}
	spare, err = j.trim(ctx, spare)
	for _, s := range spare {
		j.weigh(s)
	}
	return err
}

// namesIn reads sorted sets of names, a whole one per bucket.
func (b *Broker) namesIn(ctx context.Context, from, to int, key func(bucket int) string) ([]string, error) {
	var mu sync.Mutex
	var names []string
	err := b.eachServer(ctx, func(ctx context.Context, s *server, owned []int) error {
		var pages []*goredis.StringSliceCmd
		_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, bucket := range owned {
				if bucket >= from && bucket < to {
					pages = append(pages, p.ZRange(ctx, key(bucket), 0, -1))
				}
			}
			return nil
		})
		mu.Lock()
		defer mu.Unlock()
		for _, page := range pages {
			names = append(names, page.Val()...)
		}
		return err
	})
	if err != nil {
		b.servers.refresh()
	}
	return names, err
}

// needs fills in up to where subscriptions have acknowledged.
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
	var needed []int // of subjects, those somebody follows
	var states, names []string
	for i, list := range followers {
		if len(list) > 0 {
			needed, states = append(needed, i), append(states, channels[i])
		}
		for k := 0; k+1 < len(list); k += 2 {
			name, _ := list[k].(string)
			names = append(names, name)
		}
	}
	if len(needed) == 0 {
		return nil
	}
	logs, err := b.queryEach(ctx, states, func(i, bucket int) question {
		return question{stateScript, b.stateKeys(bucket, states[i]), nil}
	})
	if err != nil {
		return err
	}
	progresses, err := b.Look(ctx, names)
	if err != nil {
		return err
	}
	for n, i := range needed {
		state := stateOf(logs[n])
		for k := 0; k+1 < len(followers[i]); k += 2 {
			s, name := progresses[0], names[0]
			progresses, names = progresses[1:], names[1:]
			if s.Generation == 0 {
				j.orphan(ctx, orphan{channels[i], name}, uintOf(followers[i][k+1]))
				continue
			}
			if c, ok := s.Position.Of(channels[i]); ok {
				offset, _ := state.Locate(c.Epoch, c.Offset)
				if subjects[i].needed < 0 || int64(offset) < subjects[i].needed {
					subjects[i].needed = int64(offset)
				}
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

// trim applies retention to channels and returns those that still hold what
// replay would not keep. The others are weighed.
func (j *janitor) trim(ctx context.Context, subjects []subject) (spare []subject, err error) {
	b := j.b
	for len(subjects) > 0 {
		channels := make([]string, len(subjects))
		for i, s := range subjects {
			channels[i] = s.channel
		}
		lists, err := b.queryEach(ctx, channels, func(i, bucket int) question {
			r := b.options.Retention(channels[i])
			if r.None {
				r = broker.Retention{} // what was kept before goes
			}
			return question{trimScript, []string{b.keys.meta(bucket, channels[i]), b.keys.log(bucket, channels[i])}, []any{
				r.ReplayAge.Milliseconds(), r.ReplayEvents, r.MaxAge.Milliseconds(), r.MaxBytes, subjects[i].needed, trimPiece, b.clock(),
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
			s.first, s.head, s.bytes, s.replay = uintOf(list[1]), uintOf(list[2]), int64(uintOf(list[3])), uintOf(list[4])
			switch {
			case uintOf(list[0]) == 1:
				left = append(left, s)
			case s.replay >= s.first && s.head >= s.first:
				spare = append(spare, s)
			default:
				j.weigh(s)
			}
		}
		subjects = left
	}
	return spare, nil
}

// weigh counts a log's bytes, and those kept by need alone.
func (j *janitor) weigh(s subject) {
	j.total += s.bytes
	if s.replay >= s.first && s.head >= s.first {
		j.remember(backlog{s.channel, s.replay, s.bytes * int64(s.replay-s.first+1) / int64(s.head-s.first+1)})
	}
}

func (j *janitor) remember(k backlog) {
	j.backlogs = append(j.backlogs, k)
	if len(j.backlogs) >= 2*maxBacklogs {
		j.sort()
		j.backlogs = j.backlogs[:maxBacklogs]
	}
}

func (j *janitor) sort() {
	slices.SortFunc(j.backlogs, func(x, y backlog) int { return cmp.Compare(y.bytes, x.bytes) })
}

// bound cuts the largest backlogs where all logs together are too large.
func (j *janitor) bound(ctx context.Context) error {
	limit := j.b.options.MaxTotalBytes
	most := limit / 10 * 8
	if most <= 0 || j.total <= most {
		return nil
	}
	j.sort()
	for _, k := range j.backlogs {
		if j.total <= most {
			return nil
		}
		rest := j.total - k.bytes
		if _, err := j.trim(ctx, []subject{{channel: k.channel, needed: int64(k.cut)}}); err != nil {
			return err
		}
		j.total = rest
		j.b.log.Warn("max_total_bytes is near: a backlog was cut to what replay keeps", "channel", k.channel, "bytes", k.bytes)
	}
	if j.total > limit {
		j.b.log.Warn("the logs are larger than max_total_bytes, with nothing kept by need alone left to cut", "bytes", j.total)
	}
	return nil
}

// sweep forgets changes that concern channels that are gone, and that everybody
// had a round's time to look at.
func (j *janitor) sweep(ctx context.Context, from, to int) error {
	b := j.b
	err := b.doEach(ctx, to-from, func(i int) *call {
		bucket := from + i
		return &call{bucket: bucket, script: sweepScript,
			keys: []string{b.keys.changed(bucket), b.keys.names(bucket), b.keys.counter(bucket)}, args: []any{j.looked[bucket]}}
	}, func(i int, answer any) { j.looked[from+i] = uintOf(answer) })
	return err
}

// repair has all subscriptions that say so wait for their channels once more:
// a new master may have forgotten that they do, or that something came.
func (j *janitor) repair(ctx context.Context) error {
	b := j.b
	names, err := b.namesIn(ctx, 0, buckets, b.keys.subscriptions)
	if err != nil {
		return err
	}
	lists, err := b.queryEach(ctx, names, func(i, bucket int) question {
		return question{waitsScript, []string{b.keys.subscription(bucket, names[i]), b.keys.position(bucket, names[i])}, nil}
	})
	if err != nil {
		return err
	}
	var calls []*call
	for i, list := range lists {
		if len(list) < 2 {
			continue
		}
		version := uintOf(list[0])
		waited, _ := list[1].(string)
		position := standingOf(list[2:]).Position
		for channel := range strings.SplitSeq(waited, ",") {
			c, _ := position.Of(channel)
			to := bucketOf(channel)
			calls = append(calls, &call{bucket: to, script: waitScript,
				keys: []string{b.keys.meta(to, channel), b.keys.waiting(to), b.keys.due(to)},
				args: []any{channel, names[i], version, c.Epoch, c.Offset, b.publish, b.keys.dueTopic(to)}})
		}
	}
	for some := range slices.Chunk(calls, maxCalls) {
		if err := b.doEach(ctx, len(some), func(i int) *call { return some[i] }, nil); err != nil {
			return err
		}
	}
	return nil
}
