package subscriptions

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// reject makes a dead letter of one event for a connection that can't say so
// itself, since it only listens.
func (a *API) reject(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	var in struct {
		Cursor     string `json:"cursor"`
		Reason     string `json:"reason"`
		Connection string `json:"connection"`
		Consumer   string `json:"consumer"`
		Attempts   int    `json:"attempts"`
	}
	const want = `{"cursor":"…","reason":"…","attempts":1,"connection":"…"}, of which only cursor is needed, and for a group connection or, where it pulls, consumer`
	if err := decode(r, &in, want); err != nil {
		return err
	}
	if in.Cursor == "" {
		return wire.BadRequest("the body lacks cursor; want %s", want)
	}
	c, err := event.ParseCursor(in.Cursor)
	if err != nil {
		return wire.BadRequest("%v; want the cursor of one event", err)
	}
	if in.Reason == "" {
		in.Reason = "rejected by the consumer"
	}
	for {
		s, err := a.load(r, g)
		if err != nil {
			return err
		}
		at, text, err := a.rejectable(r.Context(), s, c)
		if err != nil {
			return err
		}
		dead := durable.DeadLetter{Event: text, Reason: in.Reason, Attempts: max(in.Attempts, 1), Time: time.Now().UTC()}
		if s.Definition.Group != nil && in.Connection == "" {
			m := s.MemberOf(in.Consumer)
			if m == nil {
				return wire.BadRequest("subscription %q is shared by a group: the body lacks connection, as hello names it, or the consumer of who pulls, since that is what says whose event it is", s.Name)
			}
			in.Connection = m.Connection
		}
		err = a.o.Manager.Reject(r.Context(), s, at, dead, in.Connection)
		switch {
		case errors.Is(err, broker.ErrFenced) && in.Connection == "":
			continue // it changed hands meanwhile
		case errors.Is(err, broker.ErrFenced):
			return wire.Conflict("connection %.80q does not own subscription %q any longer", in.Connection, s.Name)
		case errors.Is(err, durable.ErrUnattached):
			return wire.Conflict("nobody is attached to subscription %q or pulls of it, so no event of it can be rejected", s.Name)
		case err != nil:
			return err
		}
		return a.answerCursor(w, r, s.Name)
	}
}

// rejectable returns an event that isn't acknowledged, and where it is now: in
// its log, or, if it was put back there, among the dead letters.
func (a *API) rejectable(ctx context.Context, s durable.State, c event.Cursor) (event.Cursor, []byte, error) {
	located, err := s.Located(ctx, a.o.Broker, event.Position{c})
	if err != nil {
		return c, nil, err
	}
	if len(located) > 0 {
		at := located[0]
		done, ok := s.Position.Of(at.Channel)
		if at.Offset > 0 && (!ok || done.Epoch != at.Epoch || done.Offset < at.Offset) {
			if text, err := a.logged(ctx, s, at); err != nil || text != nil {
				return at, text, err
			}
		}
	}
	text, err := a.buried(ctx, s, c)
	if err == nil && text == nil {
		err = wire.BadRequest("%s is not an event of subscription %q that was delivered and is unacknowledged", c, s.Name)
	}
	return c, text, err
}

// logged reads an event of the subscription; nil if its log doesn't hold it.
func (a *API) logged(ctx context.Context, s durable.State, c event.Cursor) ([]byte, error) {
	page, err := a.o.Broker.Read(ctx, c.Channel, c.Offset-1, broker.Limit{Events: 1})
	if errors.Is(err, broker.ErrNotFound) {
		return nil, nil
	}
	if err != nil || page.State.Epoch != c.Epoch || len(page.Items) == 0 || page.Items[0].Offset != c.Offset {
		return nil, err
	}
	item, err := feed.NewItem(c.Channel, c.Epoch, page.Items[0])
	if err != nil {
		return nil, err
	}
	filter, err := a.filters.Get(s.Selection())
	if err != nil || !filter.Match(item) {
		return nil, err
	}
	return item.JSON(), nil
}

// buried finds the dead letter that had a cursor; nil if there is none. One
// that wasn't put back counts too: the same was rejected before.
func (a *API) buried(ctx context.Context, s durable.State, c event.Cursor) (text []byte, err error) {
	err = a.letters(ctx, &s, 0, letterPage, func(_ broker.Letter, d durable.DeadLetter) bool {
		if d.Cursor() == c.String() {
			text = d.Event
		}
		return text == nil
	})
	return text, err
}
