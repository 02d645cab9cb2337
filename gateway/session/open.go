package session

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/wire"
)

// Config is what a new session is to be.
type Config struct {
	Grant    *auth.Grant
	Address  netip.Addr // of the client; zero: not known
	Codec    Codec
	Channels []string
	Select   cursor.Selection
	Since    cursor.Since
	Lag      Lag
}

// New makes a session, which does nothing until Start, or says what is wrong
// with the request. Without Start it must be given back by Gone.
func (h *Hub) New(ctx context.Context, c Config) (*Session, error) {
	opened, recovered, err := h.open(ctx, c.Grant, c.Channels, c.Select, c.Since)
	if err != nil {
		return nil, err
	}
	s := &Session{hub: h, codec: c.Codec, grant: c.Grant, address: c.Address, lag: c.Lag, readers: readersOf(opened), since: time.Now().UnixMilli()}
	s.mu.Lock() // whoever finds it may end it at once
	defer s.mu.Unlock()
	if err := s.holdChannelsLocked(len(opened)); err != nil {
		release(opened)
		return nil, err
	}
	if err := h.add(s); err != nil {
		s.holdChannelsLocked(0)
		release(opened)
		return nil, err
	}
	position := string(s.appendPosition(nil))
	s.sayLocked(wire.Control{
		Op: wire.OpHello, Connection: s.ID(), Node: h.opts.Node, Session: wire.SessionEphemeral,
		Cursor: position, Recovered: &recovered, HeartbeatMS: h.opts.Heartbeat.Milliseconds(),
		Expires: event.FormatTime(c.Grant.Expires()),
	}, position)
	for _, o := range opened {
		if gap := o.move.Gap(); gap != nil {
			s.sayLocked(*gap, position)
		}
	}
	return s, nil
}

// Start gives the session its line and begins sending.
func (s *Session) Start(l conn.Conn) {
	s.mu.Lock()
	s.conn = l
	over := s.over
	if !over && !s.ending {
		for i := range s.readers {
			s.readers[i].Join(s)
		}
		if s.durable != nil {
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

// opening is a channel that was opened for a session.
type opening struct {
	reader cursor.Reader
	move   *cursor.Move // why it doesn't begin where that was asked for, or nil
}

// open checks and opens channels and finds where since is in each. recovered:
// it goes on where it was, and nothing is lost.
func (h *Hub) open(ctx context.Context, g *auth.Grant, channels []string, selected cursor.Selection, since cursor.Since) (opened []opening, recovered bool, err error) {
	defer func() {
		if err != nil {
			release(opened)
		}
	}()
	if len(channels) > h.opts.MaxChannels {
		return nil, false, wire.TooLarge("%d channels: a session takes %d at most", len(channels), h.opts.MaxChannels)
	}
	filter, err := h.filters.Get(selected)
	if err != nil {
		return nil, false, err
	}
	for i, channel := range channels {
		if err := event.CheckChannel(channel); err != nil {
			return nil, false, wire.BadRequest("%v", err)
		}
		if err := access.Read(g, channel); err != nil {
			return nil, false, err
		}
		if slices.Contains(channels[:i], channel) {
			return nil, false, wire.BadRequest("channel %q is named twice", channel)
		}
	}
	if err := since.Check(channels); err != nil {
		return nil, false, err
	}
	opened, recovered = make([]opening, 0, len(channels)), since.Resumes()
	for _, channel := range channels {
		r, move, err := cursor.Open(ctx, h.feeds, channel, filter, since, h.opts.Times)
		if err != nil {
			return opened, false, err
		}
		opened = append(opened, opening{r, move})
		recovered = recovered && move.Gap() == nil
	}
	return opened, recovered, nil
}

func readersOf(opened []opening) []cursor.Reader {
	readers := make([]cursor.Reader, len(opened))
	for i := range opened {
		readers[i] = opened[i].reader
	}
	return readers
}

func release(opened []opening) {
	for i := range opened {
		opened[i].reader.Close()
	}
}
