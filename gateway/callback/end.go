package callback

import (
	"context"
	"slices"
	"time"

	"github.com/longline-push/longline/event"
)

// finishAs tells run to end; the first reason stands, but for Halted and
// Fenced, which nothing softens.
func (w *Worker) finishAs(why Outcome, patience time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over == working {
		close(w.yielded)
	}
	defer w.releaseIdleLocked()
	if w.over == working || why == Halted || (why == Fenced || why == Broken) && w.over != Halted && w.over != Fenced {
		w.over = why
	}
	switch {
	case why == Fenced:
		w.cancelCalls(errFenced)
	case patience <= 0:
		w.cancelCalls(errYielded)
	default:
		cut := time.AfterFunc(patience, func() { w.cancelCalls(errYielded) })
		context.AfterFunc(w.calls, func() { cut.Stop() })
	}
	if w.alarm != nil && w.alarm.Stop() {
		w.wakeLocked()
		go w.run()
	}
}

// ending tells whether it is time to end. It waits for calls in flight.
func (w *Worker) ending() bool {
	for {
		w.mu.Lock()
		over, waiting := w.over != working, w.inFlight > 0
		w.mu.Unlock()
		if !over || !waiting {
			return over
		}
		r := <-w.results
		w.settle(r.u, &r.a)
	}
}

// end commits what may be committed and says goodbye.
func (w *Worker) end() {
	w.mu.Lock()
	why := w.over
	w.mu.Unlock()
	if why != Halted && why != Fenced && why != Broken {
		w.flush()
	}
	w.mu.Lock()
	w.commits.unsetLocked()
	w.e.bytes.put(w.reserved)
	if w.inFlight > 1 { // a broken one's, which nobody waits for
		w.e.quota.put(w.inFlight - 1)
	}
	w.mu.Unlock()
	w.stop(errYielded)
	w.commits.running.Wait()
	w.mu.Lock()
	r := Result{
		Outcome: w.over, Position: w.commits.at, DeliveredUpTo: w.q.read,
		Attempts: w.log.list(), Status: w.statusLocked(time.Now()),
	}
	if r.Outcome != Broken { // then what is done and what isn't may be muddled
		r.DeliveredUpTo = w.deliveredLocked()
	}
	w.mu.Unlock()
	w.e.opt.Logger.Debug("callback worker ended", "subscription", w.sub.Name, "outcome", int(r.Outcome))
	if w.ended != nil {
		w.ended(r)
	}
	close(w.done)
	w.e.leave(w)
}

// Delivered is how far events were sent beyond what is committed; nil if none.
func (w *Worker) Delivered() event.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deliveredLocked()
}

func (w *Worker) deliveredLocked() event.Position {
	p := w.q.handed()
	if done := w.q.position(); !slices.Equal(done, w.commits.at) { // not committed
		for _, c := range done {
			p = further(p, c)
		}
	}
	return p
}
