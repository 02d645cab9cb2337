package embedded

import (
	"context"
	"fmt"
	"sync"

	"github.com/longline-push/longline/broker"
)

// request is a change of one channel on its way through the committer. It
// belongs to the committer and syncer from enqueue until done is sent to.
type request struct {
	kind    kind
	name    string
	channel *channel
	shard   *shard
	entries []broker.Entry // the request's own array
	ids     []identity     // parallel to entries, or empty

	places []broker.Appended // what becomes of entries
	state  broker.State      // after a create
	log    uint64            // the log it was applied to
	first  uint64            // offsets first to last were appended,
	last   uint64            // none unless 0 < first <= last,
	time   int64             // in this millisecond
	err    error

	done chan struct{} // one is sent when all of the above is final
}

type kind int

const (
	kindAppend  kind = iota
	kindCreate       // a log, if there is none, in memory
	kindKeep         // a log's record, if there is a log
	kindCollect      // an empty log that nobody uses
	kindDrop
	kindReach // nothing, but for all before it to survive this process
	kindSync  // nothing, but for all before it to be durable
)

var requests = sync.Pool{New: func() any { return &request{done: make(chan struct{}, 1)} }}

func newRequest(k kind, name string) *request {
	r := requests.Get().(*request)
	r.kind, r.name = k, name
	return r
}

// free gives r back; not after its caller stopped waiting for it.
func (r *request) free() {
	clear(r.entries)
	clear(r.ids)
	*r = request{entries: r.entries[:0], ids: r.ids[:0], done: r.done}
	if cap(r.entries) <= 4096 {
		requests.Put(r)
	}
}

// Append implements broker.Log.
func (b *Broker) Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	if len(entries) == 0 {
		return nil, nil
	}
	r := newRequest(kindAppend, channel)
	r.entries = append(r.entries, entries...)
	r.places = make([]broker.Appended, len(entries))
	for i := range entries {
		if entries[i].Identity != "" {
			r.ids = b.dedupe.identify(r.ids, entries)
			break
		}
	}
	if err := b.perform(ctx, r); err != nil {
		return nil, fmt.Errorf("append to %s: %w", channel, err)
	}
	places, err := r.places, r.err
	r.free()
	if err != nil {
		return nil, fmt.Errorf("append to %s: %w", channel, err)
	}
	return places, nil
}

// perform hands r to the committer and waits until it is done. An error means
// that r may yet be under way and is not to be touched.
func (b *Broker) perform(ctx context.Context, r *request) error {
	outage := b.trouble.now()
	if outage.err != nil {
		return outage.err
	}
	c, s, err := b.pin(r.name)
	if err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	r.channel, r.shard = c, s
	if len(r.ids) > 0 {
		if err := b.lookBack(r); err != nil {
			s.unpin(c)
			return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
		}
	}
	b.queue.put(r)
	return b.await(ctx, r, outage)
}

// await waits until r is done, or the caller gives up, or trouble begins.
func (b *Broker) await(ctx context.Context, r *request, outage *outage) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-outage.began:
		return b.trouble.now().errOr(broker.ErrUnavailable)
	}
}

// queue is where the committer, and after it the syncer, finds its work.
type queue struct {
	mu      sync.Mutex
	waiting []*request
	closed  bool
	wake    chan struct{}
}

func (q *queue) init() { q.wake = make(chan struct{}, 1) }

func (q *queue) put(rs ...*request) {
	q.mu.Lock()
	wasEmpty := len(q.waiting) == 0
	q.waiting = append(q.waiting, rs...)
	q.mu.Unlock()
	if wasEmpty {
		q.signal()
	}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for work and returns all there is, in exchange for an empty
// slice; nil once the queue is closed and empty.
func (q *queue) take(spare []*request) []*request {
	for {
		q.mu.Lock()
		if len(q.waiting) > 0 {
			taken := q.waiting
			q.waiting = spare
			q.mu.Unlock()
			return taken
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil
		}
		<-q.wake
	}
}

// close lets the taker end once it did what waits. Nothing is put after.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}
