package brokertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Bench runs the benchmark: events of 300 bytes over 1,000 channels. Besides
// the usual it reports events per second and the process's CPU time, kernel
// included, per event.
func Bench(b *testing.B, open New) {
	for _, c := range []struct {
		name              string
		appenders, events int
		identities        bool
	}{
		{"Append/1", 1, 1, false},
		{"Append/64", 64, 1, false},
		{"Append/512", 512, 1, false},
		{"Append/64/identities", 64, 1, true},
		{"Append/8/batch=100", 8, 100, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := open(b, broker.Options{})
			benchAppend(b, h.Broker, c.appenders, c.events, c.identities)
		})
	}
	b.Run("Read/page=1000", func(b *testing.B) { benchRead(b, open(b, broker.Options{}).Broker) })
	b.Run("Advance/moves=300", func(b *testing.B) {
		if subs, ok := open(b, broker.Options{}).Broker.(broker.Subscriptions); ok {
			benchAdvance(b, subs)
		}
	})
	b.Run("Wake/waiting=100000", func(b *testing.B) {
		if d, ok := open(b, broker.Options{}).Broker.(Durable); ok {
			benchWake(b, d, 100_000)
		}
	})
	b.Run("Follow/new", func(b *testing.B) { benchFollow(b, open(b, broker.Options{}).Broker) })
}

// benchData are some events like those of a mailing service, 300 bytes each.
var benchData = func() (events [256][]byte) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range events {
		e := fmt.Appendf(nil, `{"specversion":"1.0","id":"%016x%016x","source":"/mailshots/%d","type":"email.opened",`+
			`"time":"2026-11-22T13:31:%02d.%03dZ","subject":"%x@example.com","datacontenttype":"application/json",`+
			`"data":{"ip":"203.0.113.%d","agent":"`, r.Uint64(), r.Uint64(), r.IntN(100), r.IntN(60), r.IntN(1000), r.Uint64(), r.IntN(256))
		for len(e) < 297 {
			e = append(e, byte('a'+r.IntN(26)))
		}
		events[i] = append(e, `"}}`...)
	}
	return events
}()

func benchAppend(b *testing.B, log Broker, appenders, events int, identities bool) {
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("bench.%d", i)
	}
	measured := meter(b)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range appenders {
		wg.Go(func() {
			entries := make([]broker.Entry, events)
			for {
				n := next.Add(int64(events))
				if n > int64(b.N+events-1) {
					return
				}
				for i := range entries {
					entries[i].Data = benchData[(n+int64(i))%int64(len(benchData))]
					if identities {
						entries[i].Identity = fmt.Sprintf("/bench %d", n+int64(i))
					}
				}
				if _, err := log.Append(context.Background(), names[n/int64(events)%1000], entries); err != nil {
					b.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	measured(b.N)
}

func benchRead(b *testing.B, log Broker) {
	entries := make([]broker.Entry, 1000)
	for i := range entries {
		entries[i].Data = benchData[i%len(benchData)]
	}
	const pages = 50
	for range pages {
		if _, err := log.Append(context.Background(), "bench", entries); err != nil {
			b.Fatal(err)
		}
	}
	measured := meter(b)
	events := 0
	for i := range b.N {
		p, err := log.Read(context.Background(), "bench", uint64(i%pages)*1000, broker.Limit{Events: 1000})
		if err != nil || len(p.Items) != 1000 {
			b.Fatalf("read %d events: %v", len(p.Items), err)
		}
		events += len(p.Items)
	}
	measured(events)
}

// benchAdvance moves 300 subscriptions per call, of 3,000; an event is a move.
func benchAdvance(b *testing.B, subs broker.Subscriptions) {
	const all, each = 3000, 300
	moves := make([]broker.Move, all)
	for i := range moves {
		moves[i] = broker.Move{Name: fmt.Sprintf("crm-%d", i), Generation: 1, Position: event.Position{{Channel: fmt.Sprintf("acct-%d", i), Epoch: "k3f9zq"}}}
		u := broker.Update{Name: moves[i].Name, Generation: 1, Due: broker.Never, Channels: []string{moves[i].Position[0].Channel}, Set: moves[i].Position}
		if err := subs.Store(context.Background(), u); err != nil {
			b.Fatal(err)
		}
	}
	measured := meter(b)
	for i := range b.N {
		some := moves[i*each%all:][:each]
		for j := range some {
			some[j].Position[0].Offset++
		}
		if fenced, err := subs.Advance(context.Background(), some); err != nil || len(fenced) > 0 {
			b.Fatalf("advance: %v fenced, %v", fenced, err)
		}
	}
	measured(b.N * each)
}

// benchFollow has 64 goroutines make and follow new channels.
func benchFollow(b *testing.B, log Broker) {
	measured := meter(b)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				if _, err := log.Follow(context.Background(), fmt.Sprintf("bench.%d", n), &ear{}); err != nil {
					b.Errorf("follow: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	measured(b.N)
}

// meter starts measuring; the function it returns ends it and reports.
func meter(b *testing.B) func(events int) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	began, cpu := time.Now(), cpuTime()
	return func(events int) {
		took, used := time.Since(began), cpuTime()-cpu
		b.StopTimer()
		b.ReportMetric(float64(events)/took.Seconds(), "events/s")
		b.ReportMetric(float64(used.Nanoseconds())/1e3/float64(events), "cpu-µs/event")
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchWake measures what an event that wakes many costs: the append itself, and
// appends to another channel while those who waited are handed out, beside as
// many when nothing else happens.
func benchWake(b *testing.B, d Durable, many int) {
	ctx := context.Background()
	append1 := func(channel string) (broker.Appended, time.Duration) {
		begun := time.Now()
		at, err := d.Append(ctx, channel, []broker.Entry{{Data: benchData[0]}})
		if err != nil {
			b.Fatal(err)
		}
		return at[0], time.Since(begun)
	}
	var wake time.Duration
	var busy, quiet []time.Duration
	for n := range b.N {
		channel := fmt.Sprint("wake.", n)
		at, _ := append1(channel)
		wait := event.Position{{Channel: channel, Epoch: at.Epoch, Offset: at.Offset}}
		var wg sync.WaitGroup
		var next atomic.Int64
		for range 64 {
			wg.Go(func() {
				for i := next.Add(1); i <= int64(many); i = next.Add(1) {
					u := broker.Update{Name: fmt.Sprintf("s%d.%d", n, i), Generation: 1, Wait: wait, Due: broker.Never}
					if err := d.Store(ctx, u); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		done := make(chan struct{})
		_, took := append1(channel)
		wake = max(wake, took)
		go func() {
			defer close(done)
			for range 500 {
				tickets, _, err := d.Due(ctx, nil, 32, time.Hour)
				if err == nil {
					err = d.Done(ctx, tickets)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		}()
		for handing := true; handing; {
			select {
			case <-done:
				handing = false
			default:
				_, took := append1("other")
				busy = append(busy, took)
			}
		}
		for len(quiet) < len(busy) {
			_, took := append1("other")
			quiet = append(quiet, took)
		}
	}
	slices.Sort(busy)
	slices.Sort(quiet)
	b.ReportMetric(float64(wake.Microseconds())/1e3, "ms/waking")
	for _, q := range []struct {
		name string
		part float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}} {
		i := int(q.part * float64(len(busy)-1))
		b.ReportMetric(float64(busy[i].Microseconds())/1e3, "ms/other-"+q.name)
		b.ReportMetric(float64(quiet[i].Microseconds())/1e3, "ms/quiet-"+q.name)
	}
}
