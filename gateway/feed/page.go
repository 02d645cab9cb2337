package feed

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Page is a stretch of the log for those who are behind the ring, as one read
// of it found it. It is shared and immutable.
type Page struct {
	State   broker.State
	Items   []*Item // contiguous
	bytes   int64
	corrupt bool // some of Items are placeholders
}

// After returns the page's items after offset, and how many events follow
// them that can't be read.
func (p *Page) After(offset uint64) (items []*Item, unreadable uint64) {
	if len(p.Items) == 0 || p.Items[len(p.Items)-1].Offset <= offset {
		return nil, 0
	}
	items = p.Items
	if first := items[0].Offset; offset >= first {
		items = items[offset-first+1:]
	}
	if p.corrupt {
		for i, item := range items {
			if item.Corrupt() {
				return items[:i], corrupt(items[i:])
			}
		}
	}
	return items, 0
}

// Next is the offset of the first event that the log had after offset, as far
// as the page proves it: what lies between is gone, and for good. It is 0 if
// the page says nothing about it.
func (p *Page) Next(offset uint64) uint64 {
	switch n := len(p.Items); {
	case n > 0 && p.Items[n-1].Offset > offset:
		return max(p.Items[0].Offset, offset+1)
	case n == 0 && p.State.Head > offset:
		return p.State.Head + 1
	}
	return 0
}

// proves tells whether the page answers what follows offset of epoch whenever
// it was read. If it was only cut short before that, it returns where.
func (p *Page) proves(epoch string, offset uint64) (proof bool, cut uint64) {
	if p.State.Epoch != epoch {
		_, place := p.State.Locate(epoch, offset)
		return place != broker.Unknown, 0
	}
	if n := len(p.Items); n > 0 && p.Items[n-1].Offset <= offset && p.Items[n-1].Offset < p.State.Head {
		return false, p.Items[n-1].Offset
	}
	return p.Next(offset) > 0, 0
}

// pageEvents is how many events a page holds. Pages begin at its multiples, so
// that clients who left at different events read the same pages.
const pageEvents = 256

// Page returns the page of the log that tells what follows offset of epoch.
// Those who ask for the same page at once share one read, those who come soon
// after find it in a cache. A page that says nothing of what follows, neither
// by its items nor by Next nor by an epoch that followed, is of a read that
// began after the call: so the log has nothing there, or isn't that log.
func (f *Feed) Page(ctx context.Context, epoch string, offset uint64) (*Page, error) {
	at := event.Cursor{Channel: f.channel, Epoch: epoch, Offset: offset - offset%pageEvents}
	for joined := false; ; {
		page, fresh, err := f.page(ctx, at, offset)
		if err != nil {
			if errors.Is(err, broker.ErrNotFound) {
				f.suspect()
			}
			return nil, err
		}
		switch proof, cut := page.proves(epoch, offset); {
		case proof:
			return page, nil
		case cut > at.Offset: // by its bytes
			at.Offset, joined = cut, false
		case fresh || joined:
			return page, nil
		default:
			joined = true // that read had begun before; the next one hasn't
		}
	}
}

// page returns the page that begins after the cursor. A cached one is good if
// it proves something of what follows offset. fresh: it was read for this call.
func (f *Feed) page(ctx context.Context, start event.Cursor, offset uint64) (page *Page, fresh bool, _ error) {
	pages, key := f.feeds.pages, start.String()
	if page := pages.get(key); page != nil {
		if proof, cut := page.proves(start.Epoch, offset); proof || cut > start.Offset {
			return page, false, nil
		}
	}
	ran := false // written before the answer comes
	loaded := pages.loading.DoChan(key, func() (any, error) {
		ran = true
		return f.load(start)
	})
	select {
	case r := <-loaded:
		if r.Err != nil {
			return nil, false, r.Err
		}
		return r.Val.(*Page), ran, nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// errPanicked is what those get whose shared read panicked.
var errPanicked = errors.New("reading the log panicked")

// load reads the page after a cursor. It is shared by many, so it ends with
// the feeds and not with who came first.
func (f *Feed) load(start event.Cursor) (_ *Page, err error) {
	defer f.feeds.opts.Guard.Contain("page", func() { err = errPanicked })
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
		item := f.item(read.State.Epoch, stored)
		page.Items = append(page.Items, item)
		page.bytes += int64(item.Size())
		page.corrupt = page.corrupt || item.Corrupt()
	}
	if read.State.Epoch == start.Epoch {
		f.feeds.pages.put(start.String(), page)
	}
	return page, nil
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
