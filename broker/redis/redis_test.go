package redis_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/brokertest"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
)

func TestMain(m *testing.M) {
	// The library goes on dialling a server that is gone for up to a second after
	// its client was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

var harnesses atomic.Int64

// harness makes brokers on the servers at url, each with a prefix of its own,
// so that they find nothing of each other.
func harness(url string, lose func()) brokertest.New {
	return func(t testing.TB, opt broker.Options) brokertest.Harness {
		t.Helper()
		own := fmt.Sprintf("%s?prefix=t%d:", url, harnesses.Add(1))
		var b *redis.Broker
		open := func(t testing.TB) brokertest.Broker {
			t.Helper()
			b = mustOpen(t, own, redis.Options{Options: opt, TrimEvery: -1})
			return b
		}
		open(t)
		h := brokertest.Harness{
			Broker: b,
			Trim:   func(ctx context.Context) error { return b.Trim(ctx) },
			Reopen: func(t testing.TB) brokertest.Broker {
				t.Helper()
				mustClose(t, b)
				return open(t)
			},
		}
		if lose != nil {
			h.Lose = func(t testing.TB) brokertest.Broker {
				t.Helper()
				lose()
				mustClose(t, b)
				return open(t)
			}
		}
		return h
	}
}

func mustOpen(t testing.TB, url string, o redis.Options) *redis.Broker {
	t.Helper()
	b, err := redis.Open(context.Background(), url, o)
	if err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
	t.Cleanup(func() { mustClose(t, b) })
	return b
}

func mustClose(t testing.TB, b *redis.Broker) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestStandalone(t *testing.T) {
	s := redistest.Start(t, "appendonly", "yes", "appendfsync", "always")
	brokertest.Run(t, harness(s.URL(), func() {
		s.Kill()
		s.Restart()
	}))
}

func TestCluster(t *testing.T) {
	c := redistest.StartCluster(t)
	brokertest.Run(t, harness(c.URL(), nil))
}

func BenchmarkStandalone(b *testing.B) {
	s := redistest.Start(b)
	brokertest.Bench(b, func(t testing.TB, opt broker.Options) brokertest.Harness {
		s.Do("FLUSHALL")
		return harness(s.URL(), nil)(t, opt)
	})
}
