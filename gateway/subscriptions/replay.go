package subscriptions

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// replayKept is how long a replay that nobody attends to is kept.
const replayKept = 72 * time.Hour

// maxReplays is how many replays of a subscription there may be at once: each
// keeps its range from being forgotten.
const maxReplays = 16

// replayRange is what a replay is to deliver, and how.
type replayRange struct {
	From     string   `json:"from"`
	To       string   `json:"to"`
	Types    []string `json:"types"`
	Filter   *string  `json:"filter"`
	Callback bool     `json:"callback"`
	Rate     float64  `json:"rate"`
}

// replay makes a subscription that delivers a range of another's events again
// and ends by itself. The other stays where it is.
func (a *API) replay(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	in := replayRange{To: "latest"}
	const want = `{"from":since,"to":since,"types"?,"filter"?,"callback"?,"rate"?}, where a since is a cursor, earliest, latest or an RFC 3339 time`
	if err := decode(r, &in, want); err != nil {
		return err
	}
	s, err := a.load(r, g)
	if err != nil {
		return err
	}
	if s.Replay != nil {
		return wire.Conflict("%q is a replay itself; replay %q", s.Name, s.Replay.Of)
	}
	if err := a.replayedLess(r.Context(), s.Name, maxReplays); err != nil {
		return err
	}
	record, from, err := a.replayOf(r.Context(), &s, in)
	if err != nil {
		return err
	}
	n := durable.ReplayName(s.Name, strings.ToLower(rand.Text()[:10]))
	if record.Sealed, err = a.sealAgain(&s, record, n); err != nil {
		return err
	}
	record.Creator, record.CreatorIssued = g.Subject, g.Issued()
	err = a.o.Manager.Change(r.Context(), n, func(_ durable.State, _ bool, env durable.Env) (durable.Change, error) {
		_, c := durable.Create(n, record, from, env)
		return c, nil
	})
	if err != nil {
		return err
	}
	if err := a.stillReplays(r.Context(), g, s.Name, n); err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, map[string]string{"name": n, "from": record.Replay.From, "to": record.Replay.To})
}

// replayedLess refuses a subscription that has so many replays.
func (a *API) replayedLess(ctx context.Context, of string, many int) error {
	running, err := a.o.Broker.List(ctx, durable.ReplayName(of, ""), "", many)
	if err != nil {
		return err
	}
	if len(running) == many {
		return wire.Conflict("subscription %q is being replayed %d times; wait for one to end, or delete one, such as %q", of, maxReplays, running[0].Name)
	}
	return nil
}

// replayOf is what a replay of s is to be, and where it begins. What makes the
// subscription a group's is left out: a replay is one consumer's.
func (a *API) replayOf(ctx context.Context, s *durable.State, in replayRange) (record durable.Record, from event.Position, err error) {
	d := s.Definition
	if in.Callback && d.Callback == nil {
		return record, nil, wire.Conflict("subscription %q has no callback to replay by; without \"callback\" a replay is attached to", s.Name)
	}
	if !in.Callback && in.Rate != 0 {
		return record, nil, wire.BadRequest("rate is for a replay by callback; whoever attaches takes what the window lets him")
	}
	var to event.Position
	if d.Channels, from, to, err = a.rangeOf(ctx, s, in.From, in.To); err != nil {
		return record, nil, err
	}
	d.Start, d.Group, d.ExpiresAfter = from.String(), nil, durable.Duration(replayKept)
	if in.Types != nil {
		d.Types = in.Types
	}
	if in.Filter != nil {
		d.Filter = *in.Filter
	}
	if d.Callback = nil; in.Callback {
		d.Callback = slower(*s.Definition.Callback, in.Rate)
	}
	if err := d.Check(); err != nil {
		return record, nil, wire.BadRequest("%v", err)
	}
	return durable.Record{Definition: d, Replay: &durable.Replay{Of: s.Name, From: from.String(), To: to.String()}}, from, nil
}

