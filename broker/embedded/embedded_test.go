package embedded_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/brokertest"
	"github.com/longline-push/longline/broker/embedded"
)

func TestMain(m *testing.M) {
	beChild()
	// A store that failed is left as it is, for the process to take down.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/longline-push/longline/broker/embedded.(*Broker).orBroken.func1"))
}

func TestBrokerFsyncAlways(t *testing.T)      { brokertest.Run(t, harness(embedded.FsyncAlways)) }
func TestBrokerFsyncEverySecond(t *testing.T) { brokertest.Run(t, harness(embedded.FsyncEverySecond)) }

func TestSubscriptions(t *testing.T) {
	for name, fsync := range map[string]embedded.Fsync{"always": embedded.FsyncAlways, "everysec": embedded.FsyncEverySecond} {
		t.Run(name, func(t *testing.T) {
			brokertest.TestSubscriptions(t, func(t *testing.T) brokertest.Durable {
				return mustOpen(t, embedded.Options{Dir: t.TempDir(), Fsync: fsync, Logger: quiet(t)})
			})
		})
	}
}

// harness loses a machine by going on with a copy of the data of a broker that is
// in use: one that didn't end in order.
func harness(fsync embedded.Fsync) brokertest.New {
	return func(t testing.TB, opt broker.Options) brokertest.Harness {
		o := embedded.Options{Options: opt, Dir: t.TempDir(), Fsync: fsync, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
		b := mustOpen(t, o)
		h := brokertest.Harness{Broker: b, Trim: func(ctx context.Context) error { return b.Trim(ctx) }}
		h.Reopen = func(t testing.TB) brokertest.Broker {
			t.Helper()
			if err := b.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
			b = mustOpen(t, o)
			return b
		}
		h.Lose = func(t testing.TB) brokertest.Broker {
			t.Helper()
			dir := filepath.Join(t.TempDir(), "left")
			if err := b.Snapshot(dir); err != nil {
				t.Fatalf("copy the data: %v", err)
			}
			if err := b.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
			o.Dir = dir
			b = mustOpen(t, o)
			return b
		}
		return h
	}
}

func mustOpen(t testing.TB, o embedded.Options) *embedded.Broker {
	t.Helper()
	b, err := embedded.Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func BenchmarkFsyncAlways(b *testing.B)      { brokertest.Bench(b, harness(embedded.FsyncAlways)) }
func BenchmarkFsyncEverySecond(b *testing.B) { brokertest.Bench(b, harness(embedded.FsyncEverySecond)) }
