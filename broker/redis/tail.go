package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longline-push/longline/broker"
)

// tail knows who follows what. Announcements come in by subscriptions; what
// those lose is found by look.
type tail struct {
	b *Broker

	mu      sync.RWMutex
	topics  map[string]*topic
	buckets [buckets]watched
}

// topic is something that is subscribed to: a channel's announcements, or the
// messages of signals.go.
type topic struct {
	name   string
	bucket int
	// take is called with each message, by one goroutine at a time.
	take func(payload string)
	// missed is called once subscribed, and when messages may have been missed
	// since; it must not block. nil for a channel.
	missed  func()
	channel *followed
	hearers *hearers

	// guarded by tail.mu
	sub   *subscription // whose topics it is among
	ready chan struct{} // closed once the subscription was confirmed
}

// watched is what is known of the changes of a bucket that has followers.
type watched struct {
	followed map[string]*followed // by channel; empty: nothing else counts
	seq      uint64               // of the newest change that was looked at
	name     string               // of the bucket's incarnation
}

// followed is a channel with followers.
type followed struct {
	bucket  int
	channel string
	topic   *topic
	heard   atomic.Uint64 // the bucket's sequence at the last announcement
	due     uint64        // that of a change look found; owned by look

	mu        sync.Mutex // held while announcing: never two at once
	followers []*listener
}

// listener is a follower of a channel. What is announced before the state it
// begins with is known is held back: some of it will be old news.
type listener struct {
	follower broker.Follower
	begun    bool
	since    uint64 // the bucket's sequence as of that state
	held     []news
}

// news is an announcement and the change it tells of, 0 if not of one.
type news struct {
	broker.Announcement
	seq uint64
}

// maxHeld is how many announcements are held back; more become a hint.
const maxHeld = 64

func newTail(b *Broker) *tail { return &tail{b: b, topics: make(map[string]*topic)} }

// Follow implements broker.Tail.
func (b *Broker) Follow(ctx context.Context, channel string, f broker.Follower) (broker.State, error) {
	verb := "follow " + channel
	if err := b.usable(ctx); err != nil {
		return broker.State{}, unavailable(verb, err)
	}
	l := &listener{follower: f}
	s, err := b.tail.open(ctx, b.tail.add(channel, l), l)
	if err != nil {
		b.Unfollow(channel, f)
		return broker.State{}, unavailable(verb, err)
	}
	return s, nil
}

// Unfollow implements broker.Tail.
func (b *Broker) Unfollow(channel string, f broker.Follower) {
	t, bucket := b.tail, bucketOf(channel)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.buckets[bucket].followed[channel]
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.IndexFunc(e.followers, func(l *listener) bool { return l.follower == f }); i >= 0 {
		e.followers = slices.Delete(e.followers, i, i+1)
	}
	if len(e.followers) == 0 {
		delete(t.buckets[bucket].followed, channel)
		t.unsubscribeLocked(e.topic)
	}
}

// subscribeLocked enters x.
func (t *tail) subscribeLocked(x *topic) {
	x.ready = make(chan struct{})
	x.sub = t.b.servers.bucket(x.bucket).sub
	t.topics[x.name] = x
	x.sub.add(x.name)
}

func (t *tail) unsubscribeLocked(x *topic) {
	delete(t.topics, x.name)
	x.sub.drop(x.name)
}

// await waits until x is subscribed.
func (t *tail) await(ctx context.Context, x *topic) error {
	timer := time.NewTimer(answerWithin)
	defer timer.Stop()
	select {
	case <-x.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.b.ctx.Done():
		return broker.ErrClosed
	case <-timer.C:
		return errors.New("no subscription in time")
	}
}

// add enters l and returns its channel.
func (t *tail) add(channel string, l *listener) *followed {
	bucket := bucketOf(channel)
	t.mu.Lock()
	defer t.mu.Unlock()
	w := &t.buckets[bucket]
	e := w.followed[channel]
	if e == nil {
		e = &followed{bucket: bucket, channel: channel}
		e.topic = &topic{name: t.b.keys.topic(bucket, channel), bucket: bucket, channel: e,
			take: func(payload string) { t.announced(e, payload) }}
		if len(w.followed) == 0 {
			*w = watched{followed: make(map[string]*followed)}
		}
		w.followed[channel] = e
		t.subscribeLocked(e.topic)
	}
	e.mu.Lock()
	e.followers = append(e.followers, l)
	e.mu.Unlock()
	return e
}

