package callback

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// Note is what a node keeps of a callback for others to show, as JSON.
type Note struct {
	Status Status `json:"status"`
}

// How soon a note is kept after something happened.
const (
	noteTrouble = time.Second
	noteWell    = 10 * time.Second
)

// brokenPause is how long a subscription rests whose worker panicked, lest what
// brings that about do nothing else.
const brokenPause = 10 * time.Second

// delivery is a claimed subscription: the manager's Holder and the worker's
// Progress in one.
type delivery struct {
	d       *Dispatcher
	name    string
	started bool // the callback takes over, rather than going on after a pause in events

	h      *durable.Ownership // set by begin, before the worker starts
	source *redriver          // likewise

	mu     sync.Mutex
	worker *Worker
	before []func(*Worker) // what came before there was a worker
	ended  bool
	after  time.Duration // when the callback's turn is to be after a release
	noted  time.Time
	calls  int // as of noted
}

var (
	_ durable.Holder    = (*delivery)(nil)
	_ durable.Deliverer = (*delivery)(nil)
	_ Progress          = (*delivery)(nil)
	_ Divided           = (*delivery)(nil)
)

// begin starts to deliver what was claimed.
func (p *delivery) begin(ctx context.Context, h *durable.Ownership) {
	p.h = h
	def := h.State.Definition
	private, err := p.d.o.Private(h.State)
	if err != nil {
		p.d.o.Logger.Error("open a callback's secrets", "subscription", p.name, "error", err)
		h.Release(nil, time.Minute)
		return
	}
	if err := h.Gather(ctx, func(int) durable.Holder { return partition{p} }); err != nil {
		p.d.o.Logger.Debug("gather the partitions of a group", "subscription", p.name, "error", err)
		h.Release(nil, time.Second) // a member has yet to release one
		return
	}
	position, err := p.place(ctx, h.Position, def.Channels)
	if err != nil {
		h.Release(nil, time.Second)
		return
	}
	filter, err := p.d.o.Filters.Get(h.State.Selection())
	if err != nil { // it was checked when it was defined
		p.d.o.Logger.Error("compile a callback's filter", "subscription", p.name, "error", err)
		h.Release(nil, time.Minute)
		return
	}
	known, unclear := h.DeliveredUpTo, 0
	switch {
	case h.Doubt && h.Reach == cursor.Everything:
		if known, err = p.place(ctx, nil, def.Channels); err != nil { // the heads
			h.Release(nil, time.Second)
			return
		}
	case h.Doubt:
		unclear = h.Reach
	}
	p.source = &redriver{
		FeedSource: NewFeedSource(p.d.o.Feeds, def.Channels, filter, known, unclear),
		letters:    h.LettersAgain, forked: h.Forked, pending: h.State.Redriving > 0, out: map[string]bool{},
	}
	p.source.Skip(h.Done(), h.Unclear())
	cb := def.Callback
	form, err := cb.Shape()
	if err != nil { // likewise
		p.d.o.Logger.Error("compile a callback's shape", "subscription", p.name, "error", err)
		h.Release(nil, time.Minute)
		return
	}
	again := ""
	if replay := h.State.Replay; replay != nil {
		again = replay.Of
	}
	worker, err := p.d.o.Engine.Deliver(Subscription{
		Name: p.name, Position: position, Window: def.Window, Partitions: len(h.Done()),
		Target: Target{URL: cb.URL, Headers: private.Headers, Secrets: private.Secrets, Shape: form, Auth: private.Auth, Replay: again},
		Rate:   cb.Rate, ByKey: cb.Order == durable.ByKey, Concurrency: cb.Concurrency,
		MaxEvents: cb.Batch.MaxEvents, MaxWait: time.Duration(cb.Batch.MaxWait), Timeout: time.Duration(cb.Timeout),
	}, p.source, p, p.end)
	if err != nil {
		h.Release(nil, 0) // the engine is closed: another node's turn
		return
	}
	if p.started {
		h.Publish("callback_started", nil)
	}
	p.mu.Lock()
	p.worker = worker
	before := p.before
	p.before = nil
	p.mu.Unlock()
	for _, f := range before {
		f(worker)
	}
	p.mu.Lock()
	if !p.ended {
		p.d.add(p, true)
	}
	p.mu.Unlock()
}

// place completes a position: a channel that it lacks starts at its head.
func (p *delivery) place(ctx context.Context, at event.Position, channels []string) (event.Position, error) {
	var placed event.Position
	for _, channel := range channels {
		c, ok := at.Of(channel)
		if !ok {
			f, err := p.d.o.Feeds.Open(ctx, channel)
			if err != nil {
				return nil, err
			}
			s, err := f.Fresh(ctx)
			f.Release()
			if err != nil {
				return nil, err
			}
			c = event.Cursor{Channel: channel, Epoch: s.Epoch, Offset: s.Head}
		}
		placed = append(placed, c)
	}
	return placed, nil
}

// with calls f with the worker, now or when there is one.
func (p *delivery) with(f func(*Worker)) {
	p.mu.Lock()
	w := p.worker
	if w == nil {
		p.before = append(p.before, f)
	}
	p.mu.Unlock()
	if w != nil {
		f(w)
	}
}

