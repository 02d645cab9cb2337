package session

import (
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// Since says where in its channels a session starts. The zero value is latest.
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

// resumes tells whether the caller was here before.
func (s Since) resumes() bool { return len(s.Position) > 0 || !s.Time.IsZero() }

// place is where a session begins in a channel.
type place struct {
	offset uint64
	gap    *wire.Control // what lies between what was asked for and what there is
}

// relocate says where a cursor is in the log as it is now.
func relocate(c event.Cursor, state broker.State) place {
	offset, kind := state.Locate(c.Epoch, c.Offset)
	var reason string
	if kind != broker.Here {
		reason = wire.GapReset
	}
	if first := max(state.First, 1); offset < first-1 {
		offset = first - 1
		if reason == "" {
			reason = wire.GapRetention
		}
	}
	p := place{offset: offset}
	if reason != "" {
		p.gap = gap(c, event.Cursor{Channel: c.Channel, Epoch: state.Epoch, Offset: offset}, reason)
	}
	return p
}

func gap(from, to event.Cursor, reason string) *wire.Control {
	return &wire.Control{Op: wire.OpGap, Channel: from.Channel, From: from.String(), To: to.String(), Reason: reason}
}
