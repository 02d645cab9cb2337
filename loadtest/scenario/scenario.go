// Package scenario holds what the load tester can do to a gateway, one file
// each, and the order in which runs are made.
package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/target"
)

// Options are the knobs of all scenarios; 0 or empty means the scenario's own
// default, which its help tells.
type Options struct {
	Connections int
	Channels    int
	Publishers  []int
	Rate        float64 // events per second, over all channels
	Duration    time.Duration
	Warmup      time.Duration
	Size        int // bytes of an event's data
	Batch       int
	Events      int
	Transports  []string
	PublishBy   string
	Settle      time.Duration // from the last connect to the measurement
	Scale       float64       // crm: of all times in its world
	Runs        int
}

// A Case is one variant of a scenario: a row of its table.
type Case struct {
	Name        string
	X           float64 // for growth: the number that grows
	Transport   string
	Connections int
	Channels    int
	Publishers  int
	Rate        float64
	Variant     string // what else distinguishes it, known to the scenario
}

// A Scenario is one way to load a gateway.
type Scenario struct {
	Name     string
	Brief    string // one sentence
	Defaults Options
	Cases    func(Options) []Case
	Floored  bool // the floor can do it too

	// Interleave runs the cases in turns, for those that are compared with
	// each other.
	Interleave bool
	Run        func(context.Context, *Env) error

	// Compare names the time series that are drawn of all cases in one picture.
	Compare []string

	// Judge looks at all runs together; it may be nil.
	Judge func(*measure.Report)
}

// Progress shows how a run goes on; done is between 0 and 1.
type Progress interface {
	Show(what string, done float64)
}

// Env is what a run has at hand.
type Env struct {
	Options
	Case     Case
	Target   *target.Target
	Run      *measure.Run
	Progress Progress

	report *measure.Report
}

// more begins another run beside this one, for those that are measured
// together.
func (e *Env) more(name string) *measure.Run {
	run := &measure.Run{Case: name, Target: e.Run.Target, Number: e.Run.Number, Started: e.Run.Started}
	e.report.Runs = append(e.report.Runs, run)
	return run
}

// All are the scenarios, in the order of the help.
func All() []*Scenario {
	return []*Scenario{&idle, &fanout, &private, &publish, &burst, &slow, &storm, &growth, &callbacks, &toCRM, &soak}
}

// Find returns the scenario of a name.
func Find(name string) (*Scenario, error) {
	all := All()
	i := slices.IndexFunc(all, func(s *Scenario) bool { return s.Name == name })
	if i < 0 {
		var names []string
		for _, s := range all {
			names = append(names, s.Name)
		}
		return nil, fmt.Errorf("scenario %q: want one of %v", name, names)
	}
	return all[i], nil
}

// Execute makes all runs of a scenario: case by case, and within a case target
// by target in turns, so that whatever else the machine does meets both. Each
// run gets a fresh target. The report is whole also where runs failed; an
// error means that it isn't.
func Execute(ctx context.Context, s *Scenario, o Options, targets []target.Maker, p Progress) (*measure.Report, error) {
	report := &measure.Report{
		Format: measure.Format, Scenario: s.Name, Brief: s.Brief,
		Started: time.Now(), Machine: measure.ThisMachine(), Compare: s.Compare,
	}
	o = o.or(s.Defaults)
	rounds := [][]Case{s.Cases(o)}
	if !s.Interleave {
		rounds = nil
		for _, c := range s.Cases(o) {
			rounds = append(rounds, []Case{c})
		}
	}
	for _, cases := range rounds {
		for n := range o.Runs {
			for _, c := range cases {
				for _, start := range targets {
					if err := execute(ctx, s, o, c, n+1, start, p, report); err != nil {
						return report, err
					}
				}
			}
		}
	}
	if s.Judge != nil {
		s.Judge(report)
	}
	return report, nil
}

func execute(ctx context.Context, s *Scenario, o Options, c Case, n int, start target.Maker, p Progress, report *measure.Report) error {
	t, err := start(ctx)
	if err != nil {
		return err
	}
	defer t.Stop()
	run := &measure.Run{Case: c.Name, X: c.X, Target: t.Name, Number: n, Started: time.Now()}
	report.Runs = append(report.Runs, run)
	env := &Env{Options: o, Case: c, Target: t, Run: run, report: report, Progress: labelled{p, fmt.Sprintf("%s · %s %d/%d", c.Name, t.Name, n, o.Runs)}}
	if err := s.Run(ctx, env); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		run.Fail(err)
	}
	if err := t.Died(); err != nil {
		run.Fail(err)
	}
	return nil
}

// labelled says which run it is.
type labelled struct {
	Progress
	label string
}

func (l labelled) Show(what string, done float64) { l.Progress.Show(l.label+" · "+what, done) }

// or fills in what isn't set.
func (o Options) or(d Options) Options {
	pick(&o.Connections, d.Connections)
	pick(&o.Channels, d.Channels)
	pick(&o.Rate, d.Rate)
	pick(&o.Duration, d.Duration)
	pick(&o.Warmup, d.Warmup)
	pick(&o.Size, d.Size)
	pick(&o.Size, 256)
	pick(&o.Batch, d.Batch)
	pick(&o.Events, d.Events)
	pick(&o.PublishBy, d.PublishBy)
	pick(&o.Settle, d.Settle)
	pick(&o.Scale, d.Scale)
	pick(&o.Runs, d.Runs)
	pick(&o.Runs, 1)
	if o.Publishers == nil {
		o.Publishers = d.Publishers
	}
	if o.Transports == nil {
		o.Transports = d.Transports
	}
	return o
}

func pick[T comparable](to *T, otherwise T) {
	var zero T
	if *to == zero {
		*to = otherwise
	}
}

// perTransport makes one case for each transport asked for.
func perTransport(o Options, base Case) []Case {
	var cases []Case
	for _, t := range o.Transports {
		c := base
		c.Transport = t
		c.Name = t + " " + base.Name
		cases = append(cases, c)
	}
	return cases
}
