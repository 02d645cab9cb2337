package cursor

import (
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// Since says where in its channels a reader starts. The zero value is latest.
type Since struct {
	// Position is exclusive; channels that it lacks start at latest.
	Position event.Position
	Earliest bool
	Time     time.Time
}

// ParseSince reads a position, "earliest", "latest", an RFC 3339 time, or the
// empty text, which is latest. Errors call it name.
func ParseSince(name, s string) (Since, error) {
	switch s {
	case "", "latest":
		return Since{}, nil
	case "earliest":
		return Since{Earliest: true}, nil
	}
	// Neither has the other's separator in the same place: a time has no "@".
	for i := range len(s) {
		if s[i] == '@' {
			p, err := event.ParsePosition(s)
			if err != nil {
				return Since{}, wire.BadRequest("%s: %v", name, err)
			}
			return Since{Position: p}, nil
		}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return Since{}, wire.BadRequest("%s is %.80q: want a cursor, \"earliest\", \"latest\" or an RFC 3339 time", name, s)
	}
	return Since{Time: t}, nil
}

// Check refuses a position in channels that are not among those asked for: it
// belongs to something else, and starting at latest instead would lose events.
func (s Since) Check(channels []string) error {
	for _, c := range s.Position {
		found := false
		for _, channel := range channels {
			found = found || channel == c.Channel
		}
		if !found {
			return wire.BadRequest("cursor %q is of channel %q, which was not asked for", c, c.Channel)
		}
	}
	return nil
}

// Resumes tells whether the caller was here before.
func (s Since) Resumes() bool { return len(s.Position) > 0 || !s.Time.IsZero() }
