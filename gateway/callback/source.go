package callback

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
)

// FeedSource is a Source over the node's feeds: the shared rings while it
// follows, the pages of the log while it is behind.
type FeedSource struct {
	feeds    *feed.Feeds
	channels []string
	filter   *cursor.Filter
	wake     chan struct{}

	// owned by the reader
	before  []before         // what was delivered of channels, in their order
	done    []event.Position // of a group: how far each partition is acknowledged
	readers []cursor.Reader  // of channels, or none while at rest
	turn    int              // which channel comes first
	items   []*feed.Item
}

// before is what other owners have delivered of a channel, or may have: the
// events up to known, and what is in doubt. Of a group each partition had an owner
// of its own, so each is in doubt by itself.
type before struct {
	known uint64
	epoch string  // of known
	doubt []doubt // one, or of a group one for each partition
}

// doubt is how many events more may have been delivered of those after counted.
type doubt struct {
	counted uint64
	unclear int
}

var (
	_ Source      = (*FeedSource)(nil)
	_ feed.Member = (*FeedSource)(nil)
)

// How much one Read looks at, of which the filter may leave out everything.
const (
	scanEvents = 2048
	readBytes  = 1 << 20
	pageBytes  = 2 << 20 // that one lane in order has at hand
)

// NewFeedSource returns a source of the channels' events that filter takes.
// Those up to the position known are marked as perhaps delivered before, and so
// are the first unclear ones that it reads of each channel.
func NewFeedSource(feeds *feed.Feeds, channels []string, filter *cursor.Filter, known event.Position, unclear int) *FeedSource {
	s := &FeedSource{feeds: feeds, channels: channels, filter: filter, wake: make(chan struct{}, 1), before: make([]before, len(channels))}
	for i, channel := range channels {
		c, _ := known.Of(channel)
		s.before[i] = before{known: c.Offset, epoch: c.Epoch, doubt: []doubt{{unclear: unclear}}}
	}
	return s
}

// Skip leaves out what partitions of a group have acknowledged already: one
// position each, by their numbers. Of each the first unclear ones that are read
// are marked, in place of those over all. Called before the first Read.
func (s *FeedSource) Skip(done []event.Position, unclear []int) {
	if s.done = done; len(done) == 0 {
		return
	}
	for i := range s.before {
		s.before[i].doubt = make([]doubt, len(done))
		for p, n := range unclear {
			s.before[i].doubt[p].unclear = n
		}
	}
}

// place names what partitions have acknowledged by the epoch that a reader is in:
// some may have been acknowledged before a fork.
func (s *FeedSource) place(r *cursor.Reader) {
	for p := range s.done {
		for i, c := range s.done[p] {
			if c.Channel != r.Channel() || c.Epoch == r.Cursor().Epoch {
				continue
			}
			if at, _, ok := r.Locator().Locate(c); ok {
				s.done[p] = slices.Clone(s.done[p])
				s.done[p][i] = at
			}
		}
	}
}

// skips tells whether an event is acknowledged already.
func (s *FeedSource) skips(item *feed.Item, c event.Cursor) bool {
	if len(s.done) == 0 {
		return false
	}
	at, ok := s.done[item.Partition(len(s.done))].Of(c.Channel)
	return ok && at.Epoch == c.Epoch && c.Offset <= at.Offset
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
	for i := range s.readers {
		s.readers[i].Leave(s)
		s.readers[i].Close()
	}
	s.readers, s.items = nil, nil
}

func (s *FeedSource) follow(ctx context.Context) error {
	for len(s.readers) < len(s.channels) {
		r, _, err := cursor.Open(ctx, s.feeds, s.channels[len(s.readers)], s.filter, cursor.Since{}, nil)
		if err != nil {
			return err
		}
		r.Join(s)
		s.readers = append(s.readers, r)
	}
	return nil
}

