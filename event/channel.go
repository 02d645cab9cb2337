package event

import (
	"errors"
	"fmt"
	"strings"
)

// MaxChannel is the longest channel name, in bytes.
const MaxChannel = 128

// ReservedPrefix begins the names of the gateway's own channels.
const ReservedPrefix = "longline."

var errChannel = errors.New(`want 1 to 128 bytes of A-Z a-z 0-9 _ : - in segments joined by "."`)

// CheckChannel returns nil if name is a channel name, else an error that says
// what is taken.
func CheckChannel(name string) error {
	if len(name) == 0 || len(name) > MaxChannel {
		return fmt.Errorf("channel name of %d bytes: %w", len(name), errChannel)
	}
	segment := 0
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '.':
			if segment == 0 {
				return fmt.Errorf("channel %q has an empty segment: %w", name, errChannel)
			}
			segment = 0
		case nameByte(c):
			segment++
		default:
			return fmt.Errorf("channel %q: %w", name, errChannel)
		}
	}
	if segment == 0 {
		return fmt.Errorf("channel %q has an empty segment: %w", name, errChannel)
	}
	return nil
}

// Reserved tells whether name is one of the gateway's own channels.
func Reserved(name string) bool { return strings.HasPrefix(name, ReservedPrefix) }

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':' || c == '-'
}
