// Package swarm is ten thousand clients of a gateway in one thread.
//
//	spec ──► Swarm ──► loop (this process)       one epoll thread, raw sockets
//	            └────► child ──► loop, loop, …   when sockets outgrow a process
//
// Every client connects as a browser or an SDK would (WebSocket or SSE, with
// its token, to its channel) and enters each event that arrives in its own
// ledger. A shared channel's events are compared with the bytes that another
// client got before they are looked into, so that a check costs a memcmp.
package swarm

import (
	"fmt"
	"strconv"
	"time"

	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/token"
)

// Transports a swarm speaks.
const (
	WebSocket = "ws"
	SSE       = "sse"
)

// A Spec describes a swarm. It travels to child processes as it is.
type Spec struct {
	Target    string // host:port of the gateway
	Transport string // WebSocket or SSE
	Clients   int
	First     int          // index of the first client; others follow it
	Base      string       // prefix of channel names, see Channel
	Channels  int          // client i listens to channel i modulo Channels; default Clients
	Tokens    token.Source // each client gets a token for its channel
	Since     string       // where to start: "", "earliest", …
	Lag       string       // the lag parameter, "" for the gateway's default

	PerSecond float64       // new connections per second; 0: as fast as they are taken
	InFlight  int           // handshakes at once; default 256
	Timeout   time.Duration // for one handshake; default 30 s
	Lane      int           // picks the range of source addresses

	Deaf      bool          // stop reading once greeted
	Reconnect bool          // come back after a lost connection, resuming
	RetryMax  time.Duration // the delay before that is random up to this; default 200 ms
	AnyStart  bool          // take whatever comes first; otherwise sequence number 1 must
	Shared    bool          // channels have several publishers, told apart by probe.Mark.By
}

func (s Spec) withDefaults() Spec {
	if s.Channels == 0 {
		s.Channels = s.Clients
	}
	if s.InFlight == 0 {
		s.InFlight = 256
	}
	if s.Timeout == 0 {
		s.Timeout = 30 * time.Second
	}
	if s.RetryMax == 0 {
		s.RetryMax = 200 * time.Millisecond
	}
	return s
}

func (s Spec) check() error {
	if s.Transport != WebSocket && s.Transport != SSE {
		return fmt.Errorf("transport %q: want %q or %q", s.Transport, WebSocket, SSE)
	}
	if s.Clients < 1 {
		return fmt.Errorf("clients %d: want at least 1", s.Clients)
	}
	return nil
}

// split divides a swarm's clients among so many processes.
func (s Spec) split(count int) []Spec {
	shares := make([]Spec, count)
	for k := range shares {
		share := s
		share.First = s.First + s.Clients*k/count
		share.Clients = s.First + s.Clients*(k+1)/count - share.First
		share.PerSecond = s.PerSecond / float64(count)
		share.InFlight = max(s.InFlight/count, 1)
		share.Lane = s.Lane + 1 + k
		shares[k] = share
	}
	return shares
}

// Channel is the name of the i-th channel of a run.
func Channel(base string, i int) string { return base + "." + strconv.Itoa(i) }

// State is a swarm's account so far.
type State struct {
	// Gauges.
	Ready int // greeted and listening

	// Counters since the swarm began.
	Connects  uint64 // handshakes that ended with a greeting
	Refused   uint64 // connection attempts that failed
	Deferred  uint64 // attempts answered 429 or 503, which are made again
	Dropped   uint64 // connections that the gateway ended
	Delivered uint64 // events, new ones only
	Bytes     uint64 // read
	Resumed   uint64 // reconnected clients that saw an event again
	Gaps      uint64 // gaps that the gateway announced
	Faults    ledger.Faults

	Connect *measure.Histogram // from each connect to its greeting
	Latency *measure.Histogram // of deliveries, from the intended send time, since the last State

	FirstReadyAt, LastReadyAt int64 // measure.Now of greetings; 0: none
	LastResumeAt, LastEventAt int64
	LastError                 string // the latest of Refused, Dropped and protocol errors
}

func newState() State {
	return State{Latency: measure.NewHistogram(), Connect: measure.NewHistogram()}
}

// add merges the state of another part of the same swarm.
func (s *State) add(o State) {
	s.Ready += o.Ready
	s.Connects += o.Connects
	s.Refused += o.Refused
	s.Deferred += o.Deferred
	s.Dropped += o.Dropped
	s.Delivered += o.Delivered
	s.Bytes += o.Bytes
	s.Resumed += o.Resumed
	s.Gaps += o.Gaps
	s.Faults.Add(o.Faults)
	s.Latency.Merge(o.Latency)
	s.Connect.Merge(o.Connect)
	if s.FirstReadyAt == 0 || o.FirstReadyAt != 0 && o.FirstReadyAt < s.FirstReadyAt {
		s.FirstReadyAt = o.FirstReadyAt
	}
	s.LastReadyAt = max(s.LastReadyAt, o.LastReadyAt)
	s.LastResumeAt = max(s.LastResumeAt, o.LastResumeAt)
	s.LastEventAt = max(s.LastEventAt, o.LastEventAt)
	if o.LastError != "" {
		s.LastError = o.LastError
	}
}
