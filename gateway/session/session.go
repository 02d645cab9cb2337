// Package session holds what a connection carries: one subscriber's progress
// through its channels. A session reads from the feeds' shared rings, or from
// the log while it is behind, and hands what its peer takes to its line. It
// has no goroutine and no queue of its own.
package session

import (
	"context"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/conn"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/wire"
)

// Codec makes a transport's bytes. It is called with its session locked and
// must not call it.
type Codec interface {
	Traits() Traits
	// AppendEvent appends the Stride buffers of an event. position is the
	// session's as of the event where Traits ask for it and the event's cursor
	// alone is not all of it, else nil. Bytes that must be made are appended
	// to scratch, which is returned.
	AppendEvent(bufs [][]byte, scratch []byte, item *feed.Item, position []byte) (_ [][]byte, _ []byte)
	// Control returns a control message's bytes, or nil if the transport has
	// none for it. position is set where the client is to remember it.
	Control(c wire.Control, position string) []byte
	// Heartbeat returns what keeps the line alive, and moves the client's
	// position there if it is not "".
	Heartbeat(position string) []byte
	// Close returns what follows a bye, or nil.
	Close(code wire.CloseCode, reason string) []byte
}

// Traits are what a session must know of its transport.
type Traits struct {
	Name      string // for people: "websocket", "sse"
	Stride    int    // buffers per event and per control message
	Pings     bool   // the peer answers heartbeats
	Positions bool   // each event carries the session's position
}

// Lag says what happens to a session that can't keep up.
type Lag uint8

// The kinds of Lag.
const (
	LagCatchUp  Lag = iota // read on from the log at the client's own pace
	LagConflate            // only the newest event per key
	LagLatest              // skip to the head
	LagClose               // close
)

// ParseLag reads a lag's name; the empty text is catchup.
func ParseLag(s string) (Lag, error) {
	switch s {
	case "", "catchup":
		return LagCatchUp, nil
	case "conflate":
		return LagConflate, nil
	case "latest":
		return LagLatest, nil
	case "close":
		return LagClose, nil
	}
	return 0, wire.BadRequest("lag is %.80q: want catchup, conflate, latest or close", s)
}

// Session is one connection's progress. Its exported methods may be called by
// any goroutine.
type Session struct {
	hub     *Hub
	id      uint64
	since   int64 // Unix ms of the start
	codec   Codec
	address netip.Addr // of the client; zero: not known
	conn    conn.Conn  // set by Start

	queued  atomic.Bool // on the ready list, or about to be
	blocked atomic.Bool // the peer takes nothing for now: a Wake follows
	heard   atomic.Bool // something came from the peer since the last ping

	index int32 // of the hub's entries; guarded by hub.mu

	mu           sync.Mutex
	grant        *auth.Grant
	blockedAt    int64 // as Hub.now has it
	lag          Lag
	slow         bool // its peer didn't keep up, and it has not sent everything since
	moved        bool // the position moved over events that were left out
	said         bool // something was sent since the last heartbeat
	ending       bool // a bye is queued; nothing but control follows
	over         bool // the line is closed and everything is given back
	unponged     uint8
	channelsHeld int32 // which the token is charged for
	readers      []cursor.Reader
	control      [][]byte      // goes before any event
	unread       int64         // bytes of control that were charged
	token        *quota.Token  // whom; of the grant
	durable      *durableState // nil: ephemeral; static
}

// ID is the connection's id.
func (s *Session) ID() string { return connectionID(s.id) }

func connectionID(id uint64) string { return "c" + strconv.FormatUint(id, 36) }

func parseConnectionID(s string) (uint64, bool) {
	if len(s) < 2 || s[0] != 'c' {
		return 0, false
	}
	id, err := strconv.ParseUint(s[1:], 36, 64)
	return id, err == nil
}

// Grant is what the connection may do at present.
func (s *Session) Grant() *auth.Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant
}

// Mark implements feed.Member.
func (s *Session) Mark() bool {
	// A blocked peer is woken by its line; until then there is nothing to do.
	return !s.blocked.Load() && s.queued.CompareAndSwap(false, true)
}

