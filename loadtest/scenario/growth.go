package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/swarm"
	"github.com/longline-push/longline/loadtest/target"
)

const (
	growConnections = "connections"
	growChannels    = "channels"
)

// growth asks whether costs stay what they are when numbers grow.
var growth = Scenario{
	Name:  "growth",
	Brief: "CPU per delivery and memory per connection as connections grow at a constant number of deliveries, CPU per publish as channels grow: all should be flat",
	Defaults: Options{
		Connections: 15_000, Channels: 100_000, Rate: 20_000, Publishers: []int{64},
		Duration: 8 * time.Second, Warmup: 2 * time.Second, Settle: 5 * time.Second, Transports: both,
	},
	Floored: true, // what the kernel's part grows by
	Cases: func(o Options) []Case {
		var cases []Case
		for _, t := range o.Transports {
			for _, n := range steps(100, o.Connections) {
				cases = append(cases, Case{
					Name: fmt.Sprintf("%s %d connections", t, n), X: float64(n), Variant: growConnections,
					Transport: t, Connections: n, Rate: o.Rate / float64(n),
				})
			}
		}
		for _, n := range steps(1, o.Channels) {
			cases = append(cases, Case{
				Name: fmt.Sprintf("%d channels", n), X: float64(n), Variant: growChannels,
				Channels: n, Publishers: o.Publishers[0], Rate: o.Rate / 4,
			})
		}
		return cases
	},
	Run: func(ctx context.Context, e *Env) error {
		if e.Case.Variant == growChannels {
			return e.grownChannels(ctx)
		}
		base := newBase()
		before, known := e.usage()
		spec := e.clients(swarm.Spec{Clients: e.Case.Connections, Channels: 1, Base: base})
		s, err := e.connect(ctx, spec)
		if err != nil {
			return err
		}
		defer s.Stop()
		e.Progress.Show("letting it settle", 0)
		if err := pause(ctx, e.Settle); err != nil {
			return err
		}
		if after, ok := e.usage(); ok && known {
			e.Run.Set("RSS per connection", "B", float64(after.RSS-before.RSS)/float64(e.Case.Connections))
			e.Run.Set("RSS connected", "MiB", float64(after.RSS)/(1<<20))
		}
		m, err := e.begin(s, spec, pump.Options{Base: base, Rate: e.Case.Rate})
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
		if err := m.finish(ctx); err != nil {
			return err
		}
		// Of a publish to so many listeners: not what a publish to one of so
		// many channels is compared with.
		e.Run.Metrics = slices.DeleteFunc(e.Run.Metrics, func(m measure.Metric) bool { return m.Name == "CPU per publish" })
		return nil
	},
	Judge: func(r *measure.Report) {
		marginal(r)
		rows := slices.DeleteFunc(r.Summarize(target.Floor), func(row measure.Row) bool { return row.Target == target.Floor })
		for _, f := range []struct{ metric, of string }{
			{"CPU per delivery", "ws"}, {"CPU per delivery", "sse"},
			{furtherRSS, "ws"}, {furtherRSS, "sse"}, {"CPU per publish", growChannels},
		} {
			var values, ratios []float64
			for _, row := range rows {
				if !slices.Contains(strings.Fields(row.Case), f.of) {
					continue
				}
				if v, ok := row.Get(f.metric); ok {
					values = append(values, v)
				}
				if v, ok := row.Ratio[f.metric]; ok {
					ratios = append(ratios, v)
				}
			}
			spread(r, fmt.Sprintf("%s, %s", f.metric, f.of), values)
			if f.metric != furtherRSS {
				spread(r, fmt.Sprintf("%s ÷ floor, %s", f.metric, f.of), ratios)
			}
		}
	},
}

// spread says how flat values are.
func spread(r *measure.Report, of string, values []float64) {
	if len(values) > 1 && slices.Min(values) > 0 {
		r.Findings = append(r.Findings, fmt.Sprintf("%s: the highest is %.2f × the lowest, the last %.2f × the first.",
			of, slices.Max(values)/slices.Min(values), values[len(values)-1]/values[0]))
	}
}

// furtherRSS is what a connection costs without the share of what the first
// one already cost the process.
const furtherRSS = "RSS per further connection"

// marginal notes it for each run, against the next smaller one of its round.
func marginal(r *measure.Report) {
	for i, run := range r.Runs {
		rss, ok := run.Get("RSS connected")
		if !ok {
			continue
		}
		for _, smaller := range slices.Backward(r.Runs[:i]) {
			base, ok := smaller.Get("RSS connected")
			same := ok && smaller.Number == run.Number && smaller.Target == run.Target && smaller.X < run.X
			if same && strings.Fields(smaller.Case)[0] == strings.Fields(run.Case)[0] {
				run.Set(furtherRSS, "B", (rss-base)*(1<<20)/(run.X-smaller.X))
				break
			}
		}
	}
}

// steps goes from the first number to the last by tens.
func steps(from, to int) []int {
	var all []int
	for n := from; n < to; n *= 10 {
		all = append(all, n)
	}
	return append(all, to)
}

// grownChannels makes all channels by a first publish to each, and then
// publishes at a constant rate, going round them.
func (e *Env) grownChannels(ctx context.Context) error {
	base := newBase()
	before, known := e.usage()
	p, err := pump.Start(e.publisher(pump.Options{
		Base: base, Conns: e.Case.Publishers, Channels: e.Case.Channels, Rate: e.Case.Rate, Prime: true,
	}))
	if err != nil {
		return err
	}
	defer p.Stop(0)
	first := float64(max(e.Case.Channels, e.Case.Publishers))
	for answered := 0.0; answered < first; {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		if err := p.Err(); err != nil {
			return err
		}
		answered = float64(p.State().Answered)
		e.Progress.Show("making channels", min(answered/first, 1))
	}
	if after, ok := e.usage(); ok && known && e.Case.Channels >= e.Case.Publishers {
		e.Run.Set("CPU per first publish", "µs", micros(after.CPU-before.CPU)/first)
	}
	if err := e.publishing(ctx, p); err != nil {
		return err
	}
	heads := p.Heads()
	// Reading a hundred thousand channels back would take as many clients: a
	// sample is checked, the first ones, which every round has passed.
	channels := min(e.Case.Channels, 5000)
	if e.Case.Channels >= e.Case.Publishers {
		heads = heads[:channels]
	}
	return e.readBack(ctx, base, channels, heads)
}
