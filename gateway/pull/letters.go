package pull

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// fetchAgain reads the dead letters that were put back.
func (l *lease) fetchAgain() {
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	letters, err := l.whole.LettersAgain(ctx)
	if err != nil {
		return
	}
	l.mu.Lock()
	l.again, l.told = letters, 0
	l.mu.Unlock()
	l.Mark()
}

// lettersLocked are those to be given, so many at most, first in the list: of a
// group only those of its own partitions.
func (l *lease) lettersLocked(limit int) []durable.Redriven {
	if g := l.state.Definition.Group; g != nil {
		owns := func(r durable.Redriven) int {
			var e struct{ ID, Source string }
			json.Unmarshal(r.Event, &e)
			p := event.Partition(r.Key, e.Source, e.ID, g.Partitions)
			if slices.ContainsFunc(l.shares, func(s *share) bool { return s.partition == p && !s.leaving }) {
				return 0
			}
			return 1
		}
		slices.SortStableFunc(l.again, func(a, b durable.Redriven) int { return owns(a) - owns(b) })
		mine := slices.IndexFunc(l.again, func(r durable.Redriven) bool { return owns(r) > 0 })
		if mine >= 0 {
			limit = min(limit, mine)
		}
	}
	return l.again[:min(limit, len(l.again))]
}

// Rejected implements durable.Settler: a dead letter that was put back and is
// rejected once more is one again, whatever is acknowledged. Other events come
// until they are acknowledged.
func (m *member) Rejected(c event.Cursor) { (*lease)(m).buried(c) }

// Settled implements durable.Settler: of a group nobody is told so.
func (m *member) Settled(event.Position) {}

// Rejected implements durable.Settler.
func (s *share) Rejected(c event.Cursor) { s.l.buried(c) }

// Settled implements durable.Settler: ackedAgain does that.
func (s *share) Settled(event.Position) {}

func (l *lease) buried(c event.Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range l.again {
		if r.Cursor == c.String() {
			l.again = slices.Delete(slices.Clone(l.again), i, i+1)
			if i < l.told {
				l.told--
			}
			return
		}
	}
}

// ackedAgain removes those of the dead letters given with the last pull that an
// acknowledgement covers: it is of their own cursor, or of the position that
// they came with, or a later one. Whoever acknowledges less than that may not
// have them yet.
func (l *lease) ackedAgain(ctx context.Context, acked event.Position) error {
	l.mu.Lock()
	var cursors []string
	for _, letter := range l.again[:l.told] {
		if l.coversLocked(acked, letter) {
			cursors = append(cursors, letter.Cursor)
		}
	}
	h := l.whole
	l.mu.Unlock()
	if len(cursors) == 0 {
		return nil
	}
	if err := h.Remove(ctx, cursors); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := func(r durable.Redriven) bool { return slices.Contains(cursors, r.Cursor) }
	l.again, l.told = slices.DeleteFunc(slices.Clone(l.again), gone), max(0, l.told-len(cursors))
	return nil
}

func (l *lease) coversLocked(acked event.Position, letter durable.Redriven) bool {
	own, err := event.ParseCursor(letter.Cursor)
	if err != nil {
		return true // nobody could ever name it
	}
	c, ok := acked.Of(own.Channel)
	at, told := l.toldAt.Of(own.Channel)
	return ok && (c == own || told && c.Epoch == at.Epoch && c.Offset >= at.Offset)
}
