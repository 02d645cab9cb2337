package scenario

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/swarm"
)

// Ranges of source addresses, so that no two parts of a run share ports.
const (
	laneClients = 0 // and those above it, one for each child process
	lanePump    = 100
	laneOthers  = 120
)

// patience is how long nothing may move before a run gives up waiting.
const patience = 15 * time.Second

// newBase is a channel prefix that no other run has.
func newBase() string { return "loadtest." + strings.ToLower(rand.Text()[:8]) }

// clients fills in what all swarms of a run have in common.
func (e *Env) clients(spec swarm.Spec) swarm.Spec {
	spec.Target, spec.Tokens = e.Target.Addr, e.Target.Tokens
	if spec.Transport == "" {
		spec.Transport = e.Case.Transport
	}
	return spec
}

// publisher fills in what all pumps of a run have in common.
func (e *Env) publisher(o pump.Options) pump.Options {
	o.Target, o.Tokens, o.Lane = e.Target.Addr, e.Target.Tokens, lanePump
	if o.Transport == "" {
		o.Transport = e.PublishBy
	}
	if o.Size == 0 {
		o.Size = e.Size
	}
	return o
}

// connect starts a swarm, waits until it listens and notes what that took.
func (e *Env) connect(ctx context.Context, spec swarm.Spec) (*swarm.Swarm, error) {
	before, known := e.usage()
	s, err := swarm.Start(spec)
	if err != nil {
		return nil, err
	}
	err = s.Wait(ctx, patience, func(ready int) {
		e.Progress.Show(fmt.Sprintf("connecting, %d", ready), float64(ready)/float64(spec.Clients))
	})
	if err != nil {
		s.Stop()
		return nil, err
	}
	st, err := s.State()
	if err != nil {
		s.Stop()
		return nil, err
	}
	if took := time.Duration(st.LastReadyAt - st.FirstReadyAt).Seconds(); took > 0 {
		e.Run.Set("connects/s", "", float64(spec.Clients-1)/took)
	}
	if st.Deferred > 0 {
		e.Run.Notes = append(e.Run.Notes, fmt.Sprintf("the gateway answered %d connects with 429 or 503: its limit, not its speed, was measured", st.Deferred))
	}
	if after, ok := e.usage(); ok && known {
		e.Run.Set("CPU per connect", "µs", micros(after.CPU-before.CPU)/float64(spec.Clients))
	}
	return s, nil
}

// usage samples the server; false if its processes aren't known.
func (e *Env) usage() (measure.Usage, bool) {
	if len(e.Target.Processes) == 0 {
		return measure.Usage{}, false
	}
	u, err := e.Target.Processes.Sample()
	if err != nil {
		return u, false
	}
	return u, true
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// pause waits; it is cut short by the context.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// A stream is a measurement in progress: clients that listen, a pump that
// publishes, and what has been seen of both since the mark.
type stream struct {
	env  *Env
	s    *swarm.Swarm
	p    *pump.Pump
	spec swarm.Spec

	label     string        // before the names of its series and latencies
	quiet     bool          // another one notes what the server uses
	rested    measure.Usage // before the first publish
	peak      int64         // highest RSS seen since
	marked    int64         // measure.Now of the mark
	from      swarm.State
	answered  uint64
	usage     measure.Usage
	known     bool
	latency   *measure.Histogram
	publishes *measure.Histogram

	last      swarm.State // at the latest sample
	lastPump  pump.State
	lastUsage measure.Usage
	lastAt    int64
}

// mark begins to measure: what came before was warming up.
func (m *stream) mark() error {
	var err error
	if m.from, err = m.s.State(); err != nil {
		return err
	}
	ps := m.p.State()
	m.answered, m.lastPump = ps.Answered, ps
	m.usage, m.known = m.env.usage()
	m.latency, m.publishes = measure.NewHistogram(), measure.NewHistogram()
	m.marked = measure.Now()
	m.last, m.lastUsage, m.lastAt = m.from, m.usage, m.marked
	return nil
}

// sample notes what happened since the last one as points of the time series.
func (m *stream) sample() error {
	st, err := m.s.State()
	if err != nil {
		return err
	}
	ps := m.p.State()
	now := measure.Now()
	at, dt := time.Duration(now-m.marked), time.Duration(now-m.lastAt).Seconds()
	run := m.env.Run
	run.Add(m.label+"deliveries", "1/s", at, float64(st.Delivered-m.last.Delivered)/dt)
	run.Add(m.label+"publishes", "1/s", at, float64(ps.Answered-m.lastPump.Answered)/dt)
	if st.Latency.Count() > 0 {
		run.Add(m.label+"latency p50", "ms", at, micros(st.Latency.Quantile(0.5))/1000)
		run.Add(m.label+"latency p99", "ms", at, micros(st.Latency.Quantile(0.99))/1000)
	}
	if !m.quiet {
		m.meter(at, dt)
	}
	m.latency.Merge(st.Latency)
	m.publishes.Merge(ps.Latency)
	m.last, m.lastPump, m.lastAt = st, ps, now
	return nil
}

// meter notes what the server uses.
func (m *stream) meter(at time.Duration, dt float64) {
	u, ok := m.env.usage()
	if !ok || !m.known {
		return
	}
	m.env.Run.Add("CPU", "cores", at, (u.CPU-m.lastUsage.CPU).Seconds()/dt)
	m.env.Run.Add("RSS", "MiB", at, float64(u.RSS)/(1<<20))
	m.lastUsage = u
	m.peak = max(m.peak, u.RSS)
}

// run samples until the duration is over or the pump has ended.
func (m *stream) run(ctx context.Context, d time.Duration, what string) error {
	tick := time.NewTicker(min(max(d/40, 100*time.Millisecond), 5*time.Second))
	defer tick.Stop()
	began := time.Now()
	for time.Since(began) < d {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.p.Done():
			return m.p.Err()
		case <-tick.C:
		}
		if err := m.sample(); err != nil {
			return err
		}
		m.env.Progress.Show(fmt.Sprintf("%s, %d delivered", what, m.last.Delivered), float64(time.Since(began))/float64(d))
	}
	return nil
}

