package swarm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A part is some of a swarm's clients: a loop here or a child process.
type part interface {
	state() (State, error)
	settle(heads []uint64) (State, error)
	stop()
}

// A Swarm is a running set of clients. Its methods may be called by several
// goroutines, but not after Stop.
type Swarm struct {
	spec  Spec
	parts []part
	held  int64 // sockets counted in reserved
}

// spareFDs are kept for what a process opens besides its clients.
const spareFDs = 600

// perProcess is the most sockets one process is given, whatever its limit.
const perProcess = 20_000

// reserved counts the sockets promised to swarms of this process.
var reserved atomic.Int64

// room is how many sockets a process may give to swarms.
func room() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 512
	}
	return max(int(min(lim.Cur, perProcess))-spareFDs, 1)
}

// Start begins to connect the clients and returns at once; see Wait. Where
// they outgrow the descriptors of this process, they run in child processes.
func Start(spec Spec) (*Swarm, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	spec = spec.withDefaults()
	s := &Swarm{spec: spec}
	if n := int64(spec.Clients); reserved.Add(n) <= int64(room()) {
		s.held = n
		l, err := startLoop(spec)
		if err != nil {
			s.Stop()
			return nil, err
		}
		s.parts = append(s.parts, local{l})
		return s, nil
	}
	reserved.Add(-int64(spec.Clients))
	if err := s.fork((spec.Clients + room() - 1) / room()); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// fork starts the clients in so many child processes.
func (s *Swarm) fork(count int) error {
	for _, share := range s.spec.split(count) {
		c, err := startChild(share)
		if err != nil {
			return err
		}
		s.parts = append(s.parts, c)
	}
	return nil
}

// State returns the account so far; its histograms cover the time since the
// last call.
func (s *Swarm) State() (State, error) {
	return s.gather(part.state)
}

// Settle closes the account: heads are the last sequence numbers published,
// as pump.Heads gives them; nil takes whatever came last as the end. The State's Faults then include what never arrived.
func (s *Swarm) Settle(heads []uint64) (State, error) {
	return s.gather(func(p part) (State, error) { return p.settle(heads) })
}

func (s *Swarm) gather(get func(part) (State, error)) (State, error) {
	sum := newState()
	for _, p := range s.parts {
		st, err := get(p)
		if err != nil {
			return sum, err
		}
		sum.add(st)
	}
	return sum, nil
}

// ErrStuck says that clients didn't get connected.
var ErrStuck = errors.New("clients could not connect")

// Wait waits until all clients are connected, and calls progress, if there is
// one, with how many are. It gives up when none has been added for patience.
func (s *Swarm) Wait(ctx context.Context, patience time.Duration, progress func(ready int)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	best, since := -1, time.Now()
	for {
		st, err := s.State()
		if err != nil {
			return err
		}
		if progress != nil {
			progress(st.Ready)
		}
		if st.Ready >= s.spec.Clients {
			return nil
		}
		if st.Ready > best {
			best, since = st.Ready, time.Now()
		}
		if !s.spec.Reconnect && st.Refused > 0 || time.Since(since) > patience {
			return fmt.Errorf("%w: %d of %d are; the last error was: %s", ErrStuck, st.Ready, s.spec.Clients, st.LastError)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Stop closes all connections and waits for the clients' end.
func (s *Swarm) Stop() {
	for _, p := range s.parts {
		p.stop()
	}
	s.parts = nil
	reserved.Add(-s.held)
	s.held = 0
}

// local is a part in this process.
type local struct{ l *loop }

var errEnded = errors.New("the clients' thread has ended")

func (p local) state() (State, error) {
	var s State
	if !p.l.ask(func() { s = p.l.take() }) {
		return newState(), errEnded
	}
	return s, nil
}

func (p local) settle(heads []uint64) (State, error) {
	var s State
	ok := p.l.ask(func() {
		s = p.l.take()
		for i := range p.l.conns {
			s.Faults.Add(p.l.settle(i, heads))
		}
	})
	if !ok {
		return newState(), errEnded
	}
	return s, nil
}

func (p local) stop() {
	p.l.ask(func() { p.l.stopping = true })
	<-p.l.done
	p.l.poller.Close() // here, where no ask can be about to wake it
}
