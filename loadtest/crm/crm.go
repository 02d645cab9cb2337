// Package crm plays a customer's CRM whose API is slow and easily overrun, and
// keeps account of what became of each event that was meant for it.
package crm

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/probe"
)

// What the API is like. A call may bring any number of records and takes one
// to two seconds while no more than Capacity are in progress. Beyond that all
// get in each other's way, and it takes the square of the overload longer;
// whether somebody still waits for the answer makes no difference. Beyond
// Ceiling it refuses.
const (
	Capacity = 10
	Ceiling  = 40
	least    = time.Second
	spread   = time.Second
)

// ErrOverrun is the answer to calls beyond Ceiling.
var ErrOverrun = errors.New("the CRM is overrun")

// An API is one CRM. Safe for concurrent use.
type API struct {
	Scale float64 // of all times; default 1. Tests take less.

	wait sync.WaitGroup // for calls in progress

	mu     sync.Mutex
	stats  Stats
	delay  *measure.Histogram
	recent *measure.Histogram // since it was last asked for
	done   map[uint64]bool    // from next on
	given  map[uint64]bool    // up, and not done
	next   uint64             // lowest number that is neither
}

// Stats are an API's account so far.
type Stats struct {
	Calls      int // begun
	Rejected   int // refused because it was overrun
	TimedOut   int // whose caller gave up waiting
	InFlight   int
	Peak       int // most in flight
	Events     int // done, each counted once
	Duplicated int // done again
	Lost       int // given up and not done
	Next       uint64
}

// New returns an idle API.
func New() *API {
	return &API{
		Scale: 1, delay: measure.NewHistogram(), recent: measure.NewHistogram(),
		done: map[uint64]bool{}, given: map[uint64]bool{}, next: 1,
	}
}

// Call brings records. It returns when they are processed; ErrOverrun if the
// CRM doesn't take them; the context's error if that ends first, in which case
// the CRM goes on with them regardless.
func (a *API) Call(ctx context.Context, records []probe.Mark) error {
	a.mu.Lock()
	a.stats.Calls++
	if a.stats.InFlight >= Ceiling {
		a.stats.Rejected++
		a.mu.Unlock()
		return ErrOverrun
	}
	a.stats.InFlight++
	a.stats.Peak = max(a.stats.Peak, a.stats.InFlight)
	took := least + rand.N(spread)
	if over := float64(a.stats.InFlight) / Capacity; over > 1 {
		took = time.Duration(float64(took) * over * over)
	}
	a.mu.Unlock()

	finished := make(chan struct{})
	a.wait.Add(1)
	time.AfterFunc(time.Duration(float64(took)*a.Scale), func() {
		defer a.wait.Done()
		a.finish(records)
		close(finished)
	})
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		a.mu.Lock()
		a.stats.TimedOut++
		a.mu.Unlock()
		return context.Cause(ctx)
	}
}

func (a *API) finish(records []probe.Mark) {
	now := measure.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.InFlight--
	for _, r := range records {
		if a.done[r.Seq] || r.Seq < a.next && !a.given[r.Seq] {
			a.stats.Duplicated++
			continue
		}
		delete(a.given, r.Seq) // whoever gave it up was wrong
		if r.Seq >= a.next {
			a.done[r.Seq] = true
		}
		a.stats.Events++
		a.delay.Record(time.Duration(now - r.At))
		a.recent.Record(time.Duration(now - r.At))
	}
	a.moveLocked()
}

// moveLocked moves next to where it belongs.
func (a *API) moveLocked() {
	for a.done[a.next] || a.given[a.next] {
		delete(a.done, a.next)
		a.next++
	}
}

// GiveUp notes that nobody will bring this event again. It is lost, unless a
// call that is still in progress has it.
func (a *API) GiveUp(seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if seq >= a.next && !a.done[seq] {
		a.given[seq] = true
		a.moveLocked()
	}
}

// Stats returns the account so far.
func (a *API) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stats
	s.Next, s.Lost = a.next, len(a.given)
	return s
}

// Delay returns how long events took from the moment they happened until the
// CRM had processed them.
func (a *API) Delay() *measure.Histogram {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := measure.NewHistogram()
	h.Merge(a.delay)
	return h
}

// Recent returns the same of those that were processed since it was last asked.
func (a *API) Recent() *measure.Histogram {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.recent
	a.recent = measure.NewHistogram()
	return h
}

// Lost counts the events from 1 to head that the CRM never processed.
func (a *API) Lost(head uint64) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	lost := len(a.given)
	for seq := a.next; seq <= head; seq++ {
		if !a.done[seq] && !a.given[seq] {
			lost++
		}
	}
	return lost
}

// Wait waits for the calls in progress.
func (a *API) Wait() { a.wait.Wait() }
