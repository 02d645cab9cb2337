package redis

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// subscription is the one pub/sub connection to a master, for all topics that
// are followed there. When it fails it is made anew, all topics are subscribed
// again, and their followers told where the logs stand by then.
//
// The library's PubSub would reconnect by itself, but in a cluster it
// subscribes all sharded topics in one command, which may be of one slot only.
// So each one here is good for a single connection.
type subscription struct {
	b      *Broker
	addr   string
	health health

	mu     sync.Mutex
	topics map[string]struct{}
	wants  []want          // in order, for write
	pubsub *goredis.PubSub // nil while not connected
	wake   chan struct{}

	missed []*followed // owned by the connection's reader, then by write; guarded by mu
	heard  atomic.Int64
}

// want is a topic to subscribe to, or no longer.
type want struct {
	topic string
	not   bool
}

// silence is how long a connection may say nothing, pings unanswered, before
// it counts as dead.
const silence = 1600 * time.Millisecond

func newSubscription(b *Broker, addr string) *subscription {
	return &subscription{
		b: b, addr: addr, topics: make(map[string]struct{}), wake: make(chan struct{}, 1),
		health: health{log: b.log, what: "subscription to redis at " + addr},
	}
}

func (s *subscription) add(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics[topic] = struct{}{}
	s.wantLocked(want{topic: topic})
}

func (s *subscription) drop(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.topics, topic)
	s.wantLocked(want{topic: topic, not: true})
}

func (s *subscription) wantLocked(w want) {
	if s.pubsub != nil {
		s.wants = append(s.wants, w)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run keeps the connection, while there are topics, until ctx ends.
func (s *subscription) run(ctx context.Context) {
	for {
		s.mu.Lock()
		idle := len(s.topics) == 0
		s.mu.Unlock()
		if idle {
			select {
			case <-ctx.Done():
				return
			case <-s.wake:
			}
			continue
		}
		if d := s.health.wait(); d > 0 && !sleep(ctx, d) {
			return
		}
		err := s.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		s.health.failed(err)
		s.b.servers.refresh()
	}
}

var errUsedUp = errors.New("connection is used up")

// connect makes a connection and serves it until it fails.
func (s *subscription) connect(ctx context.Context) error {
	o := s.b.config.client(s.addr)
	o.PoolSize = 1
	var dialled atomic.Bool
	dial := goredis.NewDialer(o)
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dialled.Swap(true) {
			return nil, errUsedUp
		}
		return dial(ctx, network, addr)
	}
	client := goredis.NewClient(o)
	defer client.Close()
	pubsub := client.Subscribe(ctx)
	defer pubsub.Close()
	if err := pubsub.Ping(ctx); err != nil { // connects
		return err
	}
	s.heard.Store(time.Now().UnixNano())

	s.mu.Lock()
	s.pubsub, s.wants, s.missed = pubsub, s.wants[:0], nil
	for topic := range s.topics {
		s.wants = append(s.wants, want{topic: topic})
	}
	s.mu.Unlock()

	writing, stop := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() {
		s.write(writing, pubsub)
		_ = pubsub.Close() // ends the reading
	})
	err := s.read(ctx, pubsub)
	stop()
	s.mu.Lock()
	s.pubsub = nil
	s.mu.Unlock()
	writer.Wait()
	return err
}

// read takes what comes until the connection fails.
func (s *subscription) read(ctx context.Context, pubsub *goredis.PubSub) error {
	for {
		m, err := pubsub.Receive(ctx)
		if err != nil {
			// MOVED too: everything is then asked for and subscribed anew.
			return err
		}
		s.heard.Store(time.Now().UnixNano())
		switch m := m.(type) {
		case *goredis.Message:
			s.b.tail.message(m.Channel, m.Payload)
		case *goredis.Pong:
			s.health.worked()
		case *goredis.Subscription:
			switch m.Kind {
			case "subscribe", "ssubscribe":
				if e := s.b.tail.confirmed(s, m.Channel); e != nil {
					s.mu.Lock()
					s.missed = append(s.missed, e)
					s.mu.Unlock()
					s.nudge()
				}
			case "sunsubscribe":
				s.unsubscribed(m.Channel)
			}
		}
	}
}

// unsubscribed takes the server's word that a topic is no longer subscribed:
// ours, or because its slot left.
func (s *subscription) unsubscribed(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, wanted := s.topics[topic]; wanted && s.pubsub != nil {
		s.b.servers.refresh()
		// If its bucket is still here by then, it answers; if not, rearrange
		// will have moved it or MOVED tells.
		s.b.after(jitter(4*maxAskAt), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if _, wanted := s.topics[topic]; wanted {
				s.wantLocked(want{topic: topic})
			}
		})
	}
}

func (s *subscription) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write subscribes, unsubscribes, pings, and catches up with what was missed,
// until ctx ends or the connection is dead.
func (s *subscription) write(ctx context.Context, pubsub *goredis.PubSub) {
	ping := time.NewTicker(silence / 2)
	defer ping.Stop()
	for {
		s.mu.Lock()
		wants, missed := s.wants, s.missed
		s.wants, s.missed = nil, nil
		s.mu.Unlock()
		if s.apply(ctx, pubsub, wants) != nil {
			return
		}
		s.b.tail.resync(ctx, missed)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-ping.C:
			if time.Since(time.Unix(0, s.heard.Load())) > silence || pubsub.Ping(ctx) != nil {
				return
			}
		}
	}
}

// most topics in one command.
const maxTopics = 500

// apply sends wants in their order, as many as can go in one command together.
func (s *subscription) apply(ctx context.Context, pubsub *goredis.PubSub, wants []want) error {
	sharded := s.b.config.mode == cluster
	for len(wants) > 0 {
		n := 1
		for n < len(wants) && n < maxTopics && wants[n].not == wants[0].not &&
			(!sharded || sameTag(wants[n].topic, wants[0].topic)) {
			n++
		}
		topics := make([]string, n)
		for i := range topics {
			topics[i] = wants[i].topic
		}
		send := pubsub.Subscribe
		switch {
		case sharded && wants[0].not:
			send = pubsub.SUnsubscribe
		case sharded:
			send = pubsub.SSubscribe
		case wants[0].not:
			send = pubsub.Unsubscribe
		}
		if err := send(ctx, topics...); err != nil {
			return err
		}
		wants = wants[n:]
	}
	return nil
}

// sameTag tells whether two topics are of one bucket.
func sameTag(a, b string) bool {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			return false
		}
		if a[i] == '}' {
			return true
		}
	}
	return false
}
