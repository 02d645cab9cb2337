package callback

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/expr"
	"github.com/longline-push/longline/gateway/trace"
	"github.com/longline-push/longline/gateway/webhook"
)

// How often an event that a well endpoint refuses is tried, and how far apart.
const (
	refusedTries = 3
	refusedPause = time.Second
)

// send makes the call of a unit that next returned: in line where there is
// only one at a time, which saves waking a goroutine twice per call.
func (w *Worker) send(u *unit) {
	if u.condemned != "" {
		w.bury(u)
		return
	}
	if w.results == nil {
		a := w.call(u)
		w.settle(u, &a)
		return
	}
	go func() { w.results <- result{u, w.call(u)} }()
}

// errPanicked: the call was not made, or what came of it isn't known, by a
// mistake in this gateway.
var errPanicked = errors.New("the gateway failed to make this call")

// call makes a call. A panic is an answer too: trouble, so that what brings it
// about each time is found like any other poison.
func (w *Worker) call(u *unit) (a answer) {
	defer w.e.opt.Guard.Contain("callback", func() { a = answer{err: errPanicked} })
	if !u.made {
		events := make([]webhook.Event, len(u.items))
		for i, it := range u.items {
			e := &it.ev
			events[i] = webhook.Event{Cursor: e.Cursor, ID: e.ID, JSON: e.JSON, Redelivery: e.Redelivery || e.Redriven}
		}
		var err error
		if u.msg, u.events, err = w.to.message(w.sub.Name, events, u.batch); err != nil {
			return answer{err: err}
		}
		u.made = true
	}
	m := u.msg
	m.Attempt = u.attempts
	w.mu.Lock()
	lastBody, ctx := w.log.lastBody(), w.calls
	if w.h.failures > 0 {
		ctx = toFailing(ctx)
	}
	w.mu.Unlock()
	w.e.opt.Metrics.InFlight.Inc()
	defer w.e.opt.Metrics.InFlight.Dec()
	span := w.traced(u, &m)
	a = w.to.send(ctx, &m, u.events, w.sub.Timeout, lastBody)
	if span != nil {
		span.End(a.describe(), trace.Status(a.status))
	}
	return a
}

// traced has the message carry the trace of its first event onwards, within a
// span of the call where it is traced; nil where not.
func (w *Worker) traced(u *unit, m *webhook.Message) *trace.Span {
	m.Trace = event.TraceOf(u.items[0].ev.JSON)
	if w.e.opt.Trace == nil || m.Trace.Parent == "" {
		return nil
	}
	span := w.e.opt.Trace.Start(m.Trace, "callback", oteltrace.SpanKindClient, time.Now(),
		trace.Subscription(w.sub.Name), attribute.String("server.address", w.to.url.Hostname()),
		attribute.Int("longline.attempt", m.Attempt), attribute.Int("messaging.batch.message_count", len(u.items)))
	if span == nil {
		return nil
	}
	for _, it := range u.items[1:min(len(u.items), maxLinks)] {
		span.Link(event.TraceOf(it.ev.JSON))
	}
	m.Trace = span.Trace()
	return span
}

// maxLinks is how many events of a batch a span names.
const maxLinks = 32

// settle draws the consequences of an answer. Called by run only.
func (w *Worker) settle(u *unit, a *answer) {
	v := a.verdict(w.calls)
	w.e.opt.Metrics.called(w.sub.Name, v, a.latency)
	if v != cancelled {
		w.note(u, a)
	}
	var refusedByAnswer *unit
	mixed := v == accepted && (slices.Contains(a.said, expr.Refuse) || slices.Contains(a.said, expr.Retry))
	if v == accepted {
		refusedByAnswer = w.parseOut(u, a.rejected)
		w.removeRedriven(u, a.said)
	}

	tell, s := w.place(u, a, v, mixed, refusedByAnswer)
	for _, kind := range tell {
		w.e.opt.Logger.Info("callback", "subscription", w.sub.Name, "what", kind.String(), "status", s.LastStatus, "error", s.LastError)
		w.progress.Notify(Notice{Kind: kind, Status: s})
	}
	if v == gone {
		w.finishAs(Disabled, Patience)
	}
}

