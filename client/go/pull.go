package longline

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// PullOptions say what a pull brings, and what it acknowledges.
type PullOptions struct {
	Max int // events; 0: 100
	// Wait is how long to wait for the first event. 0: not at all.
	Wait time.Duration
	// Ack is what the last pull brought and is done, as its Cursor says.
	// Partition, of a group, has it count for that one only.
	Ack       string
	Partition *int
	// Consumer names who pulls. "": the token's sub.
	Consumer string
	// Hold is for how long the subscription is nobody else's, after a pull that
	// brought events. 0: 30 s; negative: it is given up at once.
	Hold time.Duration
}

// Pulled is what a pull brought. The events come again until they are
// acknowledged.
type Pulled struct {
	Events     []Event
	Cursor     string // acknowledges them
	Gaps       []Gap
	Redelivery string    // position up to which events may have come before; "": none
	HeldUntil  time.Time // zero: not held
	// Connection is for Ack and Reject of a group; Partitions are this
	// consumer's, out of Of.
	Connection string
	Partitions []int
	Of         int
}

// Pull brings events to who can hold no connection and take no callback, e.g.
// a job that runs each minute. Pull until no events come, then once more with
// the last cursor in Ack.
func (s Subscriptions) Pull(ctx context.Context, name string, o PullOptions) (Pulled, error) {
	q := query("ack", o.Ack, "consumer", o.Consumer)
	if o.Max > 0 {
		q.Set("max", strconv.Itoa(o.Max))
	}
	if o.Wait > 0 {
		q.Set("wait", o.Wait.String())
	}
	if o.Partition != nil {
		q.Set("partition", strconv.Itoa(*o.Partition))
	}
	if o.Hold != 0 {
		q.Set("hold", max(o.Hold, 0).String())
	}
	var answer struct {
		Pulled
		Redelivery struct{ Cursor string }
		HeldUntil  time.Time `json:"held_until"`
	}
	err := s.call(ctx, http.MethodGet, name, "/events?"+q.Encode(), nil, &answer)
	answer.Pulled.Redelivery, answer.Pulled.HeldUntil = answer.Redelivery.Cursor, answer.HeldUntil
	return answer.Pulled, err
}

// Release gives up what a pull holds, at once. consumer is as in the pull.
func (s Subscriptions) Release(ctx context.Context, name, consumer string) error {
	return s.call(ctx, http.MethodDelete, name, "/events?"+query("consumer", consumer).Encode(), nil, nil)
}

// AckOptions say for whom an acknowledgement counts.
type AckOptions struct {
	// Connection has it count only while that one owns the subscription; in a
	// group it must be there.
	Connection string `json:"connection,omitempty"`
	Partition  *int   `json:"partition,omitempty"` // of a group: that one only
}

// Ack acknowledges everything up to a cursor or position, and returns the
// position then.
func (s Subscriptions) Ack(ctx context.Context, name, cursor string, o AckOptions) (position string, err error) {
	body := struct {
		Cursor string `json:"cursor"`
		AckOptions
	}{cursor, o}
	var answer struct{ Cursor string }
	err = s.call(ctx, http.MethodPost, name, "/ack", body, &answer)
	return answer.Cursor, err
}

// RejectOptions say why an event is rejected, and by whom.
type RejectOptions struct {
	Reason     string `json:"reason,omitempty"`
	Attempts   int    `json:"attempts,omitempty"`
	Connection string `json:"connection,omitempty"` // as in AckOptions
	Consumer   string `json:"consumer,omitempty"`   // of who pulls in a group
}

// Reject has the event at a cursor set aside as a dead letter, and returns the
// position then.
func (s Subscriptions) Reject(ctx context.Context, name, cursor string, o RejectOptions) (position string, err error) {
	body := struct {
		Cursor string `json:"cursor"`
		RejectOptions
	}{cursor, o}
	var answer struct{ Cursor string }
	err = s.call(ctx, http.MethodPost, name, "/reject", body, &answer)
	return answer.Cursor, err
}
