package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// janitor trims logs, forgets identities and idle channels, and watches the
// room on the disk: a little every second. It looks at channels that were
// appended to, or have something that is old enough; those that much was appended
// to come first. Beside that it goes round all channels, slowly, for what it is
// not told of: a subscription that is gone, say.
type janitor struct {
	b     *Broker
	sweep atomic.Uint32 // counts seconds, for idle channels

	mu   sync.Mutex
	busy map[string]struct{} // much was appended to
	changes

	// Owned by run and Trim, which hold turn.
	turn    sync.Mutex
	after   string // where the round stands
	resting int    // seconds before the next round
	visited int64  // before this visitUnit all rows of visits are done
	visits  int    // that were made
	total   int64  // bytes seen in this round
	kept    []backlog
	expired []byte // up to which identities are forgotten
}

// backlog is what a log keeps by need alone.
type backlog struct {
	channel string
	log     uint64
	cut     uint64 // what replay would cut
	bytes   int64
}

const (
	hotBytes      = 1 << 20 // appended since the last look: look soon
	visitsPerRun  = 256
	waitersPerRun = 2048 // channels, after a start
	restSeconds   = 3600 // between rounds
	boundSeconds  = 15   // the same where MaxTotalBytes asks for a sum
	maxBacklogs   = 64   // remembered for MaxTotalBytes
	idleSeconds   = 60   // before a channel is forgotten in memory
)

func (j *janitor) init(b *Broker) {
	j.b = b
	j.busy = make(map[string]struct{})
	j.checkRoom()
}

// hot asks for an early visit. It is called with a shard's mutex held.
func (j *janitor) hot(channel string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.busy[channel] = struct{}{}
}

// takeBusy returns the channels to visit early.
func (j *janitor) takeBusy() map[string]struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.busy) == 0 {
		return nil // the empty map stays ours: it may be written to any time
	}
	busy := j.busy
	j.busy = make(map[string]struct{})
	return busy
}

func (j *janitor) run() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-j.b.stop:
			return
		case <-tick.C:
			if err := j.work(); err != nil {
				j.b.opt.Logger.Warn("could not apply retention, will try again", "error", err)
			}
		}
	}
}

// work is one second's.
func (j *janitor) work() error {
	j.turn.Lock()
	defer j.turn.Unlock()
	j.b.forgetIdle(j.sweep.Add(1))
	j.checkRoom()
	if j.b.trouble.fatal() != nil {
		return nil
	}
	if err := j.forgetIdentities(); err != nil {
		return err
	}
	if err := j.b.reachNow(); err != nil {
		return err
	}
	if err := j.b.recheck(waitersPerRun); err != nil {
		return err
	}
	for channel := range j.takeBusy() {
		if _, err := j.visit(channel, false); err != nil {
			return err
		}
	}
	if err := j.visitChanged(); err != nil {
		return err
	}
	if err := j.visitDue(); err != nil {
		return err
	}
	if j.resting > 0 {
		j.resting--
		return nil
	}
	end, err := j.proceed(visitsPerRun, false)
	if end {
		if j.resting = restSeconds; j.b.opt.MaxTotalBytes > 0 {
			j.resting = boundSeconds
		}
	}
	return err
}

