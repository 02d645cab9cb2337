package longline

import (
	"sync"
	"time"

	"github.com/longline-push/longline/event"
)

// sureAfter is how long after an acknowledgement was sent it must have been
// committed; gateways do that every 50 ms.
const sureAfter = 2 * time.Second

// moved knows how far a subscription's cursor must be, so as to notice when
// somebody moved it back: a replay, of which nothing may be left out as known.
// It would be announced as possibly coming twice like any other redelivery.
type moved struct {
	mu       sync.Mutex
	sure     map[string]event.Cursor // by channel
	last     string                  // an acknowledgement that may be committed by now
	lastTime time.Time               // when that was sent
	latest   string                  // the last one that was sent
	sent     time.Time               // when
}

// acked notes an acknowledgement. Unless it is old, a position that isn't
// parsed costs nothing.
func (m *moved) acked(position string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latest, m.sent = position, now
	if m.last == "" || now.Sub(m.lastTime) >= sureAfter {
		m.noteLocked(m.last)
		m.last, m.lastTime = position, now
	}
}

// answered notes an acknowledgement that the gateway answered: it is committed.
func (m *moved) answered(position string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noteLocked(position)
}

// soonAfter is sureAfter where the gateway ended the connection itself, as it
// does when the cursor is moved, and so was in good health.
const soonAfter = 250 * time.Millisecond

// orderly notes that the gateway ended the connection by itself.
func (m *moved) orderly(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Sub(m.sent) >= soonAfter {
		m.noteLocked(m.latest)
	}
}

// back tells whether a connection that begins at position begins before where
// the cursor was.
func (m *moved) back(position string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Sub(m.lastTime) >= sureAfter {
		m.noteLocked(m.last)
	}
	m.last, m.latest = "", ""
	p, err := event.ParsePosition(position)
	if err != nil {
		return false
	}
	back := false
	for _, c := range p {
		before, ok := m.sure[c.Channel]
		back = back || ok && before.Epoch == c.Epoch && c.Offset < before.Offset
	}
	m.sure = nil
	m.noteLocked(position)
	return back
}

func (m *moved) noteLocked(position string) {
	p, err := event.ParsePosition(position)
	if err != nil {
		return
	}
	if m.sure == nil {
		m.sure = make(map[string]event.Cursor)
	}
	for _, c := range p {
		m.sure[c.Channel] = c
	}
}
