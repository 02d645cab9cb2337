package longline

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
)

// Subscription brings events to a handler. Make one by Client.Subscribe or
// Client.Attach.
type Subscription struct {
	// static after construction
	client     *Client
	name       string // of the durable subscription, or ""
	selection  Selection
	options    SubscriptionOptions
	secrets    [][]byte
	dispatcher *dispatcher
	trouble    *rarely
	// open connects by one transport and reads the first frame.
	open func(context.Context, Transport, string) (conn, frame, error)

	mu      sync.Mutex
	running bool
	tracker *ackTracker // of the present or last connection
	pulled  chan pulled // to Events, while it runs

	// owned by Run
	wsFailures int    // in a row
	orderly    bool   // the last connection was ended by the gateway
	placed     string // when the cursor was last put somewhere by hand, as hello says
	// again says up to which offset events may come twice, by channel.
	again map[string]uint64
}

// Subscribe makes an ephemeral subscription: whatever of the selection appears while
// Run is running. Its place in the channels is kept in memory across
// connections; keep Position to go on from there another time.
func (c *Client) Subscribe(s Selection, o SubscriptionOptions) (*Subscription, error) {
	if len(s.Channels) == 0 {
		return nil, &Error{Code: ErrBadRequest.Code, Detail: "no channels to subscribe to"}
	}
	for _, channel := range s.Channels {
		if err := event.CheckChannel(channel); err != nil {
			return nil, &Error{Code: ErrBadRequest.Code, cause: err}
		}
	}
	for _, t := range s.Types {
		if _, err := event.ParsePattern(t); err != nil {
			return nil, &Error{Code: ErrBadRequest.Code, cause: err}
		}
	}
	switch s.Lag {
	case "", "catchup", "conflate", "latest", "close":
	default:
		return nil, &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("lag is %q, want catchup, conflate, latest or close", s.Lag)}
	}
	return c.subscription("", s, o)
}

// Attach makes a subscription of the durable subscription with that name, which must
// exist. What is handled is acknowledged; what is not comes again.
func (c *Client) Attach(name string, o SubscriptionOptions) (*Subscription, error) {
	if name == "" {
		return nil, &Error{Code: ErrBadRequest.Code, Detail: "no name of a subscription"}
	}
	return c.subscription(name, Selection{}, o)
}

func (c *Client) subscription(name string, s Selection, o SubscriptionOptions) (*Subscription, error) {
	bad := func(format string, args ...any) (*Subscription, error) {
		return nil, &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf(format, args...)}
	}
	if o.Handler != nil && o.BatchHandler != nil {
		return bad("both Handler and BatchHandler are set, want one")
	}
	if math.IsNaN(o.Rate) || o.Rate < 0 || o.Window < 0 || o.Concurrency < 0 || o.BatchSize < 0 || o.Retry.Attempts < 0 {
		return bad("Rate, Window, Concurrency, BatchSize and Retry.Attempts must not be negative")
	}
	secrets, err := parseSecrets(o.Secrets)
	if err != nil {
		return nil, err
	}
	fill(&o.Concurrency, 1)
	if o.BatchHandler == nil {
		o.BatchSize = 1
	}
	fill(&o.BatchSize, 100)
	o.Retry.fill()
	fill(&o.Grace, 10*time.Second)
	fill(&o.Remember, 10000)
	if name == "" {
		fill(&o.Window, 1024)
	} else if o.Consumer == "" {
		o.Consumer = newID()
	}
	sub := &Subscription{client: c, name: name, selection: s, options: o, secrets: secrets, tracker: newAckTracker()}
	sub.tracker.mute = name == ""
	sub.open = sub.dial
	sub.trouble = newRarely(c.log.With("subscription", cmp.Or(name, strings.Join(s.Channels, ","))))
	sub.dispatcher = &dispatcher{
		concurrency: o.Concurrency, batch: o.BatchSize, wait: o.BatchWait, retry: o.Retry, pace: newPace(o.Rate),
		store: o.Store, dedupe: name != "", handle: sub.handle, onReject: o.OnReject, log: c.log, trouble: sub.trouble,
		lanes: make(map[string]*lane), away: make(map[*lane]struct{}), jobs: make(map[identity]*job), past: newMemory(o.Remember),
	}
	return sub, nil
}

// handle calls whichever handler there is.
func (s *Subscription) handle(ctx context.Context, events []Event) error {
	if s.options.BatchHandler != nil {
		return s.options.BatchHandler(ctx, events)
	}
	if t := s.client.options.TraceContext; t != nil {
		ctx = t.Extract(ctx, carrier{&events[0]})
	}
	if s.options.Handler != nil {
		return s.options.Handler(ctx, events[0])
	}
	return s.pull(ctx, events[0])
}

// Position is how far everything is done: one cursor per channel, joined by
// commas. Give it to Selection.Since to go on from there.
func (s *Subscription) Position() string { return s.current().done() }

func (s *Subscription) current() *ackTracker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tracker
}

// position returns where to resume, or where to begin.
func (s *Subscription) since() string {
	received := s.current().received()
	if received == "" {
		return s.selection.Since
	}
	// Channels that nothing is known of yet begin where the selection says,
	// if that is itself a position.
	if strings.Contains(s.selection.Since, "@") {
		known := make(map[string]bool)
		for c := range strings.SplitSeq(received, ",") {
			channel, _, _ := strings.Cut(c, "@")
			known[channel] = true
		}
		for c := range strings.SplitSeq(s.selection.Since, ",") {
			if channel, _, _ := strings.Cut(c, "@"); !known[channel] {
				received += "," + c
			}
		}
	}
	return received
}
