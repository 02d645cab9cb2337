package longline

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// rarely tells of trouble at once and then, while it goes on, once a minute
// for each kind, with how often it happened in between. Safe for concurrent
// use.
type rarely struct {
	log *slog.Logger

	mu    sync.Mutex
	since map[string]time.Time // by message, when it was told
	more  map[string]int       // how often it was not
}

const tellEvery = time.Minute

func newRarely(log *slog.Logger) *rarely {
	return &rarely{log: log, since: make(map[string]time.Time), more: make(map[string]int)}
}

func (r *rarely) warn(message string, about ...any) {
	now := time.Now()
	r.mu.Lock()
	if last, told := r.since[message]; told && now.Sub(last) < tellEvery {
		r.more[message]++
		r.mu.Unlock()
		return
	}
	more := r.more[message]
	r.since[message], r.more[message] = now, 0
	r.mu.Unlock()
	if more > 0 {
		about = append(about, "more", more)
	}
	r.log.Warn(message, about...)
}

// warnings is a logger's handler, from warnings on: what is told where nobody
// set a logger.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(name string) slog.Handler   { return warnings{w.Handler.WithGroup(name)} }
