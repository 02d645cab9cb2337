package longline

import (
	"context"
	"errors"
	"iter"
)

// pulled is an event on its way to a loop over Events; done gets nil when the
// loop asks for the next.
type pulled struct {
	event Event
	done  chan error
}

var errLeft = errors.New("the loop was left")

// Events runs the subscription and yields its events one by one, for a subscription without
// handler:
//
//	for e, err := range sub.Events(ctx) {
//		if err != nil {
//			return err // final, as from Run
//		}
//		…
//	}
//
// An event is done when the loop asks for the next one; the one at which the
// loop is left counts as not done, and comes again on a durable subscription.
func (s *Subscription) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if s.options.Handler != nil || s.options.BatchHandler != nil {
			yield(Event{}, &Error{Code: ErrBadRequest.Code, Detail: "subscription has a handler, so its events can't be ranged over"})
			return
		}
		ch := make(chan pulled)
		s.mu.Lock()
		if s.pulled != nil {
			s.mu.Unlock()
			yield(Event{}, &Error{Code: ErrConflict.Code, Detail: "subscription is running already"})
			return
		}
		s.pulled = ch
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			s.pulled = nil
			s.mu.Unlock()
		}()

		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		for {
			select {
			case p := <-ch:
				if yield(p.event, nil) {
					p.done <- nil
					continue
				}
				p.done <- errLeft
				cancel()
				<-ended
				return
			case err := <-ended:
				cancel()
				if err != nil {
					yield(Event{}, err)
				}
				return
			}
		}
	}
}

// pull is the handler of a subscription that is ranged over.
func (s *Subscription) pull(ctx context.Context, e Event) error {
	s.mu.Lock()
	ch := s.pulled
	s.mu.Unlock()
	p := pulled{event: e, done: make(chan error, 1)}
	select {
	case ch <- p:
		return <-p.done
	case <-ctx.Done():
		return ctx.Err()
	}
}
