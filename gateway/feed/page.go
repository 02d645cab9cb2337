package feed

import (
	"container/list"
	"context"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Page is a stretch of the log for those who are behind the ring. It is shared
// and immutable.
type Page struct {
	State broker.State
	Items []*Item
	bytes int64
}

// After returns the page's items after offset.
func (p *Page) After(offset uint64) []*Item {
	// Items are contiguous.
	if len(p.Items) == 0 || p.Items[len(p.Items)-1].Offset <= offset {
		return nil
	}
	if first := p.Items[0].Offset; offset >= first {
		return p.Items[offset-first+1:]
	}
	return p.Items
}

// pageEvents is how many events a page holds. Pages begin at its multiples, so
// that clients who left at different events read the same pages.
const pageEvents = 256

// Page returns the page of the log in which the event after offset is. Those
// who ask for the same page at once share one read, those who come soon after
// find it in a cache. A page without items after offset means that there are
// none.
func (f *Feed) Page(ctx context.Context, offset uint64) (*Page, error) {
	state := f.State()
	start := offset - offset%pageEvents
	for {
		page, err := f.page(ctx, event.Cursor{Channel: f.channel, Epoch: state.Epoch, Offset: start}, offset)
		if err != nil || len(page.Items) == 0 || len(page.After(offset)) > 0 {
			return page, err
		}
		// A page can be cut short by its bytes: go on where it ended.
		last := page.Items[len(page.Items)-1].Offset
		if last <= start || last >= page.State.Head {
			return page, nil
		}
		start = last
	}
}

// page returns the page that begins after the cursor. A cached one is good
// unless it ended at what was the head then and offset is beyond that.
func (f *Feed) page(ctx context.Context, start event.Cursor, offset uint64) (*Page, error) {
	pages, key := f.feeds.pages, start.String()
	if page := pages.get(key); page != nil && (len(page.After(offset)) > 0 || page.whole()) {
		return page, nil
	}
	loaded := pages.loading.DoChan(key, func() (any, error) {
		// Shared by many, so it ends with the feeds and not with who came first.
		ctx := f.feeds.ctx
		if err := f.feeds.reads.Acquire(ctx, 1); err != nil {
			return nil, broker.ErrClosed
		}
		defer f.feeds.reads.Release(1)
		read, err := f.feeds.opts.Broker.Read(ctx, f.channel, start.Offset, broker.Limit{Events: pageEvents})
		if err != nil {
			return nil, err
		}
		page := &Page{State: read.State, Items: make([]*Item, 0, len(read.Items))}
		for _, stored := range read.Items {
			item, err := NewItem(f.channel, read.State.Epoch, stored)
			if err != nil {
				return nil, err
			}
			page.Items = append(page.Items, item)
			page.bytes += int64(item.Size())
		}
		if read.State.Epoch == start.Epoch {
			pages.put(key, page)
		}
		return page, nil
	})
	select {
	case r := <-loaded:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Page), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// whole tells whether the page can't grow any more.
func (p *Page) whole() bool {
	return len(p.Items) > 0 && p.Items[len(p.Items)-1].Offset < p.State.Head
}

// pages is a cache bounded by bytes that forgets what was used longest ago.
type pages struct {
	most    int64
	loading singleflight.Group

	mu     sync.Mutex
	bytes  int64
	byKey  map[string]*list.Element
	recent list.List // of cached, newest first
}

type cached struct {
	key  string
	page *Page
}

func newPages(most int64) *pages {
	return &pages{most: most, byKey: make(map[string]*list.Element)}
}

func (ps *pages) get(key string) *Page {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	e, ok := ps.byKey[key]
	if !ok {
		return nil
	}
	ps.recent.MoveToFront(e)
	return e.Value.(cached).page
}

func (ps *pages) put(key string, page *Page) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if e, ok := ps.byKey[key]; ok {
		ps.removeLocked(e)
	}
	ps.byKey[key] = ps.recent.PushFront(cached{key, page})
	ps.bytes += page.bytes
	for ps.bytes > ps.most {
		ps.removeLocked(ps.recent.Back())
	}
}

func (ps *pages) removeLocked(e *list.Element) {
	c := ps.recent.Remove(e).(cached)
	delete(ps.byKey, c.key)
	ps.bytes -= c.page.bytes
}

// forget drops pages that nobody asked for in a while; called now and then, so
// that an idle node holds none.
func (ps *pages) forget() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for range len(ps.byKey)/8 + 1 {
		if e := ps.recent.Back(); e != nil {
			ps.removeLocked(e)
		}
	}
}
