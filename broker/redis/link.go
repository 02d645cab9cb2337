package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// call is one script call for a bucket. It belongs to whoever will finish it.
type call struct {
	bucket  int
	script  *script
	keys    []string
	args    []any
	fill    func() []any // makes args when the call is sent, if set
	durable bool         // counts for wait_replicas
	expires time.Time
	ask     bool // an ASK sent it here
	tries   int
	finish  func(answer any, err error)
	// batch is set for appends: what may join until the call is sent.
	batch *batch
}

// link is the one connection to a master that writes. Calls gather while a
// round trip is under way and share the next one.
//
// One connection, so that what is known of the master (its run id, the term)
// is surely known of the one that executes the call; see term.
type link struct {
	b      *Broker
	addr   string
	client *goredis.Client
	health health
	term   term

	mu      sync.Mutex
	queue   []*call
	joining map[string]*call // appends in queue, by channel
	closed  bool
	wake    chan struct{}
}

// term is an argument that stands for the master's run id. It takes its value
// when a command is written, that is after the connection was made and said
// whose it is: a pipeline put together before a reconnect must not carry the
// term of a master that is gone.
type term struct {
	id   atomic.Pointer[string]
	used atomic.Bool // since it was last set to false: something was written
}

// MarshalBinary returns the run id.
func (t *term) MarshalBinary() ([]byte, error) {
	if id := t.id.Load(); id != nil {
		t.used.Store(true)
		return []byte(*id), nil
	}
	return nil, fmt.Errorf("%w: run id is not known", errConnect)
}

func newLink(b *Broker, addr string) *link {
	l := &link{
		b: b, addr: addr, wake: make(chan struct{}, 1), joining: make(map[string]*call),
		health: health{log: b.log, what: "connection to redis at " + addr},
	}
	o := b.config.client(addr)
	o.PoolSize, o.MaxActiveConns = 1, 1
	o.OnConnect = l.greet
	l.client = goredis.NewClient(o)
	return l
}

// greet learns whose connection this is, and teaches it the scripts.
func (l *link) greet(ctx context.Context, cn *goredis.Conn) error {
	info, err := cn.Info(ctx, "server").Result()
	if err != nil {
		return fmt.Errorf("%w: %w", errConnect, err)
	}
	id := field(info, "run_id")
	if id == "" {
		return fmt.Errorf("%w: it does not tell its run_id", errConnect)
	}
	if err := load(ctx, cn); err != nil {
		return fmt.Errorf("%w: %w", errConnect, err)
	}
	l.term.id.Store(&id)
	return nil
}

// load teaches a server the scripts.
func load(ctx context.Context, c interface {
	Pipelined(context.Context, func(goredis.Pipeliner) error) ([]goredis.Cmder, error)
}) error {
	_, err := c.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for _, s := range scripts {
			p.ScriptLoad(ctx, s.text)
		}
		return nil
	})
	return err
}

// field is the value of name in what INFO returned.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// send queues c. What can't be done for sure is finished with an error.
func (l *link) send(c *call) {
	if err := l.health.refuse(); err != nil {
		c.finish(nil, err)
		return
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.b.again(c) // its bucket has moved
		return
	}
	l.queue = append(l.queue, c)
	l.mu.Unlock()
	l.nudge()
}

// join adds an append to one of the same channel that waits to be sent, or
// queues it as a call of its own, made by fresh.
func (l *link) join(channel string, w *waiter, fresh func() *call) {
	if err := l.health.refuse(); err != nil {
		w.done <- outcome{err: err}
		return
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.b.again(fresh())
		return
	}
	if c := l.joining[channel]; c != nil && c.batch.add(w) {
		c.expires = w.expires
		l.mu.Unlock()
		return
	}
	c := fresh()
	l.queue = append(l.queue, c)
	l.joining[channel] = c
	l.mu.Unlock()
	l.nudge()
}

func (l *link) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run sends what is queued until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		if d := l.health.wait(); d > 0 {
			if !sleep(ctx, d) {
				return
			}
		}
		if calls := l.take(); len(calls) > 0 {
			l.exchange(ctx, calls)
		}
	}
}

// most calls in one round trip.
const maxCalls = 1000

func (l *link) take() []*call {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.joining)
	calls := l.queue
	l.queue = nil
	if len(calls) > maxCalls {
		l.queue = append(l.queue, calls[maxCalls:]...)
		calls = calls[:maxCalls]
		l.nudge()
	}
	now := time.Now()
	live := calls[:0]
	for _, c := range calls {
		if now.After(c.expires) {
			c.finish(nil, l.expired())
			continue
		}
		live = append(live, c)
	}
	return live
}

