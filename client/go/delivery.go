package longline

import "context"

// Callback is how events come that the gateway posts; see
// Subscription.CallbackHandler.
const Callback Transport = "callback"

// Delivery says how an event came to the handler.
type Delivery struct {
	// Attempt counts the handler's calls for the event, from 1.
	Attempt int
	// Redelivered tells that the event may have been handled before: by
	// another process, or by this one before it was acknowledged.
	Redelivered bool
	// Transport is WebSocket, SSE or Callback.
	Transport Transport
	// Replay tells that somebody asked for the event once more, by a replay of
	// a range.
	Replay bool
}

// DeliveryOf returns how the event came that a handler was called for, ctx
// being what it was called with. Of a batch it is the highest attempt, and
// Redelivered if any of its events is.
func DeliveryOf(ctx context.Context) Delivery {
	d, _ := ctx.Value(deliveryKey{}).(*Delivery)
	if d == nil {
		return Delivery{}
	}
	return *d
}

type deliveryKey struct{}

// deliveryContext is a handler's: one allocation instead of two.
type deliveryContext struct {
	context.Context
	delivery Delivery
}

func (c *deliveryContext) Value(key any) any {
	if _, ok := key.(deliveryKey); ok {
		return &c.delivery
	}
	return c.Context.Value(key)
}
