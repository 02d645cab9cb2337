package feed

import (
	"sync"
	"sync/atomic"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// An event that is stored but can't be read must not stop those behind it: it
// keeps its place in rings and pages, and readers are told of a gap there.

// corruption counts such events and remembers which were told of.
type corruption struct {
	count atomic.Uint64

	mu   sync.Mutex
	told map[event.Cursor]struct{}
}

// maxTold bounds what is remembered; beyond it the log may repeat itself.
const maxTold = 1024

// first counts an event unless it is known to be corrupt, and tells whether.
func (k *corruption) first(c event.Cursor) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.told[c]; ok {
		return false
	}
	if k.told == nil || len(k.told) >= maxTold {
		k.told = make(map[event.Cursor]struct{})
	}
	k.told[c] = struct{}{}
	k.count.Add(1)
	return true
}

// Corrupt is how many stored events were met that can't be read.
func (fs *Feeds) Corrupt() uint64 { return fs.corrupt.count.Load() }

// item completes a stored event, or returns a placeholder for it.
func (f *Feed) item(epoch string, stored broker.Item) *Item {
	item, err := NewItem(f.channel, epoch, stored)
	if err == nil {
		return item
	}
	c := event.Cursor{Channel: f.channel, Epoch: epoch, Offset: stored.Offset}
	if f.feeds.corrupt.first(c) {
		f.feeds.logger.Error("stored event can't be read", "cursor", c, "error", err)
	}
	return &Item{Offset: stored.Offset, Appended: stored.Time}
}

// corrupt is how many placeholders items begin with.
func corrupt(items []*Item) (n uint64) {
	for _, item := range items {
		if !item.Corrupt() {
			break
		}
		n++
	}
	return n
}
