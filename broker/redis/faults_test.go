package redis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/event"
)

// One event after the other, whatever happens to the server meanwhile.
func TestNothingIsLostWhile(t *testing.T) {
	for _, test := range []struct {
		name    string
		happens func(s *redistest.Server, p *publisher)
	}{
		{"PubSubIsCut", func(s *redistest.Server, p *publisher) {
			for range 5 {
				s.Do("CLIENT", "KILL", "TYPE", "pubsub")
				p.more(20)
			}
		}},
		{"EveryConnectionIsCut", func(s *redistest.Server, p *publisher) {
			for range 5 {
				s.Do("CLIENT", "KILL", "TYPE", "pubsub")
				s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
				p.more(20)
			}
		}},
		{"ScriptsAreForgotten", func(s *redistest.Server, p *publisher) {
			for range 5 {
				s.Do("SCRIPT", "FLUSH")
				p.more(20)
			}
		}},
		{"RedisHangs", func(s *redistest.Server, p *publisher) {
			s.Pause()
			p.fails(2)
			s.Resume()
		}},
		{"RedisIsKilled", func(s *redistest.Server, p *publisher) {
			s.Kill()
			p.fails(2)
			s.Restart()
		}},
		{"RedisIsKilledAndBackAtOnce", func(s *redistest.Server, p *publisher) {
			for range 3 {
				s.Kill()
				s.Restart()
				p.more(20)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := redistest.Start(t, "appendonly", "yes", "appendfsync", "always")
			b := mustOpen(t, s.URL(), redis.Options{})
			other := mustOpen(t, s.URL(), redis.Options{})
			busy, quiet := listen(t, other, "busy"), listen(t, other, "quiet")
			p := publish(t, b, "busy")
			p.more(50)
			test.happens(s, p)
			p.more(100)
			busy.wait(p.halt())
			mustAppend(t, b, "quiet", "1")
			quiet.wait(1)
			for _, l := range []*listener{busy, quiet} {
				if _, resets, _ := l.counts(); resets > 0 {
					t.Errorf("%s: the log was taken for another one %d times", l.channel, resets)
				}
			}
		})
	}
}

func mustAppend(t testing.TB, b broker.Log, channel string, events ...string) []broker.Appended {
	t.Helper()
	var entries []broker.Entry
	for _, e := range events {
		entries = append(entries, broker.Entry{Data: []byte(e)})
	}
	got, err := b.Append(context.Background(), channel, entries)
	if err != nil {
		t.Fatalf("append to %s: %v", channel, err)
	}
	return got
}

// Pub/sub that says nothing, without an error, on a busy and on a quiet
// channel: look finds what it lost.
func TestSilentPubSub(t *testing.T) {
	s := redistest.Start(t)
	proxy := redistest.StartProxy(t, s.Addr)
	b := mustOpen(t, s.URL(), redis.Options{})
	deaf := mustOpen(t, "redis://"+proxy.Addr, redis.Options{})
	busy, quiet := listen(t, deaf, "busy"), listen(t, deaf, "quiet")
	p := publish(t, b, "busy")
	p.more(100)
	redistest.Eventually(t, func() error {
		if _, _, live := busy.counts(); live == 0 {
			return errors.New("nothing came by pub/sub yet")
		}
		return nil
	})
	proxy.MutePubSub(true)
	_, _, before := quiet.counts()
	mustAppend(t, b, "quiet", "1")
	quiet.wait(1)
	p.more(100)
	busy.wait(p.halt())
	if _, _, live := quiet.counts(); live != before {
		t.Error("the quiet channel's event came by pub/sub, which is silent")
	}
	// And when pub/sub can be heard again, it is.
	proxy.MutePubSub(false)
	redistest.Eventually(t, func() error {
		mustAppend(t, b, "again", "x")
		return nil
	})
	n := 1
	redistest.Eventually(t, func() error {
		n++
		mustAppend(t, b, "quiet", fmt.Sprint(n))
		if _, _, live := quiet.counts(); live == before {
			return errors.New("pub/sub is still silent")
		}
		return nil
	})
	quiet.wait(n)
}

// Whoever follows is told that the log is gone, also where nothing is
// appended.
func TestEmptied(t *testing.T) {
	s := redistest.Start(t)
	b := mustOpen(t, s.URL(), redis.Options{})
	quiet, busy := listen(t, b, "quiet"), listen(t, b, "busy")
	mustAppend(t, b, "quiet", "1", "2")
	old := mustAppend(t, b, "busy", "1")
	quiet.wait(2)
	told := &hints{}
	if _, err := b.Follow(t.Context(), "quiet", told); err != nil {
		t.Fatal(err)
	}
	s.Do("FLUSHALL")
	got := mustAppend(t, b, "busy", "1", "2")
	if got[0].Epoch == old[0].Epoch || got[0].Offset != 1 {
		t.Errorf("first place after FLUSHALL is %+v, was %+v: want offset 1 of a new epoch", got[0], old[0])
	}
	busy.wait(2)
	redistest.Eventually(t, func() error {
		if !told.unknown() {
			return errors.New("the quiet channel's followers were not told")
		}
		return nil
	})
	if _, err := b.State(t.Context(), "quiet"); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("state of what was flushed: %v, want ErrNotFound", err)
	}
}

