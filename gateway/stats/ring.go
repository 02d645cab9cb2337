package stats

import (
	"math"
	"time"
)

// ring is what a node did lately, in steps of one length: of each series a
// number a step, in memory that is taken once. Steps count since 1970, so that
// those of all nodes are the same.
type ring struct {
	step    time.Duration
	number  []int64   // of the step that a slot holds
	covered []float32 // seconds of it that samples cover
	values  []float32 // of one step after another: increments of counters, the last of gauges
}

func newRing(step, span time.Duration) *ring {
	n := int(span/step) + 1 // the present one is not over
	return &ring{step: step, number: make([]int64, n), covered: make([]float32, n), values: make([]float32, n*slots)}
}

// row is what a slot holds.
func (r *ring) row(i int) []float32 { return r.values[i*slots : (i+1)*slots] }

// at returns the slot of a step, emptied if it held an older one. It is -1 for
// a step that is older than what the ring holds.
func (r *ring) at(number int64) int {
	i := int(number % int64(len(r.number)))
	switch {
	case r.number[i] > number:
		return -1
	case r.number[i] < number:
		r.number[i], r.covered[i] = number, 0
		clear(r.row(i))
	}
	return i
}

// add spreads what happened between two moments over the steps between them.
func (r *ring) add(from, to time.Time, happened []float64) {
	whole := to.Sub(from)
	first, last := r.numberOf(from), r.numberOf(to)
	first = max(first, last-int64(len(r.number))+1)
	for n := first; n <= last; n++ {
		begins := time.Unix(0, n*int64(r.step))
		part := minTime(to, begins.Add(r.step)).Sub(maxTime(from, begins))
		i := r.at(n)
		if i < 0 || part <= 0 {
			continue
		}
		r.covered[i] += float32(part.Seconds())
		share, row := float64(part)/float64(whole), r.row(i)
		for s, slot := 0, 0; s < len(all); s++ {
			for range all[s].width() {
				if all[s].gauge() {
					row[slot] = float32(happened[slot])
				} else {
					row[slot] += float32(happened[slot] * share)
				}
				slot++
			}
		}
	}
}

func (r *ring) numberOf(t time.Time) int64 { return t.UnixNano() / int64(r.step) }

// sum adds a step to what other nodes did in it, or takes the worst of them, and
// tells whether anything is known of it. Counters become rates.
func (r *ring) sum(number int64, into []float64) bool {
	i := int(number % int64(len(r.number)))
	if r.number[i] != number || r.covered[i] == 0 {
		return false
	}
	for s, slot := 0, 0; s < len(all); s++ {
		for range all[s].width() {
			v := float64(r.row(i)[slot])
			if all[s].kind == rate {
				v /= float64(r.covered[i])
			}
			if all[s].kind == worst {
				into[slot] = max(into[slot], v)
			} else {
				into[slot] += v
			}
			slot++
		}
	}
	return true
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// round keeps three digits or so: nobody reads more off a chart.
func round(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 3-math.Ceil(math.Log10(math.Abs(v))))
	if scale < 1 {
		scale = 1
	}
	return math.Round(v*scale) / scale
}
