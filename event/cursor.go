package event

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Cursor is a position in a channel: behind the event at Offset. Offset 0 is
// the position before the first event. Its text is <channel>@<epoch>-<offset>.
type Cursor struct {
	Channel string
	Epoch   string
	Offset  uint64
}

var errCursor = errors.New("want <channel>@<epoch>-<offset>, e.g. acct-42@k3f9zq-1053")

// MaxEpoch is the longest epoch that ParseCursor takes, in bytes.
const MaxEpoch = 32

// ParseCursor reads a cursor's text.
func ParseCursor(s string) (Cursor, error) {
	channel, place, ok := strings.Cut(s, "@")
	if !ok {
		return Cursor{}, fmt.Errorf("cursor %s: %w", clip(s), errCursor)
	}
	if err := CheckChannel(channel); err != nil {
		return Cursor{}, fmt.Errorf("cursor %s: %w", clip(s), err)
	}
	// Epochs never hold a "-", so the first one ends them.
	epoch, digits, ok := strings.Cut(place, "-")
	if !ok || !epochText(epoch) {
		return Cursor{}, fmt.Errorf("cursor %s: %w", clip(s), errCursor)
	}
	if digits == "" || digits[0] == '+' || len(digits) > 1 && digits[0] == '0' {
		return Cursor{}, fmt.Errorf("cursor %s: offset is not a number: %w", clip(s), errCursor)
	}
	offset, err := strconv.ParseUint(digits, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return Cursor{}, fmt.Errorf("cursor %s: offset does not fit 64 bits", clip(s))
	}
	if err != nil {
		return Cursor{}, fmt.Errorf("cursor %s: offset is not a number: %w", clip(s), errCursor)
	}
	return Cursor{Channel: channel, Epoch: epoch, Offset: offset}, nil
}

// String returns the cursor's text.
func (c Cursor) String() string { return string(c.Append(nil)) }

// Append appends the cursor's text to dst.
func (c Cursor) Append(dst []byte) []byte {
	dst = append(append(dst, c.Channel...), '@')
	dst = append(append(dst, c.Epoch...), '-')
	return appendUint(dst, c.Offset)
}

// Position is a place in several channels: at most one cursor each. Its text
// is the cursors' joined by commas.
type Position []Cursor

// ParsePosition reads a position's text. Two cursors of one channel are an
// error. The empty text is the empty position.
func ParsePosition(s string) (Position, error) {
	if s == "" {
		return nil, nil
	}
	parts := strings.Split(s, ",")
	p := make(Position, 0, len(parts))
	seen := make(map[string]bool, len(parts))
	for _, part := range parts {
		c, err := ParseCursor(part)
		if err != nil {
			return nil, err
		}
		if seen[c.Channel] {
			return nil, fmt.Errorf("position names channel %q twice", c.Channel)
		}
		seen[c.Channel] = true
		p = append(p, c)
	}
	return p, nil
}

// String returns the position's text.
func (p Position) String() string { return string(p.Append(nil)) }

// Append appends the position's text to dst.
func (p Position) Append(dst []byte) []byte {
	for i, c := range p {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = c.Append(dst)
	}
	return dst
}

// Of returns the cursor of channel, and whether the position has one.
func (p Position) Of(channel string) (Cursor, bool) {
	for _, c := range p {
		if c.Channel == channel {
			return c, true
		}
	}
	return Cursor{}, false
}

func epochText(s string) bool {
	if len(s) == 0 || len(s) > MaxEpoch {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') {
			return false
		}
	}
	return true
}

// clip quotes what somebody sent, shortened, for an error text.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
