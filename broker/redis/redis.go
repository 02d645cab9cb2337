// Package redis is a broker on Redis 6.2 or later: standalone, watched by
// Sentinel, or as a Cluster (7.0 or later).
//
// A channel's log is a stream, its announcements a pub/sub topic, and what must
// be atomic a Lua script. Channels are divided into 256 buckets, each in one
// slot; every call concerns one bucket and goes to that bucket's master:
//
//	Append, Follow ─→ link: one writing connection per master; calls gather
//	Read, State, … ─→ pool of connections per master
//	announcements ←─ subscription: one connection per master, all topics
//	look ─→ what changed since? per bucket, every 800 ms: what pub/sub lost
package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// Options of a Redis broker.
type Options struct {
	broker.Options // Now nil: the servers' own clock
	// Logger is told when a connection is lost or back, not how often it was
	// tried. nil: nothing is logged.
	Logger *slog.Logger
	// OnRoundTrip is told of each round trip of a connection that writes: how long
	// it took and how many calls shared it. It must not block. nil: nobody is told.
	OnRoundTrip func(took time.Duration, calls int)
	// StartWithin is how long Open waits for servers that can't be reached yet
	// or are loading. 0: 10 s.
	StartWithin time.Duration
	// LookEvery is how often followed channels are compared with what was
	// announced. 0: 800 ms.
	LookEvery time.Duration
	// TrimEvery is how long a round of retention through all channels takes; one
	// node at a time makes them. 0: 60 s; negative: this one makes none.
	TrimEvery time.Duration
}

// Broker keeps logs on Redis. All methods may be called by many goroutines at
// once.
type Broker struct {
	config  config
	options Options
	log     *slog.Logger
	keys    *keyspace
	publish string // PUBLISH or SPUBLISH
	servers *servers
	tail    *tail
	janitor *janitor
	leases  [copies]int // buckets: see lease.go

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup
	once sync.Once

	mu      sync.Mutex
	closed  bool
	waiting map[*time.Timer]struct{} // set by after
}

var (
	_ broker.Log  = (*Broker)(nil)
	_ broker.Tail = (*Broker)(nil)
)

// Open connects to the servers that the URL names:
//
//	redis://[user:password@]host[:port][/db], rediss:// for TLS
//	redis+sentinel://host1,host2/master[/db]
//	redis+cluster://host1,host2
//
// with the options ?prefix= (of keys), pool_size=, wait_replicas= (an append
// succeeds only once so many replicas have it), tls_ca=, insecure_skip_verify=,
// sentinel_username= and sentinel_password=. The error is one line that says
// what is wrong.
func Open(ctx context.Context, url string, o Options) (*Broker, error) {
	c, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	quietLibrary()
	now := o.Now
	o.Options = o.Options.WithDefaults()
	o.Now = now
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnRoundTrip == nil {
		o.OnRoundTrip = func(time.Duration, int) {}
	}
	if o.StartWithin == 0 {
		o.StartWithin = 10 * time.Second
	}
	if o.LookEvery == 0 {
		o.LookEvery = 800 * time.Millisecond
	}
	if o.TrimEvery == 0 {
		o.TrimEvery = time.Minute
	}
	b := &Broker{config: c, options: o, log: o.Logger, keys: newKeyspace(c.prefix, c.db), publish: "PUBLISH",
		waiting: make(map[*time.Timer]struct{})}
	if c.mode == cluster {
		b.publish = "SPUBLISH"
	}
	b.leases = b.keys.leaseBuckets()
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.tail, b.janitor = newTail(b), newJanitor(b)
	b.servers = newServers(b)
	err = b.start(ctx)
	if err == nil {
		err = b.settleFormat(ctx)
	}
	if err != nil {
		_ = b.Close()
		return nil, err
	}
	b.wg.Go(func() { b.servers.run(b.ctx) })
	b.wg.Go(func() { b.tail.look(b.ctx) })
	if o.TrimEvery > 0 {
		b.wg.Go(func() { b.janitor.run(b.ctx, o.TrimEvery) })
	}
	return b, nil
}

// start finds the masters and checks that they are what we can work with.
func (b *Broker) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.options.StartWithin)
	defer cancel()
	for try := 0; ; try++ {
		at, err := b.servers.discover(ctx)
		if err == nil {
			b.servers.arrange(at)
			err = b.check(ctx)
		}
		if err == nil {
			return nil
		}
		var wait errWait
		if !errors.As(err, &wait) && !isDial(err) {
			return err
		}
		if !sleep(ctx, pause(try+3)) {
			return err
		}
	}
}

