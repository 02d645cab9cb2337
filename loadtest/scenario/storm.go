package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/swarm"
)

// storm kills the gateway under load and lets everybody come back at once.
var storm = Scenario{
	Name:  "storm",
	Brief: "kill -9 and restart under load; all clients and publishers come back by themselves: time to recover, loss (--self only)",
	Defaults: Options{
		Connections: 5000, Channels: 100, Rate: 1000, Publishers: []int{16}, Duration: 5 * time.Second, Warmup: 3 * time.Second,
		Transports: []string{swarm.WebSocket},
	},
	Cases: func(o Options) []Case {
		return perTransport(o, Case{
			Name:        fmt.Sprintf("%d clients, %d channels", o.Connections, o.Channels),
			Connections: o.Connections, Channels: o.Channels, Rate: o.Rate, Publishers: o.Publishers[0],
		})
	},
	Run: runStorm,
}

func runStorm(ctx context.Context, e *Env) error {
	base := newBase()
	spec := e.clients(swarm.Spec{
		Clients: e.Case.Connections, Channels: e.Case.Channels, Base: base,
		Reconnect: true, InFlight: 1000, RetryMax: 300 * time.Millisecond,
	})
	s, err := e.connect(ctx, spec)
	if err != nil {
		return err
	}
	defer s.Stop()
	m, err := e.begin(s, spec, pump.Options{
		Base: base, Channels: e.Case.Channels, Conns: e.Case.Publishers, Rate: e.Case.Rate, Retry: true,
	})
	if err != nil {
		return err
	}
	defer m.p.Stop(0)
	if err := m.warm(ctx); err != nil {
		return err
	}
	if err := m.run(ctx, e.Duration/2, "before the kill"); err != nil {
		return err
	}
	killed, started, err := e.Target.Restart(ctx)
	if err != nil {
		return err
	}
	// The new process counts its own CPU time from zero.
	m.lastUsage = measure.Usage{}
	back, err := m.recover(ctx)
	if err != nil {
		return err
	}
	e.Run.Set("all connected", "s", time.Duration(back.LastReadyAt-started).Seconds())
	e.Run.Set("all served", "s", time.Duration(back.LastResumeAt-started).Seconds())
	e.Run.Set("all served since kill", "s", time.Duration(back.LastResumeAt-killed).Seconds())
	m.usage, m.known = e.usage()
	m.rested, m.peak = m.usage, 0
	if err := m.run(ctx, e.Duration/2, "after the kill"); err != nil {
		return err
	}
	if err := m.finish(ctx); err != nil {
		return err
	}
	ps := m.p.State()
	e.Run.Notes = append(e.Run.Notes, fmt.Sprintf("%d publishes were cut off or refused and sent again with their ids", ps.Failures))
	return nil
}

// recover waits until every client was greeted again and has seen an event.
func (m *stream) recover(ctx context.Context) (swarm.State, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("not all clients were back a minute after the kill"))
	defer cancel()
	n := uint64(m.spec.Clients)
	for {
		if err := m.sample(); err != nil {
			return m.last, err
		}
		if m.last.Connects >= m.from.Connects+n && m.last.Resumed >= n && m.last.Ready == m.spec.Clients {
			return m.last, nil
		}
		m.env.Progress.Show(fmt.Sprintf("coming back, %d connected", m.last.Ready), float64(m.last.Resumed)/float64(n))
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return m.last, fmt.Errorf("%w: %d of %d are connected, the last error was: %s", err, m.last.Ready, n, m.last.LastError)
		}
	}
}
