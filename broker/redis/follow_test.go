package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis/redistest"
)

// listener follows a channel as a feed does: it takes announcements as hints
// and reads the log where they leave a hole. What a fork forgot it forgets.
type listener struct {
	t       testing.TB
	log     broker.Log
	channel string
	wake    chan struct{}
	cancel  context.CancelFunc
	ended   sync.WaitGroup

	mu     sync.Mutex
	epoch  string
	events []string // at offsets 1, 2, …
	resets int      // how often the log was another one
	live   int      // announcements that carried events
}

type follows interface {
	broker.Log
	broker.Tail
}

// listen follows a channel of which nothing was appended yet.
func listen(t testing.TB, b follows, channel string) *listener {
	t.Helper()
	l := &listener{t: t, log: b, channel: channel, wake: make(chan struct{}, 1)}
	s, err := b.Follow(t.Context(), channel, l)
	if err != nil {
		t.Fatalf("follow %s: %v", channel, err)
	}
	l.mu.Lock()
	l.epoch = s.Epoch
	l.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.ended.Go(func() { l.run(ctx) })
	t.Cleanup(func() {
		b.Unfollow(channel, l)
		cancel()
		l.ended.Wait()
	})
	return l
}

// Announce implements broker.Follower.
func (l *listener) Announce(a broker.Announcement) {
	l.mu.Lock()
	if len(a.Items) > 0 {
		l.live++
	}
	for _, item := range a.Items {
		if a.Epoch == l.epoch && item.Offset == uint64(len(l.events))+1 {
			l.events = append(l.events, string(item.Data))
		}
	}
	known := a.Epoch == l.epoch && a.Head <= uint64(len(l.events))
	l.mu.Unlock()
	if known {
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *listener) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		for l.read(ctx) != nil {
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// read catches up with the log.
func (l *listener) read(ctx context.Context) error {
	for {
		l.mu.Lock()
		from := uint64(len(l.events))
		l.mu.Unlock()
		p, err := l.log.Read(ctx, l.channel, from, broker.Limit{})
		if errors.Is(err, broker.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		offset, place := p.State.Locate(l.epoch, uint64(len(l.events)))
		switch {
		case place == broker.Unknown:
			l.resets++
			offset = 0
		case place == broker.Beyond:
			// Forgotten, and nothing new yet: the fork will come.
			l.mu.Unlock()
			return nil
		}
		l.epoch, l.events = p.State.Epoch, l.events[:offset]
		for _, item := range p.Items {
			if item.Offset == uint64(len(l.events))+1 {
				l.events = append(l.events, string(item.Data))
			}
		}
		behind := p.State.Head > uint64(len(l.events))
		l.mu.Unlock()
		if !behind {
			return nil
		}
	}
}

// wait waits until the listener has exactly the events 1 to n, in order.
func (l *listener) wait(n int) {
	l.t.Helper()
	redistest.Eventually(l.t, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, e := range l.events {
			if want := strconv.Itoa(i + 1); e != want {
				return fmt.Errorf("%s: event at %d is %s", l.channel, i+1, e)
			}
		}
		if len(l.events) != n {
			return fmt.Errorf("%s: has %d events of %d", l.channel, len(l.events), n)
		}
		return nil
	})
}

func (l *listener) counts() (events, resets, live int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events), l.resets, l.live
}

// publisher appends the events 1, 2, 3, … each until it is acknowledged.
type publisher struct {
	t       testing.TB
	log     broker.Log
	channel string
	stop    chan struct{}
	ended   sync.WaitGroup
	mu      sync.Mutex
	acked   int
	failed  int // attempts
}

// publish appends to channel, some 500 times a second, until halt.
func publish(t testing.TB, log broker.Log, channel string) *publisher {
	p := &publisher{t: t, log: log, channel: channel, stop: make(chan struct{})}
	p.ended.Go(p.run)
	t.Cleanup(func() {
		select {
		case <-p.stop:
		default:
			close(p.stop)
		}
		p.ended.Wait()
	})
	return p
}

func (p *publisher) run() {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		for {
			id := strconv.Itoa(n)
			_, err := p.log.Append(context.Background(), p.channel, []broker.Entry{{Identity: id, Data: []byte(id)}})
			if err == nil {
				break
			}
			if !errors.Is(err, broker.ErrUnavailable) {
				p.t.Errorf("append %d: %v", n, err)
				return
			}
			p.mu.Lock()
			p.failed++
			p.mu.Unlock()
			<-tick.C
		}
		p.mu.Lock()
		p.acked = n
		p.mu.Unlock()
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
	}
}

// more waits until n more events were acknowledged.
func (p *publisher) more(n int) {
	p.t.Helper()
	p.mu.Lock()
	want := p.acked + n
	p.mu.Unlock()
	redistest.Eventually(p.t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.acked < want {
			return fmt.Errorf("%d events acknowledged of %d", p.acked, want)
		}
		return nil
	})
}

// fails waits until n attempts failed.
func (p *publisher) fails(n int) {
	p.t.Helper()
	redistest.Eventually(p.t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failed < n {
			return fmt.Errorf("%d attempts failed, want %d", p.failed, n)
		}
		return nil
	})
}

// halt ends publishing and returns how many events were acknowledged.
func (p *publisher) halt() int {
	close(p.stop)
	p.ended.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}