// errWait is an error that may pass by waiting.
type errWait struct{ error }

func (e errWait) Unwrap() error { return e.error }

func (b *Broker) check(ctx context.Context) error {
	for s := range b.servers.each() {
		if s == nil {
			return errWait{errors.New("redis cluster: some slots are served by nobody")}
		}
		if err := b.checkServer(ctx, s); err != nil {
			return fmt.Errorf("redis at %s: %w", s.addr, err)
		}
	}
	return nil
}

func (b *Broker) checkServer(ctx context.Context, s *server) error {
	info, err := s.client.Info(ctx, "server").Result()
	var said goredis.Error
	var timeout net.Error
	switch {
	case err == nil:
	case errors.As(err, &said):
		text := said.Error()
		if strings.HasPrefix(text, "LOADING") || strings.HasPrefix(text, "MASTERDOWN") {
			return errWait{said}
		}
		if strings.HasPrefix(text, "ERR") {
			return fmt.Errorf("does not take INFO; is that a Redis? (%w)", said)
		}
		return said
	case isDial(err):
		return err
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer; is that a Redis?")
	case errors.Is(err, io.EOF), errors.As(err, &timeout):
		return fmt.Errorf("hangs up; is that a Redis? (%w)", err)
	default:
		return fmt.Errorf("is that a Redis? (%w)", err)
	}
	version := field(info, "redis_version")
	if version == "" {
		return errors.New("does not tell its version; is that a Redis?")
	}
	if b.config.mode == cluster && !atLeast(version, 7, 0) {
		return fmt.Errorf("version %s is too old: a cluster needs 7.0 or later", version)
	}
	if !atLeast(version, 6, 2) {
		return fmt.Errorf("version %s is too old: want 6.2 or later", version)
	}
	switch isCluster := field(info, "redis_mode") == "cluster"; {
	case isCluster && b.config.mode != cluster:
		return errors.New("belongs to a cluster: want redis+cluster://")
	case !isCluster && b.config.mode == cluster:
		return errors.New("does not belong to a cluster: want redis://")
	case field(info, "redis_mode") == "sentinel":
		return errors.New("is a sentinel: want redis+sentinel://host/master")
	}
	if memory, err := s.client.Info(ctx, "memory").Result(); err == nil {
		policy := field(memory, "maxmemory_policy")
		if policy != "" && policy != "noeviction" && field(memory, "maxmemory") != "0" {
			b.log.Warn("redis may evict events: set maxmemory-policy noeviction", "server", s.addr, "policy", policy)
		}
	}
	return nil
}

func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	gotMajor, _ := strconv.Atoi(parts[0])
	gotMinor, _ := strconv.Atoi(parts[1])
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

// Close ends all connections. What is under way fails with ErrClosed.
func (b *Broker) Close() error {
	b.once.Do(func() {
		b.mu.Lock()
		b.closed = true
		for t := range b.waiting {
			if t.Stop() {
				b.wg.Done()
			}
		}
		b.mu.Unlock()
		b.stop()
		b.servers.close()
		b.wg.Wait()
	})
	return nil
}

// after calls f in d unless the broker is closed before.
func (b *Broker) after(d time.Duration, f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return // whoever waits learns it from the broker's context
	}
	b.wg.Add(1)
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		defer b.wg.Done()
		b.mu.Lock()
		delete(b.waiting, t)
		b.mu.Unlock()
		f()
	})
	b.waiting[t] = struct{}{}
}

// again sends c to where its bucket is now.
func (b *Broker) again(c *call) {
	if b.ctx.Err() != nil {
		c.finish(nil, broker.ErrClosed)
		return
	}
	c.ask = false
	b.servers.bucket(c.bucket).link.send(c)
}

var quietLibrary = sync.OnceFunc(func() { goredis.SetLogger(quiet{}) })

// quiet drops what the library has to say: errors reach us as errors.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// newEpoch is eight random characters.
func newEpoch() string {
	const many = 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36
	s := strconv.FormatUint(rand.Uint64N(many), 36)
	return strings.Repeat("0", 8-len(s)) + s
}
