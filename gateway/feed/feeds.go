package feed

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/guard"
)

// Broker is what feeds need of one.
type Broker interface {
	broker.Tail
	State(ctx context.Context, channel string) (broker.State, error)
	Read(ctx context.Context, channel string, offset uint64, limit broker.Limit) (broker.Page, error)
}

// Options of New. Zero values take the defaults.
type Options struct {
	Broker Broker
	Logger *slog.Logger // slog.Default()
	Guard  *guard.Guard // notes panics; may be nil
	// A ring holds at most RingEvents (1,024) events of RingBytes (1 MiB) in
	// all, none appended much longer than RingAge (10 s) ago: who is further
	// behind reads the log. All rings together hold about TotalBytes (256 MiB).
	RingEvents int
	RingBytes  int
	RingAge    time.Duration
	TotalBytes int64
	// CacheBytes (32 MiB) bounds the pages of logs kept for those who catch up.
	CacheBytes int64
	// Reads (16) is how many reads of logs may be under way at once.
	Reads int64
	// OnCorrupt is called once for each stored event that can't be read; it must
	// not block. nil: nobody counts.
	OnCorrupt func()
	// Linger (10 s) is how long a feed stays open after its last session.
	Linger time.Duration
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.RingEvents == 0 {
		o.RingEvents = 1024
	}
	if o.RingBytes == 0 {
		o.RingBytes = 1 << 20
	}
	if o.RingAge == 0 {
		o.RingAge = 10 * time.Second
	}
	if o.TotalBytes == 0 {
		o.TotalBytes = 256 << 20
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.Reads == 0 {
		o.Reads = 16
	}
	if o.OnCorrupt == nil {
		o.OnCorrupt = func() {}
	}
	if o.Linger == 0 {
		o.Linger = 10 * time.Second
	}
	return o
}

// Feeds are a node's feeds. All methods may be called by any goroutine.
type Feeds struct {
	opts   Options
	logger *slog.Logger
	ready  *Ready
	reads  *semaphore.Weighted
	pages  *pages

	ringBytes atomic.Int64
	corrupt   corruption

	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	feeds  map[string]*Feed
	unused map[*Feed]time.Time // since when

	warmMu sync.Mutex // locked after a feed's mu
	warm   map[*Feed]struct{}

	wait sync.WaitGroup
}

// New makes a node's feeds, which wake their members by ready. Close ends them.
func New(opts Options, ready *Ready) *Feeds {
	opts = opts.withDefaults()
	fs := &Feeds{
		opts: opts, logger: opts.Logger, ready: ready,
		reads: semaphore.NewWeighted(opts.Reads), pages: newPages(opts.CacheBytes),
		feeds: make(map[string]*Feed), unused: make(map[*Feed]time.Time), warm: make(map[*Feed]struct{}),
	}
	fs.ctx, fs.cancel = context.WithCancel(context.Background())
	fs.wait.Go(fs.clean)
	return fs
}

// Close unfollows everything and waits for what is under way.
func (fs *Feeds) Close() {
	fs.mu.Lock()
	fs.closed = true
	open := fs.feeds
	fs.feeds = nil
	fs.mu.Unlock()
	fs.cancel()
	for channel, f := range open {
		fs.opts.Broker.Unfollow(channel, f)
	}
	fs.wait.Wait()
}

// Count returns how many feeds are open and the bytes in their rings.
func (fs *Feeds) Count() (open int, ringBytes int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.feeds), fs.ringBytes.Load()
}

const followTimeout = 5 * time.Second