// open waits until e is subscribed, then asks where its log stands.
func (t *tail) open(ctx context.Context, e *followed, l *listener) (broker.State, error) {
	if err := t.await(ctx, e.topic); err != nil {
		return broker.State{}, err
	}
	var list []any
	var seq uint64
	for {
		var err error
		k := t.b.keys
		list, err = t.b.do(ctx, e.bucket, openScript, []string{k.meta(e.bucket, e.channel), k.log(e.bucket, e.channel),
			k.changed(e.bucket), k.counter(e.bucket), k.names(e.bucket), k.visits(e.bucket)},
			newEpoch(), e.channel, lonely.Milliseconds(), t.b.clock())
		if err != nil {
			return broker.State{}, err
		}
		if len(list) < 7 {
			return broker.State{}, fmt.Errorf("unexpected answer of %d elements", len(list))
		}
		// What others heard after this state was taken, and before l was
		// there, l would never hear of: so its state must not be older.
		seq = uintOf(list[5])
		if e.heard.CompareAndSwap(0, seq) || e.heard.Load() <= seq {
			break
		}
	}
	name, _ := list[6].(string)
	t.mu.Lock()
	w := &t.buckets[e.bucket]
	if w.name == "" {
		w.name, w.seq = name, seq
	}
	// Another name: look will find it and tell all followers of the bucket.
	t.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	l.begun, l.since = true, seq
	for _, n := range l.held {
		l.tell(n)
	}
	l.held = nil
	return stateOf(list), nil
}

// message passes on what came for a topic.
func (t *tail) message(name, payload string) {
	t.mu.RLock()
	x := t.topics[name]
	t.mu.RUnlock()
	if x != nil {
		x.take(payload)
	}
}

// announced takes an announcement as append.lua writes it.
func (t *tail) announced(e *followed, payload string) {
	if payload == "" {
		e.announce(broker.Announcement{}, 0) // dropped
		return
	}
	a, seq, err := parseAnnouncement(payload)
	if err != nil {
		t.b.log.Debug("announcement is damaged", "channel", e.channel, "error", err)
		a = broker.Announcement{}
	}
	// First told, then noted: look must not take for told what is not yet.
	e.announce(a, seq)
	raise(&e.heard, seq)
}

// announce tells all followers to whom the change seq, if it is one, is news.
func (e *followed) announce(a broker.Announcement, seq uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.followers {
		l.tell(news{a, seq})
	}
}

func (l *listener) tell(n news) {
	switch {
	case !l.begun && len(l.held) < maxHeld:
		l.held = append(l.held, n)
	case !l.begun:
		l.held = append(l.held[:0], news{})
	case n.seq == 0 || n.seq > l.since:
		l.follower.Announce(n.Announcement)
	}
}

// forget makes everything news again: sequences may have begun anew.
func (e *followed) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.followers {
		l.since = 0
	}
}

// raise sets n to v if that is more.
func raise(n *atomic.Uint64, v uint64) {
	for {
		old := n.Load()
		if v <= old || n.CompareAndSwap(old, v) {
			return
		}
	}
}

var errAnnouncement = errors.New("not an announcement")

// parseAnnouncement reads "epoch first head seq ms sizes\nevents". Without
// sizes it is a hint that carries no events.
func parseAnnouncement(payload string) (a broker.Announcement, seq uint64, err error) {
	line, text, ok := strings.Cut(payload, "\n")
	if !ok {
		line = payload
	}
	fields := strings.Split(line, " ")
	if len(fields) != 6 {
		return a, 0, errAnnouncement
	}
	first, head, ms := uintOf(fields[1]), uintOf(fields[2]), uintOf(fields[4])
	a, seq = broker.Announcement{Epoch: fields[0], Head: head}, uintOf(fields[3])
	if fields[0] == "" || head == 0 || first == 0 || first > head {
		return broker.Announcement{}, 0, errAnnouncement
	}
	if fields[5] == "" {
		return a, seq, nil
	}
	data, at := []byte(text), time.UnixMilli(int64(ms))
	a.Items = make([]broker.Item, 0, min(head-first+1, uint64(len(fields[5]))))
	for size := range strings.SplitSeq(fields[5], ",") {
		n := uintOf(size)
		if n > uint64(len(data)) {
			return broker.Announcement{}, 0, errAnnouncement
		}
		a.Items = append(a.Items, broker.Item{Offset: first + uint64(len(a.Items)), Time: at, Data: data[:n:n]})
		data = data[n:]
	}
	if len(data) > 0 || uint64(len(a.Items)) != head-first+1 {
		return broker.Announcement{}, 0, errAnnouncement
	}
	return a, seq, nil
}

// confirmed notes that a subscription to a topic holds. The first time that is
// what Follow waits for; again, it means that messages were missed. It returns
// the channel whose followers must be told.
func (t *tail) confirmed(s *subscription, name string) *followed {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.topics[name]
	if x == nil || x.sub != s {
		return nil
	}
	if x.missed != nil {
		x.missed()
	}
	select {
	case <-x.ready:
		return x.channel
	default:
		close(x.ready)
		return nil
	}
}

// rearrange moves topics to the masters that now have them.
func (t *tail) rearrange() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.topics {
		if sub := t.b.servers.bucket(x.bucket).sub; sub != x.sub {
			x.sub.drop(x.name)
			x.sub = sub
			sub.add(x.name)
		}
	}
}
