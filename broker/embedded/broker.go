// Package embedded is a broker in the process and on the local disk: a log per
// channel in one pebble store, made durable by fsyncs that concurrent appends
// share.
//
//	Append → queue → committer: place, one write → syncer: one fsync → announce, answer
//	                                  │ FsyncEverySecond: announce, answer
//	                             pebble's WAL
//
// Pebble asks for a sync with every batch so that its write-ahead log reaches
// the operating system, which is what survives a killed process; the real
// fsync is done here (see disk), when and as often as Fsync says.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/longline-push/longline/broker"
)

// Fsync says when an append is answered.
type Fsync int

const (
	// FsyncAlways answers an append once it is on the disk.
	FsyncAlways Fsync = iota
	// FsyncEverySecond answers once the operating system has it, and syncs
	// every second: a killed process loses nothing, a lost machine up to a
	// second or two.
	FsyncEverySecond
)

// Options configure a broker.
type Options struct {
	broker.Options
	// Dir is the directory of the data; it is made if need be. One process at
	// a time uses it.
	Dir   string
	Fsync Fsync
	// MinFree is how much room on the disk is left alone: with less, appends
	// fail with broker.ErrUnavailable until there is more again, so that
	// trimming can still make room. 0: 64 MiB. Negative: none.
	MinFree int64
	// OnSync is told of each fsync of the log: how long it took and how many
	// calls it answered, 0 with FsyncEverySecond. It must not block. nil: nobody
	// is told.
	OnSync func(took time.Duration, answered int)
	// Logger is for what an operator should know. nil: slog.Default.
	Logger *slog.Logger

	// For tests.
	fs       vfs.FS
	patience time.Duration // with a store that failed, see orBroken. 0: 2 s
}

