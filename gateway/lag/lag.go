// Package lag tells how far subscriptions are behind: one that is asked for, and
// those of a node that are the most, which its metrics name.
package lag

import (
	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Behind says which events of a log are beyond a cursor: those after offset up to
// last, none if that is no more than offset. end, if not nil, is beyond what none counts.
func Behind(state broker.State, c event.Cursor, end *event.Cursor) (offset, last uint64) {
	offset, _ = state.Locate(c.Epoch, c.Offset)
	offset = max(offset, max(state.First, 1)-1)
	last = state.Head
	if end != nil {
		at, _ := state.Locate(end.Epoch, end.Offset)
		last = min(last, at)
	}
	return offset, last
}
