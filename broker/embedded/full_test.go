package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
)

// fillUp is a process that may write files of at most 2 MiB. It appends until
// that is too little, is allowed more, and goes on.
func fillUp(dir string, fsync embedded.Fsync) error {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	small := syscall.Rlimit{Cur: 2 << 20, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	b, err := embedded.Open(embedded.Options{Dir: dir, Fsync: fsync})
	if err != nil {
		return err
	}
	ctx := context.Background()
	answered, err := appendUntilError(ctx, b)
	if !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("append with no room left: %w", err)
	}
	if _, err := b.Append(ctx, "full", entry("refused")); !errors.Is(err, broker.ErrUnavailable) {
		return fmt.Errorf("another append with no room left: %w", err)
	}
	if p, err := b.Read(ctx, "full", answered-1, broker.Limit{}); err != nil || len(p.Items) != 1 {
		return fmt.Errorf("reading with no room left: %d events, %w", len(p.Items), err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err := until(func() error { _, err := b.Append(ctx, "full", entry("again")); return err }); err != nil {
		return fmt.Errorf("append with room again: %w", err)
	}
	fmt.Println(answered)
	return b.Close()
}

// appendUntilError fills the channel "full" and returns the last offset that
// was answered.
func appendUntilError(ctx context.Context, b *embedded.Broker) (uint64, error) {
	answered := uint64(0)
	for range 100_000 {
		places, err := b.Append(ctx, "full", entry(fmt.Sprintf("%d %s", answered+1, strings.Repeat("x", 8000))))
		if err != nil {
			return answered, err
		}
		answered = places[0].Offset
	}
	return answered, errors.New("the disk took it all")
}

func entry(data string) []broker.Entry { return []broker.Entry{{Data: []byte(data)}} }

// until tries until there is no error, for at most 20 s.
func until(try func() error) error {
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

func wantFilled(t *testing.T, b *embedded.Broker, answered uint64) {
	t.Helper()
	log := readAll(t, b, "full")
	for offset := uint64(1); offset <= answered; offset++ {
		if !strings.HasPrefix(log[offset], fmt.Sprintf("%d x", offset)) {
			t.Fatalf("offset %d of %d that were answered holds %.20q", offset, answered, log[offset])
		}
	}
}

// A real lack of room, by the kernel's word: refused with a clear error, and
// mended by itself once there is room.
func TestFullDiskRecovers(t *testing.T) {
	for _, role := range []string{"fill-always", "fill-everysec"} {
		t.Run(role, func(t *testing.T) {
			dir := t.TempDir()
			out, err := child(t, role, dir).Output()
			if err != nil {
				t.Fatalf("the process that fills the disk: %v", err)
			}
			var answered uint64
			if _, err := fmt.Sscan(string(out), &answered); err != nil || answered < 50 {
				t.Fatalf("%q was answered: %v", out, err)
			}
			b := mustOpen(t, embedded.Options{Dir: dir, Logger: quiet(t)})
			wantFilled(t, b, answered)
			if log := readAll(t, b, "full"); log[uint64(len(log))] != "again" {
				t.Errorf("the log ends with %.20q", log[uint64(len(log))])
			}
		})
	}
}

// faults make the file system below the broker fail. All is kept in memory by
// the file system, which forgets at a crash what wasn't synced.
type faults struct {
	fs     vfs.FS
	mem    *vfs.MemFS
	inject atomic.Pointer[fault]
}

// fault is what fails: operations on files whose names hold a text.
type fault struct {
	file string
	ops  []errorfs.OpKind
	err  error
}

var (
	writing = []errorfs.OpKind{errorfs.OpFileWrite}
	syncing = []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData}
)

func newFaults() *faults {
	f := &faults{mem: vfs.NewCrashableMem()}
	f.fs = errorfs.Wrap(f.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if now := f.inject.Load(); now != nil && strings.Contains(op.Path, now.file) && slices.Contains(now.ops, op.Kind) {
			return now.err
		}
		return nil
	}))
	return f
}

func (f *faults) open(t *testing.T, fs vfs.FS, fsync embedded.Fsync) *embedded.Broker {
	t.Helper()
	b, err := embedded.Open(embedded.WithFS(embedded.Options{Dir: "data", Fsync: fsync, Logger: quiet(t)}, fs))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return b
}