// Ended implements durable.Holder. A group's partitions are the callback's until
// they are given up or taken, each by itself.
func (p *delivery) Ended(wire.CloseCode, string) {
	p.with(func(w *Worker) {
		if p.h.Gathered() {
			w.Yield(Patience)
		} else {
			w.Fence()
		}
	})
}

// Delivered implements durable.Deliverer.
func (p *delivery) Delivered() event.Position {
	p.mu.Lock()
	w := p.worker
	p.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.Delivered()
}

// Suspended implements durable.Holder.
func (p *delivery) Suspended() { p.with((*Worker).Halt) }

// Yield implements durable.Holder. Whoever asked has the grace to come.
func (p *delivery) Yield() {
	p.with(func(w *Worker) {
		p.mu.Lock()
		p.after = max(time.Duration(p.h.State.Definition.Callback.Grace), durable.YieldTime)
		p.mu.Unlock()
		w.Yield(Patience)
	})
}

// Changed implements durable.Holder: the callback is claimed anew, and so goes
// on by the new definition.
func (p *delivery) Changed(durable.State) { p.with(func(w *Worker) { w.Yield(Patience) }) }

// partition holds a partition of a group for its delivery: without one of them
// there is no going on.
type partition struct{ p *delivery }

func (h partition) Ended(wire.CloseCode, string) { h.p.with((*Worker).Fence) }
func (h partition) Suspended()                   { h.p.Suspended() }
func (partition) Yield()                         {}
func (partition) Changed(durable.State)          {}
func (partition) Acked(event.Position)           {}
func (partition) Redrive()                       {}

// Acked implements durable.Holder.
func (p *delivery) Acked(to event.Position) { p.with(func(w *Worker) { w.Acknowledged(to) }) }

// Redrive implements durable.Holder.
func (p *delivery) Redrive() { p.with(func(*Worker) { p.source.redrive() }) }

// end gives up the ownership as the worker's end demands.
func (p *delivery) end(r Result) {
	p.mu.Lock()
	p.ended = true
	p.d.add(p, false)
	after := p.after
	p.mu.Unlock()
	p.source.Rest()
	if r.Outcome != Halted && r.Outcome != Fenced && len(r.Attempts) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
		p.setNote(ctx, r.Status)
		cancel()
	}
	switch r.Outcome {
	case CaughtUp:
		p.h.Park()
	case Disabled:
		p.h.Disable()
	case Broken:
		p.h.Release(r.DeliveredUpTo, max(after, brokenPause))
	default:
		p.h.Release(r.DeliveredUpTo, after)
	}
}

// ReleasePartition implements Divided.
func (p *delivery) ReleasePartition(n int, done, handed event.Position) {
	p.h.ReleasePartition(n, done, handed)
}

// Advance implements Progress.
func (p *delivery) Advance(ctx context.Context, to event.Position) error { return p.h.Commit(ctx, to) }

// Bury implements Progress.
func (p *delivery) Bury(ctx context.Context, letters []Letter) error {
	dead := make([]durable.DeadLetter, len(letters))
	cursors := make([]string, len(letters))
	for i, l := range letters {
		dead[i] = durable.DeadLetter{Event: l.Event.JSON, Reason: l.Reason, Attempts: l.Attempts, Time: l.Time}
		cursors[i] = l.Event.Cursor.String()
	}
	if err := p.h.BuryEvent(ctx, dead...); err != nil {
		return err
	}
	p.source.settled(cursors)
	return nil
}

// Redriven implements Progress.
func (p *delivery) Redriven(ctx context.Context, cursors []string) error {
	err := p.h.Remove(ctx, cursors)
	if err == nil {
		p.source.settled(cursors)
	}
	return err
}

// Notify implements Progress.
func (p *delivery) Notify(n Notice) {
	switch n.Kind {
	case GapFound:
		p.h.Gap(n.Gap.To.Channel, n.Gap.From.String(), n.Gap.To.String(), n.Gap.Reason)
	case DeadLetter: // told by who keeps them
	default:
		p.h.Publish(n.Kind.String(), n.Status)
	}
}

// noteIfDue keeps a note if there is something new and it is time.
func (p *delivery) noteIfDue(ctx context.Context, now time.Time) {
	p.mu.Lock()
	w, calls, noted := p.worker, p.calls, p.noted
	p.mu.Unlock()
	if w.Calls() == calls {
		return
	}
	wait := noteWell
	if s := w.Status(); s.LastError != "" || calls == 0 {
		wait = noteTrouble
	}
	if now.Sub(noted) < wait {
		return
	}
	p.mu.Lock()
	p.noted, p.calls = now, w.Calls()
	p.mu.Unlock()
	p.setNote(ctx, w.Status())
}

func (p *delivery) setNote(ctx context.Context, s Status) {
	note, err := json.Marshal(Note{Status: s})
	if err != nil {
		p.d.o.Logger.Error("encode a callback's note", "subscription", p.name, "error", err)
		return
	}
	p.h.SetNote(ctx, note)
}
