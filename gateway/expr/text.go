package expr

import (
	"math"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter/functions"
)

// CEL counts some calls as one step, such as size() and double(), whatever text
// they walk through, and others when they are done, such as replace(), of which
// memory may be full by then. So the former are counted by their text here, and
// the latter are made by functions that know before what would be too much.

// zoneCost is what it costs to read a time zone's rules.
const zoneCost = 2000

// textCost is what a call costs that CEL counts as one step; nil where it has a
// better count.
func textCost(function string, args []ref.Val) *uint64 {
	cost := uint64(1)
	switch function {
	case "size", "int", "uint", "double", "bool", "timestamp", "duration":
		cost += textOf(args[0]) / 10
	case "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek", "getHours", "getMinutes", "getSeconds", "getMilliseconds":
		if len(args) == 2 {
			cost = zoneCost + textOf(args[1])/10
		}
	default:
		return nil
	}
	return &cost
}

func textOf(v ref.Val) uint64 {
	switch v := v.(type) {
	case types.String:
		return uint64(len(v))
	case types.Bytes:
		return uint64(len(v))
	}
	return 0
}

// instead are functions with the values of CEL's.
var instead = map[string]functions.FunctionOp{"replace": replace, "join": join}

func replace(args ...ref.Val) ref.Val {
	s, isText := args[0].(types.String)
	old, isOld := args[1].(types.String)
	with, isNew := args[2].(types.String)
	most := types.Int(-1)
	counted := true
	if len(args) == 4 {
		most, counted = args[3].(types.Int)
	}
	if !isText || !isOld || !isNew || !counted {
		return types.MaybeNoSuchOverloadErr(args[0])
	}
	times := strings.Count(string(s), string(old))
	if most >= 0 {
		times = int(min(types.Int(times), most))
	}
	if len(s)+times*max(len(with)-len(old), 0) > maxWeight {
		return types.WrapErr(errHeavy)
	}
	return types.String(strings.Replace(string(s), string(old), string(with), times))
}

func join(args ...ref.Val) ref.Val {
	list, isList := args[0].(traits.Lister)
	separator := types.String("")
	separated := true
	if len(args) == 2 {
		separator, separated = args[1].(types.String)
	}
	if !isList || !separated {
		return types.MaybeNoSuchOverloadErr(args[0])
	}
	var out strings.Builder
	for at := list.Iterator(); at.HasNext() == types.True; {
		one := at.Next()
		s, ok := one.(types.String)
		if !ok {
			return types.NewErr("join takes a list of texts, not of %s", one.Type().TypeName())
		}
		if out.Len()+len(s)+len(separator) > maxWeight {
			return types.WrapErr(errHeavy)
		}
		out.WriteString(string(s))
		if at.HasNext() == types.True {
			out.WriteString(string(separator))
		}
	}
	return types.String(out.String())
}

// contains is CEL's in: of an element and a list, or of a key and a map.
func contains(args ...ref.Val) ref.Val {
	in, ok := args[1].(traits.Container)
	if !ok {
		return types.NewErr("no such overload: in")
	}
	if searched(args[0], args[1]) > maxFilterCost {
		return types.WrapErr(errHeavy)
	}
	return in.Contains(args[0])
}

// searched is the cost of looking for a scalar.
func searched(element, in ref.Val) uint64 {
	list, ok := in.(traits.Lister)
	if !ok {
		return 1 + textOf(element)/10
	}
	n, ok := list.Size().(types.Int)
	if !ok {
		return math.MaxUint64
	}
	return 1 + uint64(n)*(1+textOf(element)/160)
}
