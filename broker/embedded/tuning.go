package embedded

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// tuned are the store's options. Memory is for the cache of blocks and for the
// memtables, both of which grow only as they are used.
func tuned(fs vfs.FS, lock *pebble.Lock, t *trouble, scheduler *compactions) *pebble.Options {
	o := &pebble.Options{
		FS:     fs,
		Lock:   lock,
		Logger: logger{t},
		// One format below the one that notes in the log how far it was
		// synced: pebble can't know that here.
		FormatMajorVersion: pebble.FormatColumnarBlocks,
		CacheSize:          8 << 20,
		// A killed process's memtables are read from the log and flushed at
		// the next start, which is to be quick.
		MemTableSize:                16 << 20,
		MemTableStopWritesThreshold: 3,
		MaxOpenFiles:                256,
		// What was trimmed is freed within a minute, on an idle server too.
		FlushDelayDeleteRange:      time.Minute,
		L0CompactionThreshold:      4,
		L0StopWritesThreshold:      24,
		LBaseMaxBytes:              64 << 20,
		CompactionConcurrencyRange: func() (int, int) { return 1, 1 },
		BytesPerSync:               1 << 20,
		WALBytesPerSync:            1 << 20,
	}
	o.TargetFileSizes[0] = 4 << 20
	for i := range o.Levels {
		l := &o.Levels[i]
		l.BlockSize = 16 << 10
		l.IndexBlockSize = 64 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	}
	o.EventListener = &pebble.EventListener{BackgroundError: func(err error) { t.background(err) }}
	o.Experimental.CompactionScheduler = scheduler
	return o
}

// compactions is pebble's scheduler of them: one at a time, and none before the
// store is open, because opening waits for the end of those that run.
type compactions struct {
	db pebble.DBForCompaction // set before all calls but begin

	mu       sync.Mutex
	settled  sync.Cond // granting ended
	begun    bool
	running  bool // one is, or is being offered
	granting int  // calls that offer one to db
	refused  bool // db asked meanwhile
	closed   bool
}

var (
	_ pebble.CompactionScheduler   = (*compactions)(nil)
	_ pebble.CompactionGrantHandle = (*compactions)(nil)
)

func newCompactions() *compactions {
	c := &compactions{}
	c.settled.L = &c.mu
	return c
}

// begin lets compactions begin. The store is open.
func (c *compactions) begin() {
	c.mu.Lock()
	c.begun = true
	c.mu.Unlock()
	c.offer()
}

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister implements pebble.CompactionScheduler.
func (c *compactions) Unregister() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.granting > 0 {
		c.settled.Wait()
	}
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun || c.running || c.closed {
		c.refused = true
		return false, nil
	}
	c.running = true
	return true, c
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (c *compactions) UpdateGetAllowedWithoutPermission() {}

// Started, MeasureCPU and CumulativeStats implement
// pebble.CompactionGrantHandle.
func (c *compactions) Started()                                          {}
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (c *compactions) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle: a compaction ended.
func (c *compactions) Done() {
	c.mu.Lock()
	c.running = false
	c.mu.Unlock()
	c.offer()
}

// offer lets the next compaction run, if one waits.
func (c *compactions) offer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.begun && !c.running && !c.closed {
		c.running, c.refused = true, false
		c.granting++
		c.mu.Unlock()
		taken := c.db.Schedule(c)
		c.mu.Lock()
		c.granting--
		c.settled.Broadcast()
		if taken {
			return // its Done goes on, and may have come already
		}
		c.running = false
		if !c.refused {
			return
		}
	}
}
