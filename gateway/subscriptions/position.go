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
	"github.com/longline-push/longline/gateway/lag"
	"github.com/longline-push/longline/gateway/wire"
)

// places resolves a definition's start for the channels that want one.
func (a *API) places(ctx context.Context, d durable.Definition, wanted func(channel string) bool) (event.Position, error) {
	since, err := durable.ParseSince(d.Start)
	if err != nil {
		return nil, wire.BadRequest("start: %v", err)
	}
	var p event.Position
	for _, channel := range d.Channels {
		if !wanted(channel) {
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

// place finds where since is in a channel, which is made if it doesn't exist.
func (a *API) place(ctx context.Context, channel string, since durable.Since) (event.Cursor, error) {
	state, err := a.state(ctx, channel)
	if err != nil {
		return event.Cursor{}, err
	}
	at := event.Cursor{Channel: channel, Epoch: state.Epoch, Offset: state.Head}
	switch c, ok := since.Position.Of(channel); {
	case ok:
		offset, kind := state.Locate(c.Epoch, c.Offset)
		switch kind {
		case broker.Unknown:
			return at, wire.Gone("cursor %s is of a log that is gone; the present one begins at %s@%s-0", c, channel, state.Epoch)
		case broker.Forked:
			return at, wire.Gone("cursor %s lies beyond %s@%s-%d, where its log was forked; what followed is lost", c, channel, state.Epoch, offset)
		case broker.Beyond:
			return at, wire.Gone("cursor %s lies beyond the head, %s", c, at)
		}
		at.Offset = offset
	case since.Earliest:
		at.Offset = max(state.First, 1) - 1
	case !since.Time.IsZero():
		offset, err := a.o.Broker.OffsetAt(ctx, channel, since.Time)
		if err != nil {
			return at, err
		}
		at.Offset = min(offset, state.Head)
	}
	return at, nil
}

// state returns a channel's state. A subscription makes its channels, so that
// it has a cursor in each.
func (a *API) state(ctx context.Context, channel string) (broker.State, error) {
	state, err := a.o.Broker.State(ctx, channel)
	if !errors.Is(err, broker.ErrNotFound) {
		return state, err
	}
	var deaf deaf
	state, err = a.o.Broker.Follow(ctx, channel, &deaf)
	if err == nil {
		a.o.Broker.Unfollow(channel, &deaf)
	}
	return state, err
}

// deaf follows only to make a channel.
type deaf struct{ _ byte }

func (*deaf) Announce(broker.Announcement) {}

// lag is how far a subscription is behind: what is in its channels beyond its
// position, of a replay up to its end, whatever the type, and how old the oldest
// of that is.
func (a *API) lag(ctx context.Context, s durable.State) (behind, error) {
	var l behind
	oldest := time.Now()
	for _, c := range s.Position {
		state, err := a.o.Broker.State(ctx, c.Channel)
		if errors.Is(err, broker.ErrNotFound) {
			continue
		}
		if err != nil {
			return l, err
		}
		var end *event.Cursor
		if c, ok := s.End(c.Channel); ok {
			end = &c
		}
		offset, last := lag.Behind(state, c, end)
		if offset >= last {
			continue
		}
		l.Events += last - offset
		page, err := a.o.Broker.Read(ctx, c.Channel, offset, broker.Limit{Events: 1, Bytes: 1})
		if err != nil && !errors.Is(err, broker.ErrNotFound) {
			return l, err
		}
		if len(page.Items) > 0 && page.Items[0].Time.Before(oldest) {
			oldest = page.Items[0].Time
		}
	}
	l.Seconds = int64(time.Since(oldest).Seconds())
	return l, nil
}

func (a *API) ack(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	var in struct {
		Cursor     string `json:"cursor"`
		Connection string `json:"connection"`
		Partition  *int   `json:"partition"`
	}
	if err := decode(r, &in, `{"cursor":"…","connection":"…"}, of which connection may be left out but for a group, where partition may be given`); err != nil {
		return err
	}
	p, err := event.ParsePosition(in.Cursor)
	if err != nil {
		return wire.BadRequest("%v", err)
	}
	if len(p) == 0 {
		return wire.BadRequest(`the body lacks cursor; want {"cursor":"…"}`)
	}
	for {
		s, err := a.load(r, g)
		if err != nil {
			return err
		}
		to, err := s.Located(r.Context(), a.o.Broker, p)
		if err != nil {
			return err
		}
		for _, c := range p {
			// Unlike a Last-Event-ID, which may be from long ago, this is said of
			// what was just handled: it must not get lost in silence.
			if _, ok := to.Of(c.Channel); !ok {
				return a.wrongEpoch(r.Context(), c)
			}
		}
		switch shared := s.Definition.Group != nil; {
		case !shared && in.Partition != nil:
			return wire.BadRequest("partition is for subscriptions with a group; %q has none", s.Name)
		case shared && in.Connection == "":
			return wire.BadRequest("subscription %q is shared by a group: the body lacks connection, as hello names it, since that is what says which partitions are meant", s.Name)
		case shared:
			partition := durable.AllPartitions
			if in.Partition != nil {
				partition = *in.Partition
			}
			err = a.o.Manager.AckGroup(r.Context(), s, to, partition, in.Connection)
		default:
			err = a.o.Manager.Ack(r.Context(), s, p, to, in.Connection)
		}
		if errors.Is(err, broker.ErrFenced) && in.Connection == "" {
			continue // it changed hands meanwhile; the acknowledgement still counts
		}
		if errors.Is(err, durable.ErrLate) {
			return wire.Conflict("cursor %s acknowledges nothing: %v", to, err)
		}
		if errors.Is(err, broker.ErrFenced) {
			return wire.Conflict("connection %.80q does not own subscription %q any longer", in.Connection, s.Name)
		}
		if err != nil {
			return err
		}
		if s.Replay != nil { // which may be complete by that, and gone
			return writeJSON(w, http.StatusOK, map[string]string{"cursor": to.String()})
		}
		return a.answerCursor(w, r, s.Name)
	}
}

// wrongEpoch is the error for a cursor of a log that is gone.
func (a *API) wrongEpoch(ctx context.Context, c event.Cursor) error {
	state, err := a.state(ctx, c.Channel)
	if err != nil {
		return err
	}
	return wire.Conflict("cursor %s is of a log that is gone and acknowledges nothing: the present epoch of %q is %q, its head %s@%s-%d", c, c.Channel, state.Epoch, c.Channel, state.Epoch, state.Head)
}

// outdate has what was delivered until now acknowledged no more by who names no
// connection.
func (a *API) outdate(ctx context.Context, c durable.Change) (durable.Change, error) {
	var heads event.Position
	for _, channel := range c.Record.Definition.Channels {
		state, err := a.state(ctx, channel)
		if err != nil {
			return c, err
		}
		heads = append(heads, event.Cursor{Channel: channel, Epoch: state.Epoch, Offset: state.Head})
	}
	return c.Outdate(heads), nil
}

func (a *API) answerCursor(w http.ResponseWriter, r *http.Request, name string) error {
	s, err := a.o.Manager.Load(r.Context(), name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"cursor": s.Position.String()})
}

func (a *API) seek(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	var in struct {
		To string `json:"to"`
	}
	const want = `{"to":"…"}: earliest, latest, a cursor or an RFC 3339 time`
	if err := decode(r, &in, want); err != nil {
		return err
	}
	since, err := durable.ParseSince(in.To)
	if err != nil {
		return wire.BadRequest("to: %v", err)
	}
	if in.To == "" {
		return wire.BadRequest("the body lacks to; want %s", want)
	}
	err = a.change(r, g, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		if s.Replay != nil {
			return durable.Change{}, wire.Conflict("%q is a replay, from %s to %s, whose position only delivery moves; delete it and make another", s.Name, s.Replay.From, s.Replay.To)
		}
		var to event.Position
		for _, c := range since.Position {
			if _, ok := s.Position.Of(c.Channel); !ok {
				return durable.Change{}, wire.BadRequest("to: cursor %q is of channel %q, which is not of subscription %q", c, c.Channel, s.Name)
			}
		}
		for _, channel := range s.Definition.Channels {
			if _, named := since.Position.Of(channel); len(since.Position) > 0 && !named {
				continue // a cursor moves its own channel
			}
			c, err := a.place(r.Context(), channel, since)
			if err != nil {
				return durable.Change{}, err
			}
			to = append(to, c)
		}
		c, err := durable.Seek(s, to, force, env)
		if err != nil {
			return c, err
		}
		return a.outdate(r.Context(), c)
	})
	if err != nil {
		return err
	}
	return a.answerCursor(w, r, r.PathValue("name"))
}