// place puts a unit where its answer says, and returns what people are to be
// told, with the status as of then.
func (w *Worker) place(u *unit, a *answer, v verdict, mixed bool, refusedByAnswer *unit) (tell []NoticeKind, s Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.landedLocked()
	defer w.releaseIdleLocked()
	now := time.Now()
	switch v {
	case accepted:
		n := len(u.items)
		w.q.compared(v)
		if mixed {
			n = w.q.part(u, a.said, now)
		} else {
			w.q.finish(u)
		}
		w.e.opt.Metrics.Events.Add(float64(n))
		if refusedByAnswer != nil {
			w.q.take(refusedByAnswer)
			w.q.again(refusedByAnswer, now)
		}
		if w.h.ok(now) {
			w.q.release(now)
			tell = append(tell, Recovered)
		}
		if a.retryAfter > 0 {
			w.h.next = later(w.h.next, now.Add(a.retryAfter))
		}
		w.commitSoonLocked(n)
	case refused:
		if errors.Is(a.err, errShape) {
			u.attempts-- // it was not sent, and would not be another time
			u.refusals = refusedTries - 1
		}
		if a.retryAfter > 0 {
			w.h.next = later(w.h.next, now.Add(a.retryAfter))
		}
		if w.refusedLocked(u, now) {
			if w.failedLocked(u, a, now) {
				tell = append(tell, Failing)
			}
		}
	case trouble:
		if w.failedLocked(u, a, now) {
			tell = append(tell, Failing)
		}
	case gone:
		w.q.again(u, now)
		tell = append(tell, TurnedOff)
	case stalled:
		u.attempts--
		w.h.stall(now)
		w.q.again(u, w.h.next)
	case cancelled:
		u.attempts--
		w.q.again(u, now)
	}
	w.settleBytesLocked()
	return tell, w.statusLocked(now)
}

// note remembers a call for people, and has the history keep it with all that
// went into it.
func (w *Worker) note(u *unit, a *answer) {
	t := Attempt{
		Time: time.Now().Add(-a.latency).UTC(), Status: a.status, Error: a.describe(), Body: a.head,
		LatencyMS: float64(a.latency.Microseconds()) / 1000,
	}
	w.mu.Lock()
	w.status, w.lastError = a.status, t.Error
	w.log.add(t)
	w.mu.Unlock()
	if w.e.opt.History == nil {
		return
	}
	t.Method, t.URL = cmp.Or(u.msg.Method, http.MethodPost), w.to.text
	if u.msg.URL != nil {
		t.URL = u.msg.URL.String()
	}
	t.Cursors, t.IDs = make([]string, len(u.items)), make([]string, len(u.items))
	for i, it := range u.items {
		t.Cursors[i], t.IDs[i] = it.ev.Cursor.String(), it.ev.ID
	}
	name := w.sub.Name
	if w.sub.Replay != "" { // where it is found when the replay is gone
		name, t.Replay = w.sub.Replay, w.sub.Name
	}
	w.e.opt.History.add(name, t)
}

func (w *Worker) landedLocked() {
	w.inFlight--
	if w.inFlight > 0 {
		w.e.quota.put(1)
	}
}

// parseOut takes the events that an answer rejects by id out of a unit, as one
// to be buried, or returns nil if it rejects none.
func (w *Worker) parseOut(u *unit, rejected []string) *unit {
	if len(rejected) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	bad := &unit{condemned: "rejected by the receiver", attempts: u.attempts, batch: u.batch, probe: u.probe}
	u.items = slices.DeleteFunc(slices.Clone(u.items), func(it *item) bool {
		if slices.Contains(rejected, it.ev.ID) {
			bad.items = append(bad.items, it)
			return true
		}
		return false
	})
	if bad.items == nil {
		return nil
	}
	return bad
}

