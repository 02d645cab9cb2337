package session

import (
	"runtime/debug"
	"time"
)

// A surge of connects leaves garbage behind: request buffers, handshakes,
// stacks that grew. The runtime would return it to the system by and by; the
// hub sees to it that it is returned soon after the surge.

const (
	surge     = 500             // connects that are worth it
	surgeOver = 4 * time.Second // without a connect
)

// surgedLocked tells, once, that a surge of connects has ended.
func (h *Hub) surgedLocked(now int64) bool {
	if h.connects < surge || now-h.lastConnect < surgeOver.Milliseconds() {
		return false
	}
	h.connects = 0
	return true
}

func giveBack() { debug.FreeOSMemory() }
