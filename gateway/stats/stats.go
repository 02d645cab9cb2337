// Package stats keeps what the nodes did in the last minutes, hour and day, for
// charts. Each node tells all of them its totals every few seconds; so each
// knows of all, as far back as it runs itself, in memory that doesn't grow.
package stats

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Every is how often a node should tell its totals.
const Every = 5 * time.Second

// maxNodes is of how many nodes a history is kept, some 40 KiB each; of more,
// those last heard of.
const maxNodes = 20

// spans are what can be asked for: each has a ring in each history.
var spans = []struct {
	name       string
	span, step time.Duration
}{
	{"5m", 5 * time.Minute, 5 * time.Second},
	{"1h", time.Hour, 30 * time.Second},
	{"24h", 24 * time.Hour, 5 * time.Minute},
}

// Spans are the names of the spans that Show takes, the shortest first.
func Spans() (names []string) {
	for _, s := range spans {
		names = append(names, s.name)
	}
	return names
}

// Sample is what a node tells of itself.
type Sample struct {
	Node    string
	Started time.Time // since when the totals count
	At      time.Time
	Totals  Totals
}

// Keeper keeps the histories. It is safe for concurrent use.
type Keeper struct {
	mu    sync.Mutex
	nodes map[string]*history
}

// history is what is known of one node.
type history struct {
	last  Sample
	rings []*ring
}

// New makes a Keeper.
func New() *Keeper { return &Keeper{nodes: make(map[string]*history)} }

// Note takes a sample in. A node's samples come in the order of their time;
// the first one only says from where to count, but for a node that has just
// started.
func (k *Keeper) Note(s Sample) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.nodes[s.Node]
	if h == nil {
		h = k.madeLocked(s)
	}
	from := h.last
	if !from.Started.Equal(s.Started) {
		from = Sample{Started: s.Started, At: s.Started} // it counts from 0 again
	}
	if !s.At.After(from.At) {
		return
	}
	happened := make([]float64, 0, slots)
	for _, one := range all {
		v := s.Totals[one.name]
		if one.gauge() {
			happened = append(happened, v)
			continue
		}
		happened = append(happened, max(v-from.Totals[one.name], 0))
		if one.kind == mean {
			count := one.name + "_count"
			happened = append(happened, max(s.Totals[count]-from.Totals[count], 0))
		}
	}
	for _, r := range h.rings {
		r.add(from.At, s.At, happened)
	}
	h.last = s
}

// madeLocked makes a history, in place of the one longest unheard of if there
// are too many. A node that has run for a while before it is first heard of
// says nothing of when its events were.
func (k *Keeper) madeLocked(s Sample) *history {
	if len(k.nodes) >= maxNodes {
		oldest := ""
		for name, h := range k.nodes {
			if oldest == "" || h.last.At.Before(k.nodes[oldest].last.At) {
				oldest = name
			}
		}
		delete(k.nodes, oldest)
	}
	h := &history{}
	if s.At.Sub(s.Started) > 4*Every {
		h.last = s
	}
	for _, span := range spans {
		h.rings = append(h.rings, newRing(span.step, span.span))
	}
	k.nodes[s.Node] = h
	return h
}

// Shown is what charts show. Points are a step apart, the oldest first; the
// last one's step ends at Until, or isn't over yet. A point is nil where
// nothing is known. Counters are rates a second, times are means in seconds.
type Shown struct {
	Span        string                `json:"span"`
	StepSeconds int                   `json:"step_seconds"`
	Until       time.Time             `json:"until"`
	Nodes       []string              `json:"nodes"` // of which something is known
	Series      map[string][]*float64 `json:"series"`
}

// Show tells of a span, of one node or, by "", of all together. The error says
// which spans or nodes there are.
func (k *Keeper) Show(span, node string, now time.Time) (shown Shown, err error) {
	which := slices.Index(Spans(), span)
	k.mu.Lock()
	defer k.mu.Unlock()
	if which < 0 {
		return shown, fmt.Errorf("span is %.40q; want one of %q", span, Spans())
	}
	names := slices.Sorted(maps.Keys(k.nodes))
	if node != "" && k.nodes[node] == nil {
		return shown, fmt.Errorf("nothing is known of node %.80q; want one of %.400q, or none for all together", node, names)
	}
	step := spans[which].step
	points := int(spans[which].span / step)
	last := now.UnixNano() / int64(step)
	shown = Shown{
		Span: span, StepSeconds: int(step.Seconds()), Until: time.Unix(0, (last+1)*int64(step)).UTC(),
		Nodes: append([]string{}, names...), Series: make(map[string][]*float64, len(all)),
	}
	sum := make([]float64, slots)
	for n := last - int64(points) + 1; n <= last; n++ {
		clear(sum)
		known := false
		for name, h := range k.nodes {
			if node == "" || node == name {
				known = h.rings[which].sum(n, sum) || known
			}
		}
		slot := 0
		for _, s := range all {
			shown.Series[s.name] = append(shown.Series[s.name], point(s, sum[slot:slot+s.width()], known))
			slot += s.width()
		}
	}
	return shown, nil
}

// point is one number of a chart; nil if nothing is known, a mean of nothing
// included.
func point(s series, of []float64, known bool) *float64 {
	if !known || s.kind == mean && of[1] == 0 {
		return nil
	}
	v := of[0]
	if s.kind == mean {
		v /= of[1]
	}
	v = round(v)
	return &v
}