// What was answered with FsyncAlways outlives a lost machine, what was not
// synced doesn't; with FsyncEverySecond the log goes on as a fork.
func TestLostMachine(t *testing.T) {
	for name, fsync := range map[string]embedded.Fsync{"always": embedded.FsyncAlways, "everysec": embedded.FsyncEverySecond} {
		t.Run(name, func(t *testing.T) {
			f := newFaults()
			b := f.open(t, f.fs, fsync)
			for i := range 50 {
				if _, err := b.Append(t.Context(), "a", entry(fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			old, err := b.State(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			u := broker.Update{Name: "crm", Generation: 1, Record: []byte("r"), Due: broker.Never, Durable: true}
			if err := b.Store(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			left := f.mem.CrashClone(vfs.CrashCloneCfg{})
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}

			b = f.open(t, left, fsync)
			defer b.Close()
			kept := broker.State{}
			if s, err := b.State(t.Context(), "a"); err == nil {
				kept = s
			} else if fsync == embedded.FsyncAlways || !errors.Is(err, broker.ErrNotFound) {
				t.Fatal(err)
			}
			if fsync == embedded.FsyncAlways && kept.Head != 50 {
				t.Fatalf("%d events are left of 50 that were answered", kept.Head)
			}
			if s, err := b.Load(t.Context(), "crm"); fsync == embedded.FsyncAlways && (err != nil || s.Version == 0) {
				t.Errorf("the subscription is %+v, %v", s, err)
			}
			places, err := b.Append(t.Context(), "a", entry("after"))
			if err != nil {
				t.Fatal(err)
			}
			if places[0].Epoch == old.Epoch {
				t.Errorf("the epoch is %s still", old.Epoch)
			}
		})
	}
}

// A disk that fails for good is said so once and for all; what was answered is
// there after a restart.
func TestFailedDisk(t *testing.T) {
	for name, fail := range map[string]fault{
		"writes to the log": {".log", writing, syscall.EIO},
		"syncs of the log":  {".log", syncing, syscall.EIO},
		"writes to tables":  {".sst", writing, syscall.EIO},
		"syncs of tables":   {".sst", syncing, syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaults()
			b := f.open(t, f.fs, embedded.FsyncAlways)
			if _, err := b.Append(t.Context(), "full", entry("1 x")); err != nil {
				t.Fatal(err)
			}
			f.inject.Store(&fail)
			answered, err := appendUntilError(t.Context(), b)
			if !errors.Is(err, broker.ErrUnavailable) {
				t.Fatalf("append to a failed disk: %v", err)
			}
			answered = max(answered, 1)
			_, err = b.Append(t.Context(), "full", entry("lost"))
			if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "restart is needed") {
				t.Errorf("append to a failed disk: %v, want that a restart is needed", err)
			}
			<-b.Broken()
			if err := b.Err(); !errors.Is(err, fail.err) {
				t.Errorf("broken by %v, want %v", err, fail.err)
			}
			// The one that got the error may be there or not.
			if s, err := b.State(t.Context(), "full"); err == nil && s.Head != answered && s.Head != answered+1 {
				t.Errorf("head is %d, answered was %d", s.Head, answered)
			}
			if err := b.Close(); !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("closing a failed broker: %v", err)
			}

			b = f.open(t, f.mem.CrashClone(vfs.CrashCloneCfg{}), embedded.FsyncAlways)
			defer b.Close()
			if got := uint64(len(readAll(t, b, "full"))); got < answered {
				t.Errorf("%d events are left of %d that were answered", got, answered)
			}
		})
	}
}

// Descriptors that are gone for a while are no reason to give up for good.
func TestNoFileCanBeMadeForAWhile(t *testing.T) {
	for _, name := range []string{".sst", ".log"} {
		t.Run(name, func(t *testing.T) {
			f := newFaults()
			b := f.open(t, f.fs, embedded.FsyncEverySecond)
			defer b.Close()
			f.inject.Store(&fault{name, []errorfs.OpKind{errorfs.OpCreate, errorfs.OpReuseForWrite}, syscall.EMFILE})
			answered, err := appendUntilError(t.Context(), b)
			if !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, syscall.EMFILE) {
				t.Fatalf("append without a file to be had: %v", err)
			}
			f.inject.Store(nil)
			if err := until(func() error { _, err := b.Append(t.Context(), "full", entry("again")); return err }); err != nil {
				t.Fatalf("append with files to be had again: %v", err)
			}
			wantFilled(t, b, answered)
		})
	}
}

// Closing doesn't wait for room that never comes.
func TestCloseWithFullDisk(t *testing.T) {
	f := newFaults()
	b := f.open(t, f.fs, embedded.FsyncEverySecond)
	if _, err := b.Append(t.Context(), "full", entry("1 x")); err != nil {
		t.Fatal(err)
	}
	f.inject.Store(&fault{".log", writing, syscall.ENOSPC})
	if _, err := b.Append(t.Context(), "full", entry("lost")); !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("append to a full disk: %v", err)
	}
	if err := b.Close(); err == nil {
		t.Error("closing with a full disk said that all was well")
	}
	f.inject.Store(nil)
	b = f.open(t, f.fs, embedded.FsyncEverySecond)
	defer b.Close()
	wantFilled(t, b, 1)
}

func TestTooLittleRoom(t *testing.T) {
	b := mustOpen(t, embedded.Options{Dir: t.TempDir(), MinFree: 1 << 62, Logger: quiet(t)})
	_, err := b.Append(t.Context(), "a", entry("x"))
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "MiB of disk are left") {
		t.Errorf("append with less room than wanted: %v", err)
	}
}

// A log whose end was torn off in the middle of a write opens with what was
// whole.
func TestTornWrite(t *testing.T) {
	dir := t.TempDir()
	o := embedded.Options{Dir: dir, Logger: quiet(t)}
	b := mustOpen(t, o)
	for i := range 20 {
		if _, err := b.Append(t.Context(), "full", entry(fmt.Sprintf("%d x", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(t.TempDir(), "left")
	if err := b.Snapshot(left); err != nil {
		t.Fatal(err)
	}
	logs, err := os.ReadDir(left)
	if err != nil {
		t.Fatal(err)
	}
	torn := 0
	for _, log := range logs {
		if !strings.HasSuffix(log.Name(), ".log") {
			continue
		}
		path := left + "/" + log.Name()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		end := strings.LastIndex(string(data), "20 x")
		if end < 0 {
			continue
		}
		torn++
		if err := os.Truncate(path, int64(end+1)); err != nil {
			t.Fatal(err)
		}
	}
	if torn != 1 {
		t.Fatalf("%d logs hold the last event", torn)
	}
	o.Dir = left
	b = mustOpen(t, o)
	wantFilled(t, b, 19)
	if log := readAll(t, b, "full"); len(log) != 19 {
		t.Errorf("%d events are left, want the 19 that are whole", len(log))
	}
	if _, err := b.Append(t.Context(), "full", entry("20 x")); err != nil {
		t.Fatal(err)
	}
	wantFilled(t, b, 20)
}
