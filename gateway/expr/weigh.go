package expr

import (
	"errors"

	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
	"cel.dev/cel-go/interpreter/functions"
)

// Values that an expression makes may hold one value many times over, which
// costs nothing until somebody walks through them: a list of eight times a list
// of eight times … is small, and its JSON is not. CEL counts a list by its
// elements alone. So who walks weighs first: each value as valueWeight, and its
// text besides.
const (
	maxWeight   = 4 << 20
	valueWeight = 8
)

// weigh takes the weight of v from what is left, and tells whether it sufficed.
// It walks no further than that.
func weigh(v ref.Val, left *int) bool {
	*left -= valueWeight
	switch v := v.(type) {
	case types.String:
		*left -= len(v)
	case types.Bytes:
		*left -= len(v)
	case *Event:
		*left -= len(v.json)
	case *types.Optional:
		return *left >= 0 && (!v.HasValue() || weigh(v.GetValue(), left))
	case traits.Mapper:
		for at := v.Iterator(); *left >= 0 && at.HasNext() == types.True; {
			key := at.Next()
			if value, ok := v.Find(key); !weigh(key, left) || ok && !weigh(value, left) {
				return false
			}
		}
	case traits.Lister:
		for at := v.Iterator(); *left >= 0 && at.HasNext() == types.True; {
			if !weigh(at.Next(), left) {
				return false
			}
		}
	}
	return *left >= 0
}

// weightOf is the weight of v, most if it is more.
func weightOf(v ref.Val, most int) int {
	left := most
	if !weigh(v, &left) {
		return most
	}
	return most - left
}

// walked is the weight of what a comparison may walk through, maxWeight at
// most: the lesser of two aggregates, or all of a list in which one is looked
// for. 0 where nothing is nested.
func walked(function string, a, b ref.Val) int {
	switch {
	case !isAggregate(a) || !isAggregate(b):
		return 0
	case function == operators.In:
		return weightOf(b, maxWeight)
	}
	return weightOf(b, weightOf(a, maxWeight))
}

func isAggregate(v ref.Val) bool {
	switch v.(type) {
	case traits.Mapper, traits.Lister, *types.Optional:
		return true
	}
	return false
}

// costs adds to CEL's own count what comparing aggregates walks through, and what
// a regular expression may look at.
type costs struct{}

// CallCost implements cost.ActualCostEstimator. nil: as CEL has it.
func (costs) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	switch function {
	case operators.Equals, operators.NotEquals, operators.In:
	case overloads.Matches:
		return matchCost(args)
	default:
		return textCost(function, args)
	}
	weight := walked(function, args[0], args[1])
	if weight == 0 && function == operators.In {
		cost := searched(args[0], args[1])
		return &cost
	}
	if weight == 0 {
		return nil
	}
	cost := uint64(1 + 4*weight/valueWeight) // walked up to four times, to weigh and to compare
	return &cost
}

var errHeavy = errors.New("the values are too large for this")

// bounded makes comparisons weigh before they walk, keeps regular expressions from
// texts that are too large for them, has calls whose outcome may be too large made
// by functions that know, and refuses what can be neither weighed before
// nor counted after.
func bounded(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	var impl functions.FunctionOp
	switch call.Function() {
	case operators.Equals:
		impl = func(args ...ref.Val) ref.Val { return types.Equal(args[0], args[1]) }
	case operators.NotEquals:
		impl = func(args ...ref.Val) ref.Val { return types.Bool(types.Equal(args[0], args[1]) != types.True) }
	case operators.In:
		impl = contains
	case overloads.Matches:
		return matchCall(call).(interpreter.InterpretableV2), nil
	case "format":
		return nil, errors.New("format is not taken, want texts joined by +")
	default:
		if impl = instead[call.Function()]; impl == nil {
			return i, nil
		}
		return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), impl), nil
	}
	return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
		if walked(call.Function(), args[0], args[1]) == maxWeight {
			return types.WrapErr(errHeavy)
		}
		return impl(args...)
	}), nil
}