// Read implements Source. A channel with a long backlog gets its share of the
// limit, so that it doesn't hide the others.
func (s *FeedSource) Read(ctx context.Context, after event.Position, limit, bytes int) (Page, error) {
	if err := s.follow(ctx); err != nil {
		return Page{}, err
	}
	p := Page{Position: slices.Clone(after)}
	var err error
	for i := range s.readers {
		n := (s.turn + i) % len(s.readers)
		channel := s.channels[n]
		at := slices.IndexFunc(p.Position, func(c event.Cursor) bool { return c.Channel == channel })
		if at < 0 {
			return Page{}, fmt.Errorf("read for callback: the position %q lacks channel %q", after, channel)
		}
		share := (limit - len(p.Events)) / (len(s.readers) - i)
		if share == 0 && len(p.Events) == 0 {
			share = 1
		}
		r := &s.readers[n]
		if p.Position[at] != r.Cursor() {
			*r = r.From(p.Position[at])
		}
		if bytes, err = s.read(ctx, &p, r, &s.before[n], share, bytes); err != nil {
			return Page{}, err
		}
		p.Position[at] = r.Cursor()
	}
	s.turn++
	return p, nil
}

// read appends up to limit events of a channel, until they have so many bytes,
// and returns how many are left of these.
func (s *FeedSource) read(ctx context.Context, p *Page, r *cursor.Reader, b *before, limit, bytes int) (int, error) {
	if len(p.Events) > 0 && bytes <= 0 {
		return bytes, nil
	}
	for scanned := 0; limit > 0 && scanned < scanEvents; {
		step, err := r.Read(ctx, &s.items, scanEvents, readBytes)
		if err != nil {
			return bytes, err
		}
		if m := step.Move; m != nil {
			p.move(m)
			b.move(m)
			continue
		}
		if len(step.Items) == 0 {
			break
		}
		scanned += len(step.Items)
		s.place(r)
		for _, item := range step.Items {
			if limit == 0 {
				break
			}
			r.Advance(item.Offset)
			if c := r.Cursor(); r.Match(item) && !s.skips(item, c) {
				partition := 0
				if len(s.done) > 0 {
					partition = item.Partition(len(s.done))
				}
				p.Events = append(p.Events, Event{Partition: partition, Cursor: c, ID: idOf(item), Key: item.Key(), JSON: item.JSON(), Redelivery: b.delivered(partition, c.Offset)})
				limit--
				if bytes -= len(item.JSON()); bytes <= 0 {
					limit = 0
				}
			}
		}
	}
	clear(s.items)
	return bytes, nil
}

// move notes where a reader went.
func (p *Page) move(m *cursor.Move) {
	if m.Reason != "" {
		p.Gaps = append(p.Gaps, Gap{From: m.From, To: m.To, Reason: m.Reason})
	}
	if m.From.Epoch != m.To.Epoch {
		p.Forked = append(p.Forked, Forked{Channel: m.To.Channel, Locator: m.Locator()})
	}
}

// delivered tells whether the event at offset, of a partition, may have been
// delivered before.
func (b *before) delivered(partition int, offset uint64) bool {
	d := &b.doubt[partition]
	if d.unclear > 0 && offset > d.counted {
		d.unclear--
		d.counted = offset
	}
	return offset <= max(b.known, d.counted)
}

// move follows a reader: nothing was delivered of what a fork brought.
func (b *before) move(m *cursor.Move) {
	if m.From.Epoch == m.To.Epoch {
		return
	}
	locate := func(epoch string, offset uint64) uint64 {
		at, _, _ := m.Locator().Locate(event.Cursor{Channel: m.From.Channel, Epoch: epoch, Offset: offset})
		return at.Offset
	}
	b.known, b.epoch = locate(cmp.Or(b.epoch, m.From.Epoch), b.known), m.To.Epoch
	for i := range b.doubt {
		b.doubt[i].counted = locate(m.From.Epoch, b.doubt[i].counted)
	}
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
