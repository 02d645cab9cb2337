package swarm

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/poll"
)

// A loop runs clients in one thread. Its fields belong to that thread; others
// reach it through ask.
type loop struct {
	spec   Spec
	target netip.AddrPort
	poller *poll.Poller

	conns    []conn
	channels []channel
	due      dueHeap // connects, retries and time-outs to come
	waiting  []int32 // clients whose connect is due but for InFlight
	shaking  int     // handshakes under way
	buf      []byte
	state    State
	stopping bool

	calls chan func()
	done  chan struct{}
}

// A channel is what the clients of one channel share.
type channel struct {
	name   string
	epoch  string
	recent []known // nil where a channel has one client
}

// known is an event whose bytes were looked into once.
type known struct {
	seq, offset uint64
	at          int64
	raw         []byte // with the transport's framing
}

// recentEvents is how many events of a shared channel are remembered: clients
// of one channel are rarely further apart.
const recentEvents = 256

type phase uint8

const (
	away    phase = iota
	dialing       // connect under way
	asking        // request sent
	greeted       // hello received
	gone          // won't come back
)

// A conn is one client; it stays when its connection goes.
type conn struct {
	fd      int
	turn    int32 // counts this client's connections
	phase   phase
	chunked bool // the SSE response is
	fresh   bool // has seen no event since it reconnected
	closing string
	began   int64 // of the connect
	rest    []byte
	out     []byte // unsent
	book    ledger.Ledger
	extra   *extra
}

func startLoop(spec Spec) (*loop, error) {
	target, err := poll.Resolve(spec.Target)
	if err != nil {
		return nil, err
	}
	poller, err := poll.Open(1024)
	if err != nil {
		return nil, err
	}
	l := &loop{
		spec: spec, target: target, poller: poller,
		conns:    make([]conn, spec.Clients),
		channels: make([]channel, min(spec.Channels, spec.First+spec.Clients)),
		buf:      make([]byte, 256<<10),
		state:    newState(),
		calls:    make(chan func(), 16),
		done:     make(chan struct{}),
	}
	for i := range l.conns {
		l.conns[i].fd = -1
		if !spec.AnyStart && !spec.Shared {
			l.conns[i].book = ledger.From(1)
		}
	}
	shared := spec.Clients > spec.Channels && !spec.Shared
	for i := range l.channels {
		l.channels[i].name = Channel(spec.Base, i)
		if shared {
			l.channels[i].recent = make([]known, recentEvents)
		}
	}
	now := measure.Now()
	for i := range l.conns {
		at := now
		if spec.PerSecond > 0 {
			at += int64(float64(i) / spec.PerSecond * 1e9)
		}
		l.due = append(l.due, due{at: at, client: int32(i)})
	}
	heap.Init(&l.due)
	go l.run()
	return l, nil
}

func (l *loop) run() {
	// The tester's thread is worth keeping: its caches hold the connections.
	runtime.LockOSThread()
	defer close(l.done)
	for !l.stopping {
		events, err := l.poller.Wait(l.nextDue())
		if err != nil {
			l.state.LastError = err.Error()
			break
		}
		for _, e := range events {
			l.ready(e)
		}
		l.connectDue()
		for more := true; more; {
			select {
			case call := <-l.calls:
				call()
			default:
				more = false
			}
		}
	}
	for i := range l.conns {
		if c := &l.conns[i]; c.fd >= 0 {
			poll.Reset(c.fd)
		}
	}
}

// ask runs f in the loop's thread and waits for it; false if the loop ended.
func (l *loop) ask(f func()) bool {
	ran := make(chan struct{})
	select {
	case <-l.done:
		return false
	case l.calls <- func() { f(); close(ran) }:
	}
	l.wake()
	select {
	case <-ran:
		return true
	case <-l.done:
		return false
	}
}

// wake ends the poller's wait.
func (l *loop) wake() {
	select {
	case <-l.done:
	default:
		l.poller.Wake()
	}
}

func (l *loop) ready(e poll.Event) {
	c := &l.conns[e.Key]
	if c.fd < 0 || c.turn != e.Turn {
		return
	}
	switch {
	case c.phase == dialing:
		l.connected(e.Key)
	case e.Mask&(poll.In|poll.Err) != 0:
		l.read(e.Key)
	}
	if c.fd >= 0 && c.turn == e.Turn && e.Mask&poll.Out != 0 && c.phase != dialing {
		l.flush(e.Key)
	}
}

// due is a moment at which a client connects, or, where turn is not 0, at
// which the handshake of that turn has taken too long.
type due struct {
	at     int64
	client int32
	turn   int32
}

