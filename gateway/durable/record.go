package durable

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/cursor"
)

// Kind says by what an owner moves the cursor.
type Kind string

// The kinds of owners.
const (
	Live Kind = "live" // a WebSocket or SSE connection
	Pull Kind = "pull" // somebody who polls
	Call Kind = "callback"
)

// Owner is who delivers a subscription's events at present.
type Owner struct {
	Node       string    `json:"node"`
	Connection string    `json:"connection"`
	Consumer   string    `json:"consumer,omitempty"`
	Kind       Kind      `json:"kind"`
	Transport  string    `json:"transport,omitempty"` // "websocket", "sse", "pull", "callback"
	Since      time.Time `json:"since"`
}

// Record is what a broker keeps of a subscription on our behalf: everything
// but its position and generation.
type Record struct {
	Definition Definition `json:"definition"`
	// Replay makes it one that delivers a range of another's events again.
	Replay  *Replay `json:"replay,omitempty"`
	Creator string  `json:"creator"` // the sub whose token created it
	// CreatorIssued is when that token was issued, in Unix seconds: 0 where it
	// didn't say.
	CreatorIssued int64     `json:"creator_issued,omitempty"`
	Created       time.Time `json:"created"`
	// Placed is when the position was last put somewhere by hand: by its maker, or
	// by a seek. No two times have the same, in ms, so that whoever remembers what
	// was handled can tell by it that it is to be handled again.
	Placed time.Time `json:"placed,omitzero"`
	// Sealed holds secrets and headers of the callback, encrypted (Vault).
	Sealed []byte `json:"sealed,omitempty"`

	Owner *Owner `json:"owner,omitempty"`
	// Unclear: an owner ended without saying what it had handed over, so that
	// whatever the next one delivers at first may have come before.
	Unclear bool `json:"unclear,omitempty"`
	// Scattered: and that may be anything which is in the log, since it was
	// delivered by the partitions of a group that was divided in another way.
	Scattered bool `json:"scattered,omitempty"`
	// DeliveredUpTo is how far beyond the position the last owner had delivered.
	DeliveredUpTo string `json:"handed,omitempty"`

	// Jumps are where the position began and the last times it jumped.
	Jumps []Jump `json:"jumps,omitempty"`

	// Moved: acknowledgements of what lies up to here may be of what was delivered
	// before the position was moved, or what is delivered changed. Reached is how
	// far owners said that they delivered since.
	Moved   string `json:"moved,omitempty"`
	Reached string `json:"reached,omitempty"`

	// Narrowed: channels were taken off, of which dead letters may be left.
	Narrowed bool `json:"narrowed,omitempty"`

	// Grace is when the callback's turn comes, after an owner left.
	Grace time.Time `json:"grace,omitzero"`
	// Parked: the callback's turn is with the next event.
	Parked   bool `json:"parked,omitempty"`
	Paused   bool `json:"paused,omitempty"`
	Disabled bool `json:"disabled,omitempty"` // the endpoint answered 410
	// Touched is when it last had an owner or was changed; it expires so and
	// so long after.
	Touched time.Time `json:"touched"`

	// Division names the partitions whose positions are the group's, 0 while it
	// is not divided; of a partition, to which division it belongs.
	Division uint64 `json:"division,omitempty"`
	// Members of the group, in the order in which they joined.
	Members []Owner `json:"members,omitempty"`
	// Assigned is the consumer that each partition is to be owned by, "" for none.
	Assigned []string `json:"assigned,omitempty"`
}

// State is a subscription as loaded from a broker.
type State struct {
	Name    string
	Version uint64
	// Progress is its own but for the position of a group that is divided,
	// which is the least of its partitions.
	broker.Progress
	Record
	Dead, Redriving int
	// Parts are how far the partitions are of a group that is divided.
	Parts []broker.Progress
}

// Decode takes a subscription as it was loaded.
func Decode(s broker.Subscription) (State, error) {
	state := State{Name: s.Name, Version: s.Version, Progress: s.Progress, Dead: s.Dead, Redriving: s.Redriving}
	if err := json.Unmarshal(s.Record, &state.Record); err != nil {
		return state, fmt.Errorf("decode subscription %s: %w", s.Name, err)
	}
	return state, nil
}

// Selection is which events of its channels the subscription is about.
func (r *Record) Selection() cursor.Selection {
	s := cursor.Selection{Types: strings.Join(r.Definition.Types, ","), Filter: r.Definition.Filter}
	if r.Replay != nil {
		s.Until = r.Replay.To
	}
	return s
}

// held tells whether somebody has the right to deliver.
func (r *Record) held() bool { return r.Owner != nil || len(r.Members) > 0 }

// calls tells whether a callback may be called at all at present.
func (r *Record) calls() bool {
	return r.Definition.Callback != nil && !r.Paused && !r.Disabled
}

// expiry is when the subscription expires, the zero time for never.
func (r *Record) expiry() time.Time {
	if r.held() || r.Definition.ExpiresAfter == 0 {
		return time.Time{}
	}
	return r.Touched.Add(time.Duration(r.Definition.ExpiresAfter))
}

// on tells whether the owner, or a member, is on a node.
func (r *Record) on(node string) bool {
	return r.Owner != nil && r.Owner.Node == node || slices.ContainsFunc(r.Members, func(m Owner) bool { return m.Node == node })
}

// attached tells whether somebody of that kind is the owner or a member.
func (r *Record) attached(k Kind) bool {
	return r.Owner != nil && r.Owner.Kind == k || slices.ContainsFunc(r.Members, func(m Owner) bool { return m.Kind == k })
}

// Status is one word for people.
func (r *Record) Status() string {
	switch {
	case r.Paused:
		return "paused"
	case r.attached(Live):
		return "live"
	case r.attached(Pull):
		return "pull"
	case r.Definition.Callback == nil:
		return "offline"
	case r.Disabled:
		return "disabled"
	case r.Owner == nil && !r.Grace.IsZero():
		return "waiting"
	}
	return "callback"
}

// Doubt tells whether whoever owns the subscription next can't know what was
// delivered before: everything that is in the log by then may have been.
func (s *State) Doubt() bool { return s.Unclear || s.Owner != nil }