func (o Options) withDefaults() Options {
	o.Options = o.Options.WithDefaults()
	if o.MinFree == 0 {
		o.MinFree = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OnSync == nil {
		o.OnSync = func(time.Duration, int) {}
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	if o.patience == 0 {
		o.patience = 2 * time.Second
	}
	return o
}

// Broker is a broker on the local disk. All methods may be called by many
// goroutines at once.
type Broker struct {
	// Static.
	opt  Options
	disk *disk
	db   *pebble.DB
	lock *pebble.Lock
	term uint64 // what the logs' last appends are compared with

	channels channels
	queue    queue         // to the committer
	written  queue         // to the syncer
	items    []broker.Item // of an announcement; whoever answers appends owns it
	dedupe   *dedupe
	janitor  janitor
	subs     subscriptions
	wakes    wakes

	stop    chan struct{}  // closed by Close: no more work of our own accord
	workers sync.WaitGroup // janitor, committer, syncer, ticker
	calls   calls

	trouble trouble
}

var (
	_ broker.Log  = (*Broker)(nil)
	_ broker.Tail = (*Broker)(nil)
)

// Open opens or makes the data in opt.Dir.
func Open(opt Options) (*Broker, error) {
	opt = opt.withDefaults()
	if opt.Dir == "" {
		return nil, errors.New("open embedded broker: no directory given")
	}
	if err := makeDir(opt.fs, opt.Dir); err != nil {
		return nil, fmt.Errorf("open embedded broker: make %s: %w", opt.Dir, err)
	}
	b := &Broker{opt: opt, stop: make(chan struct{})}
	b.trouble.init(opt.Logger)
	b.disk = newDisk(opt.fs, opt.Dir, &b.trouble)
	b.channels.init()
	b.queue.init()
	b.written.init()

	lock, err := pebble.LockDirectory(opt.Dir, b.disk)
	if err != nil {
		switch {
		case held(err):
			return nil, fmt.Errorf("open embedded broker: %s is in use by another process; want another directory, e.g. --broker embedded:%s-2, or end that one", opt.Dir, opt.Dir)
		case strings.Contains(err.Error(), "held by current process"): // pebble has no error value for it
			return nil, fmt.Errorf("open embedded broker: %s is in use by this process already", opt.Dir)
		}
		return nil, fmt.Errorf("open embedded broker: lock %s: %w", opt.Dir, err)
	}
	b.lock = lock
	compactions := newCompactions()
	if err := b.openStore(tuned(b.disk, lock, &b.trouble, compactions)); err != nil {
		b.abandon()
		return nil, fmt.Errorf("open embedded broker: open store in %s: %w", opt.Dir, err)
	}
	compactions.begin()
	if err := b.begin(); err != nil {
		b.abandon()
		return nil, fmt.Errorf("open embedded broker: %w", err)
	}
	return b, nil
}

func (b *Broker) openStore(o *pebble.Options) error {
	opened := make(chan *pebble.DB, 1)
	err := b.orBroken(func() error {
		db, err := pebble.Open(b.opt.Dir, o)
		if err == nil {
			opened <- db
		}
		return err
	})
	select {
	case b.db = <-opened:
		b.disk.opened.Store(true)
	default:
	}
	return err
}

// orBroken calls what is pebble's and waits for its end. Of a store that failed
// it may never come, since the failure ended a goroutine that pebble waits for;
// then it is left as it is, for the process to take down.
func (b *Broker) orBroken(call func() error) error {
	done := make(chan error, 1)
	go func() { done <- b.trouble.guard(call) }()
	select {
	case err := <-done:
		return cmp.Or(b.trouble.fatal(), err)
	case <-b.trouble.broken:
	}
	b.disk.abort()
	patience := time.NewTimer(b.opt.patience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
	return b.trouble.fatal()
}

// begin settles the term and starts the workers.
func (b *Broker) begin() error {
	b.clearCopies()
	if err := b.settleFormat(); err != nil {
		return err
	}
	existing, err := b.settleTerm()
	if err != nil {
		return err
	}
	b.dedupe = newDedupe(b.db, b.opt.DedupeWindow, b.opt.Now(), existing)
	if err := b.subs.init(b); err != nil {
		return err
	}
	b.janitor.init(b)
	b.workers.Go(b.commitLoop)
	if b.opt.Fsync == FsyncAlways {
		b.workers.Go(b.syncLoop)
	} else {
		b.workers.Go(b.syncEverySecond)
	}
	b.workers.Go(b.janitor.run)
	return nil
}

// settleTerm makes a term of this start. Nothing in the store tells whether it
// is the one that the last process left or an older copy of it, put back; so
// what was appended before may be forgotten in any case. existing tells whether
// there was a store.
func (b *Broker) settleTerm() (existing bool, err error) {
	if _, existing, err = b.getUint64(keyBoot); err != nil {
		return false, err
	}
	b.term = rand.Uint64()
	batch := b.db.NewBatch()
	defer batch.Close()
	_ = batch.Set(keyBoot, appendUint64(nil, b.term), nil)
	restored, err := b.restored()
	if err != nil {
		return false, err
	}
	if err := b.settle(batch); err != nil || !restored {
		return existing, err
	}
	return existing, b.opt.fs.Remove(b.opt.fs.PathJoin(b.opt.Dir, restoredFile))
}

// settle commits a batch and waits for the disk, whatever Fsync says.
func (b *Broker) settle(batch *pebble.Batch) error {
	if err := b.apply(batch, pebble.Sync); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return b.disk.syncLogs()
}

func (b *Broker) getUint64(key []byte) (n uint64, ok bool, err error) {
	value, closer, err := b.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read %q: %w", key, err)
	}
	defer closer.Close()
	n, ok = uint64Of(value)
	if !ok {
		return 0, false, fmt.Errorf("read %q: value is damaged", key)
	}
	return n, true, nil
}

// Close waits for the appends under way, makes everything durable and closes
// the store. Later calls of any method answer broker.ErrClosed.
func (b *Broker) Close() error {
	if !b.calls.close() {
		return nil
	}
	close(b.stop)
	b.disk.abort() // nobody waits for room any more
	b.calls.wait()
	b.queue.close()
	b.workers.Wait()
	if err := b.trouble.fatal(); err != nil {
		b.abandon()
		return fmt.Errorf("close embedded broker: %w", err)
	}
	if err := b.orBroken(b.end); err != nil {
		return fmt.Errorf("close embedded broker: %w", err)
	}
	return nil
}

// abandon closes a store that can't be used. What was answered is in its log.
func (b *Broker) abandon() {
	b.disk.abort()
	_ = b.orBroken(func() error {
		var err error
		if b.db != nil {
			err = b.db.Close()
		}
		return errors.Join(err, b.lock.Close())
	})
}

// end leaves the store as after an orderly end.
func (b *Broker) end() error {
	err := b.reachNow()
	if err == nil {
		err = b.disk.syncLogs()
	}
	// The next start finds nothing to replay.
	for _, end := range []func() error{b.db.Flush, b.db.Close, b.lock.Close} {
		if e := end(); err == nil {
			err = e
		}
	}
	return err
}

// syncEverySecond is the syncer of FsyncEverySecond.
func (b *Broker) syncEverySecond() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-tick.C:
			if !b.sync(0) {
				return
			}
		}
	}
}

// enter begins a call of the broker's interface. Each enter that returns nil
// is followed by b.calls.leave.
func (b *Broker) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !b.calls.enter() {
		return broker.ErrClosed
	}
	return nil
}

// calls counts the calls under way, so that Close can wait for them.
type calls struct {
	mu     sync.RWMutex
	closed bool
	count  sync.WaitGroup
}

func (c *calls) enter() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.closed {
		c.count.Add(1)
	}
	return !c.closed
}

func (c *calls) leave() { c.count.Done() }

// close refuses further calls; false if that was done before.
func (c *calls) close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.closed
	c.closed = true
	return !was
}

// wait returns when no call is under way.
func (c *calls) wait() { c.count.Wait() }

func held(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) || errors.Is(err, os.ErrExist)
}
