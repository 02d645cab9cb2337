package redis

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// answerWithin is how long a call waits in all, retries included.
const answerWithin = 1800 * time.Millisecond

const (
	// carry is how many bytes of events an announcement carries; beyond them
	// it is a hint.
	carry = 64 << 10
	// What appends to one channel that share a script call may come to.
	mostJoined      = 500
	mostJoinedBytes = 1 << 20
)

// batch is the appends to one channel that share a script call.
type batch struct {
	events, bytes int
	identities    bool
	waiters       []*waiter
}

// waiter is one Append.
type waiter struct {
	entries []broker.Entry
	bytes   int
	named   bool // some entry has an identity
	expires time.Time
	done    chan outcome // takes one outcome
}

type outcome struct {
	places []broker.Appended
	err    error
}

// add lets w share the call if there is room. A call's keys depend on whether
// there are identities, so those with and those without don't mix.
func (b *batch) add(w *waiter) bool {
	if b.identities != w.named || b.events+len(w.entries) > mostJoined || b.bytes+w.bytes > mostJoinedBytes {
		return false
	}
	b.events, b.bytes = b.events+len(w.entries), b.bytes+w.bytes
	b.waiters = append(b.waiters, w)
	return true
}

// Append implements broker.Log.
func (b *Broker) Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error) {
	verb := "append to " + channel
	if err := b.usable(ctx); err != nil {
		return nil, unavailable(verb, err)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	w := &waiter{entries: entries, expires: time.Now().Add(answerWithin), done: make(chan outcome, 1)}
	for _, e := range entries {
		w.bytes += len(e.Data)
		w.named = w.named || e.Identity != ""
	}
	bucket := bucketOf(channel)
	b.servers.bucket(bucket).link.join(channel, w, func() *call { return b.newAppend(bucket, channel, w) })

	timer := time.NewTimer(answerWithin)
	defer timer.Stop()
	select {
	case o := <-w.done:
		if o.err != nil {
			return nil, unavailable(verb, o.err)
		}
		return o.places, nil
	case <-ctx.Done():
		return nil, unavailable(verb, ctx.Err())
	case <-b.ctx.Done():
		return nil, unavailable(verb, broker.ErrClosed)
	case <-timer.C:
		return nil, unavailable(verb, b.servers.bucket(bucket).link.expired())
	}
}

func (b *Broker) newAppend(bucket int, channel string, w *waiter) *call {
	joint := &batch{identities: w.named, events: len(w.entries), bytes: w.bytes, waiters: []*waiter{w}}
	keys := b.keys.logKeys(bucket, channel)
	if w.named {
		ids := b.keys.ids(bucket, channel)
		keys = append(keys, ids[0], ids[1])
	}
	c := &call{bucket: bucket, script: appendScript, keys: keys, durable: true, expires: w.expires, batch: joint}
	c.finish = joint.finish
	c.fill = func() []any { return b.appendArgs(bucket, channel, joint) }
	return c
}

func (b *Broker) appendArgs(bucket int, channel string, joint *batch) []any {
	keep := "1"
	if b.options.Retention(channel).None {
		keep = "0"
	}
	args := make([]any, 0, 9+2*joint.events)
	args = append(args, newEpoch(), b.keys.topic(bucket, channel), b.publish, channel, keep,
		b.options.DedupeWindow.Milliseconds(), carry, b.clock(), b.keys.dueTopic(bucket))
	for _, w := range joint.waiters {
		for _, e := range w.entries {
			args = append(args, identity(e.Identity), e.Data)
		}
	}
	return args
}

// clock is the time to give to a script: "" for the server's own.
func (b *Broker) clock() any {
	if b.options.Now == nil {
		return ""
	}
	return b.options.Now().UnixMilli()
}

// identity is what is kept of an identity: 12 bytes of its SHA-256, so that
// none takes more room than another and two are never taken for one.
func identity(s string) []byte {
	if s == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(s))
	return sum[:12]
}

// finish tells each waiter where its events are.
func (b *batch) finish(answer any, err error) {
	var list []any
	if err == nil {
		list, _ = answer.([]any)
		if len(list) != 1+b.count() {
			err = fmt.Errorf("unexpected answer of %d elements", len(list))
		}
	}
	if err != nil {
		for _, w := range b.waiters {
			w.done <- outcome{err: err}
		}
		return
	}
	epoch, _ := list[0].(string)
	list = list[1:]
	for _, w := range b.waiters {
		places := make([]broker.Appended, len(w.entries))
		for i := range places {
			n, _ := list[i].(int64)
			places[i] = broker.Appended{Epoch: epoch, Offset: uint64(max(n, -n)), Duplicate: n < 0}
		}
		list = list[len(places):]
		w.done <- outcome{places: places}
	}
}

