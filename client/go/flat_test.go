package longline

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// A handler that never ends costs a window, for however long the gateway goes
// on offering more: connections come and go, what is held stays what it is.
func TestMemoryIsFlatUnderAHandlerThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 256
		f := &supply{window: window, last: 1 << 30}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		sub := attachTo(t, f, SubscriptionOptions{Concurrency: 8, Handler: func(ctx context.Context, _ Event) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		ended := make(chan error, 1)
		go func() { ended <- sub.Run(ctx) }()
		held := func() (jobs int, heap uint64) {
			synctest.Wait()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			sub.dispatcher.mu.Lock()
			defer sub.dispatcher.mu.Unlock()
			return len(sub.dispatcher.jobs), m.HeapAlloc
		}
		time.Sleep(time.Minute)
		_, before := held()
		for range 15 {
			time.Sleep(time.Minute)
			if jobs, _ := held(); jobs > 2*window {
				t.Fatalf("%d events are held, want no more than two windows of %d", jobs, window)
			}
		}
		if _, after := held(); after > before+1<<20 {
			t.Errorf("the heap grew from %d to %d bytes within a quarter of an hour", before, after)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
