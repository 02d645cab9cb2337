package subscriptions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// traced is what became of an event for a subscription.
type traced struct {
	Cursor   string             `json:"cursor"`
	State    string             `json:"state"`
	Since    *time.Time         `json:"since,omitempty"`  // since when, where that is known
	Reason   string             `json:"reason,omitempty"` // of a dead letter
	Attempts []callback.Attempt `json:"attempts"`
}

// The states of an event.
const (
	acknowledged = "acknowledged" // the position is past it
	inFlight     = "in_flight"    // sent, or within the window of who is attached
	waiting      = "waiting"
	dead         = "dead"
	inGap        = "gap" // gone before it was delivered
	skipped      = "skipped"
	notMatched   = "not_matched"
)

// maxTraced is how many attempts a trace shows, the newest.
const maxTraced = 100

// trace tells what became of an event: a look at the position, the log, the
// dead letters and the attempts, none of which takes longer for an event further
// back.
func (a *API) trace(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	s, err := a.load(r, g)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	text, id := q.Get("cursor"), q.Get("id")
	if (text == "") == (id == "") {
		return wire.BadRequest("want one of cursor=, the event's, and id=")
	}
	if id != "" {
		if text, err = a.find(r.Context(), &s, id); err != nil {
			return err
		}
	}
	c, err := event.ParseCursor(text)
	if err != nil {
		return wire.BadRequest("%v; want the cursor of one event", err)
	}
	out, err := a.fate(r.Context(), &s, c)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// eventAt is where an event of the subscription is now, and the state of its log.
func (a *API) eventAt(ctx context.Context, s *durable.State, c event.Cursor) (event.Cursor, broker.State, error) {
	if !s.Definition.Has(c.String()) {
		return c, broker.State{}, wire.BadRequest("cursor %q is of channel %q, which is not of subscription %q", c, c.Channel, s.Name)
	}
	if c.Offset == 0 {
		return c, broker.State{}, wire.BadRequest("cursor %q is the place before the first event; want that of an event", c)
	}
	at, err := a.place(ctx, c.Channel, durable.Since{Position: event.Position{c}})
	if err != nil {
		return c, broker.State{}, err
	}
	state, err := a.o.Broker.State(ctx, c.Channel)
	return at, state, err
}

// read reads one event of a log; nil if it is gone.
func (a *API) read(ctx context.Context, at event.Cursor) (*feed.Item, time.Time, error) {
	page, err := a.o.Broker.Read(ctx, at.Channel, at.Offset-1, broker.Limit{Events: 1, Bytes: 1})
	if errors.Is(err, broker.ErrNotFound) {
		return nil, time.Time{}, nil
	}
	if err != nil || page.State.Epoch != at.Epoch || len(page.Items) == 0 || page.Items[0].Offset != at.Offset {
		return nil, time.Time{}, err
	}
	item, err := feed.NewItem(at.Channel, at.Epoch, page.Items[0])
	return item, page.Items[0].Time, err
}

// fate puts together what became of an event.
func (a *API) fate(ctx context.Context, s *durable.State, c event.Cursor) (*traced, error) {
	at, state, err := a.eventAt(ctx, s, c)
	if err != nil {
		return nil, err
	}
	item, appended, err := a.read(ctx, at)
	if err != nil {
		return nil, err
	}
	out := &traced{Cursor: at.String(), Attempts: []callback.Attempt{}}
	var first, last time.Time // of those that count: a replay's are about the replay
	err = a.history(ctx, s, 0, attemptFilter{since: appended, cursor: c.String()}, func(_ uint64, t callback.Attempt) bool {
		out.Attempts = append(out.Attempts, t)
		if t.Replay == "" || s.Replay != nil {
			if first = t.Time; last.IsZero() {
				last = t.Time
			}
		}
		return len(out.Attempts) < maxTraced
	})
	if err != nil {
		return nil, err
	}
	letter, why, err := a.letterOf(ctx, s, c)
	if err != nil {
		return nil, err
	}
	present := func(c event.Cursor) uint64 { offset, _ := state.Locate(c.Epoch, c.Offset); return offset }
	done, placed := s.Position.Of(at.Channel)
	end, ends := s.End(at.Channel)
	ended := placed && at.Offset <= present(done)
	jump, jumped := s.Jumped(at, present)
	switch {
	case letter != nil && letter.Redrive:
		out.is(waiting, why.Time)
		if s.Owner != nil {
			out.State = inFlight
		}
	case letter != nil:
		out.is(dead, why.Time)
		out.Reason = why.Reason
	case item != nil && (!a.matches(s, item) || ends && at.Offset > present(end)):
		out.is(notMatched, appended)
	case jumped && jump.Kind == durable.Missing:
		out.is(inGap, jump.Time)
	case jumped:
		out.is(skipped, jump.Time)
	case ended:
		out.is(acknowledged, last)
	case item == nil:
		out.is(inGap, time.Time{}) // whoever delivers next will meet it
	case !first.IsZero():
		out.is(inFlight, first)
	case s.Owner != nil && s.Owner.Kind != durable.Call && at.Offset-present(done) <= uint64(s.Definition.Window):
		out.is(inFlight, appended)
	default:
		out.is(waiting, appended)
	}
	return out, nil
}

func (t *traced) is(state string, since time.Time) { t.State, t.Since = state, timeOrNil(since) }

func (a *API) matches(s *durable.State, item *feed.Item) bool {
	filter, err := a.filters.Get(s.Selection())
	return err == nil && filter.Match(item)
}

// letterOf finds the dead letter with an event's cursor; nil if there is none.
func (a *API) letterOf(ctx context.Context, s *durable.State, c event.Cursor) (*broker.Letter, durable.DeadLetter, error) {
	text := c.String()
	for after := uint64(0); s.Dead > 0; {
		page, err := a.o.Broker.Dead(ctx, s.Name, after, letterPage)
		if err != nil || len(page) == 0 {
			return nil, durable.DeadLetter{}, err
		}
		for _, l := range page {
			after = l.Seq
			var d durable.DeadLetter
			if l.Cursor == text && json.Unmarshal(l.Data, &d) == nil {
				d.Time = l.Time
				return &l, d, nil
			}
		}
	}
	return nil, durable.DeadLetter{}, nil
}

// scanBack is how many of the newest events of all channels together are looked
// at for an id.
const scanBack = 20_000

// find returns the cursor of the newest event with an id: among the attempts,
// the dead letters, and the newest events of the channels.
func (a *API) find(ctx context.Context, s *durable.State, id string) (cursor string, err error) {
	err = a.history(ctx, s, 0, attemptFilter{id: id}, func(_ uint64, t callback.Attempt) bool {
		for i := range t.IDs {
			if t.IDs[i] == id && i < len(t.Cursors) {
				cursor = t.Cursors[i]
			}
		}
		return cursor == ""
	})
	if err != nil || cursor != "" {
		return cursor, err
	}
	if s.Dead > 0 {
		err = a.letters(ctx, s, 0, letterPage, func(_ broker.Letter, d durable.DeadLetter) bool {
			var e struct{ ID string }
			if json.Unmarshal(d.Event, &e) == nil && e.ID == id {
				cursor = d.Cursor()
			}
			return cursor == ""
		})
		if err != nil || cursor != "" {
			return cursor, err
		}
	}
	each := scanBack / max(len(s.Definition.Channels), 1)
	for _, channel := range s.Definition.Channels {
		if cursor, err = a.scan(ctx, channel, id, each); err != nil || cursor != "" {
			return cursor, err
		}
	}
	return "", wire.NotFound("no event with id %.80q is among the attempts and dead letters of subscription %q and the newest %d events of each of its channels; ask by cursor for an older one", id, s.Name, each)
}

// scan looks for an id in the newest events of a channel, from the head back.
func (a *API) scan(ctx context.Context, channel, id string, most int) (string, error) {
	state, err := a.o.Broker.State(ctx, channel)
	if errors.Is(err, broker.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	const step = 1000
	text := []byte(id)
	least := max(state.First, 1) - 1 // what is looked at lies beyond it
	if beyond := uint64(most); state.Head > beyond {
		least = max(least, state.Head-beyond)
	}
	for end := state.Head; end > least; {
		from := least
		if end > step {
			from = max(from, end-step)
		}
		found := event.Cursor{}
		for after := from; after < end; {
			page, err := a.o.Broker.Read(ctx, channel, after, broker.Limit{Events: int(end - after)})
			if err != nil || len(page.Items) == 0 || page.State.Epoch != state.Epoch {
				return "", err
			}
			for _, one := range page.Items {
				after = one.Offset
				if !bytes.Contains(one.Data, text) {
					continue
				}
				if item, err := feed.NewItem(channel, state.Epoch, one); err == nil && item.ID() == id {
					found = event.Cursor{Channel: channel, Epoch: state.Epoch, Offset: one.Offset}
				}
			}
		}
		if found.Offset > 0 {
			return found.String(), nil
		}
		end = from
	}
	return "", nil
}
