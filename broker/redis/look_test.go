package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis/redistest"
)

// One look at 100,000 followed channels of which 10,000 changed: CPU time of
// both sides. It is to be repeated every 800 ms.
func BenchmarkLook(b *testing.B) {
	const channels, active = 100_000, 10_000
	s := redistest.Start(b)
	broke, err := Open(context.Background(), s.URL(), Options{LookEvery: time.Hour, TrimEvery: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = broke.Close() })
	each(channels, func(i int) {
		if _, err := broke.Follow(context.Background(), fmt.Sprintf("acct-%d", i), deaf{}); err != nil {
			b.Error(err)
		}
	})
	var ours, theirs time.Duration
	for n := range b.N {
		b.StopTimer()
		each(active, func(i int) {
			_, err := broke.Append(context.Background(), fmt.Sprintf("acct-%d", (n*active+i)%channels), []broker.Entry{{Data: []byte("x")}})
			if err != nil {
				b.Error(err)
			}
		})
		settle(broke)
		own, redis := selfCPU(), redisCPU(b, s)
		b.StartTimer()
		for srv, owned := range broke.servers.each() {
			broke.tail.lookAt(context.Background(), srv, owned)
		}
		b.StopTimer()
		ours, theirs = ours+selfCPU()-own, theirs+redisCPU(b, s)-redis
		b.StartTimer()
	}
	b.ReportMetric(float64(ours.Microseconds())/1e3/float64(b.N), "gateway-ms/look")
	b.ReportMetric(float64(theirs.Microseconds())/1e3/float64(b.N), "redis-ms/look")
}

type deaf struct{}

func (deaf) Announce(broker.Announcement) {}

func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	const workers = 64
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}

// settle waits until every announcement has come in.
func settle(b *Broker) {
	for last, same := uint64(0), 0; same < 5; {
		sum := uint64(0)
		b.tail.mu.RLock()
		for _, e := range b.tail.topics {
			sum += e.channel.heard.Load()
		}
		b.tail.mu.RUnlock()
		if sum == last {
			same++
		} else {
			last, same = sum, 0
		}
		<-time.After(20 * time.Millisecond)
	}
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func redisCPU(t testing.TB, s *redistest.Server) (cpu time.Duration) {
	t.Helper()
	for line := range strings.Lines(fmt.Sprint(s.Do("INFO", "cpu"))) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		if k == "used_cpu_sys" || k == "used_cpu_user" {
			seconds, _ := strconv.ParseFloat(v, 64)
			cpu += time.Duration(seconds * 1e9)
		}
	}
	return cpu
}
