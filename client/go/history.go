package longline

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// DeadLetter is an event that was set aside.
type DeadLetter struct {
	Event    Event
	Reason   string
	Attempts int
	Time     time.Time
}

// Dead goes through a subscription's dead letters, the oldest first. An error
// is the last thing that comes.
func (s Subscriptions) Dead(ctx context.Context, name string) iter.Seq2[DeadLetter, error] {
	return listOf[DeadLetter](ctx, s, name, "/dead", "dead", "since")
}

func listOf[T any](ctx context.Context, s Subscriptions, name, rest, member, parameter string, about ...string) iter.Seq2[T, error] {
	path, err := s.path(name, rest)
	if err != nil {
		return func(yield func(T, error) bool) {
			var none T
			yield(none, err)
		}
	}
	return pages[T](ctx, s.client, path, query(about...), member, parameter)
}

// Letters names dead letters, in one of the ways.
type Letters struct {
	Cursors []string `json:"cursors,omitempty"`
	IDs     []string `json:"ids,omitempty"`
	All     bool     `json:"all,omitempty"`
}

// Redrive has dead letters delivered again, and returns how many.
func (s Subscriptions) Redrive(ctx context.Context, name string, which Letters) (int, error) {
	var answer struct{ Redriven int }
	err := s.call(ctx, http.MethodPost, name, "/dead/redrive", which, &answer)
	return answer.Redriven, err
}

// ClearDead removes all dead letters, and returns how many there were.
func (s Subscriptions) ClearDead(ctx context.Context, name string) (int, error) {
	var answer struct{ Deleted int }
	err := s.call(ctx, http.MethodDelete, name, "/dead", nil, &answer)
	return answer.Deleted, err
}

// Attempt is one call of a callback.
type Attempt struct {
	Time        time.Time
	Status      int     // 0: no answer
	LatencyMS   float64 `json:"latency_ms"`
	Error       string
	Body        string // the answer's first KiB
	Method, URL string
	Cursors     []string // of the events
	IDs         []string // likewise
	Replay      string   // the replay that it was part of
}

// AttemptsOptions say which attempts are listed. The zero value: all.
type AttemptsOptions struct {
	Since  time.Time
	Status string // "503", a class like "5xx", or "0" for no answer
	Cursor string // of one event
}

// Attempts goes through a callback's attempts, the newest first. An error is
// the last thing that comes.
func (s Subscriptions) Attempts(ctx context.Context, name string, o AttemptsOptions) iter.Seq2[Attempt, error] {
	since := ""
	if !o.Since.IsZero() {
		since = o.Since.Format(time.RFC3339Nano)
	}
	return listOf[Attempt](ctx, s, name, "/attempts", "attempts", "page", "since", since, "status", o.Status, "cursor", o.Cursor)
}

// Trace is what became of an event.
type Trace struct {
	Cursor string
	// State is "acknowledged", "in_flight", "waiting", "dead", "gap", "skipped"
	// or "not_matched".
	State    string
	Since    time.Time // zero: not known
	Reason   string    // of a dead letter
	Attempts []Attempt
}

// Trace tells what became of the event at a cursor.
func (s Subscriptions) Trace(ctx context.Context, name, cursor string) (t Trace, err error) {
	err = s.call(ctx, http.MethodGet, name, "/trace?"+query("cursor", cursor).Encode(), nil, &t)
	return t, err
}

// TraceID tells what became of the event with an id.
func (s Subscriptions) TraceID(ctx context.Context, name, id string) (t Trace, err error) {
	err = s.call(ctx, http.MethodGet, name, "/trace?"+query("id", id).Encode(), nil, &t)
	return t, err
}

// Resend has the events at the cursors delivered once more, and returns how
// many. The position stays.
func (s Subscriptions) Resend(ctx context.Context, name string, cursors ...string) (int, error) {
	var answer struct{ Resent int }
	err := s.call(ctx, http.MethodPost, name, "/resend", map[string][]string{"cursors": cursors}, &answer)
	return answer.Resent, err
}

// Range is what a replay delivers.
type Range struct {
	// From (exclusive) and To (inclusive) are each a cursor or position,
	// "earliest", "latest" or an RFC 3339 time. To defaults to "latest".
	From string `json:"from"`
	To   string `json:"to,omitempty"`
	// Types and Filter default to the subscription's own.
	Types  []string `json:"types,omitempty"`
	Filter *string  `json:"filter,omitempty"`
	// Callback has the subscription's callback take the events; else they wait
	// for whoever attaches to the replay.
	Callback bool    `json:"callback"`
	Rate     float64 `json:"rate,omitempty"` // calls a second; 0: the callback's own
}

// Replay is a subscription of its own that ends by itself.
type Replay struct{ Name, From, To string }

// Replay makes a subscription that delivers a range again, while this one goes
// on.
func (s Subscriptions) Replay(ctx context.Context, name string, r Range) (made Replay, err error) {
	err = s.call(ctx, http.MethodPost, name, "/replay", r, &made)
	return made, err
}