// Wake implements conn.Owner: the line takes bytes again.
func (s *Session) Wake() {
	s.blocked.Store(false)
	s.push()
}

func (s *Session) push() {
	if s.queued.CompareAndSwap(false, true) {
		s.hub.ready.Push(s)
	}
}

// Heard notes that the peer is alive.
func (s *Session) Heard() { s.heard.Store(true) }

// Position returns the session's position over all of its channels.
func (s *Session) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.appendPosition(nil))
}

// positionLocked is the position that a client is to remember: of a group it is
// none, since a partition's is not a channel's.
func (s *Session) positionLocked() string {
	if s.shared() {
		return ""
	}
	return string(s.appendPosition(nil))
}

func (s *Session) appendPosition(dst []byte) []byte {
	for i := range s.readers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = s.readers[i].Cursor().Append(dst)
	}
	return dst
}

// Say sends a control message, after those that wait. It doesn't block.
func (s *Session) Say(c wire.Control) {
	s.mu.Lock()
	s.sayLocked(c, "")
	s.mu.Unlock()
	if s.queued.CompareAndSwap(false, true) {
		// Here and now: waking a writer costs more than the sending.
		b := batches.Get().(*batch)
		if s.send(b) {
			s.push()
		}
		b.reset()
		batches.Put(b)
	}
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// maxWaiting is how many messages may wait for a heartbeat to be added: those
// are not charged.
const maxWaiting = 64

// perMessage is what a message that waits costs besides its bytes.
const perMessage = 48

func (s *Session) sayLocked(c wire.Control, position string) {
	if s.over || s.ending {
		return
	}
	if c.Op == wire.OpGap {
		s.hub.opts.Metrics.gaps.WithLabelValues(c.Reason).Inc()
	}
	b := s.codec.Control(c, position)
	if b == nil {
		return
	}
	if !s.chargeLocked(len(b) + perMessage) {
		s.endLocked(wire.CloseRateLimited, "answers are not read", time.Second)
		return
	}
	s.control = append(s.control, b)
}

// Subscribe adds channels from since on and returns their position. Either all
// are added or none. Channels that the session has already keep their place.
// lag is what the session does from now on when it can't keep up; nil: as before.
func (s *Session) Subscribe(ctx context.Context, channels []string, selected cursor.Selection, since cursor.Since, lag *Lag) (event.Position, error) {
	if s.durable != nil {
		return nil, wire.BadRequest("this session is a durable subscription's; its channels are changed by PUT or PATCH")
	}
	opened, _, err := s.hub.open(ctx, s.Grant(), channels, selected, since)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.ending {
		release(opened)
		return nil, wire.Unavailable(0, "the connection is closing")
	}
	var fresh []opening
	for _, o := range opened {
		if s.find(o.reader.Channel()) != nil {
			o.reader.Close()
			continue
		}
		fresh = append(fresh, o)
	}
	if len(s.readers)+len(fresh) > s.hub.opts.MaxChannels {
		release(fresh)
		return nil, wire.TooLarge("a session takes %d channels at most", s.hub.opts.MaxChannels)
	}
	if lag != nil {
		s.lag = *lag
	}
	if err := s.holdChannelsLocked(len(s.readers) + len(fresh)); err != nil {
		release(fresh)
		return nil, err
	}
	had := len(s.readers)
	for _, o := range fresh {
		if gap := o.move.Gap(); gap != nil {
			s.sayLocked(*gap, "")
		}
		s.readers = append(s.readers, o.reader)
	}
	var position event.Position
	for _, channel := range channels {
		if r := s.find(channel); r != nil {
			position = append(position, r.Cursor())
		}
	}
	for i := range s.readers[had:] {
		s.readers[had+i].Join(s)
	}
	s.push()
	return position, nil
}

// Unsubscribe takes channels off; ones that the session doesn't have are an
// error, and then none is.
func (s *Session) Unsubscribe(channels []string) error {
	if s.durable != nil {
		return wire.BadRequest("this session is a durable subscription's; its channels are changed by PUT or PATCH")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := make(map[string]bool, len(channels))
	for _, channel := range channels {
		if s.find(channel) == nil {
			return wire.BadRequest("not subscribed to %.140q", channel)
		}
		gone[channel] = true
	}
	kept := s.readers[:0]
	for _, r := range s.readers {
		if gone[r.Channel()] {
			r.Leave(s)
			r.Close()
			continue
		}
		kept = append(kept, r)
	}
	clear(s.readers[len(kept):])
	s.holdChannelsLocked(len(kept))
	s.readers = kept
	return nil
}

// Renew replaces the grant in place: same subject, and not less than what is
// in use. A durable session that has no channels at present is asked for them
// when it gets them.
func (s *Session) Renew(g *auth.Grant) error {
	if err := s.renew(g); err != nil {
		return err
	}
	// Asked once the grant is the session's: if it was revoked since it was
	// verified, either this tells or EndWhere finds it.
	err := s.hub.opts.Revocations.Check(g)
	if err != nil {
		s.End(wire.CloseUnauthorized, wire.From(err).Detail, 0)
	}
	return err
}

func (s *Session) renew(g *auth.Grant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var use access.Use
	if s.durable != nil {
		use.Subscription = s.durable.name
	}
	for i := range s.readers {
		use.Channels = append(use.Channels, s.readers[i].Channel())
	}
	if err := access.Renew(s.grant, g, use); err != nil {
		return err
	}
	s.grant = g
	s.hub.renewed(s, g)
	return nil
}

func (s *Session) find(channel string) *cursor.Reader {
	for i := range s.readers {
		if s.readers[i].Channel() == channel {
			return &s.readers[i]
		}
	}
	return nil
}

// End says bye and closes the line when that is sent, or after a while.
// retry is when the client may come back.
func (s *Session) End(code wire.CloseCode, reason string, retry time.Duration) {
	s.mu.Lock()
	s.endLocked(code, reason, retry)
	s.mu.Unlock()
	s.push()
}

func (s *Session) endLocked(code wire.CloseCode, reason string, retry time.Duration) {
	if s.over || s.ending {
		return
	}
	s.ending = true
	s.hub.opts.Metrics.bye(code)
	if b := s.codec.Control(wire.Bye(code, reason, retry.Milliseconds()), ""); b != nil {
		s.control = append(s.control, b)
	}
	if b := s.codec.Close(code, reason); b != nil {
		s.control = append(s.control, b)
	}
	s.leaveLocked()
	s.hub.watch(s, closeTimeout)
}

// closeTimeout is how long a peer may take to close after a bye.
const closeTimeout = 5 * time.Second

// Break answers a breach of the protocol: a close frame without a bye, or none
// either if code is 0 because it is sent already.
func (s *Session) Break(code wire.CloseCode, reason string) {
	s.mu.Lock()
	if !s.over && !s.ending {
		s.ending = true
		if code == 0 {
			s.conn.Finish()
		} else {
			s.control = append(s.control, s.codec.Close(code, reason))
		}
		s.leaveLocked()
		s.hub.watch(s, closeTimeout)
	}
	s.mu.Unlock()
	s.push()
}

// Gone gives everything back: the peer is gone or the line is dead.
func (s *Session) Gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goneLocked()
}

func (s *Session) goneLocked() {
	if s.conn != nil {
		s.conn.Close()
	}
	s.giveBackLocked()
}

// Contain is to be deferred by who works for the session: a panic ends it and
// nothing else.
func (s *Session) Contain(where string) {
	if panicked := recover(); panicked != nil {
		s.hub.opts.Guard.Caught(where, panicked)
		s.Gone()
	}
}

// Left is Gone for a peer that said goodbye: what was handed to the line goes
// out, the answer to the goodbye with it.
func (s *Session) Left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Finish()
	}
	s.giveBackLocked()
}

func (s *Session) giveBackLocked() {
	if s.over {
		return
	}
	s.over = true
	s.control = nil
	s.settleLocked()
	if s.durable != nil {
		s.giveUpLocked()
	}
	s.leaveLocked()
	s.hub.remove(s)
}

func (s *Session) leaveLocked() {
	if s.durable != nil {
		s.movedLocked() // acks are taken until the line closes
	}
	s.leaveFeedsLocked()
	s.holdChannelsLocked(0)
}
