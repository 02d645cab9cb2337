// Package pump publishes probes: over a pool of kept-alive HTTP/1.1 or
// WebSocket connections in one epoll thread, cheap enough to share a machine
// with the gateway it measures.
//
// With a rate it is an open loop: probes are due at fixed moments, wait their
// turn when the gateway is behind, and carry the moment at which they were due,
// so that a stall shows in the latency of all that it held up. Without a rate
// it is a closed loop: each connection publishes again as soon as the last
// publish was answered, and times count from the sending.
package pump

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/poll"
	"github.com/longline-push/longline/loadtest/token"
)

// Transports a pump publishes by.
const (
	HTTP      = "http"
	WebSocket = "ws"
)

// Options describe what is published. Each connection has one publish in
// flight. Where there are as many channels as connections, or more, each
// channel is published to by one connection; where there are fewer, several
// connections share a channel and tell their events apart by probe.Mark.By. So
// the order of each publisher's events is known.
type Options struct {
	Target    string // host:port of the gateway
	Transport string // HTTP (default) or WebSocket
	Conns     int    // publishers; default 1
	Base      string // prefix of channel names, see Channel
	Channels  int    // default 1
	Tokens    token.Source
	Size      int     // bytes of an event's data; default 256
	Batch     int     // events per publish; default 1
	Keys      int     // partition keys that events go round; 0: they have none
	Rate      float64 // events per second over all channels; 0: as fast as answers come
	Prime     bool    // before the Rate begins, publish once by each strand, as fast as answers come
	Limit     uint64  // stop after so many events; 0: none
	Lane      int     // picks the range of source addresses

	// Retry gives events ids and publishes them again, after a failure, until
	// they are answered 200. Without it a failure ends the pump.
	Retry bool

	// Channel names the i-th channel; default Base.i.
	Channel func(base string, i int) string
}

// State is a pump's account so far.
type State struct {
	Answered uint64             // events answered 200
	Failures uint64             // publishes that were refused or cut off
	Latency  *measure.Histogram // of publishes, since the last State
	LastAt   int64              // measure.Now of the latest answer
}

// A Pump publishes until Stop or its Limit. Its methods may be called by
// several goroutines.
type Pump struct {
	opts   Options
	target netip.AddrPort
	poller *poll.Poller
	done   chan struct{}

	// Owned by the thread.
	conns   []conn
	buf     []byte
	planned uint64 // publishes handed to connections
	paced   uint64 // of those, how many before the Rate began,
	since   int64  // at this moment
	token   string

	mu       sync.Mutex
	state    State
	next     []uint64 // sequence number to give next, by strand
	answered []uint64 // sequence number last answered, by strand
	stopping bool     // plan no more
	killed   bool     // don't wait for answers
	err      error
	wokeUp   bool // the poller is closed
}

// ErrRefused is wrapped by errors about publishes that the gateway answered
// with anything but success.
var ErrRefused = errors.New("publish refused")

// Start begins to publish.
func Start(o Options) (*Pump, error) {
	if o.Transport == "" {
		o.Transport = HTTP
	}
	if o.Transport != HTTP && o.Transport != WebSocket {
		return nil, fmt.Errorf("publish by %q: want %q or %q", o.Transport, HTTP, WebSocket)
	}
	o.Conns, o.Channels, o.Batch = max(o.Conns, 1), max(o.Channels, 1), max(o.Batch, 1)
	if o.Size == 0 {
		o.Size = 256
	}
	target, err := poll.Resolve(o.Target)
	if err != nil {
		return nil, err
	}
	t, err := o.Tokens.For("loadtest-publisher", token.Grant{Publish: []string{o.Base + ".**"}})
	if err != nil {
		return nil, err
	}
	poller, err := poll.Open(256)
	if err != nil {
		return nil, err
	}
	p := &Pump{
		opts: o, target: target, poller: poller, token: t,
		conns: make([]conn, o.Conns), buf: make([]byte, 64<<10),
		done: make(chan struct{}),
		next: make([]uint64, o.strands()), answered: make([]uint64, o.strands()),
		state: State{Latency: measure.NewHistogram()},
	}
	for i := range p.conns {
		p.conns[i] = conn{fd: -1, at: i}
	}
	go p.run()
	return p, nil
}

// strands are what events are ordered within: strand i is what one connection,
// i modulo Conns, publishes to one channel, i modulo Channels.
func (o Options) strands() int { return max(o.Channels, o.Conns) }