// removeRedriven removes letters that were delivered from among the dead. If
// that fails they may be delivered once more.
func (w *Worker) removeRedriven(u *unit, said []string) {
	var cursors []string
	for i, it := range u.items {
		if it.ev.Redriven && (said == nil || said[i] == expr.Ack) {
			cursors = append(cursors, it.ev.Cursor.String())
		}
	}
	if cursors == nil {
		return
	}
	if err := w.progress.Redriven(w.ctx, cursors); err != nil {
		w.e.opt.Logger.Warn("remove redriven dead letters", "subscription", w.sub.Name, "error", err)
	}
}

// refusedLocked handles a 4xx that is about the event. It returns true if it
// is to be taken for trouble of the endpoint's: too many in a row.
func (w *Worker) refusedLocked(u *unit, now time.Time) (isTrouble bool) {
	if w.h.refused >= maxRefused {
		return true
	}
	w.q.compared(refused)
	if len(u.items) > 1 {
		w.q.split(u, 0)
		return false
	}
	u.refusals++
	if u.refusals < refusedTries {
		if w.h.open() {
			w.h.next = later(w.h.next, now.Add(refusedPause))
		}
		w.q.again(u, now.Add(refusedPause))
		return false
	}
	w.h.refused++
	if w.h.refused >= maxRefused {
		return true
	}
	u.condemned = "refused: " + w.lastError
	w.q.again(u, now)
	return false
}

// failedLocked handles an endpoint in trouble, and tells whether the breaker
// opened by it.
func (w *Worker) failedLocked(u *unit, a *answer, now time.Time) (opened bool) {
	opened = w.h.fail(now, a.retryAfter, u.opened)
	if u.fails < suspectAfter {
		w.q.compared(trouble)
	}
	if u.fails == 0 {
		u.since = now
	}
	u.fails++
	if u.fails >= suspectAfter && len(u.items) > 1 {
		w.q.split(u, u.fails)
		return opened
	}
	if u.fails >= suspectAfter {
		if u.passed {
			u.rounds++
		}
		// An endpoint that says when to come back is not choking on an event.
		u.passed, u.wantProbe = false, a.retryAfter == 0
		if u.rounds >= poisonRounds {
			u.wantProbe = false
			u.condemned = "poison: others pass, this one fails: " + w.lastError
			w.q.again(u, now)
			return opened
		}
	}
	w.q.again(u, now.Add(backoff(u.fails, u.since, now)))
	return opened
}

// bury makes dead letters of a condemned unit's events. Called by run only.
func (w *Worker) bury(u *unit) {
	letters := make([]Letter, len(u.items))
	for i, it := range u.items {
		letters[i] = Letter{Event: it.ev, Reason: u.condemned, Attempts: u.attempts, Time: time.Now()}
	}
	err := w.progress.Bury(w.ctx, letters)
	if errors.Is(err, broker.ErrFenced) {
		w.finishAs(Fenced, 0)
	}
	s := w.buried(u, err == nil)
	if err != nil {
		if w.ctx.Err() == nil {
			w.e.opt.Logger.Warn("bury dead letters", "subscription", w.sub.Name, "error", err)
		}
		return
	}
	w.e.opt.Metrics.Dead.Add(float64(len(letters)))
	for _, l := range letters {
		w.progress.Notify(Notice{Kind: DeadLetter, Status: s, Letter: l})
	}
}

// buried puts a condemned unit away, or back, and returns the status as of then.
func (w *Worker) buried(u *unit, done bool) Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.landedLocked()
	defer w.releaseIdleLocked()
	if done {
		w.q.finish(u)
		w.commitSoonLocked(len(u.items))
	} else {
		w.q.again(u, time.Now().Add(commitAgain))
	}
	w.settleBytesLocked()
	return w.statusLocked(time.Now())
}