func (l *link) expired() error {
	if err := l.health.cause(); err != nil {
		return err
	}
	return errors.New("no answer in time")
}

// exchange is one round trip.
func (l *link) exchange(ctx context.Context, calls []*call) {
	pipe := l.client.Pipeline()
	answers := make([]*goredis.Cmd, len(calls))
	durable := false
	for i, c := range calls {
		if c.ask {
			pipe.Do(ctx, "ASKING")
		}
		answers[i] = pipe.Do(ctx, c.command(&l.term)...)
		durable = durable || c.durable
	}
	var wait *goredis.Cmd
	if n := l.b.config.waitReplicas; n > 0 && durable {
		wait = pipe.Do(ctx, "WAIT", n, replicaTimeout.Milliseconds())
	}
	l.term.used.Store(false)
	began := time.Now()
	_, err := pipe.Exec(ctx)
	l.b.options.OnRoundTrip(time.Since(began), len(calls))
	verdict, _ := judge(err)
	failed := verdict == lost || verdict == unsent
	var before error // why nothing was written at all
	if failed && !l.term.used.Load() {
		before = fmt.Errorf("%w: %w", errConnect, err)
	}
	switch {
	case failed && ctx.Err() == nil:
		l.health.failed(err)
		l.b.servers.refresh()
	case !failed:
		l.health.worked()
	}
	var unsafe error
	if wait != nil {
		// An error too, that of a master demoted meanwhile above all: then the
		// calls were executed, but nobody may have them. It is told in words, so
		// that it is not taken for an answer that says they were not.
		if got, err := wait.Int(); err != nil {
			unsafe = fmt.Errorf("the replicas could not be waited for: %v", err)
		} else if got < l.b.config.waitReplicas {
			unsafe = fmt.Errorf("only %d of %d replicas have it", got, l.b.config.waitReplicas)
		}
	}
	unknown := false
	for i, c := range calls {
		answer, err := answers[i].Result()
		if err != nil && before != nil {
			err = before
		}
		if err == nil && c.durable && unsafe != nil {
			err = unsafe
		}
		unknown = l.settle(ctx, c, answer, err) || unknown
	}
	if unknown {
		if err := load(ctx, l.client); err != nil {
			l.b.log.Debug("load scripts", "error", err)
		}
		l.nudge()
	}
}

// replicaTimeout is how long an append waits for its replicas.
const replicaTimeout = time.Second

// command returns EVALSHA with its arguments; the term comes first.
func (c *call) command(t *term) []any {
	if c.fill != nil {
		c.args, c.fill = c.fill(), nil
	}
	args := make([]any, 0, 4+len(c.keys)+len(c.args))
	args = append(args, "EVALSHA", c.script.sha, len(c.keys))
	for _, k := range c.keys {
		args = append(args, k)
	}
	return append(append(args, t), c.args...)
}

// settle finishes c or sends it on, and returns whether the scripts must be
// loaded before it can succeed here.
func (l *link) settle(ctx context.Context, c *call, answer any, err error) bool {
	verdict, addr := judge(err)
	switch {
	case verdict == done, verdict == lost, ctx.Err() != nil, time.Now().After(c.expires),
		verdict == later && l.b.config.mode == standalone && c.tries > 3:
		if errors.Is(err, goredis.Nil) {
			err = nil
		}
		c.finish(answer, err)
	case verdict == reload:
		l.mu.Lock()
		l.queue = append(l.queue, c)
		l.mu.Unlock()
		c.tries++
		return true
	case verdict == elsewhere && c.tries < 3:
		c.tries++
		l.b.servers.moved(c.bucket, addr)
		l.b.again(c)
	case verdict == asking && c.tries < 3:
		c.tries++
		c.ask = true
		l.b.servers.at(addr).link.send(c)
	case verdict == unsent:
		// The link itself waits before it tries again.
		l.b.again(c)
	default:
		l.b.servers.refresh()
		c.tries++
		l.b.after(pause(c.tries), func() { l.b.again(c) })
	}
	return false
}

// close ends the link; what is still queued is sent on or refused.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	left := l.queue
	l.queue = nil
	clear(l.joining)
	l.mu.Unlock()
	for _, c := range left {
		l.b.again(c)
	}
	_ = l.client.Close()
}

// sleep waits for d and returns false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