// Trim applies retention to all channels now, to the letter; by itself the
// broker does so in its own time and may keep a little more.
func (b *Broker) Trim(ctx context.Context) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	b.janitor.turn.Lock()
	defer b.janitor.turn.Unlock()
	b.janitor.restart()
	b.forgetUnstored()
	for {
		end, err := b.janitor.proceed(visitsPerRun, true)
		if err != nil {
			return fmt.Errorf("trim: %w", unavailable(err))
		}
		if end {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (j *janitor) restart() { j.after, j.total, j.kept = "", 0, j.kept[:0] }

// proceed visits the next n channels of the round; end tells that it is over.
func (j *janitor) proceed(n int, exact bool) (end bool, err error) {
	names, err := j.b.storedChannels(context.Background(), "", j.after, n)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		bytes, err := j.visit(name, exact)
		if err != nil {
			return false, err
		}
		j.total += bytes
		j.after = name
	}
	if len(names) == n {
		return false, nil
	}
	err = j.bound(exact)
	j.restart()
	return true, err
}

// bound cuts the largest backlogs where all logs together are too large.
func (j *janitor) bound(exact bool) error {
	most := j.b.opt.MaxTotalBytes / 10 * 8
	if most == 0 || j.total <= most {
		return nil
	}
	slices.SortFunc(j.kept, func(x, y backlog) int { return cmp.Compare(y.bytes, x.bytes) })
	for _, k := range j.kept {
		if j.total <= most {
			return nil
		}
		if err := j.b.trim(k.channel, k.log, k.cut); err != nil {
			return err
		}
		j.total -= k.bytes
		j.b.opt.Logger.Warn("max_total_bytes is near: a backlog was cut to what replay keeps", "channel", k.channel, "bytes", k.bytes)
	}
	if j.total > j.b.opt.MaxTotalBytes {
		j.b.opt.Logger.Warn("the logs are larger than max_total_bytes, with nothing kept by need alone left to cut", "bytes", j.total)
	}
	return nil
}

// visit applies retention to one channel and returns the bytes that are left.
func (j *janitor) visit(name string, exact bool) (int64, error) {
	j.visits++
	j.b.begun(name)
	r := j.b.opt.Retention(name)
	if r.None {
		return 0, j.b.removeStored(name)
	}
	c, err := j.b.peek(name)
	if errors.Is(err, broker.ErrNotFound) {
		return 0, nil // dropped meanwhile
	}
	if err != nil {
		return 0, err
	}
	s := c.stateLocked() // of our own copy
	if s.Head == 0 {
		return 0, j.collect(name, exact)
	}
	if s.First > s.Head {
		return 0, nil
	}
	now := j.b.opt.Now()
	replay, err := j.b.replayCut(&c, r, now)
	if err != nil {
		return 0, err
	}
	soft := replay
	if soft >= s.First {
		acked, needed, err := j.b.needed(name, s)
		if err != nil {
			return 0, err
		}
		if needed {
			soft = min(soft, max(acked, s.First-1))
		}
	}
	hard, err := j.b.hardCut(&c, r, now)
	if err != nil {
		return 0, err
	}
	cut := max(soft, hard)
	// Many small cuts are dearer than a large one.
	if left := s.Head - s.First + 1; !exact && hard < s.First && cut-s.First+1 < min(1024, left/8+1) {
		cut = s.First - 1
	}
	bytes, err := j.b.bytesAfter(&c, cut)
	if err == nil && cut >= s.First {
		err = j.b.trim(name, c.log, cut)
	}
	if err == nil && replay > cut && j.b.opt.MaxTotalBytes > 0 {
		err = j.note(name, &c, replay, bytes)
	}
	if err == nil {
		err = j.schedule(name, &c, r, cut, now)
	}
	return bytes, err
}

// collect removes a log to which nothing was appended, that nobody follows or
// used lately; at once tells not to wait for that.
func (j *janitor) collect(name string, atOnce bool) error {
	b := j.b
	followed := false
	err := b.scan(rowKey(rowFollows, name, ""), func(_, _ []byte) (bool, error) {
		followed = true
		return false, nil
	})
	if err != nil || followed {
		return err
	}
	s := b.channels.of(name)
	s.mu.Lock()
	c := s.byName[name]
	used := c != nil && (c.follower != nil || !atOnce && j.sweep.Load()-c.used < idleSeconds)
	s.mu.Unlock()
	if used || !b.calls.enter() {
		return nil
	}
	defer b.calls.leave()
	r := newRequest(kindCollect, name)
	if err := b.perform(context.Background(), r); err != nil {
		return err
	}
	r.free()
	return nil
}

// note remembers a backlog, if it is one of the largest.
func (j *janitor) note(name string, c *channel, cut uint64, bytes int64) error {
	rest, err := j.b.bytesAfter(c, cut)
	if err != nil {
		return err
	}
	k := backlog{channel: name, log: c.log, cut: cut, bytes: bytes - rest}
	if len(j.kept) < maxBacklogs {
		j.kept = append(j.kept, k)
		return nil
	}
	least := 0
	for i := range j.kept {
		if j.kept[i].bytes < j.kept[least].bytes {
			least = i
		}
	}
	if j.kept[least].bytes < k.bytes {
		j.kept[least] = k
	}
	return nil
}

// forgetIdentities drops the buckets that left the window.
func (j *janitor) forgetIdentities() error {
	from, to := j.b.dedupe.expired(j.b.opt.Now())
	if string(to) <= string(j.expired) {
		return nil
	}
	batch := j.b.db.NewBatch()
	defer batch.Close()
	_ = batch.DeleteRange(from, to, nil)
	if err := j.b.apply(batch, pebble.NoSync); err != nil {
		return fmt.Errorf("forget identities: %w", err)
	}
	j.expired = to
	return nil
}

// forgetIdle removes idle channels of one shard from memory. Of a live channel,
// and of one to which nothing was appended, nothing is left then; whoever comes
// later starts with a new epoch.
func (b *Broker) forgetIdle(sweep uint32) {
	s := &b.channels.shards[sweep%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.byName {
		idle := sweep - c.used
		if c.idleLocked() && idle >= idleSeconds && (!c.transientLocked() || idle >= 10*idleSeconds) {
			delete(s.byName, name)
			s.removed++
		}
	}
}

// forgetUnstored removes from memory all logs to which nothing was appended and
// that nobody uses.
func (b *Broker) forgetUnstored() {
	for i := range b.channels.shards {
		s := &b.channels.shards[i]
		s.mu.Lock()
		for name, c := range s.byName {
			if c.idleLocked() && c.transientLocked() && !c.live {
				delete(s.byName, name)
				s.removed++
			}
		}
		s.mu.Unlock()
	}
}

// checkRoom refuses appends while the disk is nearly full, so that there is
// room for what trimming writes before it frees any.
func (j *janitor) checkRoom() {
	least := j.b.opt.MinFree
	if least < 0 {
		return
	}
	usage, err := j.b.opt.fs.GetDiskUsage(j.b.opt.Dir)
	if err != nil {
		return // not every file system can tell
	}
	if free := usage.AvailBytes; free < uint64(least) {
		err = fmt.Errorf("%d MiB of disk are left for %s, want at least %d", free>>20, j.b.opt.Dir, least>>20)
	}
	j.b.trouble.lowOn(err)
}
