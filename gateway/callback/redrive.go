package callback

import (
	"context"
	"slices"
	"sync"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
)

// redriver is a FeedSource that delivers dead letters again first, once each
// time somebody asks for it.
type redriver struct {
	*FeedSource
	letters func(context.Context) ([]durable.Redriven, error) // that were put back
	forked  func(channel string, to cursor.Locator)           // told where a log goes on

	mu      sync.Mutex
	pending bool            // there may be letters to read
	read    []Event         // those to be delivered next
	out     map[string]bool // being delivered
}

func (r *redriver) redrive() {
	r.mu.Lock()
	r.pending = true
	r.mu.Unlock()
	r.Mark()
}

// settled: these were delivered or are dead again.
func (r *redriver) settled(cursors []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cursor := range cursors {
		delete(r.out, cursor)
	}
}

// Read implements Source.
func (r *redriver) Read(ctx context.Context, after event.Position, limit, bytes int) (Page, error) {
	if err := r.load(ctx); err != nil {
		return Page{}, err
	}
	r.mu.Lock()
	if n := min(limit, len(r.read)); n > 0 {
		p := Page{Events: slices.Clone(r.read[:n]), Position: after}
		if r.read = r.read[n:]; len(r.read) == 0 {
			r.read = nil
		}
		r.mu.Unlock()
		return p, nil
	}
	r.mu.Unlock()
	p, err := r.FeedSource.Read(ctx, after, limit, bytes)
	for _, f := range p.Forked {
		r.forked(f.Channel, f.Locator)
	}
	return p, err
}

// load reads which letters were put back, if any may have been.
func (r *redriver) load(ctx context.Context) error {
	r.mu.Lock()
	due := r.pending && len(r.read) == 0
	if due {
		r.pending = false
	}
	r.mu.Unlock()
	if !due {
		return nil
	}
	letters, err := r.letters(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.pending = true
		return err
	}
	for _, l := range letters {
		at, err := event.ParseCursor(l.Cursor)
		if err != nil || r.out[l.Cursor] {
			continue
		}
		r.out[l.Cursor] = true
		r.pending = true // there may be more than one call returns
		r.read = append(r.read, Event{Cursor: at, ID: l.ID, Key: l.Key, JSON: l.Event, Redelivery: true, Redriven: true})
	}
	return nil
}
