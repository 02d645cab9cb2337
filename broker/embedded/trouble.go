package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// trouble is what keeps the broker from its work: a full disk, until there is
// room again; a damaged one, for good.
type trouble struct {
	log  *slog.Logger
	down atomic.Pointer[outage]

	broken chan struct{} // closed once failed is set

	mu     sync.Mutex
	stuck  int   // writes that wait for room
	failed error // nothing will work until a restart
	noRoom error // while stuck > 0
	low    error // too little room is left to take more

	corrupt sync.Once // said so
}

// outage is the present state: began is closed while err is not nil.
type outage struct {
	began chan struct{}
	err   error
}

func (t *trouble) init(log *slog.Logger) {
	t.log, t.broken = log, make(chan struct{})
	t.down.Store(&outage{began: make(chan struct{})})
}

// now returns the present state, for calls to begin with and to watch.
func (t *trouble) now() *outage { return t.down.Load() }

// full notes that a write found no room; room follows it when it did.
func (t *trouble) full(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stuck++
	if t.stuck == 1 {
		t.log.Error("no room for the broker's data, waiting for some", "error", err)
		t.noRoom = fmt.Errorf("%w: no room for its data: %w", broker.ErrUnavailable, err)
		t.settleLocked()
	}
}

func (t *trouble) room() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stuck--
	if t.stuck == 0 {
		t.log.Info("there is room for the broker's data again")
		t.noRoom = nil
		t.settleLocked()
	}
}

// lowOn notes that too little room is left, or with nil that enough is.
func (t *trouble) lowOn(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case (err == nil) == (t.low == nil):
		return
	case err == nil:
		t.low = nil
		t.log.Info("there is enough room for the broker's data again")
	default:
		t.low = fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
		t.log.Error("appends are refused", "error", err)
	}
	t.settleLocked()
}

// fail notes what only a restart can mend.
func (t *trouble) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return
	}
	t.log.Error("the broker's store failed, a restart is needed", "error", err)
	t.failed = fmt.Errorf("%w: its store failed, a restart is needed: %w", broker.ErrUnavailable, err)
	close(t.broken)
	t.settleLocked()
}

// Broken is closed once the broker can't go on: only a restart helps, and Err
// says why.
func (b *Broker) Broken() <-chan struct{} { return b.trouble.broken }

// Err returns what only a restart can mend, nil if there is nothing.
func (b *Broker) Err() error { return b.trouble.fatal() }

// fatal returns what only a restart can mend, nil if there is nothing.
func (t *trouble) fatal() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// settleLocked makes the worst there is the present state.
func (t *trouble) settleLocked() {
	was, next := t.down.Load(), outage{err: cmp.Or(t.failed, t.noRoom, t.low)}
	next.began = was.began
	if was.err != nil && next.err == nil {
		next.began = make(chan struct{})
	}
	t.down.Store(&next)
	if was.err == nil && next.err != nil {
		close(was.began)
	}
}

// background is told of flushes and compactions that failed. Pebble would try
// them again and again, and stop taking writes in the end.
func (t *trouble) background(err error) {
	switch {
	case errors.Is(err, pebble.ErrCancelledCompaction) || noRoom(err):
	case errors.Is(err, pebble.ErrCorruption):
		t.corrupt.Do(func() { t.log.Error("the broker's store is damaged", "error", err) })
	default:
		t.fail(fmt.Errorf("tidy up: %w", err))
	}
}

// logger takes pebble's messages. All but errors are of no use to an operator.
type logger struct{ *trouble }

func (l logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	l.log.Error("the broker's store", "error", fmt.Sprintf(format, args...))
}

// Fatalf is where pebble expects the process to end; it must not return. The
// broker then answers that it is unavailable and the rest of the process can
// end in order: a commit panics, for guard to recover; of anything else the
// goroutine ends, which is pebble's own, or one that orBroken waits for no more.
func (l logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.fail(err)
	if strings.HasPrefix(format, "pebble: fatal commit error") {
		panic(err)
	}
	runtime.Goexit()
}

// guard calls what is pebble's, which panics where it doesn't know what to do with
// an error: then only a restart helps.
func (t *trouble) guard(call func() error) error {
	panicked, err := recovered(call)
	if panicked {
		t.fail(fmt.Errorf("the store gave up: %w", err))
		return t.fatal()
	}
	return err
}

// recovered makes an error of a panic.
func recovered(call func() error) (panicked bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			panicked, err = true, fmt.Errorf("panic: %v", r)
			if e, ok := r.(error); ok {
				err = e
			}
		}
	}()
	return false, call()
}

// apply commits a batch. All writes to the store are made by it. Whether the disk
// failed meanwhile pebble doesn't know: see disk.
func (b *Broker) apply(batch *pebble.Batch, o *pebble.WriteOptions) error {
	if err := b.trouble.fatal(); err != nil {
		return err
	}
	err := b.trouble.guard(func() error { return batch.Commit(o) })
	return cmp.Or(b.trouble.fatal(), err)
}

// errOr returns what is wrong, or other if that has passed meanwhile.
func (o *outage) errOr(other error) error { return cmp.Or(o.err, other) }