type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// nextDue is how long the poller may wait.
func (l *loop) nextDue() time.Duration {
	if len(l.waiting) > 0 && l.shaking < l.spec.InFlight {
		return 0
	}
	if len(l.due) == 0 {
		return time.Second
	}
	return time.Duration(min(max(l.due[0].at-measure.Now(), 0), int64(time.Second)))
}

func (l *loop) connectDue() {
	now := measure.Now()
	for len(l.due) > 0 && l.due[0].at <= now {
		d := heap.Pop(&l.due).(due)
		c := &l.conns[d.client]
		switch {
		case d.turn == 0 && c.phase == away:
			l.waiting = append(l.waiting, d.client)
		case d.turn != 0 && d.turn == c.turn && (c.phase == dialing || c.phase == asking):
			l.lose(d.client, fmt.Errorf("no greeting within %v", l.spec.Timeout))
		}
	}
	for len(l.waiting) > 0 && l.shaking < l.spec.InFlight {
		i := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.connect(i)
	}
	if len(l.waiting) == 0 {
		l.waiting = nil
	}
}

func (l *loop) connect(i int32) {
	c := &l.conns[i]
	c.turn++
	c.began = measure.Now()
	fd, err := poll.Dial(l.target, poll.Source(l.target.Addr(), l.spec.Lane, int(i)))
	if err != nil {
		l.lose(i, err)
		return
	}
	c.fd, c.phase = fd, dialing
	l.shaking++
	if err := l.poller.Add(fd, i, c.turn, poll.In|poll.Out); err != nil {
		l.lose(i, err)
		return
	}
	heap.Push(&l.due, due{at: c.began + int64(l.spec.Timeout), client: i, turn: c.turn})
}

// connected sends the request once the connect is through.
func (l *loop) connected(i int32) {
	c := &l.conns[i]
	if err := poll.Connected(c.fd); err != nil {
		l.lose(i, err)
		return
	}
	request, err := l.request(i)
	if err != nil {
		l.lose(i, err)
		return
	}
	c.phase, c.out = asking, request
	l.flush(i)
}

// flush sends what is unsent and watches for room only while there is some.
func (l *loop) flush(i int32) {
	c := &l.conns[i]
	n, err := poll.Write(c.fd, c.out)
	if err != nil && !poll.Busy(err) {
		l.lose(i, fmt.Errorf("write: %w", err))
		return
	}
	mask := uint32(poll.In)
	if c.out = c.out[n:]; len(c.out) > 0 {
		mask |= poll.Out
	} else {
		c.out = nil
	}
	if err := l.poller.Change(c.fd, i, c.turn, mask); err != nil {
		l.lose(i, err)
	}
}

// lose ends a connection, or an attempt at one, and plans the next.
func (l *loop) lose(i int32, why error) {
	c := &l.conns[i]
	if c.fd >= 0 {
		poll.Reset(c.fd)
	}
	switch c.phase {
	case greeted:
		l.state.Ready--
		l.state.Dropped++
	case dialing, asking:
		l.shaking--
		l.state.Refused++
	default:
		l.state.Refused++
	}
	busy := errors.Is(why, errBusy)
	if busy {
		l.state.Refused--
		l.state.Deferred++
	}
	reason := why.Error()
	if c.closing != "" {
		reason = c.closing
	}
	l.state.LastError = reason
	again := (l.spec.Reconnect || busy) && !strings.HasPrefix(reason, final)
	*c = conn{fd: -1, turn: c.turn, book: c.book, fresh: c.fresh || c.phase == greeted, extra: c.extra}
	if !again {
		c.phase = gone
		return
	}
	delay := rand.Int64N(int64(l.spec.RetryMax))
	if busy {
		delay = rand.Int64N(int64(busyRetry))
	}
	heap.Push(&l.due, due{at: measure.Now() + delay, client: i})
}

// greet counts a client as listening.
func (l *loop) greet(i int32) {
	c := &l.conns[i]
	if c.phase != asking {
		return
	}
	now := measure.Now()
	c.phase = greeted
	l.shaking--
	s := &l.state
	s.Ready++
	s.Connects++
	s.Connect.Record(time.Duration(now - c.began))
	s.LastReadyAt = now
	if s.FirstReadyAt == 0 {
		s.FirstReadyAt = now
	}
	if l.spec.Deaf {
		if err := l.poller.Change(c.fd, i, c.turn, 0); err != nil {
			l.lose(i, err)
		}
	}
}

// take returns the state and begins the next interval.
func (l *loop) take() State {
	s := l.state
	s.Connect = measure.NewHistogram()
	s.Connect.Merge(l.state.Connect)
	l.state.Latency = measure.NewHistogram()
	return s
}