// slower is a callback for a replay by it: it has a receiver's lesser part, what
// happens now the greater one.
func slower(c durable.Callback, rate float64) *durable.Callback {
	c.Mode, c.Grace = durable.Always, 0
	c.Concurrency = max(c.Concurrency/2, 1)
	if c.Rate /= 2; rate != 0 {
		c.Rate = rate
	}
	return &c
}

// rangeOf finds a range in the logs of a subscription: the channels that have
// events in it.
func (a *API) rangeOf(ctx context.Context, s *durable.State, after, upTo string) (channels []string, from, to event.Position, err error) {
	begin, err := a.positionOf(ctx, s, "from", after)
	if err != nil {
		return nil, nil, nil, err
	}
	end, err := a.positionOf(ctx, s, "to", upTo)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, first := range begin {
		last, ok := end.Of(first.Channel)
		if ok && last.Offset < first.Offset {
			return nil, nil, nil, wire.BadRequest("from lies behind to: from is %s, to is %s", first, last)
		}
		if ok && last.Offset > first.Offset {
			channels, from, to = append(channels, first.Channel), append(from, first), append(to, last)
		}
	}
	if len(channels) == 0 {
		return nil, nil, nil, wire.BadRequest("there is no event after from, %q, up to to, %q", begin, end)
	}
	return channels, from, to, nil
}

// positionOf resolves a since over the channels of a subscription. A cursor is
// about its own channels alone.
func (a *API) positionOf(ctx context.Context, s *durable.State, field, text string) (event.Position, error) {
	if text == "" {
		return nil, wire.BadRequest("%s is empty; want a cursor, earliest, latest or an RFC 3339 time", field)
	}
	since, err := durable.ParseSince(text)
	if err != nil {
		return nil, wire.BadRequest("%s: %v", field, err)
	}
	for _, c := range since.Position {
		if !slices.Contains(s.Definition.Channels, c.Channel) {
			return nil, wire.BadRequest("%s: cursor %q is of channel %q, which is not of subscription %q", field, c, c.Channel, s.Name)
		}
	}
	var p event.Position
	for _, channel := range s.Definition.Channels {
		if _, named := since.Position.Of(channel); len(since.Position) > 0 && !named {
			continue
		}
		c, err := a.place(ctx, channel, since)
		if err != nil {
			return nil, err
		}
		p = append(p, c)
	}
	return p, nil
}

// sealAgain seals for a replay what its subscription's callback keeps sealed:
// that opens for no other name.
func (a *API) sealAgain(s *durable.State, record durable.Record, name string) ([]byte, error) {
	if record.Definition.Callback == nil {
		return nil, nil
	}
	p, err := a.o.Vault.Open(s.Name, s.Sealed)
	if err != nil {
		return nil, err
	}
	return a.o.Vault.Seal(name, p)
}

// stillReplays sees to it that a replay that was made doesn't outlive its
// subscription, or its maker's rights, which may have ended meanwhile, and that
// those made at once aren't too many: each is counted once it is there, so of
// those that are, the last one sees them all.
func (a *API) stillReplays(ctx context.Context, g *auth.Grant, of, name string) error {
	ctx = context.WithoutCancel(ctx)
	s, err := a.o.Manager.Load(ctx, of)
	if errors.Is(err, broker.ErrNotFound) {
		err = notFound(of)
	} else if err == nil {
		err = access.Subscription(g, of, s.Definition.Channels)
	}
	if err == nil {
		err = a.o.Revocations.Check(g)
	}
	if err == nil {
		err = a.replayedLess(ctx, of, maxReplays+1)
	}
	if err == nil {
		return nil
	}
	gone := a.o.Manager.Change(ctx, name, func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) {
		if s.Version == 0 {
			return durable.Change{}, durable.ErrNotDue
		}
		return durable.Delete(s), nil
	})
	if errors.Is(gone, durable.ErrNotDue) {
		gone = nil
	}
	return errors.Join(err, gone)
}