func (b *batch) count() int {
	n := 0
	for _, w := range b.waiters {
		n += len(w.entries)
	}
	return n
}

// Read implements broker.Log.
func (b *Broker) Read(ctx context.Context, channel string, offset uint64, limit broker.Limit) (broker.Page, error) {
	verb := "read " + channel
	limit = limit.WithDefaults()
	bucket := bucketOf(channel)
	const most = 1 << 53 // Lua's numbers
	list, err := b.query(ctx, bucket, readScript, []string{b.keys.meta(bucket, channel), b.keys.log(bucket, channel)},
		min(offset, most-1), limit.Events, limit.Bytes)
	if err != nil {
		return broker.Page{}, unavailable(verb, err)
	}
	if len(list) < 6 {
		return broker.Page{}, fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	page := broker.Page{State: stateOf(list)}
	first := uintOf(list[5])
	rest := list[6:]
	page.Items = make([]broker.Item, len(rest)/2)
	for i := range page.Items {
		data, _ := rest[2*i+1].(string)
		page.Items[i] = broker.Item{
			Offset: first + uint64(i), Time: time.UnixMilli(int64(uintOf(rest[2*i]))), Data: []byte(data),
		}
	}
	return page, nil
}

// State implements broker.Log.
func (b *Broker) State(ctx context.Context, channel string) (broker.State, error) {
	verb := "state of " + channel
	bucket := bucketOf(channel)
	list, err := b.query(ctx, bucket, stateScript, b.stateKeys(bucket, channel))
	if err != nil {
		return broker.State{}, unavailable(verb, err)
	}
	s := stateOf(list)
	if s.Epoch == "" {
		return s, fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	return s, nil
}

func (b *Broker) stateKeys(bucket int, channel string) []string {
	return []string{b.keys.meta(bucket, channel), b.keys.counter(bucket), b.keys.changed(bucket)}
}

// OffsetAt implements broker.Log.
func (b *Broker) OffsetAt(ctx context.Context, channel string, t time.Time) (uint64, error) {
	verb := "find a time in " + channel
	bucket := bucketOf(channel)
	// An event's time is whole milliseconds: before t means before t rounded up.
	ms := t.Add(time.Millisecond - time.Nanosecond).UnixMilli()
	list, err := b.query(ctx, bucket, atScript, []string{b.keys.meta(bucket, channel), b.keys.log(bucket, channel)}, ms)
	if err != nil {
		return 0, unavailable(verb, err)
	}
	if len(list) == 0 {
		return 0, fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	return uintOf(list[0]), nil
}

// Channels implements broker.Log.
func (b *Broker) Channels(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	names, err := b.listNames(ctx, b.keys.names, prefix, after, limit)
	if err != nil {
		return nil, unavailable("list channels", err)
	}
	return names, nil
}

// listNames pages through names that are kept in a sorted set per bucket.
func (b *Broker) listNames(ctx context.Context, key func(bucket int) string, prefix, after string, limit int) ([]string, error) {
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	from := "[" + prefix
	if after >= prefix {
		from = "(" + after
	}
	to := "+"
	if prefix != "" {
		to = "(" + prefix + "\xff"
	}
	var mu sync.Mutex
	var names []string
	err := b.eachServer(ctx, func(ctx context.Context, s *server, owned []int) error {
		var pages []*goredis.StringSliceCmd
		_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, bucket := range owned {
				pages = append(pages, p.ZRangeByLex(ctx, key(bucket),
					&goredis.ZRangeBy{Min: from, Max: to, Count: int64(limit)}))
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
		return nil, err
	}
	slices.Sort(names)
	return names[:min(limit, len(names))], nil
}

// Drop implements broker.Log.
func (b *Broker) Drop(ctx context.Context, channel string) error {
	verb := "drop " + channel
	bucket := bucketOf(channel)
	ids := b.keys.ids(bucket, channel)
	list, err := b.query(ctx, bucket, dropScript, append(b.keys.logKeys(bucket, channel), ids[0], ids[1]),
		b.keys.topic(bucket, channel), b.publish, channel, b.keys.dueTopic(bucket))
	if err != nil {
		return unavailable(verb, err)
	}
	if len(list) == 0 {
		return fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	return nil
}

// usable returns why a call can't even begin.
func (b *Broker) usable(ctx context.Context) error {
	if b.ctx.Err() != nil {
		return broker.ErrClosed
	}
	return ctx.Err()
}

// do runs a script that writes through the bucket's link. Its first argument
// is the term.
func (b *Broker) do(ctx context.Context, bucket int, s *script, keys []string, args ...any) ([]any, error) {
	return b.doAs(ctx, false, bucket, s, keys, args...)
}

// doAs is do, which returns only once it is durable if that is asked for.
func (b *Broker) doAs(ctx context.Context, durable bool, bucket int, s *script, keys []string, args ...any) ([]any, error) {
	var list []any
	err := b.doEach(ctx, 1, func(int) *call {
		return &call{bucket: bucket, script: s, keys: keys, args: args, durable: durable}
	}, func(_ int, answer any) { list = listOf(answer) })
	return list, err
}

// doEach sends n calls at once and waits for all; each takes the answers of
// those that succeeded, one at a time. The first error is returned.
func (b *Broker) doEach(ctx context.Context, n int, prepare func(i int) *call, each func(i int, answer any)) error {
	if err := b.usable(ctx); err != nil || n == 0 {
		return err
	}
	type result struct {
		i      int
		answer any
		err    error
	}
	ended := make(chan result, n)
	expires := time.Now().Add(answerWithin)
	var l *link
	for i := range n {
		c := prepare(i)
		c.expires = expires
		c.finish = func(answer any, err error) { ended <- result{i, answer, err} }
		l = b.servers.bucket(c.bucket).link
		l.send(c)
	}
	timer := time.NewTimer(answerWithin)
	defer timer.Stop()
	var first error
	for range n {
		select {
		case r := <-ended:
			switch {
			case r.err != nil && first == nil:
				first = r.err
			case r.err == nil && each != nil:
				each(r.i, r.answer)
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-b.ctx.Done():
			return broker.ErrClosed
		case <-timer.C:
			return l.expired()
		}
	}
	return first
}

// query runs a script at a bucket's master, on any connection, following the
// bucket where it goes. Scripts run so may be run twice.
func (b *Broker) query(ctx context.Context, bucket int, s *script, keys []string, args ...any) ([]any, error) {
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	whole, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	srv, ask := b.servers.bucket(bucket), false
	for try := 1; ; try++ {
		answer, err := evaluate(whole, srv.client, ask, s, keys, args)
		verdict, addr := judge(err)
		if b.ctx.Err() != nil {
			return nil, broker.ErrClosed
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if verdict == done || whole.Err() != nil || try > 3 && b.config.mode == standalone {
			if errors.Is(err, goredis.Nil) {
				return nil, nil
			}
			return listOf(answer), err
		}
		ask = false
		switch verdict {
		case reload:
			if err := load(whole, srv.client); err != nil {
				return nil, err
			}
			continue
		case asking:
			srv, ask = b.servers.at(addr), true
			continue
		case elsewhere:
			b.servers.moved(bucket, addr)
		default:
			b.servers.refresh()
			sleep(whole, pause(try))
		}
		srv = b.servers.bucket(bucket)
	}
}

func evaluate(ctx context.Context, c *goredis.Client, ask bool, s *script, keys []string, args []any) (any, error) {
	if !ask {
		return c.EvalSha(ctx, s.sha, keys, args...).Result()
	}
	var answer *goredis.Cmd
	_, _ = c.Pipelined(ctx, func(p goredis.Pipeliner) error {
		p.Do(ctx, "ASKING")
		answer = p.EvalSha(ctx, s.sha, keys, args...)
		return nil
	})
	return answer.Result()
}

// eachServer calls f for each master and its buckets, all at once, and returns
// the first error.
func (b *Broker) eachServer(ctx context.Context, f func(context.Context, *server, []int) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	masters := b.servers.each()
	errs := make(chan error, len(masters))
	for s, owned := range masters {
		go func() { errs <- f(ctx, s, owned) }()
	}
	var first error
	for range masters {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func listOf(answer any) []any {
	switch a := answer.(type) {
	case nil:
		return nil
	case []any:
		return a
	default:
		return []any{a}
	}
}

func uintOf(v any) uint64 {
	switch v := v.(type) {
	case int64:
		return uint64(v)
	case string:
		n, _ := strconv.ParseUint(v, 10, 64)
		return n
	}
	return 0
}

// stateOf reads epoch, first, head, bytes and forks.
func stateOf(list []any) broker.State {
	if len(list) < 5 {
		return broker.State{}
	}
	epoch, _ := list[0].(string)
	s := broker.State{Epoch: epoch, First: uintOf(list[1]), Head: uintOf(list[2]), Bytes: int64(uintOf(list[3]))}
	if forks, _ := list[4].(string); forks != "" {
		for fork := range strings.SplitSeq(forks, ",") {
			epoch, head, _ := strings.Cut(fork, ":")
			s.Forks = append(s.Forks, broker.Fork{Epoch: epoch, Head: uintOf(head)})
		}
	}
	return s
}