// hints remembers whether it was told that something may have happened.
type hints struct {
	mu   sync.Mutex
	told bool
}

func (h *hints) Announce(a broker.Announcement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = h.told || a.Epoch == ""
}

func (h *hints) unknown() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told
}

// What Redis refuses is named.
func TestRefusals(t *testing.T) {
	full := func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "1") }
	for _, test := range []struct {
		name    string
		refuse  func(s *redistest.Server)
		relent  func(s *redistest.Server)
		mention string
	}{
		{"Full", full, func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "0") }, "OOM"},
		{"ReadOnly", func(s *redistest.Server) { s.Do("REPLICAOF", "127.0.0.1", "1") },
			func(s *redistest.Server) { s.Do("REPLICAOF", "NO", "ONE") }, "READONLY"},
		{"TooFewReplicas", func(s *redistest.Server) { s.Do("CONFIG", "SET", "min-replicas-to-write", "1") },
			func(s *redistest.Server) { s.Do("CONFIG", "SET", "min-replicas-to-write", "0") }, "NOREPLICAS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := redistest.Start(t)
			b := mustOpen(t, s.URL(), redis.Options{})
			mustAppend(t, b, "a", "1")
			before, err := b.State(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			test.refuse(s)
			for _, channel := range []string{"a", "new"} {
				_, err := b.Append(t.Context(), channel, []broker.Entry{{Identity: "x", Data: []byte("2")}, {Data: []byte("3")}})
				if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), test.mention) {
					t.Errorf("append to %s: %v, want ErrUnavailable that names %s", channel, err, test.mention)
				}
			}
			test.relent(s)
			if after, err := b.State(t.Context(), "a"); err != nil || after.Head != before.Head {
				t.Errorf("something of a refused append is there: %+v, was %+v (%v)", after, before, err)
			}
			if _, err := b.State(t.Context(), "new"); !errors.Is(err, broker.ErrNotFound) {
				t.Errorf("a refused append made the channel: %v", err)
			}
			got, err := b.Append(t.Context(), "a", []broker.Entry{{Identity: "x", Data: []byte("2")}})
			if err != nil || got[0].Duplicate || got[0].Offset != 2 {
				t.Errorf("append after that: %+v, %v, want offset 2", got, err)
			}
		})
	}
}

// An append that too few replicas have is not acknowledged.
func TestWaitReplicas(t *testing.T) {
	s := redistest.Start(t)
	b := mustOpen(t, s.URL()+"?wait_replicas=1", redis.Options{})
	_, err := b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("1")}})
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "0 of 1 replicas") {
		t.Errorf("append without a replica: %v, want ErrUnavailable that says so", err)
	}
	host, port, _ := net.SplitHostPort(s.Addr)
	replica := redistest.Start(t, "replicaof", host+" "+port)
	redistest.Eventually(t, func() error {
		_, err := b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("2")}})
		return err
	})
	// Who owns a subscription and what was acknowledged over a line is waited for
	// too: a failover that forgot it would have too little announced.
	u := broker.Update{Name: "crm", Generation: 1, Record: []byte("{}"), Channels: []string{"a"}, Due: broker.Never}
	if err := b.Store(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	stored, err := b.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	replica.Pause()
	defer replica.Resume()
	u.Version, u.Node = stored.Version, "node-1"
	if err := b.Store(t.Context(), u); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a new owner that the replica hasn't heard of: %v, want ErrUnavailable", err)
	}
	_, err = b.Advance(t.Context(), []broker.Move{{Name: "crm", Generation: 1, Position: event.Position{{Channel: "a", Epoch: "e", Offset: 1}}}})
	if !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("an acknowledgement that the replica hasn't: %v, want ErrUnavailable", err)
	}
}

