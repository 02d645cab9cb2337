package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/swarm"
)

const (
	allHealthy = "all read"
	someDeaf   = "a tenth stopped reading"
)

// slow asks whether those who don't read cost those who do.
var slow = Scenario{
	Name:  "slow",
	Brief: "one channel of large events, a tenth of whose listeners stop reading, in turns with the healthy ones alone: their latency, memory growth",
	Defaults: Options{
		Connections: 1000, Rate: 20, Size: 16 << 10, Duration: 15 * time.Second, Warmup: 2 * time.Second,
		Transports: []string{swarm.WebSocket},
	},
	Cases: func(o Options) []Case {
		var cases []Case
		for _, t := range o.Transports {
			for _, v := range []string{allHealthy, someDeaf} {
				cases = append(cases, Case{
					Name: fmt.Sprintf("%s 1 × %d, %s", t, o.Connections, v), Variant: v,
					Transport: t, Connections: o.Connections, Rate: o.Rate,
				})
			}
		}
		return cases
	},
	Interleave: true,
	Run: func(ctx context.Context, e *Env) error {
		base := newBase()
		deaf := max(e.Case.Connections/10, 1)
		spec := swarm.Spec{Clients: max(e.Case.Connections-deaf, 1), Channels: 1, Base: base}
		if e.Case.Variant == someDeaf {
			d, err := swarm.Start(e.clients(swarm.Spec{Clients: deaf, Channels: 1, Base: base, Deaf: true, Lane: laneOthers}))
			if err != nil {
				return err
			}
			defer d.Stop()
			if err := d.Wait(ctx, patience, nil); err != nil {
				return err
			}
			defer func() {
				if st, err := d.State(); err == nil && st.Dropped > 0 {
					e.Run.Notes = append(e.Run.Notes, fmt.Sprintf("the gateway ended %d of the %d that don't read", st.Dropped, deaf))
				}
			}()
		}
		return e.stream(ctx, spec, pump.Options{Base: base, Rate: e.Case.Rate})
	},
	Judge: against(allHealthy),
}

// against compares each run with the one before it, the undisturbed one.
func against(undisturbed string) func(*measure.Report) {
	return func(r *measure.Report) {
		for i, run := range r.Runs {
			if i == 0 || run.Number != r.Runs[i-1].Number || strings.HasSuffix(run.Case, undisturbed) {
				continue
			}
			with, ok1 := run.Get("p99")
			without, ok2 := r.Runs[i-1].Get("p99")
			if ok1 && ok2 && without > 0 {
				run.Set("p99 ÷ "+undisturbed, "", with/without)
			}
		}
	}
}
