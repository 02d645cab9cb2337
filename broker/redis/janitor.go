package redis

import (
	"context"
	"slices"
	"time"
)

// janitor applies retention and tidies up: some buckets every now and then, all
// of them once in TrimEvery. A bucket has one janitor at a time, told in the
// bucket itself, so that what becomes of one master is nothing to the others. It
// visits what changed since it was there last, and what time has come for.
type janitor struct {
	b    *Broker
	name string

	// owned by run
	channels int                  // that were visited since the last pause
	orphans  map[orphan]uint64    // found in the round before
	found    map[orphan]uint64    // found in this one
	looked   [buckets]uint64      // a bucket's sequence a round ago
	first    int                  // bucket that was reached first in this round; -1: none yet
	leads    bool                 // that one
	repairAt time.Time            // no repair before
	tryAt    map[string]time.Time // by address of a master that doesn't answer
}

// orphan is an entry of a subscription that doesn't exist. It may be about to.
// One is looked for where it may hold events back.
type orphan struct{ channel, name string }

func newJanitor(b *Broker) *janitor {
	return &janitor{b: b, name: newEpoch(), found: make(map[orphan]uint64), tryAt: make(map[string]time.Time), first: -1}
}

const (
	// visitedAtOnce is how many buckets are visited together.
	visitedAtOnce = 16
	// perChannel spaces out visits, so that many channels cost no more of Redis
	// than few, but take longer.
	perChannel = time.Millisecond
	// lonely is how long nobody may follow an empty log before it is looked at,
	// and then once more before it is removed.
	lonely = 5 * time.Minute
)

// run works until ctx ends.
func (j *janitor) run(ctx context.Context, every time.Duration) {
	for next := 0; sleep(ctx, jitter(every*visitedAtOnce/buckets)+j.pause()); {
		var list []int
		for bucket := next; bucket < next+visitedAtOnce; bucket++ {
			if j.reachable(bucket) {
				list = append(list, bucket)
			}
		}
		// A node that stops is followed by another soon.
		for _, v := range j.enter(ctx, list, 2*every+2*time.Second) {
			if err := j.visit(ctx, v, every); err != nil {
				j.b.log.Debug("apply retention", "bucket", v.bucket, "error", err)
			}
		}
		if next = (next + visitedAtOnce) % buckets; next == 0 {
			j.end(ctx)
		}
	}
}

// reachable tells whether a visit to a bucket is worth trying: where its master
// doesn't answer, one in tryEvery is, so that the others' needn't wait for it.
func (j *janitor) reachable(bucket int) bool {
	link := j.b.servers.bucket(bucket).link
	if link.health.cause() == nil {
		return true
	}
	now := time.Now()
	if now.Before(j.tryAt[link.addr]) {
		return false
	}
	j.tryAt[link.addr] = now.Add(tryEvery)
	return true
}

const tryEvery = 5 * time.Second

func (j *janitor) pause() time.Duration {
	d := time.Duration(j.channels) * perChannel
	j.channels = 0
	return d
}

// end ends a round.
func (j *janitor) end(ctx context.Context) {
	if j.leads {
		if err := j.bound(ctx); err != nil {
			j.b.log.Debug("apply retention", "error", err)
		}
	}
	j.first, j.leads = -1, false
	j.orphans, j.found = j.found, make(map[orphan]uint64)
}

// maxVisited is how many channels of a bucket are visited together.
const maxVisited = 1000

// visit is what a janitor finds to do in a bucket.
type visit struct {
	bucket int
	// repaired: the present master has forgotten nothing. As long as that is not
	// known for sure, nothing goes that somebody may need.
	repaired bool
	channels []string // that changed, or whose time has come
	seq      uint64   // up to which changes are among them
	more     bool
}

// enter becomes the janitor of those buckets that have none and can be reached,
// and returns what is to be done in them.
func (j *janitor) enter(ctx context.Context, list []int, ttl time.Duration) []visit {
	k := j.b.keys
	var visits []visit
	err := j.b.doEach(ctx, len(list), func(i int) *call {
		b := list[i]
		return &call{bucket: b, script: visitScript,
			keys: []string{k.janitor(b), k.changed(b), k.visits(b), k.trimmed(b), k.repaired(b)},
			args: []any{j.name, ttl.Milliseconds(), maxVisited, j.b.clock()}}
	}, func(i int, answer any) {
		all := listOf(answer)
		if len(all) == 0 {
			return
		}
		leads := all[0] == int64(1)
		if j.first < 0 || list[i] < j.first {
			j.first, j.leads = list[i], leads
		}
		if leads && len(all) == 4 {
			visits = append(visits, visitOf(list[i], all))
		}
	})
	if err != nil {
		j.b.log.Debug("some buckets can't be reached", "error", err)
	}
	stale := slices.ContainsFunc(visits, func(v visit) bool { return !v.repaired })
	if !stale || time.Now().Before(j.repairAt) {
		return visits
	}
	whole, err := j.repair(ctx)
	if err != nil {
		j.b.log.Debug("repair what a master may have forgotten", "error", err)
		j.repairAt = time.Now().Add(repairEvery)
	}
	for i := range visits {
		visits[i].repaired = visits[i].repaired || whole[visits[i].bucket]
	}
	return visits
}

func visitOf(bucket int, all []any) visit {
	v := visit{bucket: bucket, repaired: all[1] == int64(1)}
	seen := make(map[string]bool)
	changed, due := listOf(all[2]), listOf(all[3])
	for i := 0; i+1 < len(changed); i += 2 {
		channel, _ := changed[i].(string)
		seen[channel] = true
		v.channels = append(v.channels, channel)
		v.seq = max(v.seq, uintOf(changed[i+1]))
	}
	for _, one := range due {
		if channel, _ := one.(string); !seen[channel] {
			v.channels = append(v.channels, channel)
		}
	}
	v.more = len(changed) == 2*maxVisited || len(due) == maxVisited
	return v
}

// visit does what there is to do in a bucket.
func (j *janitor) visit(ctx context.Context, v visit, every time.Duration) error {
	for {
		j.channels += len(v.channels)
		if err := j.retain(ctx, v.channels, v.repaired, every); err != nil {
			return err
		}
		if v.seq > 0 {
			_, err := j.b.do(ctx, v.bucket, putScript, []string{j.b.keys.trimmed(v.bucket)}, v.seq)
			if err != nil {
				return err
			}
			j.looked[v.bucket] = v.seq
		}
		if !v.more || !sleep(ctx, j.pause()) {
			return ctx.Err()
		}
		next := j.enter(ctx, []int{v.bucket}, 2*every+2*time.Second)
		if len(next) == 0 {
			return nil
		}
		v = next[0]
	}
}
