package demo

import (
	"testing"
	"time"
)

// TestTheCurve: a mailshot is opened at once and then ever more slowly, at the
// rate asked for on the whole.
func TestTheCurve(t *testing.T) {
	c := newCampaign(200)
	for _, n := range []time.Duration{1, 2, 10} {
		if got, want := c.happened(n*length), uint64(200*(n*length).Seconds()); got < want-1 || got > want {
			t.Errorf("after %d mailshots: got %d events, want %d", n, got, want)
		}
	}
	rate := func(from time.Duration) float64 {
		return float64(c.happened(from+5*time.Second)-c.happened(from)) / 5
	}
	first, high, late, next := rate(0), rate(steepest), rate(length-5*time.Second), rate(length+steepest)
	if !(first < high/2 && high > 280 && late < high/2 && next > 280) {
		t.Errorf("events a second: first %.0f, at its height %.0f, at last %.0f, of the next mailshot %.0f", first, high, late, next)
	}
	for last, at := uint64(0), time.Duration(0); at < 3*length; at += tick {
		n := c.happened(at)
		if n < last {
			t.Fatalf("at %v there are %d events, fewer than before", at, n)
		}
		last = n
	}
}
