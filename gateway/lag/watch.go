package lag

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Log is what a Watch needs of a broker.
type Log interface {
	Look(ctx context.Context, names []string) ([]broker.Progress, error)
	State(ctx context.Context, channel string) (broker.State, error)
	Read(ctx context.Context, channel string, offset uint64, limit broker.Limit) (broker.Page, error)
}

// Options of a Watch.
type Options struct {
	Log Log
	// Owned names the subscriptions that the node serves, and the partitions.
	Owned  func(context.Context) ([]string, error)
	Most   int // how many are named; at least 1
	Logger *slog.Logger
	// Every is how often they are looked at. 0: 10 s.
	Every time.Duration
}

// Others is the name of the series of all that are not named. No subscription
// has it.
const Others = "(others)"

// Watch measures the subscriptions that its node serves, by name those that are
// the most behind. What is not named is one series, so that a node has at most
// Most of them and one. Run is called once; the other methods by any goroutine.
type Watch struct {
	o Options

	mu     sync.Mutex
	named  map[string]*series
	others series
}

// series is what is known of a subscription, or of all that have no name.
type series struct {
	events  uint64
	seconds float64 // of the oldest event; not of the others

	// Of callbacks, since it is named.
	results map[string]uint64
	calls   uint64
	took    float64 // seconds
}

// New makes a watch that r, if not nil, gathers.
func New(o Options, r prometheus.Registerer) *Watch {
	if o.Every == 0 {
		o.Every = 10 * time.Second
	}
	w := &Watch{o: o, named: make(map[string]*series)}
	if r != nil {
		r.MustRegister(w)
	}
	return w
}

// Called counts a callback of a subscription, or of a group.
func (w *Watch) Called(name, result string, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.named[name]
	if s == nil {
		s = &w.others
	}
	if s.results == nil {
		s.results = make(map[string]uint64)
	}
	s.results[result]++
	s.calls++
	s.took += took.Seconds()
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(w.o.Every)
	defer tick.Stop()
	for {
		if err := w.Look(ctx); err != nil && ctx.Err() == nil {
			w.o.Logger.Debug("look how far subscriptions are behind", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// standing is how far a subscription is behind.
type standing struct {
	name   string
	events uint64
	at     event.Position // after which there is something, per channel
}

// Look finds out who is the most behind. What an error leaves is as it was.
func (w *Watch) Look(ctx context.Context) error {
	names, err := w.o.Owned(ctx)
	if err != nil {
		return err
	}
	all, err := w.standings(ctx, names)
	if err != nil {
		return err
	}
	w.mu.Lock()
	had := make(map[string]bool, len(w.named))
	for name := range w.named {
		had[name] = true
	}
	w.mu.Unlock()
	// Among those that are as far, who is named remains so.
	slices.SortFunc(all, func(x, y standing) int {
		if n := cmp.Compare(y.events, x.events); n != 0 {
			return n
		}
		if had[x.name] != had[y.name] {
			if had[x.name] {
				return -1
			}
			return 1
		}
		return strings.Compare(x.name, y.name)
	})
	shown := all[:min(len(all), w.o.Most)]
	ages := make([]float64, len(shown))
	now := time.Now()
	for i, s := range shown {
		if ages[i], err = w.age(ctx, s, now); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	named := make(map[string]*series, len(shown))
	for i, s := range shown {
		one := w.named[s.name]
		if one == nil {
			one = new(series)
		}
		one.events, one.seconds = s.events, ages[i]
		named[s.name] = one
	}
	w.named, w.others.events = named, 0
	for _, s := range all[len(shown):] {
		w.others.events += s.events
	}
	return nil
}

// standings are those of subscriptions; of a group, that of the partition here
// that is the farthest behind.
func (w *Watch) standings(ctx context.Context, names []string) ([]standing, error) {
	divided := make(map[string]bool)
	for _, name := range names {
		if base, _, is := strings.Cut(name, "/"); is {
			divided[base] = true
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return divided[name] }) // its partitions say it
	heads := make(map[string]broker.State)
	far := make(map[string]standing)
	for some := range slices.Chunk(names, 1000) {
		progress, err := w.o.Log.Look(ctx, some)
		if err != nil {
			return nil, err
		}
		for i, p := range progress {
			if p.Generation == 0 {
				continue // deleted meanwhile
			}
			name, _, _ := strings.Cut(some[i], "/")
			s, err := w.standing(ctx, name, p.Position, heads)
			if err != nil {
				return nil, err
			}
			if was, ok := far[name]; !ok || was.events < s.events {
				far[name] = s
			}
		}
	}
	all := make([]standing, 0, len(far))
	for _, s := range far {
		all = append(all, s)
	}
	return all, nil
}

func (w *Watch) standing(ctx context.Context, name string, p event.Position, heads map[string]broker.State) (standing, error) {
	s := standing{name: name}
	for _, c := range p {
		state, known := heads[c.Channel]
		if !known {
			var err error
			if state, err = w.o.Log.State(ctx, c.Channel); err != nil && !errors.Is(err, broker.ErrNotFound) {
				return s, err
			}
			heads[c.Channel] = state
		}
		if offset, last := Behind(state, c, nil); offset < last {
			s.events += last - offset
			s.at = append(s.at, event.Cursor{Channel: c.Channel, Offset: offset})
		}
	}
	return s, nil
}

// age is that of the oldest event that is left to deliver, in seconds.
func (w *Watch) age(ctx context.Context, s standing, now time.Time) (seconds float64, err error) {
	for _, c := range s.at {
		page, err := w.o.Log.Read(ctx, c.Channel, c.Offset, broker.Limit{Events: 1, Bytes: 1})
		if err != nil && !errors.Is(err, broker.ErrNotFound) {
			return 0, err
		}
		if len(page.Items) > 0 {
			seconds = max(seconds, now.Sub(page.Items[0].Time).Seconds())
		}
	}
	return seconds, nil
}

var (
	eventsDesc  = prometheus.NewDesc("longline_subscription_lag_events", "Events beyond the position of a subscription that this node serves, those of other types included: the most behind by name, the rest as (others). With --metrics-subscriptions.", []string{"subscription"}, nil)
	secondsDesc = prometheus.NewDesc("longline_subscription_lag_seconds", "Age of the oldest of these events; 0 if there are none.", []string{"subscription"}, nil)
	callsDesc   = prometheus.NewDesc("longline_subscription_callbacks_total", "Callbacks of these subscriptions, by what came of them.", []string{"subscription", "result"}, nil)
	tookDesc    = prometheus.NewDesc("longline_subscription_callback_seconds", "Duration of callbacks of these subscriptions.", []string{"subscription"}, nil)
)

// Describe implements prometheus.Collector.
func (w *Watch) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{eventsDesc, secondsDesc, callsDesc, tookDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (w *Watch) Collect(to chan<- prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, s := range w.named {
		to <- prometheus.MustNewConstMetric(secondsDesc, prometheus.GaugeValue, s.seconds, name)
		s.collect(to, name)
	}
	w.others.collect(to, Others)
}

func (s *series) collect(to chan<- prometheus.Metric, name string) {
	to <- prometheus.MustNewConstMetric(eventsDesc, prometheus.GaugeValue, float64(s.events), name)
	for result, n := range s.results {
		to <- prometheus.MustNewConstMetric(callsDesc, prometheus.CounterValue, float64(n), name, result)
	}
	if s.calls > 0 {
		to <- prometheus.MustNewConstSummary(tookDesc, s.calls, s.took, nil, name)
	}
}
