package session

import (
	"runtime"
	"strings"
	"sync"
	"weak"

	"github.com/longline-push/longline/event"
)

// Filter is a set of type patterns, compiled once and shared by all sessions
// that use the same ones. nil takes every event.
type Filter struct {
	text     string
	patterns []event.Pattern

	mu    sync.RWMutex
	known map[string]bool // what was matched before
}

// maxKnown bounds what a filter remembers; a channel has few types.
const maxKnown = 256

// Match tells whether an event of type typ is taken. typ is not kept.
func (f *Filter) Match(typ string) bool {
	if f == nil {
		return true
	}
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

// filters holds those in use.
type filters struct {
	mu     sync.Mutex
	byText map[string]weak.Pointer[Filter]
}

// get compiles a comma list of patterns, or returns the filter that has it.
func (fs *filters) get(list string) (*Filter, error) {
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

func (fs *filters) forget(list string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.byText[list].Value() == nil {
		delete(fs.byText, list)
	}
}
