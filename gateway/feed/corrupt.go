package feed

import (
	"sync"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// An event that is stored but can't be read must not stop those behind it: it
// keeps its place in rings and pages, and readers are told of a gap there.

// corruption remembers which such events were told of.
type corruption struct {
	mu   sync.Mutex
	told map[event.Cursor]struct{}
}

// maxTold bounds what is remembered; beyond it the log may repeat itself.
const maxTold = 1024

// first notes a corrupt event and tells whether that is news.
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
	return true
}

// item completes a stored event, or returns a placeholder for it.
func (f *Feed) item(epoch string, stored broker.Item) *Item {
	item, err := NewItem(f.channel, epoch, stored)
	if err == nil {
		return item
	}
	c := event.Cursor{Channel: f.channel, Epoch: epoch, Offset: stored.Offset}
	if f.feeds.corrupt.first(c) {
		f.feeds.opts.OnCorrupt()
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
