package longline

import (
	"context"
	"fmt"
	"reflect"
)

// Attach is Client.Attach with a handler that gets each event's data decoded
// into a T, as Event.DataAs does. The options' Handler and BatchHandler must be
// nil; all else is as with Client.Attach.
//
// An event whose data isn't a T is rejected without the handler being called:
// it becomes a dead letter, OnReject is told, and the error is a *DataError.
// Who wants it otherwise takes a T whose UnmarshalJSON accepts it, or
// Client.Attach.
func Attach[T any](c *Client, name string, handle func(ctx context.Context, e Event, data T) error, o SubscriptionOptions) (*Subscription, error) {
	if handle == nil || o.Handler != nil || o.BatchHandler != nil {
		return nil, &Error{Code: ErrBadRequest.Code, Detail: "Attach[T] takes one handler, as its third argument; Handler and BatchHandler must be nil"}
	}
	o.Handler = func(ctx context.Context, e Event) error {
		var data T
		if err := e.DataAs(&data); err != nil {
			return Reject(&DataError{Event: e, Type: reflect.TypeFor[T]().String(), err: err})
		}
		return handle(ctx, e, data)
	}
	return c.Attach(name, o)
}

// DataError tells that an event's data isn't what its handler takes. It is in
// the chain of the error that OnReject gets; the dead letter's reason is its
// text.
type DataError struct {
	Event Event
	Type  string // the Go type that was wanted
	err   error
}

// Error names the event, the type and what is wrong.
func (e *DataError) Error() string {
	return fmt.Sprintf("data of event %s (%s) is no %s: %v", e.Event.ID, e.Event.Type, e.Type, e.err)
}

// Unwrap returns what the decoder said.
func (e *DataError) Unwrap() error { return e.err }
