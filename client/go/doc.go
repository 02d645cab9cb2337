// Package longline brings events from a Longline gateway to a handler, at the
// handler's pace, and publishes them.
//
// A [Client] stands for the gateway. [Client.Attach] makes a [Subscription] of a
// durable subscription, whose place in the log the gateway keeps:
//
//	client, err := longline.New("https://push.example.com", longline.Options{Token: token})
//	…
//	sub, err := client.Attach("crm-42", longline.SubscriptionOptions{
//		Concurrency: 8,
//		Handler: func(ctx context.Context, e longline.Event) error {
//			return crm.Record(ctx, e)
//		},
//	})
//	…
//	err = sub.Run(ctx) // until ctx ends, or there is no use
//
// [Client.Subscribe] makes one of whatever appears in some channels, with the
// place kept here.
//
// # What a subscription does
//
// It connects, and again after whatever befalls a connection, jittered and as
// the gateway asks. It takes WebSocket, or Server-Sent Events where WebSocket
// doesn't get through. It holds at most a window of events in memory: the rest
// waits in the gateway's log.
//
// The handler gets events one after another or, with Concurrency, in parallel,
// where those of one key (CloudEvents' partitionkey) stay in order. An event is
// done when the handler returns nil; other errors have it called again, without
// end and with growing waits, while other keys go on. So an outage of whatever
// the handler calls costs no event: while nothing works, one call at a time is
// made. [Reject] says that the event is to blame: the gateway keeps it as a dead
// letter. So it does with one that fails eight times and then three times more
// while others pass. [RetryAfter] says when to come back. What is acknowledged is always the
// contiguous prefix of what is done.
//
// # Once, or twice
//
// After a crash, or when another process takes over, events may come again.
// The gateway announces which, and a subscription leaves out those that it knows to be
// handled: it remembers the last 10,000, and with a [Store] those of other
// processes too. Without that announcement nothing is left out, so a replay by
// a cursor moved back brings everything. (Where a Store remembers for long,
// empty it before a replay.)
//
// # Callbacks
//
// Where nobody is attached, the gateway may post events to a URL instead.
// [Subscription.CallbackHandler] takes them, verified, with the same handler, limits
// and memory; [VerifyCallback] is for those who bring their own. One process
// may do both.
//
// # Errors
//
// Errors of the gateway are of type [*Error]. Compare kinds with errors.Is:
//
//	if errors.Is(err, longline.ErrForbidden) {
//
// Subscription.Run returns an error only if trying again is no use.
//
// # Concurrency
//
// Clients and subscriptions may be used by several goroutines at once; a subscription runs
// once at a time. Handlers are called by goroutines of the subscription.
package longline
