package scenario

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/pump"
	"github.com/longline-push/longline/loadtest/swarm"
)

// soak runs a bit of everything for long.
var soak = Scenario{
	Name:  "soak",
	Brief: "a mix for long: fan-out, private channels, clients that come and go, clients that don't read; memory, goroutines and descriptors must stay flat",
	Defaults: Options{
		Connections: 3000, Rate: 500, Publishers: []int{16}, Duration: time.Hour, Warmup: 10 * time.Second,
	},
	Cases: func(o Options) []Case {
		return []Case{{Name: fmt.Sprintf("mix of %d", o.Connections), Connections: o.Connections, Rate: o.Rate, Publishers: o.Publishers[0]}}
	},
	Run: runSoak,
}

func runSoak(ctx context.Context, e *Env) error {
	n := max(e.Case.Connections/3, 1)
	mix := []struct {
		label string
		spec  swarm.Spec
		pump  pump.Options
	}{
		{"fanout ", swarm.Spec{Transport: swarm.WebSocket, Clients: n, Channels: max(n/100, 1)},
			pump.Options{Channels: max(n/100, 1), Rate: max(e.Case.Rate/25, 1)}},
		{"sse ", swarm.Spec{Transport: swarm.SSE, Clients: n, Channels: max(n/10, 1)},
			pump.Options{Channels: max(n/10, 1), Rate: max(e.Case.Rate/5, 1), Transport: pump.WebSocket}},
		{"private ", swarm.Spec{Transport: swarm.WebSocket, Clients: n},
			pump.Options{Channels: n, Conns: min(e.Case.Publishers, n), Rate: e.Case.Rate}},
	}
	var streams []*stream
	for i, part := range mix {
		part.spec.Base = newBase()
		part.pump.Base = part.spec.Base
		part.spec.Lane = 10 * i
		spec := e.clients(part.spec)
		s, err := e.connect(ctx, spec)
		if err != nil {
			return err
		}
		defer s.Stop()
		m, err := e.begin(s, spec, part.pump)
		if err != nil {
			return err
		}
		defer m.p.Stop(0)
		m.label, m.quiet = part.label, i > 0
		streams = append(streams, m)
	}
	deaf, err := swarm.Start(e.clients(swarm.Spec{
		Transport: swarm.WebSocket, Clients: max(n/50, 1), Channels: max(n/100, 1), Base: streams[0].spec.Base,
		Deaf: true, Reconnect: true, RetryMax: 10 * time.Second, Lane: laneOthers,
	}))
	if err != nil {
		return err
	}
	defer deaf.Stop()
	e.Progress.Show("warming up", 0)
	if err := pause(ctx, e.Warmup); err != nil {
		return err
	}
	for _, m := range streams {
		if err := m.p.Err(); err != nil {
			return err
		}
		if err := m.mark(); err != nil {
			return err
		}
	}
	if err := e.soak(ctx, streams, n); err != nil {
		return err
	}
	for i := len(streams) - 1; i >= 0; i-- {
		if err := streams[i].finish(ctx); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name, unit string
		slack      float64
	}{{"RSS", "MiB", 24}, {"goroutines", "", 50}, {"descriptors", "", 50}} {
		if err := flat(e.Run, f.name, f.unit, f.slack); err != nil {
			e.Run.Fail(err)
		}
	}
	return nil
}

// soak samples all parts, while clients come and go, until time is up.
func (e *Env) soak(ctx context.Context, streams []*stream, n int) error {
	every := min(max(e.Duration/240, 250*time.Millisecond), 15*time.Second)
	began := time.Now()
	for round := 0; time.Since(began) < e.Duration; round++ {
		guests, err := swarm.Start(e.clients(swarm.Spec{
			Transport: both[round%2], Clients: max(n/10, 1), Channels: max(n/100, 1), Base: streams[0].spec.Base,
			AnyStart: true, Lane: laneOthers + 10,
		}))
		if err != nil {
			return err
		}
		err = e.round(ctx, streams, guests, began, every)
		// What they saw must be whole, though it begins and ends in the middle.
		if err == nil {
			var st swarm.State
			if st, err = guests.Settle(nil); err == nil {
				e.Run.Faults.Add(st.Faults)
				if st.Dropped > 0 {
					err = fmt.Errorf("the gateway ended %d short-lived connections: %s", st.Dropped, st.LastError)
				}
			}
		}
		guests.Stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// round is one stay of the guests: two samples long.
func (e *Env) round(ctx context.Context, streams []*stream, guests *swarm.Swarm, began time.Time, every time.Duration) error {
	if err := guests.Wait(ctx, patience, nil); err != nil {
		return err
	}
	for range 2 {
		if err := pause(ctx, every); err != nil {
			return err
		}
		var delivered uint64
		for _, m := range streams {
			if err := m.p.Err(); err != nil {
				return err
			}
			if err := m.sample(); err != nil {
				return err
			}
			delivered += m.last.Delivered
		}
		at := time.Since(began)
		if u, ok := e.usage(); ok {
			e.Run.Add("descriptors", "", at, float64(u.FDs))
		}
		if g, ok := goroutines(ctx, e.Target.Metrics); ok {
			e.Run.Add("goroutines", "", at, g)
		}
		e.Progress.Show(fmt.Sprintf("soaking, %d delivered", delivered), float64(at)/float64(e.Duration))
	}
	return nil
}

// goroutines reads their number from the gateway's metrics; false if it
// isn't there.
func goroutines(ctx context.Context, url string) (float64, bool) {
	if url == "" {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "go_goroutines "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return n, err == nil
		}
	}
	return 0, false
}

// flat compares the second quarter of a series, when all is warm, with the
// last: growth beyond a tenth and the slack (what a collection more or less
// makes) is a leak.
func flat(run *measure.Run, name, unit string, slack float64) error {
	for _, s := range run.Series {
		if s.Name != name || len(s.Points) < 8 {
			continue
		}
		quarter := func(k int) float64 {
			var values []float64
			for _, p := range s.Points[len(s.Points)*k/4 : len(s.Points)*(k+1)/4] {
				values = append(values, p.V)
			}
			return measure.Median(values)
		}
		early, late := quarter(1), quarter(3)
		run.Set(name+" growth", unit, late-early)
		if late > early+math.Max(early/10, slack) {
			return fmt.Errorf("%s grew from %.0f to %.0f %s", name, early, late, unit)
		}
		return nil
	}
	if name == "RSS" {
		return errors.New("memory wasn't measured long enough (or without --pid) to be called flat")
	}
	run.Notes = append(run.Notes, name+" weren't measured: no --metrics, no --pid or too short a run")
	return nil
}
