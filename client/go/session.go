package longline

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longline-push/longline/event"
)

// conn is a connection to the gateway. read is called by one goroutine, the
// other methods by any.
type conn interface {
	transport() Transport
	// read returns the next frame. alive tells when anything at all came.
	read() (frame, error)
	alive() time.Time
	// readEnded is called by the one who read, and won't again.
	readEnded()
	ack(ctx context.Context, a ack) error
	reject(ctx context.Context, r reject) error
	// renew sends another token, or returns errors.ErrUnsupported.
	renew(ctx context.Context, token string) error
	// subscribe adds channels, or returns errors.ErrUnsupported.
	subscribe(ctx context.Context, s Selection) error
	// close ends the connection and has read return, an orderly one with a
	// goodbye.
	close(orderly bool)
}

var (
	// errSlow ends a session whose handler leaves the window full: better to
	// hang up than to be timed out, since what waits is kept in the log.
	errSlow    = errors.New("handler is slower than the channel")
	errStopped = errors.New("stopped")
	// errRenewal ends a session to connect again with another token.
	errRenewal = errors.New("token was renewed")
)

const (
	ackEvery = 50 * time.Millisecond
	// patience is how long a session waits for room in the window. The
	// gateway's own, for a peer that doesn't read, is 30 s by default.
	patience = 10 * time.Second
	awhile   = 5 * time.Second
)

// session is one connection of a subscription, from its hello on.
type session struct {
	sub    *Subscription
	conn   conn
	first  frame
	token  string
	useful bool // it brought events, or stayed for a while: backoff starts anew

	stopping  atomic.Bool // take no more events
	heartbeat atomic.Int64
	expires   chan time.Time

	// owned by the reader
	window     int
	origin     origin
	live       State // as it was told last
	delivered  bool  // events, since the tracker was begun
	of         int   // partitions of the group; 0: it is none
	partitions []int // those that are ours

	mu      sync.Mutex
	endAcks func() // ends the acknowledging of the present tracker; never nil
}

// run works until the connection ends, which is an error, or ctx does.
func (s *session) run(ctx context.Context, r *drainer) error {
	defer s.conn.close(false)
	begun := time.Now()
	ended := make(chan error, 1)
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.expires = make(chan time.Time, 1)
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(inner) })
	go func() { ended <- s.receive(inner) }()

	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		s.stopping.Store(true)
		r.drain(context.Cause(ctx))
		s.flushAcks()
		s.conn.close(true)
		stop()
		<-ended
		err = errStopped
	}
	stop()
	s.flushAcks()
	watch.Wait()
	s.useful = s.useful || time.Since(begun) > awhile
	if s.sub.name != "" {
		s.sub.dispatcher.drop(true, nil)
	}
	return err
}

// receive reads until the connection ends.
func (s *session) receive(ctx context.Context) error {
	defer s.conn.readEnded()
	f, err := s.first, error(nil)
	for {
		if err == nil && f.op == "" {
			err = s.take(ctx, f.event)
		} else if err == nil {
			err = s.control(ctx, f)
		}
		if err != nil {
			return err
		}
		f, err = s.conn.read()
	}
}

