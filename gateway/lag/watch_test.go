package lag_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/lag"
)

// logs are as many events as it says a channel, one a second, and positions.
type logs struct {
	heads map[string]uint64
	at    map[string]event.Position
	fails error
}

func (l *logs) Look(_ context.Context, names []string) ([]broker.Progress, error) {
	var out []broker.Progress
	for _, name := range names {
		p := broker.Progress{Position: l.at[name]}
		if p.Position != nil {
			p.Generation = 1
		}
		out = append(out, p)
	}
	return out, l.fails
}

func (l *logs) State(_ context.Context, channel string) (broker.State, error) {
	return broker.State{Epoch: "e", First: 1, Head: l.heads[channel]}, nil
}

// Read: the newest event is of now, each older one of a second before.
func (l *logs) Read(_ context.Context, channel string, offset uint64, _ broker.Limit) (broker.Page, error) {
	age := time.Duration(l.heads[channel]-offset-1) * time.Second
	return broker.Page{Items: []broker.Item{{Offset: offset + 1, Time: time.Now().Add(-age)}}}, nil
}

func (l *logs) owned(context.Context) (names []string, err error) {
	for name := range l.at {
		names = append(names, name)
	}
	return names, nil
}

func at(cursors ...string) (p event.Position) {
	for _, text := range cursors {
		c, _ := event.ParseCursor(text)
		p = append(p, c)
	}
	return p
}

// gathered is what Prometheus would see: NAME{LABELS} VALUE, sorted.
func gathered(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			value := fmt.Sprint(m.GetGauge().GetValue() + m.GetCounter().GetValue())
			if s := m.GetSummary(); s != nil {
				value = fmt.Sprint(s.GetSampleCount(), " in ", s.GetSampleSum())
			}
			lines = append(lines, strings.TrimPrefix(f.GetName(), "longline_subscription_")+" "+strings.Join(labels, " ")+" "+value)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestTheMostBehindAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logs{heads: map[string]uint64{"a": 100, "b": 10}, at: map[string]event.Position{
			"slow":    at("a@e-40", "b@e-9"),
			"crm":     at("a@e-90"),
			"live":    at("a@e-100"),
			"done":    at("b@e-10"),
			"group":   at("a@e-0"), // as it was divided: its partitions say how far it is
			"group/0": at("a@e-95"),
			"group/1": at("a@e-80"),
			"gone":    nil,
		}}
		r := prometheus.NewRegistry()
		w := lag.New(lag.Options{Log: l, Owned: l.owned, Most: 2, Logger: slog.New(slog.DiscardHandler)}, r)
		w.Called("slow", "accepted", time.Second) // before it is known that it is slow
		look := func() {
			t.Helper()
			if err := w.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want := func(what string, lines ...string) {
			t.Helper()
			if got := gathered(t, r); got != strings.Join(lines, "\n") {
				t.Errorf("%s: got\n%s\nwant\n%s", what, got, strings.Join(lines, "\n"))
			}
		}
		look()
		w.Called("slow", "refused", 2*time.Second)
		w.Called("slow", "refused", time.Second)
		w.Called("crm", "accepted", time.Second)
		want("at first",
			"callback_seconds (others) 2 in 2", "callback_seconds slow 2 in 3",
			"callbacks_total accepted (others) 2", "callbacks_total refused slow 2",
			"lag_events (others) 10", "lag_events group 20", "lag_events slow 61",
			"lag_seconds group 19", "lag_seconds slow 59")

		// What is told can't be undone: a counter goes on or is gone.
		l.at["slow"], l.at["group/1"] = at("a@e-100", "b@e-10"), at("a@e-95")
		look()
		w.Called("slow", "accepted", time.Second)
		want("slow has caught up",
			"callback_seconds (others) 3 in 3",
			"callbacks_total accepted (others) 3",
			"lag_events (others) 0", "lag_events crm 10", "lag_events group 5",
			"lag_seconds crm 9", "lag_seconds group 4")

		// Nobody is behind: who is named remains so.
		l.at["crm"], l.at["group/0"], l.at["group/1"] = at("a@e-100"), at("a@e-100"), at("a@e-100")
		look()
		want("nobody is behind",
			"callback_seconds (others) 3 in 3",
			"callbacks_total accepted (others) 3",
			"lag_events (others) 0", "lag_events crm 0", "lag_events group 0",
			"lag_seconds crm 0", "lag_seconds group 0")

		l.heads["a"], l.fails = 200, broker.ErrUnavailable
		if err := w.Look(t.Context()); err == nil {
			t.Error("the broker is away, and that is not told")
		}
		want("while the broker is away it is as it was",
			"callback_seconds (others) 3 in 3",
			"callbacks_total accepted (others) 3",
			"lag_events (others) 0", "lag_events crm 0", "lag_events group 0",
			"lag_seconds crm 0", "lag_seconds group 0")
	})
}
