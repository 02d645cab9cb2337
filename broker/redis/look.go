package redis

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// grace is how long an announcement may be on its way when look already sees
// the change.
const grace = 60 * time.Millisecond

// look asks every bucket that has followers what changed, and tells followers
// of what no announcement came for. Its cost goes with what changed, not with
// what is followed: one command per bucket.
func (t *tail) look(ctx context.Context) {
	for sleep(ctx, t.b.options.LookEvery-t.b.options.LookEvery/8+jitter(t.b.options.LookEvery/8)) {
		var wg sync.WaitGroup
		for srv, owned := range t.b.servers.each() {
			wg.Go(func() { t.lookAt(ctx, srv, owned) })
		}
		wg.Wait()
	}
}

// change is what look finds of a bucket.
type change struct {
	bucket int
	from   uint64
	reply  *goredis.SliceCmd
}

func (t *tail) lookAt(ctx context.Context, srv *server, owned []int) {
	var changes []change
	t.mu.RLock()
	for _, b := range owned {
		if w := &t.buckets[b]; len(w.followed) > 0 && w.name != "" {
			changes = append(changes, change{bucket: b, from: w.seq})
		}
	}
	t.mu.RUnlock()
	if len(changes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := srv.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, c := range changes {
			cmd := goredis.NewSliceCmd(ctx, "ZRANGEBYSCORE", t.b.keys.changed(c.bucket),
				"("+strconv.FormatUint(c.from, 10), "+inf", "WITHSCORES")
			changes[i].reply = cmd
			_ = p.Process(ctx, cmd)
		}
		return nil
	})
	if err != nil {
		t.b.servers.refresh()
	}
	var late []*followed
	for _, c := range changes {
		if list, err := c.reply.Result(); err == nil {
			late = append(late, t.compare(c, list)...)
		}
	}
	if len(late) == 0 || !sleep(ctx, grace) {
		return
	}
	still := late[:0]
	for _, e := range late {
		if e.heard.Load() < e.due {
			still = append(still, e)
		}
	}
	t.resync(ctx, still)
}

// compare notes what changed and returns the channels of which that was not
// heard yet.
func (t *tail) compare(c change, list []any) (late []*followed) {
	name, seq := "", c.from
	t.mu.Lock()
	defer t.mu.Unlock()
	w := &t.buckets[c.bucket]
	if w.seq != c.from {
		return nil // something else was found meanwhile
	}
	for i := 0; i+1 < len(list); i += 2 {
		member, _ := list[i].(string)
		score, _ := list[i+1].(string)
		if score == "inf" {
			name = member
			continue
		}
		n, _ := strconv.ParseFloat(score, 64)
		seq = max(seq, uint64(n))
		if e := w.followed[member]; e != nil && e.heard.Load() < uint64(n) {
			e.due = uint64(n)
			late = append(late, e)
		}
	}
	if name == w.name {
		w.seq = seq
		return late
	}
	// Redis was emptied. Whatever was heard belongs to what is gone.
	w.name, w.seq = name, 0
	late = late[:0]
	for _, e := range w.followed {
		e.heard.Store(0)
		e.due = math.MaxUint64
		late = append(late, e)
	}
	return late
}

// most states in one round trip.
const maxStates = 2000

// resync asks where logs stand and tells their followers.
func (t *tail) resync(ctx context.Context, list []*followed) {
	for len(list) > 0 && ctx.Err() == nil {
		n := min(len(list), maxStates)
		byServer := make(map[*server][]*followed)
		for _, e := range list[:n] {
			srv := t.b.servers.bucket(e.bucket)
			byServer[srv] = append(byServer[srv], e)
		}
		for srv, some := range byServer {
			t.resyncAt(ctx, srv, some)
		}
		list = list[n:]
	}
}

func (t *tail) resyncAt(ctx context.Context, srv *server, list []*followed) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answers := make([]*goredis.Cmd, len(list))
	ask := func() {
		_, _ = srv.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for i, e := range list {
				answers[i] = p.EvalSha(ctx, stateScript.sha, t.b.stateKeys(e.bucket, e.channel))
			}
			return nil
		})
	}
	ask()
	if verdict, _ := judge(answers[0].Err()); verdict == reload && load(ctx, srv.client) == nil {
		ask()
	}
	for i, e := range list {
		state, err := answers[i].Slice()
		if err != nil {
			// Alone, with all that can be done; failing that, the followers
			// are told to see for themselves.
			state, err = t.b.query(ctx, e.bucket, stateScript, t.b.stateKeys(e.bucket, e.channel))
		}
		if err != nil || len(state) < 7 {
			e.announce(broker.Announcement{}, 0)
			continue
		}
		s := stateOf(state)
		e.forget()
		e.announce(broker.Announcement{Epoch: s.Epoch, Head: s.Head}, 0)
		e.heard.Store(uintOf(state[5]))
		t.mu.Lock()
		if w := &t.buckets[e.bucket]; len(w.followed) > 0 {
			w.seq = min(w.seq, uintOf(state[5]))
			if w.name == "" {
				w.name = state[6].(string)
			}
		}
		t.mu.Unlock()
	}
}