// Open returns the channel's feed, following it first if nobody does. Each
// Open needs a Release.
func (fs *Feeds) Open(ctx context.Context, channel string) (*Feed, error) {
	fs.mu.Lock()
	if fs.closed {
		fs.mu.Unlock()
		return nil, broker.ErrClosed
	}
	f, ok := fs.feeds[channel]
	if ok {
		if f.refs++; f.refs == 1 {
			delete(fs.unused, f)
		}
		opened := f.opened
		fs.mu.Unlock()
		if opened != nil {
			select {
			case <-opened:
			case <-ctx.Done():
				f.Release()
				return nil, ctx.Err()
			}
		}
		if f.openErr != nil {
			return nil, f.openErr
		}
		return f, nil
	}
	f = &Feed{feeds: fs, channel: channel, refs: 1, opened: make(chan struct{})}
	fs.feeds[channel] = f
	fs.mu.Unlock()

	// Others may be waiting for it, so it doesn't end with who came first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), followTimeout)
	defer cancel()
	state, err := fs.opts.Broker.Follow(ctx, channel, f)
	if err == nil { // before anybody sees it
		f.mu.Lock()
		f.state, f.live = state, true
		if f.stale {
			f.syncLocked() // something was announced before the state was known
		}
		f.mu.Unlock()
	}
	fs.mu.Lock()
	close(f.opened)
	f.opened = nil
	if err != nil {
		f.openErr = fmt.Errorf("follow %s: %w", channel, err)
		if fs.feeds[channel] == f {
			delete(fs.feeds, channel)
		}
	}
	fs.mu.Unlock()
	if err != nil {
		return nil, f.openErr
	}
	return f, nil
}

// Release gives the feed back.
func (f *Feed) Release() {
	fs := f.feeds
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.refs--; f.refs == 0 && f.openErr == nil && !fs.closed {
		fs.unused[f] = time.Now()
	}
}

// Members returns how many members a channel's feed has on this node: sessions,
// callbacks' workers, those who pull, the node's own readers.
func (fs *Feeds) Members(channel string) int {
	fs.mu.Lock()
	f := fs.feeds[channel]
	fs.mu.Unlock()
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.members)
}

// spawn runs a function in a goroutine that Close waits for, unless the feeds
// are closed.
func (fs *Feeds) spawn(run func(context.Context)) bool {
	if fs.ctx.Err() != nil {
		return false
	}
	fs.wait.Go(func() { run(fs.ctx) })
	return true
}

// warmLocked notes whether the feed has a ring to be trimmed; f.mu is held.
func (fs *Feeds) warmLocked(f *Feed, warm bool) {
	fs.warmMu.Lock()
	defer fs.warmMu.Unlock()
	if f.warm = warm; warm {
		fs.warm[f] = struct{}{}
	} else {
		delete(fs.warm, f)
	}
}

// clean closes unused feeds and drops what has become old in the rings.
func (fs *Feeds) clean() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for second := 0; ; {
		select {
		case <-fs.ctx.Done():
			return
		case <-tick.C:
		}
		second++
		fs.opts.Guard.Do("clean", func() { fs.cleanOnce(second, time.Now()) })
	}
}

func (fs *Feeds) cleanOnce(second int, now time.Time) {
	// Looking at thousands of rings costs, so it is not done each second while
	// there is room.
	if second%5 == 0 || fs.ringBytes.Load() > fs.opts.TotalBytes {
		fs.trimRings(now)
	}
	fs.pages.forget()
	fs.closeUnused(now)
}

func (fs *Feeds) trimRings(now time.Time) {
	age := fs.opts.RingAge
	if over := fs.ringBytes.Load(); over > fs.opts.TotalBytes {
		// As much younger as it takes: rings fill evenly enough for that.
		age = time.Duration(float64(age) * float64(fs.opts.TotalBytes) / float64(over) / 2)
	}
	fs.warmMu.Lock()
	warm := make([]*Feed, 0, len(fs.warm))
	for f := range fs.warm {
		warm = append(warm, f)
	}
	fs.warmMu.Unlock()
	for _, f := range warm {
		f.trim(now.Add(-age))
	}
}

func (fs *Feeds) closeUnused(now time.Time) {
	var old []*Feed
	fs.mu.Lock()
	for f, since := range fs.unused {
		if now.Sub(since) >= fs.opts.Linger {
			delete(fs.unused, f)
			delete(fs.feeds, f.channel)
			old = append(old, f)
		}
	}
	fs.mu.Unlock()
	for _, f := range old {
		fs.opts.Broker.Unfollow(f.channel, f)
		f.trim(now.Add(time.Hour))
	}
}

// backoff waits longer each time, with full jitter.
type backoff struct{ most time.Duration }

func newBackoff() *backoff { return &backoff{most: 50 * time.Millisecond} }

// wait returns false if ctx ended first.
func (b *backoff) wait(ctx context.Context) bool {
	timer := time.NewTimer(rand.N(b.most))
	defer timer.Stop()
	b.most = min(2*b.most, 2*time.Second)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