// State returns the account so far; its histogram covers the time since the
// last call.
func (p *Pump) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state
	p.state.Latency = measure.NewHistogram()
	return s
}

// Heads returns the sequence numbers last answered: of channel i, and, where
// connections share channels, of the channel i modulo Channels.
func (p *Pump) Heads() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]uint64(nil), p.answered...)
}

// Done is closed when the pump has ended: by Stop, at its Limit or by an error.
func (p *Pump) Done() <-chan struct{} { return p.done }

// Err is why the pump ended by itself, nil if it didn't.
func (p *Pump) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Stop plans no more publishes, waits up to patience for those in flight or
// due, and returns Err.
func (p *Pump) Stop(patience time.Duration) error {
	p.tell(func() { p.stopping = true })
	select {
	case <-p.done:
	case <-time.After(patience):
		p.tell(func() { p.killed = true })
		<-p.done
	}
	return p.Err()
}

// tell changes what the thread looks at each turn, and wakes it.
func (p *Pump) tell(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	if !p.wokeUp {
		p.poller.Wake()
	}
}

func (p *Pump) run() {
	runtime.LockOSThread()
	defer close(p.done)
	defer p.shutdown()
	p.since = measure.Now()
	for p.turn() {
	}
}

func (p *Pump) shutdown() {
	for i := range p.conns {
		if fd := p.conns[i].fd; fd >= 0 {
			poll.Reset(fd)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wokeUp = true
	p.poller.Close()
}

// turn plans what is due, waits for the sockets once and serves them; false
// when nothing is left to do.
func (p *Pump) turn() bool {
	p.mu.Lock()
	stopping, killed, failed := p.stopping, p.killed, p.err != nil
	p.mu.Unlock()
	if killed || failed {
		return false
	}
	wait := time.Second
	if !stopping {
		wait = p.plan()
	}
	busy := 0
	now := measure.Now()
	for i := range p.conns {
		c := &p.conns[i]
		if c.job == nil && len(c.queue) > 0 {
			p.begin(c, c.queue[0])
			c.queue = c.queue[1:]
		}
		if c.job == nil {
			continue
		}
		busy++
		if c.fd < 0 {
			if c.retryAt > now {
				wait = min(wait, time.Duration(c.retryAt-now))
			} else {
				p.dial(c)
				wait = min(wait, 50*time.Millisecond)
			}
		}
	}
	if busy == 0 && (stopping || p.exhausted()) {
		return false
	}
	events, err := p.poller.Wait(wait)
	if err != nil {
		p.fail(err)
		return false
	}
	for _, e := range events {
		if c := &p.conns[e.Key]; c.fd >= 0 && c.turn == e.Turn {
			p.ready(c, e.Mask)
		}
	}
	return true
}

// plan hands out what is due and returns how long until the next is.
func (p *Pump) plan() time.Duration {
	batch := uint64(p.opts.Batch)
	if p.opts.Prime && p.planned < uint64(p.opts.strands()) {
		for p.planned < uint64(p.opts.strands()) {
			strand := int(p.planned)
			c := &p.conns[strand%len(p.conns)]
			if c.job != nil || len(c.queue) > 0 {
				return time.Second // its answer comes first
			}
			p.queue(c, due{strand: strand})
		}
		p.paced, p.since = p.planned, measure.Now()
	}
	if p.opts.Rate == 0 {
		for i := range p.conns {
			if c := &p.conns[i]; c.job == nil && len(c.queue) == 0 && !p.exhausted() {
				p.queue(c, due{strand: c.nextStrand(p.opts)})
			}
		}
		return time.Second
	}
	period := 1e9 * float64(batch) / p.opts.Rate
	for {
		if p.exhausted() {
			return time.Second
		}
		at := p.since + int64(float64(p.planned-p.paced)*period)
		now := measure.Now()
		if at > now {
			return min(time.Duration(at-now), time.Second)
		}
		strand := int(p.planned % uint64(p.opts.strands()))
		c := &p.conns[strand%len(p.conns)]
		p.queue(c, due{strand: strand, at: at})
	}
}

func (p *Pump) queue(c *conn, d due) {
	c.queue = append(c.queue, d)
	p.planned++
}

// exhausted says whether the Limit is planned.
func (p *Pump) exhausted() bool {
	return p.opts.Limit > 0 && p.planned*uint64(p.opts.Batch) >= p.opts.Limit
}

func (p *Pump) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}
