package embedded

import (
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// committer applies requests, many at a time. All of it is owned by
// commitLoop.
type committer struct {
	*Broker
	batch    *pebble.Batch
	now      int64 // of this batch, milliseconds
	reach    bool  // somebody waits for what was committed before, by others
	scratch  []byte
	unsynced []*request
}

// batchBytes is about how much one write takes on.
const batchBytes = 1 << 20

// commitLoop places what was asked for and writes it, one batch after the
// other. While one is being synced the next is gathered.
func (b *Broker) commitLoop() {
	if b.opt.Fsync == FsyncAlways {
		defer b.written.close()
	}
	c := &committer{Broker: b, batch: b.db.NewBatchWithSize(64 << 10)}
	var taken []*request
	for {
		// Appenders that are about to come come along.
		runtime.Gosched()
		if taken = b.queue.take(taken[:0]); taken == nil {
			_ = c.batch.Close()
			return
		}
		for rest := taken; len(rest) > 0; {
			n := c.place(rest)
			if err := c.write(); err != nil {
				b.trouble.fail(err)
				return
			}
			c.pass(rest[:n])
			rest = rest[n:]
		}
		clear(taken)
	}
}

// place puts the first requests, as many as make a batch, into the batch.
func (c *committer) place(rest []*request) int {
	c.now = c.opt.Now().UnixMilli()
	c.dedupe.begin(c.now)
	for i, r := range rest {
		if i > 0 && c.batch.Len() > batchBytes {
			return i
		}
		if r.kind == kindReach || r.kind == kindSync {
			c.reach = true
			continue
		}
		r.shard.mu.Lock()
		switch r.kind {
		case kindAppend:
			r.err = c.placeAppend(r)
		case kindCreate:
			c.ensureLocked(r, false)
		case kindKeep:
			if r.channel.exists() {
				c.ensureLocked(r, false)
			}
		case kindCollect:
			if ch := r.channel; ch.exists() && ch.head == 0 && ch.follower == nil && ch.pins == 1 {
				c.placeDrop(r)
			}
		case kindDrop:
			c.placeDrop(r)
		}
		r.log = r.channel.log
		r.shard.mu.Unlock()
	}
	return len(rest)
}

// ensureLocked makes a log if there is none; its record is written when there is
// a reason to keep it. Before an append it also forks a log whose last append was
// of another term.
func (c *committer) ensureLocked(r *request, fork bool) {
	ch := r.channel
	switch {
	case !ch.exists():
		ch.beginLocked()
	case fork && !ch.ours:
		ch.forkLocked()
	case ch.stored:
		return
	}
	if ch.live || r.kind == kindCreate {
		return
	}
	ch.stored = true
	record := ch.recordLocked(c.term)
	c.scratch = record.append(c.scratch[:0])
	_ = c.batch.Set(channelKey(r.name), c.scratch, nil)
}

// placeAppend gives the entries their offsets. An error leaves the channel as
// it was.
func (c *committer) placeAppend(r *request) error {
	ch := r.channel
	// Duplicates first: what may fail must come before anything changes.
	added, err := c.duplicatesLocked(r)
	if err != nil {
		return fmt.Errorf("%w: look for duplicates: %w", broker.ErrUnavailable, err)
	}
	r.first, r.last = ch.head+1, ch.head
	if added == 0 {
		for i := range r.places {
			r.places[i].Epoch = ch.epoch
		}
		return nil
	}
	c.ensureLocked(r, true)
	ch.time = max(ch.time, c.now)
	r.time = ch.time
	r.first = ch.head + 1
	for i := range r.entries {
		p := &r.places[i]
		p.Epoch = ch.epoch
		if p.Duplicate {
			if p.Offset == 0 { // of an earlier entry of this batch
				p.Offset = r.places[r.ids[i].twin].Offset
			}
			continue
		}
		ch.head++
		p.Offset = ch.head
		if ch.live {
			continue
		}
		data := r.entries[i].Data
		ch.sum += eventSize(data)
		op := c.batch.SetDeferred(eventKeySize, headerSize(ch.sum)+len(data))
		putEventKey(op.Key, ch.log, ch.head)
		putEvent(op.Value, ch.time, ch.sum, data)
		_ = op.Finish()
		if len(r.ids) > 0 && r.ids[i].set {
			c.dedupe.remember(c.batch, ch.log, &r.ids[i], ch.head)
		}
	}
	r.last = ch.head
	if !ch.changed && !ch.live {
		ch.changed = true
		c.janitor.changed(r.name)
	}
	if ch.sum-ch.seen > hotBytes {
		ch.seen = ch.sum
		c.janitor.hot(r.name)
	}
	return nil
}

func (c *committer) placeDrop(r *request) {
	ch := r.channel
	if !ch.exists() {
		r.err = fmt.Errorf("channel %s: %w", r.name, broker.ErrNotFound)
		return
	}
	if !ch.live {
		_ = c.batch.Delete(channelKey(r.name), nil)
		_ = c.batch.DeleteRange(eventKey(ch.log, 0), afterLog(ch.log), nil)
	}
	ch.resetLocked()
}

// write makes the batch survive this process, and all that was committed before.
func (c *committer) write() error {
	if c.batch.Empty() && !c.reach {
		return nil
	}
	if c.batch.Empty() {
		_ = c.batch.LogData(nil, nil)
	}
	c.reach = false
	before := c.subs.applied.Load()
	if err := c.apply(c.batch, pebble.Sync); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	c.batch.Reset()
	c.subs.reach(before)
	return nil
}

// pass answers what needs no fsync and hands on the rest.
func (c *committer) pass(rs []*request) {
	if c.opt.Fsync == FsyncEverySecond {
		for _, r := range rs {
			c.finish(r)
		}
		return
	}
	// All at once, so that one fsync does for all of them.
	c.unsynced = c.unsynced[:0]
	for _, r := range rs {
		if r.kind == kindCreate || r.kind == kindReach {
			c.finish(r)
		} else {
			c.unsynced = append(c.unsynced, r)
		}
	}
	if len(c.unsynced) > 0 {
		c.written.put(c.unsynced...)
		clear(c.unsynced)
	}
}

// syncLoop makes durable what the committer wrote, and answers.
func (b *Broker) syncLoop() {
	var taken []*request
	for {
		if taken = b.written.take(taken[:0]); taken == nil {
			return
		}
		if !b.sync(len(taken)) {
			return
		}
		for _, r := range taken {
			b.finish(r)
		}
		clear(taken)
	}
}

// sync makes durable what was written; then so many calls may be answered. false
// is a disk that failed for good.
func (b *Broker) sync(answered int) bool {
	began := time.Now()
	if b.disk.syncLogs() != nil {
		return false // the trouble is told of already
	}
	b.opt.OnSync(time.Since(began), answered)
	return true
}
