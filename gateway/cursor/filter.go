package cursor

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/expr"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/wire"
)

// Selection says which events of a channel are wanted: those whose type one of
// the patterns takes, and for which the expression says yes.
type Selection struct {
	Types  string // comma list of patterns; "": all types
	Filter string // an expression over event (see package expr); "": all events
	Until  string // a position: of a channel that it names, no event beyond; "": no end
}

// Filter says which events a subscriber gets. It is compiled once and shared by
// all readers with the same Selection. nil takes every event. Its methods may
// be called by any goroutine.
type Filter struct {
	selection Selection
	patterns  []event.Pattern // none: all types
	where     *expr.Filter    // nil: no expression
	until     event.Position  // for readers, who know where it is in their logs
	filters   *Filters

	told atomic.Bool // that it was cut off

	mu    sync.RWMutex
	known map[string]bool // what the patterns said of types before

	// said remembers what the expression said of the latest events: number of
	// the item and the answer, at the number modulo the length.
	said *[64]atomic.Uint64
}

// maxKnown bounds what a filter remembers; a channel has few types.
const maxKnown = 256

// Match tells whether an event is taken, but for where the selection ends. An expression is evaluated once for
// all readers that are told of the event at about the same time; where it errs,
// the event is not taken.
func (f *Filter) Match(item *feed.Item) bool {
	if f == nil {
		return true
	}
	return (len(f.patterns) == 0 || f.takes(item.Type())) && (f.where == nil || f.says(item))
}

// takes tells whether events of type typ are taken. typ is not kept.
func (f *Filter) takes(typ string) bool {
	f.mu.RLock()
	match, ok := f.known[typ]
	f.mu.RUnlock()
	if ok {
		return match
	}
	for _, p := range f.patterns {
		if match = p.Match(typ); match {
			break
		}
	}
	f.mu.Lock()
	if len(f.known) < maxKnown {
		f.known[strings.Clone(typ)] = match
	}
	f.mu.Unlock()
	return match
}

// says asks the expression, or remembers what it said.
func (f *Filter) says(item *feed.Item) bool {
	number := item.Number()
	at := &f.said[number%uint64(len(f.said))]
	if said := at.Load(); said>>1 == number {
		return said&1 == 1
	}
	yes, err := f.where.Match(f.filters.decoded.of(item))
	if err != nil {
		f.filters.failed.Add(1)
		f.dear(item, err)
	}
	answer := number << 1
	if yes {
		answer |= 1
	}
	at.Store(answer)
	return yes
}

// dear tells of an expression that was stopped for what it cost.
func (f *Filter) dear(item *feed.Item, err error) {
	if !expr.TooDear(err) {
		return
	}
	if tell := f.filters.OnCutOff; tell != nil {
		tell(f.selection, item, !f.told.Swap(true))
	}
}

// Selection is what the filter was compiled of.
func (f *Filter) Selection() Selection {
	if f == nil {
		return Selection{}
	}
	return f.selection
}

// Filters holds those in use. The zero value is ready; its methods may be called
// by any goroutine.
type Filters struct {
	// OnCutOff is told where an expression was stopped for what it cost, with the
	// event it was asked about, which it doesn't take; first the first time. It must
	// not block. Set before use; nil: nobody is told.
	OnCutOff func(s Selection, item *feed.Item, first bool)

	decoded decoded
	failed  atomic.Int64

	mu   sync.Mutex
	used map[Selection]weak.Pointer[Filter]
}

// Get compiles a selection, or returns the filter that has it. The empty one is
// nil, which takes everything. The error is for the client, and names the place.
func (fs *Filters) Get(s Selection) (*Filter, error) {
	if s == (Selection{}) {
		return nil, nil
	}
	fs.mu.Lock()
	f := fs.used[s].Value()
	fs.mu.Unlock()
	if f != nil {
		return f, nil
	}
	fresh := &Filter{selection: s, filters: fs, known: make(map[string]bool)}
	var err error
	if s.Types != "" {
		if fresh.patterns, err = event.ParsePatterns(s.Types); err != nil {
			return nil, wire.BadRequest("types: %v", err)
		}
	}
	if s.Filter != "" {
		if fresh.where, err = expr.CompileFilter(s.Filter); err != nil {
			return nil, wire.BadRequest("filter: %v", err)
		}
		fresh.said = new([64]atomic.Uint64)
	}
	if fresh.until, err = event.ParsePosition(s.Until); err != nil {
		return nil, wire.BadRequest("until: %v", err)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.used[s].Value(); f != nil {
		return f, nil
	}
	if fs.used == nil {
		fs.used = make(map[Selection]weak.Pointer[Filter])
	}
	fs.used[s] = weak.Make(fresh)
	runtime.AddCleanup(fresh, fs.forget, s)
	return fresh, nil
}

// Failed is how often an expression erred, and so said no.
func (fs *Filters) Failed() int64 { return fs.failed.Load() }

func (fs *Filters) forget(s Selection) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.used[s].Value() == nil {
		delete(fs.used, s)
	}
}

// decoded keeps the latest events as expressions see them, so that an event is
// decoded once for all filters. Large ones, which would hold much memory, are
// decoded for each filter.
type decoded [64]atomic.Pointer[decodedEvent]

type decodedEvent struct {
	number uint64
	event  *expr.Event
}

const maxDecoded = 16 << 10 // bytes of an event that is kept

func (d *decoded) of(item *feed.Item) *expr.Event {
	text := item.JSON()
	if len(text) > maxDecoded {
		return expr.NewEvent(text)
	}
	at := &d[item.Number()%uint64(len(d))]
	if kept := at.Load(); kept != nil && kept.number == item.Number() {
		return kept.event
	}
	fresh := &decodedEvent{item.Number(), expr.NewEvent(text)}
	at.Store(fresh)
	return fresh.event
}
