package longline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Run connects, and again whenever the connection is lost, and hands events
// to the handler. It returns nil when ctx has ended: then no new events are
// handled, those in progress get Grace to end, and what is done is
// acknowledged. A replay that is complete ends it too. It returns an error only if trying again is no use:
// ErrForbidden, ErrNotFound, ErrTakenOver and the like; with FailFast, if the
// first attempt to connect failed; or ErrTimeout if a handler went on for
// another Grace after its context had ended, and was left behind.
func (s *Subscription) Run(ctx context.Context) error {
	s.mu.Lock()
	handled := s.options.Handler != nil || s.options.BatchHandler != nil || s.pulled != nil
	running := s.running
	s.running = true
	s.mu.Unlock()
	switch {
	case running:
		return &Error{Code: ErrConflict.Code, Detail: "subscription is running already"}
	case !handled:
		s.stopped()
		return &Error{Code: ErrBadRequest.Code, Detail: "subscription has no handler"}
	}
	defer s.stopped()

	handling, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	s.dispatcher.begin(handling)
	r := &drainer{sub: s, cancel: cancel}
	err := s.keep(ctx, r)
	if err != nil && ctx.Err() != nil && !isFinal(err) {
		err = nil
	}
	if err != nil {
		cancel(err)
	}
	if stuck := r.drain(context.Cause(ctx)); err == nil {
		err = stuck
	}
	s.dispatcher.drop(true, nil)
	s.rewind()
	s.tell(State{Phase: Closed, Err: err})
	return err
}

// drainer ends what one Run began.
type drainer struct {
	sub    *Subscription
	cancel context.CancelCauseFunc // of the handlers' context
	once   sync.Once
	stuck  error
}

// drain takes no more events and lets the calls in progress end, which have
// Grace for it, and as long again once their context has ended. It returns an
// error if they don't.
func (r *drainer) drain(cause error) error {
	r.once.Do(func() {
		grace := r.sub.options.Grace
		end := time.AfterFunc(grace, func() { r.cancel(cause) })
		defer end.Stop()
		patience := time.NewTimer(2 * grace)
		defer patience.Stop()
		select {
		case <-r.sub.dispatcher.end():
		case <-patience.C:
			r.stuck = &Error{Code: ErrTimeout.Code, Detail: fmt.Sprintf("a handler did not end within %v after its context", grace), final: true}
		}
	})
	return r.stuck
}

// rewind goes back to what is done, so that another Run brings the rest.
func (s *Subscription) rewind() {
	if s.name != "" {
		return // the gateway knows
	}
	fresh := newAckTracker()
	fresh.mute = true
	fresh.stepAll(s.current().done())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tracker = fresh
}

func (s *Subscription) stopped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
}

func (s *Subscription) tell(state State) {
	var about []any
	if state.Transport != "" {
		about = append(about, "transport", string(state.Transport), "connection", state.Connection)
	}
	if state.Err != nil {
		about = append(about, "error", state.Err)
	}
	if state.Phase == Waiting {
		about = append(about, "retry", state.Retry)
	}
	s.trouble.log.Info(string(state.Phase), about...)
	if s.options.OnState != nil {
		s.options.OnState(state)
	}
}

// maxMalformed is how many connections in a row may end by something that
// can't be read before the subscription gives up.
const maxMalformed = 3

// keep connects, over and over, until ctx ends or there is no use.
func (s *Subscription) keep(ctx context.Context, r *drainer) error {
	wait := backoff{least: s.client.options.MinBackoff, most: s.client.options.MaxBackoff}
	refused, malformed := 0, 0 // in a row
	for first := true; ; first = false {
		s.tell(State{Phase: Connecting})
		c, err := s.connect(ctx)
		if err == nil {
			refused = 0
			err = c.run(ctx, r)
			if c.useful {
				wait.reset()
				malformed = 0
			}
		} else if first && s.options.FailFast && ctx.Err() == nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		pause := time.Duration(-1)
		var e *Error
		switch {
		case errors.Is(err, errSlow):
			s.trouble.warn("the handler is slower than the events come, taking no more for now")
			if !s.catchUp(ctx) {
				return nil
			}
			pause = 0
		case errors.Is(err, errRenewal):
			pause = 0
		case errors.Is(err, ErrUnauthorized) && s.client.options.TokenFunc != nil && refused == 0:
			refused++ // a token may have expired since; ask for another, once
			pause = 0
		case errors.Is(err, ErrMalformed):
			if malformed++; malformed >= maxMalformed {
				return err
			}
		case errors.As(err, &e) && e.Status == closeComplete:
			return nil
		case isFinal(err):
			return err
		}
		if errors.As(err, &e) && e.RetryAfter > 0 {
			pause = e.RetryAfter
		}
		if pause < 0 {
			pause = wait.next()
		}
		if pause > 0 && !(e != nil && e.goodbye) {
			s.trouble.warn("no connection to the gateway, will try again", "error", err, "retry", pause)
		}
		s.tell(State{Phase: Waiting, Err: err, Retry: pause})
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// isFinal tells whether connecting again is no use.
func isFinal(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.final
}

// catchUp waits, without a connection, until the handler has done half a
// window, and returns whether it did before ctx ended. A durable subscription
// has nothing to wait for: what no call has begun is the gateway's again.
func (s *Subscription) catchUp(ctx context.Context) bool {
	s.tell(State{Phase: Waiting, Err: errSlow})
	if s.name != "" {
		return true
	}
	for {
		room := s.current().full(max(s.options.Window/2, 1))
		if room == nil {
			return true
		}
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
	}
}