// While Redis is away every call says so, the log is not flooded, and nothing
// is tried without pause.
func TestAway(t *testing.T) {
	s := redistest.Start(t)
	lines := &lineCounter{}
	b := mustOpen(t, s.URL(), redis.Options{Logger: slog.New(slog.NewTextHandler(lines, nil))})
	listen(t, b, "a")
	s.Kill()
	for range 10 {
		_, err := b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("1")}})
		if !errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("append: %v, want ErrUnavailable", err)
		}
		if _, err := b.Read(t.Context(), "a", 0, broker.Limit{}); !errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("read: %v, want ErrUnavailable", err)
		}
	}
	if n := lines.count(); n > 4 {
		t.Errorf("%d lines were logged of one outage:\n%s", n, lines)
	}
	s.Restart()
	redistest.Eventually(t, func() error {
		_, err := b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("1")}})
		return err
	})
}

type lineCounter struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lineCounter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lineCounter) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lineCounter) count() int { return strings.Count(l.String(), "\n") }

// What is wrong at the start is one line that says what.
func TestOpenErrors(t *testing.T) {
	plain := redistest.Start(t)
	locked := redistest.Start(t, "requirepass", "correct")
	web := strangers(t, "HTTP/1.1 400 Bad Request\r\n\r\n")
	mute := strangers(t, "")
	old := strangers(t, "-ERR unknown command\r\n+OK\r\n")
	for _, test := range []struct{ url, want string }{
		{"localhost:6379", "no scheme"},
		{"http://localhost", `scheme "http"`},
		{"redis://", "host"},
		{"redis://h:99999", `port "99999"`},
		{"redis://h/x", `database "x"`},
		{"redis://h?pool=3", `unknown option "pool"`},
		{"redis://h?pool_size=0", "pool_size"},
		{"redis://u:s3cr%et@h", "malformed"},
		{"redis://h1,h2", "several hosts"},
		{"redis+sentinel://h1", "master's name"},
		{"redis+cluster://h1/3", "no databases"},
		{"redis+cluster://" + plain.Addr, "cluster"},
		{"redis+sentinel://" + plain.Addr + "/main", "sentinel at"},
		{"redis://" + locked.Addr, "NOAUTH"},
		{"redis://:wr0ng@" + locked.Addr, "WRONGPASS"},
		{"redis://" + web, "is that a Redis?"},
		{"redis://" + mute, "is that a Redis?"},
		{"redis://" + old, "is that a Redis?"},
	} {
		b, err := redis.Open(t.Context(), test.url, redis.Options{StartWithin: 3 * time.Second})
		if err == nil {
			_ = b.Close()
			t.Errorf("%s: opened, want an error that says %q", test.url, test.want)
			continue
		}
		text := err.Error()
		if !strings.Contains(text, test.want) || strings.Contains(text, "\n") ||
			strings.Contains(text, "wr0ng") || strings.Contains(text, "s3cr") {
			t.Errorf("%s: %q, want one line with %q and no password", test.url, text, test.want)
		}
	}
	b := mustOpen(t, "redis://:correct@"+locked.Addr+"/3?pool_size=2", redis.Options{})
	mustAppend(t, b, "a", "1")
}

// Open waits for a server that is just starting.
func TestOpenWaits(t *testing.T) {
	s := redistest.Start(t)
	s.Kill()
	opened := make(chan error, 1)
	go func() {
		b, err := redis.Open(context.Background(), s.URL(), redis.Options{})
		if err == nil {
			err = b.Close()
		}
		opened <- err
	}()
	s.Restart()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

// strangers serves something that is not Redis: it answers anything with
// answer, or nothing at all.
func strangers(t testing.TB, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				wg.Go(func() { <-done; c.Close() })
				buf := make([]byte, 4096)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write([]byte(answer)); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(done)
		wg.Wait()
	})
	return l.Addr().String()
}

// How long pub/sub that is silent without an error goes unnoticed, on a channel
// that is otherwise quiet.
func BenchmarkSilentPubSub(b *testing.B) {
	s := redistest.Start(b)
	proxy := redistest.StartProxy(b, s.Addr)
	proxy.MutePubSub(false)
	loud := mustOpen(b, s.URL(), redis.Options{})
	deaf := mustOpen(b, "redis://"+proxy.Addr, redis.Options{})
	quiet := listen(b, deaf, "quiet")
	mustAppend(b, loud, "quiet", "1")
	quiet.wait(1)
	proxy.MutePubSub(true)
	var worst, sum time.Duration
	for n := range b.N {
		began := time.Now()
		mustAppend(b, loud, "quiet", fmt.Sprint(n+2))
		quiet.wait(n + 2)
		took := time.Since(began)
		worst, sum = max(worst, took), sum+took
	}
	b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
	b.ReportMetric(float64(sum.Milliseconds())/float64(b.N), "mean-ms")
}
