// Callbacks measures a gateway's callbacks: their latency, what they cost, how
// many go out back to back, and whether a bad endpoint harms the others. The
// gateway and the receivers are processes of their own; this one publishes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longline-push/longline/loadtest/child"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/target"
	"github.com/longline-push/longline/loadtest/token"
)

func main() {
	child.Run(map[string]child.Main{receiverRole: receive})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "callbacks:", err)
		os.Exit(1)
	}
}

// scenarios in the order they run.
var scenarios = []struct {
	name string
	run  func(*bench) error
}{
	{"parked", parked},
	{"rate", rate},
	{"burst", func(b *bench) error { return errors.Join(burst(b, 1, 30_000), burst(b, 20, 3_000)) }},
	{"isolation", isolation},
	{"outage", outage},
}

func run(ctx context.Context) error {
	only := flag.String("only", "", "run this scenario: parked, rate, burst, isolation or outage")
	broker := flag.String("broker", "", "the gateway's --broker; default an embedded one of its own")
	binary := flag.String("binary", "", "the gateway; default: built from this module")
	flag.Parse()
	if *binary == "" {
		var err error
		if *binary, err = target.Build(ctx); err != nil {
			return err
		}
	}
	g, err := target.Self(target.SelfOptions{
		Binary: *binary, Broker: *broker, Flags: []string{"--callback-allow-cidr", "127.0.0.0/8"},
	})(ctx)
	if err != nil {
		return err
	}
	defer g.Stop()
	b := &bench{ctx: ctx, gateway: g, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, answered: map[string]map[int64]int64{}}
	if b.token, err = g.Tokens.For("bench", token.Grant{Admin: true}); err != nil {
		return err
	}
	var stop func()
	if b.receiver, b.pid, stop, err = startReceiver(); err != nil {
		return err
	}
	defer stop()
	for _, s := range scenarios {
		if *only == "" || *only == s.name {
			if err := s.run(b); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return nil
}

// parked: one event each for subscriptions that nobody looks at.
func parked(b *bench) error {
	h := measure.NewHistogram()
	var names []string
	for range 50 {
		names = append(names, b.name("parked"))
		if err := b.subscribe(names[len(names)-1]); err != nil {
			return err
		}
	}
	time.Sleep(2 * time.Second)
	for _, name := range names {
		if err := b.publish(name, 0, 1); err != nil {
			return err
		}
		a, err := b.all(name, 1, 10*time.Second)
		if err != nil {
			return err
		}
		b.latency(h, name, a)
	}
	fmt.Printf("parked: first event posted after p50 %v, max %v\n", h.Quantile(.5), h.Max())
	return nil
}

// rate: 200 events a second to one endpoint.
func rate(b *bench) error {
	name := b.name("rate")
	if err := b.subscribe(name); err != nil {
		return err
	}
	if err := b.publish(name, -1, 0); err != nil { // opens what is opened once
		return err
	}
	time.Sleep(time.Second)
	before := b.usage()
	n, err := b.publishEvenly(name, 200, 10*time.Second)
	if err != nil {
		return err
	}
	a, err := b.all(name, n+1, 10*time.Second)
	if err != nil {
		return err
	}
	u := b.usage().since(before)
	delete(a.first, -1)
	h := measure.NewHistogram()
	b.latency(h, name, a)
	fmt.Printf("rate: 200/s: answered to POST received p50 %v, p95 %v, p99 %v, max %v; CPU per event: gateway %.0f µs, receiver %.0f µs, publisher %.0f µs, all %.0f µs; overtaken %d, again %d\n",
		h.Quantile(.5), h.Quantile(.95), h.Quantile(.99), h.Max(),
		micros(u.gateway, n), micros(u.receiver, n), micros(u.self, n), micros(u.gateway+u.receiver+u.self, n), a.overtaken, a.again)
	return nil
}

// burst: a backlog each for so many endpoints, sent as fast as they take it.
func burst(b *bench, endpoints int, each int64) error {
	var names []string
	for range endpoints {
		name := b.name("burst")
		names = append(names, name)
		if err := b.subscribe(name); err != nil {
			return err
		}
		if err := b.post(name, "pause"); err != nil {
			return err
		}
		for from := int64(0); from < each; from += 500 {
			if err := b.publish(name, from, min(from+500, each)); err != nil {
				return err
			}
		}
	}
	time.Sleep(time.Second)
	before, start := b.usage(), measure.Now()
	var group errgroup.Group
	for _, name := range names {
		group.Go(func() error { return b.post(name, "resume") })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	last, overtaken, again := start, 0, 0
	first := int64(1) << 62
	for _, name := range names {
		// Looking is not for free: seldom.
		time.Sleep(time.Second)
		a, err := b.all(name, each, 60*time.Second)
		if err != nil {
			return err
		}
		for _, at := range a.first {
			first = min(first, at)
		}
		last, overtaken, again = max(last, a.last), overtaken+a.overtaken, again+a.again
	}
	u, n := b.usage().since(before), each*int64(endpoints)
	took := time.Duration(last - first)
	fmt.Printf("burst: %d endpoints, %d events: %.0f POSTs/s (first after %v); CPU per POST: gateway %.0f µs, receiver %.0f µs; overtaken %d, again %d\n",
		endpoints, n, float64(n)/took.Seconds(), time.Duration(first-start).Round(time.Millisecond), micros(u.gateway, n), micros(u.receiver, n), overtaken, again)
	return nil
}

// isolation: 20 healthy endpoints at 50 events a second each, alone and then
// beside a dead one and one of 2 s a call, which get as many.
func isolation(b *bench) error {
	var healthy []string
	for range 20 {
		healthy = append(healthy, b.name("healthy"))
	}
	dead, slow := b.name("dead"), b.name("slow")
	for _, name := range append([]string{dead, slow}, healthy...) {
		if err := b.subscribe(name); err != nil {
			return err
		}
	}
	if err := errors.Join(b.tell(dead, "500"), b.tell(slow, "sleep/2s")); err != nil {
		return err
	}
	part := func(names []string) (*measure.Histogram, error) {
		b.mu.Lock()
		clear(b.answered)
		b.mu.Unlock()
		h := measure.NewHistogram()
		var group errgroup.Group
		for _, name := range names {
			group.Go(func() error { _, err := b.publishEvenly(name, 50, 10*time.Second); return err })
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		time.Sleep(time.Second)
		for _, name := range healthy {
			a, err := b.all(name, 500, 10*time.Second)
			if err != nil {
				return nil, err
			}
			b.latency(h, name, a)
		}
		return h, nil
	}
	alone, err := part(healthy)
	if err != nil {
		return err
	}
	// New endpoints of the same kind, so that events are numbered from 0.
	for i := range healthy {
		healthy[i] = b.name("healthy")
		if err := b.subscribe(healthy[i]); err != nil {
			return err
		}
	}
	beside, err := part(append([]string{dead, slow}, healthy...))
	if err != nil {
		return err
	}
	fmt.Printf("isolation: healthy p50 %v, p99 %v alone; p50 %v, p99 %v beside a dead and a slow endpoint\n",
		alone.Quantile(.5), alone.Quantile(.99), beside.Quantile(.5), beside.Quantile(.99))
	return errors.Join(b.post(dead, "pause"), b.post(slow, "pause"))
}

// outage: 200 events a second into an endpoint that is dead for 30 s.
func outage(b *bench) error {
	name := b.name("outage")
	if err := errors.Join(b.tell(name, "500"), b.subscribe(name)); err != nil {
		return err
	}
	var n int64
	var group errgroup.Group
	group.Go(func() (err error) { n, err = b.publishEvenly(name, 200, 45*time.Second); return err })
	time.Sleep(30 * time.Second)
	healed := measure.Now()
	if err := b.tell(name, "200"); err != nil {
		return err
	}
	if err := group.Wait(); err != nil {
		return err
	}
	a, err := b.all(name, n, 60*time.Second)
	if err != nil {
		return err
	}
	// Delivered: from when on events come as they are published.
	caught := healed
	b.mu.Lock()
	for i, at := range a.first {
		if at-b.answered[name][i] > int64(100*time.Millisecond) {
			caught = max(caught, at)
		}
	}
	b.mu.Unlock()
	fmt.Printf("outage: 30 s, then healthy: the backlog was delivered after %v; overtaken %d, again %d\n",
		time.Duration(caught-healed).Round(10*time.Millisecond), a.overtaken, a.again)
	return nil
}
