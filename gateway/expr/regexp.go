package expr

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"

	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
	lru "github.com/hashicorp/golang-lru/v2"
)

// A regular expression takes time by its text and by its own size, which the
// length of its pattern doesn't tell: [a-z]{0,40} has 80 places to be in at each
// byte. maxPattern is how many places one may have, maxMatched how many of them,
// over all bytes of a text, one match may look at: tens of milliseconds.
const (
	maxPattern = 1000
	maxMatched = 4 << 20
)

var errMatch = errors.New("the text is too large to be matched,")

// pattern is a compiled regular expression.
type pattern struct {
	*regexp.Regexp
	size int // places
}

// patterns keeps those used last, so that what comes from data isn't compiled
// anew each time, and what a match costs can be told.
var patterns, _ = lru.New[string, *pattern](256)

func patternOf(text string) (*pattern, error) {
	if p, ok := patterns.Get(text); ok {
		return p, nil
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(program.Inst) > maxPattern {
		return nil, fmt.Errorf("the regular expression has %d places; at most %d are taken", len(program.Inst), maxPattern)
	}
	compiled, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	p := &pattern{compiled, len(program.Inst)}
	patterns.Add(text, p)
	return p, nil
}

// matches is CEL's matches, of a text that isn't too large for the pattern.
func matches(text, pattern ref.Val) ref.Val {
	s, ok := text.(types.String)
	p, isText := pattern.(types.String)
	if !ok || !isText {
		return types.NewErr("no such overload: matches")
	}
	re, err := patternOf(string(p))
	if err != nil {
		return types.WrapErr(err)
	}
	if len(s)*re.size > maxMatched {
		return types.WrapErr(fmt.Errorf("%w of %d bytes by a regular expression of %d places", errMatch, len(s), re.size))
	}
	return types.Bool(re.MatchString(string(s)))
}

// constantPatterns are the two ways to write matches with a constant pattern, for
// which CEL would take the place of what bounded makes of it.
var constantPatterns = []*interpreter.RegexOptimization{
	{Function: overloads.Matches, OverloadID: overloads.Matches, RegexIndex: 1, Factory: matchConstant},
	{Function: overloads.Matches, OverloadID: overloads.MatchesString, RegexIndex: 1, Factory: matchConstant},
}

func matchConstant(call interpreter.InterpretableCall, pattern string) (interpreter.InterpretableCall, error) {
	if _, err := patternOf(pattern); err != nil {
		return nil, err
	}
	return matchCall(call), nil
}

// matchCall is a call of matches by way of the function of that name.
func matchCall(call interpreter.InterpretableCall) interpreter.InterpretableCall {
	return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
		return matches(args[0], args[1])
	})
}

// matchCost is what a match costs; nil where there was none.
func matchCost(args []ref.Val) *uint64 {
	s, ok := args[0].(types.String)
	p, isText := args[1].(types.String)
	if !ok || !isText {
		return nil
	}
	re, err := patternOf(string(p))
	if err != nil || len(s)*re.size > maxMatched {
		return nil
	}
	cost := uint64(1 + len(s)*re.size/8)
	return &cost
}
