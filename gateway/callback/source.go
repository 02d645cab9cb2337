package callback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/feed"
)

// FeedSource is a Source over the node's feeds: the shared rings while it
// follows, the pages of the log while it is behind.
type FeedSource struct {
	feeds    *feed.Feeds
	channels []string
	match    func(typ string) bool
	doubt    event.Position // events up to here may have been delivered before
	all      bool           // and so may whatever is in the log when it first looks
	wake     chan struct{}

	// owned by the reader
	open  []*feed.Feed // of channels, or none while at rest
	turn  int          // which channel comes first
	items []*feed.Item
}

var (
	_ Source      = (*FeedSource)(nil)
	_ feed.Member = (*FeedSource)(nil)
)

// How much one Read looks at, of which types may leave out everything.
const (
	scanEvents = 2048
	readBytes  = 1 << 20
)

// NewFeedSource returns a source of the channels' events whose type match
// takes (nil: all). Events up to doubt, or all that are there by now, are
// marked as perhaps delivered before.
func NewFeedSource(feeds *feed.Feeds, channels []string, match func(typ string) bool, doubt event.Position, all bool) *FeedSource {
	return &FeedSource{feeds: feeds, channels: channels, match: match, doubt: doubt, all: all, wake: make(chan struct{}, 1)}
}

// Wake implements Source.
func (s *FeedSource) Wake() <-chan struct{} { return s.wake }

// Mark implements feed.Member. The reader waits in a goroutine of its own, not
// on the node's ready list.
func (s *FeedSource) Mark() bool {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return false
}

// Rest implements Source.
func (s *FeedSource) Rest() {
	for _, f := range s.open {
		f.Leave(s)
		f.Release()
	}
	s.open, s.items = nil, nil
}

func (s *FeedSource) follow(ctx context.Context) error {
	for len(s.open) < len(s.channels) {
		f, err := s.feeds.Open(ctx, s.channels[len(s.open)])
		if err != nil {
			return err
		}
		f.Join(s)
		s.open = append(s.open, f)
	}
	if s.all {
		s.all, s.doubt = false, nil
		for _, f := range s.open {
			state := f.State()
			s.doubt = append(s.doubt, event.Cursor{Channel: f.Channel(), Epoch: state.Epoch, Offset: state.Head})
		}
	}
	return nil
}

// Read implements Source. A channel with a long backlog gets its share of the
// limit, so that it doesn't hide the others.
func (s *FeedSource) Read(ctx context.Context, after event.Position, limit int) (Page, error) {
	if err := s.follow(ctx); err != nil {
		return Page{}, err
	}
	p := Page{Position: slices.Clone(after)}
	for i := range s.open {
		f := s.open[(s.turn+i)%len(s.open)]
		at := slices.IndexFunc(p.Position, func(c event.Cursor) bool { return c.Channel == f.Channel() })
		if at < 0 {
			return Page{}, fmt.Errorf("read for callback: the position %q lacks channel %q", after, f.Channel())
		}
		share := (limit - len(p.Events)) / (len(s.open) - i)
		if share == 0 && len(p.Events) == 0 {
			share = 1
		}
		if err := s.read(ctx, &p, f, &p.Position[at], share); err != nil {
			return Page{}, err
		}
	}
	s.turn++
	return p, nil
}

// read appends up to limit events of a channel after a cursor, which it moves.
func (s *FeedSource) read(ctx context.Context, p *Page, f *feed.Feed, c *event.Cursor, limit int) error {
	for scanned := 0; limit > 0 && scanned < scanEvents; {
		items, err := s.next(ctx, p, f, c)
		if err != nil || len(items) == 0 {
			return err
		}
		scanned += len(items)
		for _, item := range items {
			if limit == 0 {
				break
			}
			c.Offset = item.Offset
			if s.match == nil || s.match(item.Type()) {
				p.Events = append(p.Events, s.event(item, *c))
				limit--
			}
		}
	}
	clear(s.items)
	return nil
}

// next returns what follows a cursor, from the ring or the log, none if that
// is the head. What is missing between it notes as a gap, and moves the cursor.
func (s *FeedSource) next(ctx context.Context, p *Page, f *feed.Feed, c *event.Cursor) ([]*feed.Item, error) {
	for {
		var view feed.View
		s.items, view = f.Take(s.items[:0], c.Epoch, c.Offset, scanEvents, readBytes)
		if view.State.Epoch != c.Epoch {
			p.relocate(c, view.State)
			continue
		}
		if !view.Behind {
			return s.items, nil
		}
		page, err := f.Page(ctx, c.Offset)
		if errors.Is(err, broker.ErrNotFound) {
			return nil, nil // dropped; the feed learns of the new log soon
		}
		if err != nil {
			return nil, err
		}
		if page.State.Epoch != c.Epoch {
			return nil, nil // the feed learns of the new epoch soon, and wakes us
		}
		items := page.After(c.Offset)
		first := view.Oldest // the log has nothing before what the ring has
		if len(items) > 0 {
			first = items[0].Offset
		}
		if first > c.Offset+1 {
			to := *c
			to.Offset = first - 1
			p.Gaps = append(p.Gaps, Gap{From: *c, To: to, Reason: "retention"})
			*c = to
		}
		if len(items) > 0 {
			return items, nil
		}
	}
}

// relocate moves a cursor of another epoch to where that is in the log now.
func (p *Page) relocate(c *event.Cursor, state broker.State) {
	offset, place := state.Locate(c.Epoch, c.Offset)
	to := event.Cursor{Channel: c.Channel, Epoch: state.Epoch, Offset: offset}
	if place != broker.Here {
		p.Gaps = append(p.Gaps, Gap{From: *c, To: to, Reason: "reset"})
	}
	*c = to
}

func (s *FeedSource) event(item *feed.Item, c event.Cursor) Event {
	e := Event{Cursor: c, ID: idOf(item), Key: item.Key(), JSON: item.JSON()}
	if d, ok := s.doubt.Of(c.Channel); ok && d.Epoch == c.Epoch && c.Offset <= d.Offset {
		e.Redelivery = true
	}
	return e
}

var idPrefix = []byte(`{"specversion":"1.0","id":"`)

// idOf returns an event's id, which stands where every event of ours has it.
func idOf(item *feed.Item) string {
	if rest, ok := bytes.CutPrefix(item.JSON(), idPrefix); ok {
		if end := bytes.IndexAny(rest, `"\`); end >= 0 && rest[end] == '"' {
			return string(rest[:end])
		}
	}
	return item.ID()
}
