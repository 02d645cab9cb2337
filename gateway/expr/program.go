package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"weak"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"google.golang.org/protobuf/types/known/structpb"
)

// Filter is an expression over event that says yes or no. Filters of the same
// text are one, so they can be compared and what one said of an event holds
// for all. It may be used by many goroutines at once.
type Filter struct {
	text    string
	program cel.Program
}

// CompileFilter returns the filter of a text, or an *Error that says what is
// wrong with it and where.
func CompileFilter(text string) (*Filter, error) {
	return filters.of(text, func() (*Filter, error) {
		p, err := compile(func(e *environments) *cel.Env { return e.filter }, text, MaxFilter, maxFilterCost, cel.BoolType)
		if err != nil {
			return nil, err
		}
		return &Filter{text, p}, nil
	})
}

// Match tells whether the filter takes an event. An error, such as a member
// that the event lacks, is a no.
func (f *Filter) Match(e *Event) (bool, error) {
	v, _, err := f.program.Eval(map[string]any{"event": e})
	if err != nil {
		return false, err
	}
	yes, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the filter's value is %s, neither true nor false", v.Type().TypeName())
	}
	return bool(yes), nil
}

// String is the filter's text.
func (f *Filter) String() string { return f.text }

// Body makes JSON of an event, or of a batch of events.
type Body struct {
	batch   bool
	program cel.Program
}

// CompileBody returns the body of a text over event or, for a batch, events.
func CompileBody(text string, batch bool) (*Body, error) {
	p, err := compile(func(e *environments) *cel.Env {
		if batch {
			return e.batch
		}
		return e.body
	}, text, MaxText, maxCost)
	if err != nil {
		return nil, err
	}
	return &Body{batch, p}, nil
}

// maxBody bounds what a body makes of events that are within their own bounds.
const maxBody = maxWeight

// JSON returns what the body makes of events: of exactly one, unless it was
// compiled for a batch.
func (b *Body) JSON(events ...*Event) ([]byte, error) {
	v, _, err := b.program.Eval(variables(b.batch, events))
	if err != nil {
		return nil, err
	}
	if left := maxWeight; !weigh(v, &left) {
		return nil, fmt.Errorf("the body is larger than %d bytes, %d counted for each value besides its text", maxWeight, valueWeight)
	}
	native, err := v.ConvertToNative(reflect.TypeFor[*structpb.Value]())
	if err != nil {
		return nil, fmt.Errorf("the value is no JSON: %w", err)
	}
	text, err := json.Marshal(native.(*structpb.Value).AsInterface())
	if err != nil {
		return nil, fmt.Errorf("the value is no JSON: %w", err)
	}
	if len(text) > maxBody {
		return nil, fmt.Errorf("the body has %d bytes; at most %d are sent", len(text), maxBody)
	}
	return text, nil
}

// What an outcome says of an event.
const (
	Ack    = "ack"
	Refuse = "refuse"
	Retry  = "retry"
)

// Outcome reads what an answer says of the events that were sent.
type Outcome struct {
	batch   bool
	program cel.Program
}

// CompileOutcome returns the outcome of a text over response and event or, for
// a batch, events. Its value is one of Ack, Refuse and Retry or, for a batch,
// a list with one of them for each event.
func CompileOutcome(text string, batch bool) (*Outcome, error) {
	want := []*cel.Type{cel.StringType}
	if batch {
		want = append(want, cel.ListType(cel.StringType))
	}
	p, err := compile(func(e *environments) *cel.Env {
		if batch {
			return e.batchOutcome
		}
		return e.outcome
	}, text, MaxText, maxCost, want...)
	if err != nil {
		return nil, err
	}
	return &Outcome{batch, p}, nil
}

// Of returns what the answer says of each of the events, in their order. An
// error says that it could not be told, which is the endpoint's trouble.
func (o *Outcome) Of(r *Response, events ...*Event) ([]string, error) {
	vars := variables(o.batch, events)
	vars["response"] = r
	v, _, err := o.program.Eval(vars)
	if err != nil {
		return nil, err
	}
	all := make([]string, len(events))
	if list, ok := v.(traits.Lister); ok && o.batch {
		if n := list.Size(); n != types.Int(len(events)) {
			return nil, fmt.Errorf("the outcome has %v values for %d events", n, len(events))
		}
		for i := range all {
			if all[i], err = verdict(list.Get(types.Int(i))); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	one, err := verdict(v)
	for i := range all {
		all[i] = one
	}
	return all, err
}

func verdict(v ref.Val) (string, error) {
	s, ok := v.(types.String)
	if !ok { // whatever it is, and however large
		return "", fmt.Errorf("the outcome is of type %s; want %q, %q or %q", v.Type().TypeName(), Ack, Refuse, Retry)
	}
	switch s {
	case Ack, Refuse, Retry:
		return string(s), nil
	}
	return "", fmt.Errorf("the outcome is %.40q; want %q, %q or %q", string(s), Ack, Refuse, Retry)
}

func variables(batch bool, events []*Event) map[string]any {
	if batch {
		return map[string]any{"events": events}
	}
	return map[string]any{"event": events[0]}
}

// shared keeps what was compiled from a text for as long as somebody uses it.
type shared[T any] struct {
	mu     sync.Mutex
	byText map[string]weak.Pointer[T]
}

var filters = shared[Filter]{byText: make(map[string]weak.Pointer[Filter])}

func (s *shared[T]) of(text string, compile func() (*T, error)) (*T, error) {
	if v := s.find(text); v != nil {
		return v, nil
	}
	// Not under the lock: compiling takes its time. Who comes second gives up
	// what it has compiled.
	fresh, err := compile()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.byText[text].Value(); v != nil {
		return v, nil
	}
	s.byText[text] = weak.Make(fresh)
	runtime.AddCleanup(fresh, s.forget, text)
	return fresh, nil
}

func (s *shared[T]) find(text string) *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byText[text].Value()
}

// forget drops a text whose value nobody uses any more, unless it was compiled
// again meanwhile.
func (s *shared[T]) forget(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byText[text].Value() == nil {
		delete(s.byText, text)
	}
}

// IsError returns the place and the reason of a text that can't be taken.
func IsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
