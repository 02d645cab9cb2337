package event

import (
	"errors"
	"fmt"
	"strings"
)

// Pattern matches dot-separated names segment by segment: "*" is exactly one
// segment, a last "**" is one or more. The zero value matches nothing. It is
// immutable and safe for concurrent use.
type Pattern struct {
	text     string
	segments []string // without the last "**"
	open     bool     // ends in "**"
}

// MaxPattern is the longest pattern, in bytes.
const MaxPattern = 256

var errPattern = errors.New(`want segments joined by ".", of which "*" is any one and a last "**" any one or more`)

// ParsePattern compiles a pattern.
func ParsePattern(s string) (Pattern, error) {
	if s == "" || len(s) > MaxPattern {
		return Pattern{}, fmt.Errorf("pattern of %d bytes: %w", len(s), errPattern)
	}
	segments := strings.Split(s, ".")
	p := Pattern{text: s}
	for i, segment := range segments {
		switch {
		case segment == "**" && i == len(segments)-1:
			p.open = true
			segments = segments[:i]
		case segment == "" || segment != "*" && strings.Contains(segment, "*"):
			return Pattern{}, fmt.Errorf("pattern %s: %w", clip(s), errPattern)
		}
	}
	p.segments = segments
	return p, nil
}

// MaxPatterns is how many patterns a list may have: each is held against each
// event.
const MaxPatterns = 64

// ParsePatterns compiles a comma list of patterns. The empty list is nil.
func ParsePatterns(list string) ([]Pattern, error) {
	if list == "" {
		return nil, nil
	}
	if n := strings.Count(list, ",") + 1; n > MaxPatterns {
		return nil, fmt.Errorf("%d patterns; want at most %d", n, MaxPatterns)
	}
	var ps []Pattern
	for s := range strings.SplitSeq(list, ",") {
		p, err := ParsePattern(s)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// String returns the pattern's text.
func (p Pattern) String() string { return p.text }

// Literal tells whether the pattern matches one name only: its own text.
func (p Pattern) Literal() bool { return !p.open && !strings.Contains(p.text, "*") && p.text != "" }

// Match tells whether the pattern matches name. It does not allocate.
func (p Pattern) Match(name string) bool {
	if p.text == "" {
		return false
	}
	for _, want := range p.segments {
		if name == "" {
			return false
		}
		got, rest, more := strings.Cut(name, ".")
		if got == "" || want != "*" && want != got {
			return false
		}
		if more && rest == "" {
			return false
		}
		name = rest
	}
	return p.open == (name != "")
}

// MatchChannel is Match for what a token allows: "**" and "*" as a first
// segment don't cover the gateway's own channels, which must be named.
func (p Pattern) MatchChannel(name string) bool {
	if Reserved(name) && (len(p.segments) == 0 || p.segments[0] != strings.TrimSuffix(ReservedPrefix, ".")) {
		return false
	}
	return p.Match(name)
}
