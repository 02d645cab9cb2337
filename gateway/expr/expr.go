// Package expr compiles and evaluates the expressions that people give: CEL
// (https://cel.dev), type-checked when they are stored and bounded in cost,
// without I/O and without a clock. A Filter says of an event whether it is
// wanted, a Body makes a callback's JSON of it, an Outcome reads a callback's
// answer.
//
// In an expression, event has the attributes of a CloudEvents event as text,
// whatever extensions it carries, and data, which is its JSON: numbers are
// doubles. event.time is text. An attribute or a member that is missing is an
// error; has(event.data.bot) asks first.
package expr

import (
	"errors"
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"
)

// MaxText is how many bytes an expression has at most. MaxFilter is that of a
// filter, which travels in a query.
const (
	MaxText   = 8 << 10
	MaxFilter = 1 << 10
)

// The cost of an expression in CEL's own units, about one per step or per ten
// bytes looked at. maxCost is what is refused when it is given, estimated for an
// event of maxData. What an evaluation may really cost is less for a filter, which
// everybody waits for who reads the channel: some tens of milliseconds, at 15 to 40
// steps a microsecond. It suffices to look at each element of the largest event. A
// body or an outcome only its own subscription waits for.
const (
	maxCost       = 4_000_000
	maxFilterCost = 1_200_000
	maxData       = 256 << 10
)

// TooDear tells whether an evaluation was stopped for what it cost, or would have.
func TooDear(err error) bool {
	var cancelled interpreter.EvalCancelledError
	return errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded || errors.Is(err, errMatch) || errors.Is(err, errHeavy)
}

// Error says what is wrong with an expression, and where.
type Error struct {
	Line, Column int // from 1; 0 where the whole is meant
	Message      string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// environments are what expressions are compiled in, made with the first use:
// a gateway without expressions pays nothing for them.
type environments struct{ filter, body, batch, outcome, batchOutcome *cel.Env }

var environment = sync.OnceValues(func() (*environments, error) {
	provider, err := newProvider()
	if err != nil {
		return nil, err
	}
	base, err := cel.NewEnv(
		cel.CustomTypeProvider(provider), cel.CustomTypeAdapter(provider),
		cel.CrossTypeNumericComparisons(true), cel.OptionalTypes(), ext.Strings(), ext.Encoders(),
		cel.ParserExpressionSizeLimit(MaxText), cel.ParserRecursionLimit(64), cel.RegexProgramSizeLimit(maxPattern),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
	)
	if err != nil {
		return nil, err
	}
	one, all := cel.Variable("event", eventType), cel.Variable("events", cel.ListType(eventType))
	answer := cel.Variable("response", responseType)
	var e environments
	var errs [5]error
	e.filter, errs[0] = base.Extend(one)
	e.body, errs[1] = base.Extend(one)
	e.batch, errs[2] = base.Extend(all)
	e.outcome, errs[3] = base.Extend(one, answer)
	e.batchOutcome, errs[4] = base.Extend(all, answer)
	return &e, errors.Join(errs[:]...)
})

// compile checks an expression whose value has one of the types want, or any
// where there is none.
// limit is what an evaluation may cost.
func compile(pick func(*environments) *cel.Env, text string, max int, limit uint64, want ...*cel.Type) (cel.Program, error) {
	switch {
	case text == "":
		return nil, &Error{Message: "the expression is empty"}
	case len(text) > max:
		return nil, &Error{Message: fmt.Sprintf("the expression has %d bytes; at most %d are taken", len(text), max)}
	}
	all, err := environment()
	if err != nil {
		return nil, fmt.Errorf("make the expressions' environment: %w", err)
	}
	env := pick(all)
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, &Error{Line: first.Location.Line(), Column: first.Location.Column() + 1, Message: first.Message}
	}
	if err := checkType(ast.OutputType(), want); err != nil {
		return nil, err
	}
	estimate, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, &Error{Message: "its cost can't be told: " + err.Error()}
	}
	if estimate.Max > maxCost {
		return nil, &Error{Message: fmt.Sprintf("it may cost %d steps for an event of %d KiB; at most %d are taken", estimate.Max, maxData>>10, maxCost)}
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(limit),
		cel.CostTracking(costs{}), cel.CustomDecoratorV2(bounded), cel.OptimizeRegex(constantPatterns...))
	if err != nil {
		return nil, &Error{Message: err.Error()}
	}
	return program, nil
}

func checkType(got *cel.Type, want []*cel.Type) error {
	if len(want) == 0 || got.Kind() == types.DynKind {
		return nil
	}
	for _, t := range want {
		if t.IsAssignableType(got) {
			return nil
		}
	}
	names := want[0].String()
	for _, t := range want[1:] {
		names += " or " + t.String()
	}
	return &Error{Message: fmt.Sprintf("its value is of type %s; want %s", got, names)}
}
