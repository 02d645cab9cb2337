package subscriptions

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// maxResend is how many events one resend takes.
const maxResend = 100

// resend delivers events again, once, the way of redriven dead letters: the
// position stays.
func (a *API) resend(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	var in struct {
		Cursors []string `json:"cursors"`
	}
	const want = `{"cursors":["…"]}, the cursors of 1 to 100 events`
	if err := decode(r, &in, want); err != nil {
		return err
	}
	if len(in.Cursors) == 0 || len(in.Cursors) > maxResend {
		return wire.BadRequest("cursors names %d events; want %s", len(in.Cursors), want)
	}
	for {
		s, err := a.load(r, g)
		if err != nil {
			return err
		}
		n, err := a.resendAll(r.Context(), &s, in.Cursors)
		if errors.Is(err, broker.ErrFenced) {
			continue // it changed hands meanwhile
		}
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, map[string]int{"resent": n})
	}
}

// resendAll puts events among the dead letters, marked to be delivered again; one
// that is a letter already is only marked. All are checked before any is.
func (a *API) resendAll(ctx context.Context, s *durable.State, cursors []string) (int, error) {
	var marked []string
	var letters []broker.Letter
	seen := make(map[string]bool, len(cursors))
	for _, text := range cursors {
		c, err := event.ParseCursor(text)
		if err != nil {
			return 0, wire.BadRequest("%v; want the cursors of events", err)
		}
		if seen[c.String()] {
			continue
		}
		seen[c.String()] = true
		letter, err := a.resendable(ctx, s, c)
		if err != nil {
			return 0, err
		}
		if marked = append(marked, letter.Cursor); letter.Seq == 0 {
			letters = append(letters, letter)
		}
	}
	if s.Dead+len(letters) > broker.MaxDeadLetters {
		return 0, wire.Conflict("subscription %q has %d dead letters and keeps %d at most; redrive or delete some first", s.Name, s.Dead, broker.MaxDeadLetters)
	}
	if len(letters) > 0 {
		if _, err := a.o.Broker.Bury(ctx, broker.Burial{Name: s.Name, Generation: s.Generation, Letters: letters}); err != nil {
			return 0, err
		}
	}
	if _, err := a.o.Broker.Redrive(ctx, s.Name, marked); err != nil {
		return 0, err
	}
	return len(marked), a.o.Manager.Redriven(ctx, s.Name)
}

// resendable is an event as a dead letter: the one it is, or one made of what
// its log holds.
func (a *API) resendable(ctx context.Context, s *durable.State, c event.Cursor) (broker.Letter, error) {
	if s.Definition.Has(c.String()) {
		if l, _, err := a.letterOf(ctx, s, c); err != nil || l != nil {
			return *cmp.Or(l, &broker.Letter{}), err
		}
	}
	at, state, err := a.eventAt(ctx, s, c)
	if err != nil {
		return broker.Letter{}, err
	}
	item, _, err := a.read(ctx, at)
	switch {
	case err != nil:
		return broker.Letter{}, err
	case item == nil:
		return broker.Letter{}, wire.Gone("event %s is gone; the log begins at offset %d", at, state.First)
	case !a.matches(s, item):
		return broker.Letter{}, wire.Conflict("event %s is none that subscription %q takes, by its types and filter", at, s.Name)
	}
	if done, ok := s.Position.Of(at.Channel); ok {
		if offset, _ := state.Locate(done.Epoch, done.Offset); offset < at.Offset {
			return broker.Letter{}, wire.Conflict("event %s is not acknowledged, so it comes by itself; the position is %s", at, done)
		}
	}
	return durable.DeadLetter{Event: item.JSON(), Reason: "to be sent again, as was asked for", Time: time.Now().UTC()}.Letter()
}
