package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/swarm"
	"github.com/longline-push/longline/loadtest/target"
)

var both = []string{swarm.WebSocket, swarm.SSE}

// idle asks what a connection costs that has nothing to say.
var idle = Scenario{
	Name:  "idle",
	Brief: "connections, each with a token and a channel of its own, that receive nothing: memory per connection, connects/s",
	Defaults: Options{
		Connections: 15_000, Settle: 20 * time.Second, Transports: both,
	},
	Floored: true,
	Cases: func(o Options) []Case {
		return perTransport(o, Case{Name: fmt.Sprintf("%d idle", o.Connections), Connections: o.Connections})
	},
	Run: func(ctx context.Context, e *Env) error {
		before, known := e.usage()
		s, err := e.connect(ctx, e.clients(swarm.Spec{Clients: e.Case.Connections, Base: newBase()}))
		if err != nil {
			return err
		}
		defer s.Stop()
		began := time.Now()
		for left := e.Settle; left > 0; left = e.Settle - time.Since(began) {
			e.Progress.Show("letting it settle", 1-float64(left)/float64(e.Settle))
			if u, ok := e.usage(); ok {
				e.Run.Add("RSS", "MiB", time.Since(began), float64(u.RSS)/(1<<20))
			}
			if err := pause(ctx, min(left, time.Second)); err != nil {
				return err
			}
		}
		st, err := s.State()
		if err != nil {
			return err
		}
		if st.Dropped > 0 {
			e.Run.Fail(fmt.Errorf("the gateway ended %d connections: %s", st.Dropped, st.LastError))
		}
		e.Run.SetLatency("connect", st.Connect)
		if after, ok := e.usage(); ok && known {
			e.Run.Set("RSS per connection", "B", float64(after.RSS-before.RSS)/float64(e.Case.Connections))
			e.Run.Set("RSS", "MiB", float64(after.RSS)/(1<<20))
			e.Run.Set("RSS before", "MiB", float64(before.RSS)/(1<<20))
		}
		return nil
	},
}

// fanout is one channel that many listen to.
var fanout = Scenario{
	Name:  "fanout",
	Brief: "one channel, many listeners, at a given number of deliveries per second: CPU per delivery, latency",
	Defaults: Options{
		Rate: 20_000, Duration: 10 * time.Second, Warmup: 2 * time.Second, Transports: both,
	},
	Floored: true,
	Cases: func(o Options) []Case {
		sizes := []int{1000, 10_000}
		if o.Connections > 0 {
			sizes = []int{o.Connections}
		}
		var cases []Case
		for _, n := range sizes {
			cases = append(cases, perTransport(o, Case{Name: fmt.Sprintf("1 × %d", n), Connections: n, Rate: o.Rate / float64(n)})...)
		}
		return cases
	},
	Run: func(ctx context.Context, e *Env) error {
		base := newBase()
		return e.stream(ctx,
			swarm.Spec{Clients: e.Case.Connections, Channels: 1, Base: base},
			pump.Options{Base: base, Rate: e.Case.Rate, Batch: e.Batch})
	},
}

// private is a channel for each listener.
var private = Scenario{
	Name:  "private",
	Brief: "a channel for each listener, publishes spread over all of them: CPU per publish and delivery, latency",
	Defaults: Options{
		Connections: 5000, Rate: 2000, Publishers: []int{64}, Duration: 10 * time.Second, Warmup: 2 * time.Second,
		Transports: []string{swarm.WebSocket},
	},
	Floored: true,
	Cases: func(o Options) []Case {
		return perTransport(o, Case{Name: fmt.Sprintf("%d × 1", o.Connections), Connections: o.Connections, Rate: o.Rate, Publishers: o.Publishers[0]})
	},
	Run: func(ctx context.Context, e *Env) error {
		base := newBase()
		return e.stream(ctx,
			swarm.Spec{Clients: e.Case.Connections, Base: base},
			pump.Options{Base: base, Channels: e.Case.Connections, Conns: min(e.Case.Publishers, e.Case.Connections), Rate: e.Case.Rate, Batch: e.Batch})
	},
}

// burst is one channel, many listeners and no pause.
var burst = Scenario{
	Name:  "burst",
	Brief: "one channel, many listeners, published to as fast as it goes: deliveries/s",
	Defaults: Options{
		Connections: 10_000, Events: 300, Settle: 2 * time.Second, Transports: both,
	},
	Floored: true,
	Cases: func(o Options) []Case {
		return perTransport(o, Case{Name: fmt.Sprintf("burst 1 × %d", o.Connections), Connections: o.Connections})
	},
	Run: func(ctx context.Context, e *Env) error {
		base := newBase()
		spec := e.clients(swarm.Spec{Clients: e.Case.Connections, Channels: 1, Base: base})
		s, err := e.connect(ctx, spec)
		if err != nil {
			return err
		}
		defer s.Stop()
		// What connecting left to do (a collection, mostly) isn't the burst's.
		if err := pause(ctx, e.Settle); err != nil {
			return err
		}
		m, err := e.begin(s, spec, pump.Options{Base: base, Batch: e.Batch, Limit: uint64(e.Events)})
		if err != nil {
			return err
		}
		defer m.p.Stop(0)
		if err := m.mark(); err != nil {
			return err
		}
		m.from, m.answered = swarm.State{}, 0 // nothing was published before the mark
		if err := m.run(ctx, 10*time.Minute, "bursting"); err != nil {
			return err
		}
		return m.finish(ctx)
	},
}