// drain waits until every event published has arrived everywhere, or nothing
// has for a while.
func (m *stream) drain(ctx context.Context) error {
	var want uint64
	for strand, head := range m.p.Heads() {
		ch := strand % m.spec.Channels
		listeners := m.spec.Clients / m.spec.Channels
		if ch < m.spec.Clients%m.spec.Channels {
			listeners++
		}
		want += head * uint64(listeners)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	best, since := m.last.Delivered, time.Now()
	for n := 0; ; n++ {
		st, err := m.s.State()
		if err != nil {
			return err
		}
		m.latency.Merge(st.Latency)
		m.last = st
		if st.Delivered >= want {
			return nil
		}
		if st.Delivered > best {
			best, since = st.Delivered, time.Now()
		}
		if time.Since(since) > patience/3 {
			return nil // the ledgers will tell what is missing
		}
		if n%10 == 0 {
			m.env.Progress.Show(fmt.Sprintf("waiting for %d deliveries", want-st.Delivered), float64(st.Delivered)/float64(want))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// finish ends the publishing, waits for the rest, settles every client's
// ledger and notes the figures.
func (m *stream) finish(ctx context.Context) error {
	if err := m.p.Stop(patience); err != nil {
		m.env.Run.Fail(err)
	}
	if err := m.drain(ctx); err != nil {
		return err
	}
	after, known := m.env.usage()
	ps := m.p.State()
	m.publishes.Merge(ps.Latency)
	st, err := m.s.Settle(m.p.Heads())
	if err != nil {
		return err
	}
	run := m.env.Run
	run.Faults.Add(st.Faults)
	if st.Dropped > 0 && !m.spec.Reconnect {
		run.Fail(fmt.Errorf("the gateway ended %d connections: %s", st.Dropped, st.LastError))
	}
	if st.Gaps > 0 {
		run.Fail(fmt.Errorf("the gateway announced %d gaps", st.Gaps))
	}
	if st.Ready == 0 {
		run.Fail(errors.New("no client is connected at the end"))
	}
	deliveries := float64(st.Delivered - m.from.Delivered)
	publishes := float64(ps.Answered - m.answered)
	took := time.Duration(st.LastEventAt - m.marked).Seconds()
	if took > 0 {
		run.Set(m.label+"deliveries/s", "", deliveries/took)
		run.Set(m.label+"publishes/s", "", publishes/took)
	}
	run.SetLatency(strings.TrimSpace(m.label), m.latency)
	run.SetLatency(m.label+"publish", m.publishes)
	if m.known && known && !m.quiet {
		cpu := micros(after.CPU - m.usage.CPU)
		if m.label == "" { // else it is spent on the other streams too
			run.Set("CPU per delivery", "µs", cpu/max(deliveries, 1))
			run.Set("CPU per publish", "µs", cpu/max(publishes, 1))
		}
		run.Set("CPU", "cores", cpu/1e6/time.Duration(after.At-m.usage.At).Seconds())
		run.Set("RSS", "MiB", float64(after.RSS)/(1<<20))
		run.Set("RSS growth", "MiB", float64(max(m.peak, after.RSS)-m.rested.RSS)/(1<<20))
	}
	return nil
}

// stream connects, publishes, measures and settles: most scenarios are this.
func (e *Env) stream(ctx context.Context, spec swarm.Spec, o pump.Options) error {
	s, err := e.connect(ctx, e.clients(spec))
	if err != nil {
		return err
	}
	defer s.Stop()
	m, err := e.begin(s, spec, o)
	if err != nil {
		return err
	}
	defer m.p.Stop(0)
	if err := m.warm(ctx); err != nil {
		return err
	}
	if err := m.run(ctx, e.Duration, "measuring"); err != nil {
		return err
	}
	return m.finish(ctx)
}

// begin starts to publish to a swarm that listens.
func (e *Env) begin(s *swarm.Swarm, spec swarm.Spec, o pump.Options) (*stream, error) {
	if spec.Channels == 0 {
		spec.Channels = spec.Clients
	}
	rested, _ := e.usage()
	p, err := pump.Start(e.publisher(o))
	if err != nil {
		return nil, err
	}
	return &stream{env: e, s: s, p: p, spec: spec, rested: rested}, nil
}

// warm lets the stream run for a while, then marks.
func (m *stream) warm(ctx context.Context) error {
	m.env.Progress.Show("warming up", 0)
	if err := pause(ctx, m.env.Warmup); err != nil {
		return err
	}
	if err := m.p.Err(); err != nil {
		return err
	}
	return m.mark()
}
