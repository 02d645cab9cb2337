package cursor

import (
	"runtime"
	"strings"
	"sync"
	"weak"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/feed"
)

// Filter says which events a subscriber gets. It is compiled once and shared by
// all readers that use the same one: today a set of type patterns. nil takes
// every event. Its methods may be called by any goroutine.
type Filter struct {
	text     string
	patterns []event.Pattern

	mu    sync.RWMutex
	known map[string]bool // what was matched before
}

// maxKnown bounds what a filter remembers; a channel has few types.
const maxKnown = 256

// Match tells whether an event is taken.
func (f *Filter) Match(item *feed.Item) bool { return f == nil || f.takes(item.Type()) }

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

// String returns the patterns as a comma list.
func (f *Filter) String() string {
	if f == nil {
		return ""
	}
	return f.text
}

// Filters holds those in use. The zero value is ready; its methods may be called
// by any goroutine.
type Filters struct {
	mu     sync.Mutex
	byText map[string]weak.Pointer[Filter]
}

// Get compiles a comma list of patterns, or returns the filter that has it. The
// empty list is nil, which takes everything.
func (fs *Filters) Get(list string) (*Filter, error) {
	if list == "" {
		return nil, nil
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byText[list].Value(); f != nil {
		return f, nil
	}
	patterns, err := event.ParsePatterns(list)
	if err != nil {
		return nil, err
	}
	if fs.byText == nil {
		fs.byText = make(map[string]weak.Pointer[Filter])
	}
	f := &Filter{text: list, patterns: patterns, known: make(map[string]bool)}
	fs.byText[list] = weak.Make(f)
	runtime.AddCleanup(f, fs.forget, list)
	return f, nil
}

func (fs *Filters) forget(list string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.byText[list].Value() == nil {
		delete(fs.byText, list)
	}
}