// publish asks how fast events are taken, durably.
var publish = Scenario{
	Name:  "publish",
	Brief: "publishers that publish again as soon as they are answered, a channel for each: publishes/s, CPU per publish",
	Defaults: Options{
		Publishers: []int{1, 8, 64, 512}, Duration: 8 * time.Second, Warmup: time.Second,
	},
	Floored: true,
	Cases: func(o Options) []Case {
		var cases []Case
		for _, n := range o.Publishers {
			c := Case{Name: fmt.Sprintf("%d publishers", n), Publishers: n, Channels: n}
			if o.Channels > 0 {
				c.Name, c.Channels = fmt.Sprintf("%d publishers, %d channels", n, o.Channels), o.Channels
			}
			cases = append(cases, c)
		}
		return cases
	},
	Run: runPublish,
}

func runPublish(ctx context.Context, e *Env) error {
	base, n := newBase(), e.Case.Publishers
	channels := e.Case.Channels
	p, err := pump.Start(e.publisher(pump.Options{Base: base, Conns: n, Channels: channels, Batch: e.Batch}))
	if err != nil {
		return err
	}
	defer p.Stop(0)
	if err := e.publishing(ctx, p); err != nil {
		return err
	}
	return e.readBack(ctx, base, channels, p.Heads())
}

// publishing measures a pump that nobody listens to, and stops it.
func (e *Env) publishing(ctx context.Context, p *pump.Pump) error {
	e.Progress.Show("warming up", 0)
	if err := pause(ctx, e.Warmup); err != nil {
		return err
	}
	before, known := e.usage()
	first := p.State()
	from := measure.Now()
	latency := measure.NewHistogram()
	last, lastAt, end := first, from, first
	for at := from; at-from < int64(e.Duration); {
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if err := p.Err(); err != nil {
			return err
		}
		end, at = p.State(), measure.Now()
		latency.Merge(end.Latency)
		e.Run.Add("publishes", "1/s", time.Duration(at-from), float64(end.Answered-last.Answered)/time.Duration(at-lastAt).Seconds())
		last, lastAt = end, at
		e.Progress.Show(fmt.Sprintf("publishing, %d", end.Answered), float64(at-from)/float64(e.Duration))
	}
	after, _ := e.usage()
	events := float64(end.Answered - first.Answered)
	e.Run.Set("publishes/s", "", events/time.Duration(lastAt-from).Seconds())
	e.Run.SetLatency("", latency)
	if known {
		e.Run.Set("CPU per publish", "µs", micros(after.CPU-before.CPU)/max(events, 1))
		e.Run.Set("CPU", "cores", (after.CPU-before.CPU).Seconds()/time.Duration(after.At-before.At).Seconds())
		e.Run.Set("RSS", "MiB", float64(after.RSS)/(1<<20))
	}
	return p.Stop(patience)
}

// readBack checks that what was answered is in the log: a listener for each
// channel starts at its beginning and enters all of it in its ledger.
func (e *Env) readBack(ctx context.Context, base string, channels int, heads []uint64) error {
	if e.Target.Name == target.Floor {
		return nil // the floor keeps nothing
	}
	spec := e.clients(swarm.Spec{
		Clients: channels, Base: base, Since: "earliest", Shared: len(heads) > channels,
		Transport: swarm.WebSocket, Lane: laneOthers,
	})
	s, err := swarm.Start(spec)
	if err != nil {
		return err
	}
	defer s.Stop()
	if err := s.Wait(ctx, patience, nil); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	var want uint64
	for _, h := range heads {
		want += h
	}
	best, since := uint64(0), time.Now()
	for {
		st, err := s.State()
		if err != nil {
			return err
		}
		e.Progress.Show(fmt.Sprintf("checking the log, %d read", st.Delivered), float64(st.Delivered)/float64(want))
		if st.Delivered > best {
			best, since = st.Delivered, time.Now()
		}
		if st.Delivered >= want || time.Since(since) > patience/3 {
			break
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	st, err := s.Settle(heads)
	if err != nil {
		return err
	}
	e.Run.Faults.Add(st.Faults)
	return nil
}