// take puts an event on the dispatcher, once there is room.
func (s *session) take(ctx context.Context, e Event) error {
	s.useful, s.delivered = true, true
	if s.stopping.Load() {
		return nil
	}
	l := s.sub.current()
	en := l.add(e.Channel, s.partition(&e), e.Cursor)
	// A dead letter was put back to be handled, whatever became of it before.
	s.sub.dispatcher.addLive(e, en, !en.single && s.twice(&e), s.origin)
	if s.window <= 0 {
		return nil
	}
	room := l.full(s.window)
	if room == nil || s.sub.name != "" && l.full(2*s.window) == nil {
		return nil // the gateway itself keeps to a durable subscription's window
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	for ; room != nil; room = l.full(s.window) {
		select {
		case <-room:
		case <-t.C:
			return errSlow
		case <-ctx.Done():
			return errStopped
		}
	}
	return nil
}

// partition returns which of the group's an event belongs to.
func (s *session) partition(e *Event) int {
	if s.of == 0 {
		return noPartition
	}
	return event.Partition(e.Key, e.Source, e.ID, s.of)
}

// mayComeTwice notes that events up to the position may have been handled. It
// is kept until they have come, on whichever connection: one that was cut off
// early knows nothing of what those before it brought.
func (l *Subscription) mayComeTwice(p event.Position) {
	for _, c := range p {
		if had, ok := l.again[c.Channel]; ok && had >= c.Offset {
			continue
		}
		if l.again == nil {
			l.again = make(map[string]uint64, len(p))
		}
		l.again[c.Channel] = c.Offset
	}
}

// twice tells whether the event may have been handled before. A log that
// forked keeps its offsets, so that they tell without the epoch.
func (s *session) twice(e *Event) bool {
	until, ok := s.sub.again[e.Channel]
	if !ok {
		return false
	}
	at, err := event.ParseCursor(e.Cursor)
	if err != nil {
		return true
	}
	if at.Offset >= until && s.of == 0 { // partitions have an order each
		delete(s.sub.again, e.Channel)
	}
	return at.Offset <= until
}

func (s *session) control(ctx context.Context, f frame) error {
	l := s.sub
	switch f.op {
	case "hello":
		s.hello(ctx, f.control)
	case "standby":
		l.tell(State{Phase: Standby, Transport: s.conn.transport()})
	case "gap":
		l.current().step(f.Channel, f.To)
		l.trouble.warn("gap", "channel", f.Channel, "from", f.From, "to", f.To, "reason", f.Reason)
		if l.options.OnGap != nil {
			l.options.OnGap(Gap{Channel: f.Channel, From: f.From, To: f.To, Reason: f.Reason})
		}
	case "position":
		l.current().stepAll(f.Cursor)
	case "redelivery":
		position, err := event.ParsePosition(f.Cursor)
		if err != nil {
			return &Error{Code: ErrMalformed.Code, Detail: "redelivery", cause: err}
		}
		l.mayComeTwice(position)
		if l.name != "" && s.delivered && s.of == 0 { // a partition that comes says so by itself
			// The gateway lost hold of the subscription and has it again: what
			// is not acknowledged comes another time.
			s.begin(ctx, "")
		}
	case "partitions":
		s.assigned(f.control)
	case "ok":
		l.current().stepAll(f.Cursor)
	case "error":
		return s.refused(f)
	case "bye":
		bye := byeError(f.control)
		l.orderly = true
		return bye
	}
	return nil // unknown ops are of a later version
}

// hello begins: it comes first, or after a time of standing by.
func (s *session) hello(ctx context.Context, c control) {
	l := s.sub
	s.window = l.options.Window
	if c.Window > 0 {
		s.window = c.Window
	}
	s.heartbeat.Store(c.HeartbeatMS)
	s.origin = origin{transport: s.conn.transport(), replay: c.Replay}
	s.of, s.partitions = c.Of, c.Partitions
	moved := l.placed != "" && l.placed != c.Placed
	l.placed = c.Placed
	if moved {
		// Somebody asked for what comes now: nothing may be left out as known.
		l.dispatcher.forget()
		l.again = nil
	}
	switch {
	case l.name == "":
		l.current().stepAll(c.Cursor)
	case s.of > 0:
		s.begin(ctx, "")
	case moved:
		s.begin(ctx, c.Cursor)
	default:
		// What the last connection brought may come again. A gateway that ended
		// it by itself says so; one that was killed may not know.
		if before, err := event.ParsePosition(l.current().received()); err == nil && !l.orderly {
			l.mayComeTwice(before)
		}
		s.begin(ctx, c.Cursor)
	}
	l.orderly = false
	if !c.Expires.IsZero() {
		select {
		case s.expires <- c.Expires:
		default:
		}
	}
	s.live = State{Phase: Live, Transport: s.conn.transport(), Connection: c.Connection, Recovered: c.Recovered, Partitions: c.Partitions, Of: c.Of}
	l.tell(s.live)
	if s.of > 0 {
		s.tellPartitions(c)
	}
}

// assigned has a group's partitions come and go: of those that went nothing
// more is begun, those that came begin anew.
func (s *session) assigned(c control) {
	if s.of == 0 || c.Of != s.of {
		return // a change of their number ends the session
	}
	l := s.sub
	before := s.partitions
	s.partitions = c.Partitions
	l.dispatcher.drop(false, func(e *entry) bool { return !slices.Contains(c.Partitions, e.track.partition) })
	for _, p := range c.Partitions {
		if !slices.Contains(before, p) {
			l.current().gain(p)
		}
	}
	s.live.Partitions = c.Partitions
	l.tell(s.live)
	s.tellPartitions(c)
}

func (s *session) tellPartitions(c control) {
	if s.sub.options.OnPartitions != nil {
		s.sub.options.OnPartitions(Partitions{Mine: c.Partitions, Of: c.Of, Members: c.Members})
	}
}

// begin has what is delivered from now on acknowledged by itself.
func (s *session) begin(ctx context.Context, position string) {
	s.flushAcks()
	l := s.sub
	l.dispatcher.drop(true, nil)
	fresh := newAckTracker()
	fresh.stepAll(position)
	l.mu.Lock()
	l.tracker = fresh
	l.mu.Unlock()
	s.delivered = false
	if s.window > 0 {
		l.dispatcher.narrow(s.window, fresh.unacknowledged)
	}

	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { s.acknowledge(ctx, fresh) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endAcks = func() {
		stop()
		running.Wait()
		last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.flush(last, fresh)
	}
}

// flushAcks ends the acknowledging, with what is due now.
func (s *session) flushAcks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endAcks()
	s.endAcks = func() {}
}

// The refs of what a session asks and gets an answer to.
const (
	refSubscribe = 1
	refAuth      = 2
)

func (s *session) refused(f frame) error {
	var code string
	_ = json.Unmarshal(f.Code, &code) // not a word: ""
	e := &Error{Code: code, Detail: f.Detail, RetryAfter: time.Duration(f.RetryMS) * time.Millisecond}
	switch f.Ref {
	case refSubscribe:
		e.final = !e.Temporary()
		return e
	case refAuth:
		s.sub.trouble.warn("token not renewed, connecting again with it", "error", e)
		return errRenewal
	}
	s.sub.trouble.warn("the gateway refused", "error", e)
	return nil
}

// closeComplete is the close code of a replay that has come to its end.
const closeComplete = 1000

func byeError(c control) *Error {
	var code int
	_ = json.Unmarshal(c.Code, &code) // not a number: 0
	return &Error{
		Code: codeOfClose(code), Status: code, Detail: c.Reason,
		RetryAfter: time.Duration(c.RetryMS) * time.Millisecond,
		final:      !c.Reconnect,
		goodbye:    true,
	}
}

// acknowledge tells the gateway what is done: every ackEvery, or as soon as
// much is.
func (s *session) acknowledge(ctx context.Context, l *ackTracker) {
	for {
		select {
		case <-l.changed:
		case <-ctx.Done():
			return
		}
		if !s.flush(ctx, l) {
			return
		}
		pause := time.NewTimer(ackEvery)
		select {
		case <-pause.C:
		case <-l.many:
			pause.Stop()
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// flush sends what is due and returns whether it could. Refusals go first:
// an acknowledgement would cover them.
func (s *session) flush(ctx context.Context, l *ackTracker) bool {
	rejects, acks := l.due()
	var err error
	for i := 0; i < len(rejects) && err == nil; i++ {
		err = s.conn.reject(ctx, rejects[i])
	}
	for i := 0; i < len(acks) && err == nil; i++ {
		err = s.conn.ack(ctx, acks[i])
	}
	if err != nil && ctx.Err() == nil {
		s.sub.trouble.warn("acknowledgement not sent, connecting again", "error", err)
		s.conn.close(false)
	}
	return err == nil
}

// watch ends a connection that went silent, and renews tokens.
func (s *session) watch(ctx context.Context) {
	const standard = 25 * time.Second
	silence := time.NewTicker(standard / 2)
	defer silence.Stop()
	renewal := time.NewTimer(time.Hour)
	renewal.Stop()
	defer renewal.Stop()
	var expires time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-silence.C:
			every := time.Duration(s.heartbeat.Load()) * time.Millisecond
			if every <= 0 {
				every = standard
			}
			if time.Since(s.conn.alive()) > 2*every+5*time.Second {
				s.sub.trouble.warn("connection is silent, connecting again")
				s.conn.close(false)
				return
			}
		case expires = <-s.expires:
			if s.sub.client.options.TokenFunc != nil {
				renewal.Reset(renewIn(time.Until(expires)))
			}
		case <-renewal.C:
			switch next, err := s.renew(ctx); {
			case errors.Is(err, errors.ErrUnsupported):
				s.conn.close(false) // the next connection takes the new one
				return
			case err != nil:
				s.sub.trouble.warn("token not renewed", "error", err)
				fallthrough
			case next == "": // the same token still
				renewal.Reset(max(time.Until(expires)/2, time.Second))
			default:
				s.token = next
				if expires = expiry(next); !expires.IsZero() {
					renewal.Reset(renewIn(time.Until(expires)))
				}
			}
		}
	}
}

// renewIn says when to renew a token that expires in left: a tenth of it
// before, 10 s to 5 min.
func renewIn(left time.Duration) time.Duration {
	margin := min(max(left/10, 10*time.Second), 5*time.Minute)
	return max(left-margin, left/2, 0)
}

// expiry reads when a token says that it expires, without a look at its
// signature; zero if it doesn't say.
func expiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Exp <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Exp), 0)
}

// renew gets and sends another token; "" if there is none yet.
func (s *session) renew(ctx context.Context) (string, error) {
	token, err := s.sub.client.token(ctx)
	if err != nil || token == s.token {
		return "", err
	}
	return token, s.conn.renew(ctx, token)
}
