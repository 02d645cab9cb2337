package session

import (
	"context"
	"slices"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/wire"
)

// Times finds where a channel stood at a time; see broker.Log.
type Times interface {
	OffsetAt(ctx context.Context, channel string, t time.Time) (uint64, error)
}

// Config is what a new session is to be.
type Config struct {
	Grant    *auth.Grant
	Codec    Codec
	Channels []string
	Types    string // comma list of patterns
	Since    Since
	Lag      Lag
}

// New makes a session, which does nothing until Start, or says what is wrong
// with the request. Without Start it must be given back by Gone.
func (h *Hub) New(ctx context.Context, c Config) (*Session, error) {
	tracks, gaps, recovered, err := h.open(ctx, c.Grant, c.Channels, c.Types, c.Since)
	if err != nil {
		return nil, err
	}
	s := &Session{hub: h, codec: c.Codec, grant: c.Grant, lag: c.Lag, tracks: tracks, since: time.Now().UnixMilli()}
	s.mu.Lock() // whoever finds it may end it at once
	defer s.mu.Unlock()
	if err := h.add(s); err != nil {
		release(tracks)
		return nil, err
	}
	position := string(s.appendPosition(nil))
	s.sayLocked(wire.Control{
		Op: wire.OpHello, Connection: s.ID(), Node: h.opts.Node, Session: wire.SessionEphemeral,
		Cursor: position, Recovered: &recovered, HeartbeatMS: h.opts.Heartbeat.Milliseconds(),
		Expires: event.FormatTime(c.Grant.Expires()),
	}, position)
	for _, g := range gaps {
		s.sayLocked(*g, position)
	}
	return s, nil
}

// Start gives the session its line and begins sending.
func (s *Session) Start(l conn.Conn) {
	s.mu.Lock()
	s.conn = l
	over := s.over
	if !over && !s.ending {
		for i := range s.tracks {
			s.tracks[i].feed.Join(s)
		}
		if s.held != nil {
			s.hub.spawn(s.attach)
		}
	}
	s.mu.Unlock()
	if over { // the hub was closed meanwhile
		l.Close()
		return
	}
	s.push()
}

// Prepend queues bytes that go before everything else; called before Start.
func (s *Session) Prepend(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = slices.Insert(s.control, 0, b)
}

// open checks and opens channels and finds where since is in each.
func (h *Hub) open(ctx context.Context, g *auth.Grant, channels []string, types string, since Since) (tracks []track, gaps []*wire.Control, recovered bool, err error) {
	defer func() {
		if err != nil {
			release(tracks)
		}
	}()
	if len(channels) > h.opts.MaxChannels {
		return nil, nil, false, wire.TooLarge("%d channels: a session takes %d at most", len(channels), h.opts.MaxChannels)
	}
	filter, err := h.Filter(types)
	if err != nil {
		return nil, nil, false, err
	}
	for i, channel := range channels {
		if err := event.CheckChannel(channel); err != nil {
			return nil, nil, false, wire.BadRequest("%v", err)
		}
		if err := access.Read(g, channel); err != nil {
			return nil, nil, false, err
		}
		if slices.Contains(channels[:i], channel) {
			return nil, nil, false, wire.BadRequest("channel %q is named twice", channel)
		}
	}
	if err := since.Check(channels); err != nil {
		return nil, nil, false, err
	}
	tracks = make([]track, 0, len(channels))
	for _, channel := range channels {
		f, err := h.feeds.Open(ctx, channel)
		if err != nil {
			return tracks, nil, false, err
		}
		tracks = append(tracks, track{feed: f, filter: filter})
		t := &tracks[len(tracks)-1]
		state := f.State()
		t.epoch, t.offset = state.Epoch, state.Head
		switch cursor, ok := since.Position.Of(channel); {
		case ok:
			p := relocate(cursor, state)
			t.offset = p.offset
			if p.gap != nil {
				gaps = append(gaps, p.gap)
			}
		case since.Earliest:
			t.offset = max(state.First, 1) - 1
		case !since.Time.IsZero():
			if t.offset, err = h.opts.Times.OffsetAt(ctx, channel, since.Time); err != nil {
				return tracks, nil, false, err
			}
			t.offset = min(t.offset, state.Head)
		}
		t.followed = t.offset == state.Head
	}
	return tracks, gaps, since.resumes() && len(gaps) == 0, nil
}
