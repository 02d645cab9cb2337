package redis

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// answerWithin is how long a call waits in all, retries included.
const answerWithin = 1800 * time.Millisecond

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

// question is a script call that query runs.
type question struct {
	script *script
	keys   []string
	args   []any
}

// queryEach asks a question for each name in the name's bucket, many in a round
// trip, and returns the answers in the order of names.
func (b *Broker) queryEach(ctx context.Context, names []string, ask func(i, bucket int) question) ([][]any, error) {
	lists, _, err := b.queryReachable(ctx, names, ask)
	if err != nil {
		return nil, err
	}
	return lists, nil
}

// queryReachable is queryEach that returns also what it got in spite of an
// error; missing tells which answers it didn't get, nil for none.
func (b *Broker) queryReachable(ctx context.Context, names []string, ask func(i, bucket int) question) (lists [][]any, missing map[int]bool, err error) {
	if err := b.usable(ctx); err != nil {
		return nil, nil, err
	}
	byServer := make(map[*server][]int)
	for i, name := range names {
		srv := b.servers.bucket(bucketOf(name))
		byServer[srv] = append(byServer[srv], i)
	}
	lists = make([][]any, len(names))
	for srv, some := range byServer {
		n, failure := b.queryAt(ctx, srv, names, some, ask, lists)
		if failure == nil {
			continue
		}
		if err == nil {
			err, missing = failure, make(map[int]bool)
		}
		for _, i := range some[n:] {
			missing[i] = true
		}
	}
	return lists, missing, err
}

// queryAt asks for some of names at the server that has their buckets, and
// returns how many it answered before the first error.
func (b *Broker) queryAt(ctx context.Context, srv *server, names []string, some []int, ask func(i, bucket int) question, lists [][]any) (n int, err error) {
	for part := range slices.Chunk(some, maxStates) {
		answers := make([]*goredis.Cmd, len(part))
		_, _ = srv.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for j, i := range part {
				q := ask(i, bucketOf(names[i]))
				answers[j] = p.EvalSha(ctx, q.script.sha, q.keys, q.args...)
			}
			return nil
		})
		for j, i := range part {
			answer, err := answers[j].Result()
			if verdict, _ := judge(err); err != nil && verdict != done || err != nil && !errors.Is(err, goredis.Nil) {
				// Alone, wherever it is.
				bucket := bucketOf(names[i])
				q := ask(i, bucket)
				list, err := b.query(ctx, bucket, q.script, q.keys, q.args...)
				if err != nil {
					return n, err
				}
				answer = list
			}
			lists[i] = listOf(answer)
			n++
		}
	}
	return n, nil
}

// askEach sends a command to each bucket of a list, in one round trip per
// master. take gets the answers of the masters that could be asked, one at a
// time; the first error is returned.
func (b *Broker) askEach(ctx context.Context, list []int, ask func(ctx context.Context, p goredis.Pipeliner, i int) goredis.Cmder,
	take func(i int, answer goredis.Cmder)) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	byServer := make(map[*server][]int)
	for i, bucket := range list {
		srv := b.servers.bucket(bucket)
		byServer[srv] = append(byServer[srv], i)
	}
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	for srv, some := range byServer {
		wg.Go(func() {
			answers := make([]goredis.Cmder, len(some))
			_, err := srv.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
				for j, i := range some {
					answers[j] = ask(ctx, p, i)
				}
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil && !errors.Is(err, goredis.Nil) {
				b.servers.refresh()
				if first == nil {
					first = err
				}
				return
			}
			for j, i := range some {
				take(i, answers[j])
			}
		})
	}
	wg.Wait()
	return first
}

var allBuckets = func() (all []int) {
	for i := range buckets {
		all = append(all, i)
	}
	return all
}()
