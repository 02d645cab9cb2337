// Package durabletest runs managers of durable subscriptions on a real broker,
// for tests. What is started here ends after all that the test started later.
package durabletest

import (
	"context"
	"sync"
	"testing"

	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/gateway/durable"
)

// Open opens a broker in a directory of its own.
func Open(t testing.TB) *embedded.Broker {
	t.Helper()
	b, err := embedded.Open(embedded.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Run runs a manager, and returns once it is ready.
func Run(t testing.TB, o durable.Options) *durable.Manager {
	t.Helper()
	manager := durable.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { manager.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-manager.Ready()
	return manager
}
