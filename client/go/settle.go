package longline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// verdict is what became of an event.
type verdict struct {
	handled bool
	refused error // rejected
	failed  error // to be tried again
}

// rejected is an event that was, and why.
type rejected struct {
	event Event
	err   error
}

// refusal is why an event was rejected before.
type refusal string

func (r refusal) Error() string { return string(r) }

// call hands the events to the handler, but for those which the store knows.
func (d *dispatcher) call(ctx context.Context, jobs []*job) error {
	if wait := d.pace.take(time.Now()); wait > 0 && !sleep(ctx, wait) {
		return ctx.Err()
	}
	events := make([]Event, 0, len(jobs))
	about := Delivery{Transport: jobs[0].origin.transport, Replay: jobs[0].origin.replay}
	for _, j := range jobs {
		if d.store != nil && j.again {
			handled, err := d.store.Handled(ctx, j.id.String())
			if err != nil {
				return fmt.Errorf("ask store: %w", err)
			}
			if handled {
				continue
			}
		}
		events = append(events, j.event)
		about.Attempt = max(about.Attempt, j.history.tries+1)
		about.Redelivered = about.Redelivered || j.again
	}
	if len(events) == 0 {
		return nil
	}
	err := d.guarded(&deliveryContext{ctx, about}, events)
	if d.store == nil {
		return err
	}
	for _, e := range events {
		if v := judge(err, e.ID); v.failed == nil {
			if err := d.store.MarkHandled(ctx, identify(&e).String()); err != nil {
				// The event is done; at worst it is handled once more.
				d.trouble.warn("event not marked as handled", "id", e.ID, "error", err)
			}
		}
	}
	return err
}

// guarded calls the handler. A panic is an error like another: else one event
// could end the process each time it comes.
func (d *dispatcher) guarded(ctx context.Context, events []Event) (err error) {
	defer func() {
		if v := recover(); v != nil {
			d.trouble.warn("handler panicked", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("handler panicked: %v", v)
		}
	}()
	return d.handle(ctx, events)
}

// judge says what a handler's error means for the event with that id.
func judge(err error, id string) verdict {
	if err == nil {
		return verdict{handled: true}
	}
	var r *rejection
	if !errors.As(err, &r) {
		return verdict{failed: err}
	}
	if len(r.ids) == 0 || slices.Contains(r.ids, id) {
		return verdict{refused: err}
	}
	return verdict{handled: true}
}

// settleLocked ends a call: its events are done, or their lanes back off until
// the next try. A call that was told to stop counts as no try. It returns the
// events that are rejected.
func (d *dispatcher) settleLocked(jobs []*job, err error, stopped bool) (refused []rejected) {
	now := time.Now()
	if err == nil {
		d.health.passes++
	}
	switch failed := judge(err, "").failed != nil; {
	case failed && !stopped:
		d.health.failed(&d.retry, jobs[0].event.Cursor, now)
	case !failed && d.health.answered(d.concurrency):
		d.hastenLocked()
	}
	tries := 0
	for i := 0; i < len(jobs); {
		l := jobs[i].lane
		n := l.taken
		var kept []*job
		for _, j := range jobs[i : i+n] {
			v, stays := d.finishLocked(j, judge(err, j.event.ID), stopped, len(jobs), now)
			if v.refused != nil {
				refused = append(refused, rejected{j.event, v.refused})
			}
			if stays {
				tries = max(tries, j.history.tries)
				kept = append(kept, j)
			}
		}
		i += n
		rest := l.jobs[n:]
		l.taken = 0
		if len(kept) > 0 {
			if l.probing > 0 { // back behind those that it was put before
				at := min(l.probing, len(rest))
				kept = slices.Concat(rest[:at], kept)
				rest = rest[at:]
			}
			l.jobs = append(kept, rest...)
			head := l.jobs[0].history
			d.backOffLocked(l, d.retry.waitFor(head.tries, head.since, now), waitOf(err))
		} else {
			clear(l.jobs[:n])
			l.jobs = rest
			d.queueLocked(l)
		}
		l.probing = 0
	}
	if tries > 0 && err != errLeft { // who leaves a loop is in no trouble
		d.trouble.warn("handler failed, will try again", "events", len(jobs), "tries", tries, "error", err)
	}
	return refused
}

// finishLocked tells those who wait for an event what became of it, and
// returns that. A failed event of a subscription stays, to be tried again.
func (d *dispatcher) finishLocked(j *job, v verdict, stopped bool, together int, now time.Time) (_ verdict, stays bool) {
	if v.failed != nil && j.live && !stopped {
		poison := j.history.failed(d.health.passes, together, now)
		if j.entry != nil && (poison || d.retry.Attempts > 0 && j.history.tries >= d.retry.Attempts) {
			v = verdict{refused: v.failed}
		}
	}
	for _, c := range j.callers {
		c <- v
	}
	j.callers = nil
	if v.failed != nil && j.entry != nil && !stopped {
		if !j.failing {
			j.failing = true
			d.failing++
		}
		return v, true
	}
	d.leaveLocked(j)
	p := past{handled: v.handled, history: j.history}
	if v.refused != nil {
		p.refused = v.refused.Error()
		p.tries = max(p.tries, 1)
		d.trouble.warn("event rejected", "id", j.event.ID, "type", j.event.Type, "cursor", j.event.Cursor, "tries", p.tries, "error", v.refused)
	}
	if d.dedupe {
		delete(d.jobs, j.id)
		d.past.put(j.id, p)
	}
	switch {
	case j.entry == nil:
	case v.refused != nil:
		j.entry.reject(p.refused, p.tries)
	case v.handled:
		j.entry.finish()
	}
	return v, false
}

// backOffLocked has a lane wait until its next try, at least as long as the
// handler asked for.
func (d *dispatcher) backOffLocked(l *lane, wait, asked time.Duration) {
	l.obeys = asked > 0
	d.away[l] = struct{}{}
	var t *time.Timer
	t = time.AfterFunc(max(wait, asked), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if l.backingOff != t {
			return // dropped meanwhile
		}
		l.backingOff = nil
		d.queueLocked(l)
		d.startLocked()
	})
	l.backingOff = t
}

// hastenLocked has the lanes that back off try soon, since the handler is well
// again. Their waits had grown with a trouble that was not theirs.
func (d *dispatcher) hastenLocked() {
	for l := range d.away {
		if l.backingOff != nil && !l.obeys {
			l.backingOff.Reset(jitter(d.retry.Min, d.retry.Min, 0))
		}
	}
}
