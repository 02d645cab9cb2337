package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
)

// unpack makes a data directory of a backup.
func unpack(t *testing.T, backup []byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	if err := embedded.Unpack(bytes.NewReader(backup[:len(backup)/2]), dir); err == nil {
		t.Error("half a backup was taken for a whole one")
	}
	if err := embedded.Unpack(bytes.NewReader(backup), dir); err != nil {
		t.Fatal(err)
	}
	if err := embedded.Unpack(bytes.NewReader(backup), dir); err == nil {
		t.Error("a backup was unpacked over data that is there")
	}
	return dir
}

func openIn(t *testing.T, dir string, fsync embedded.Fsync) *embedded.Broker {
	t.Helper()
	b, err := embedded.Open(embedded.Options{Dir: dir, Fsync: fsync})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func mustAppend(t *testing.T, b *embedded.Broker, channel, id string) broker.Appended {
	t.Helper()
	done, err := b.Append(t.Context(), channel, []broker.Entry{{Data: []byte(`{"id":"` + id + `"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	return done[0]
}

// TestBackupWhileItRuns: a copy made under load holds all that was answered
// before, starts, and is another log from there on: an offset of it never
// means an event of the original.
func TestBackupWhileItRuns(t *testing.T) {
	for name, fsync := range map[string]embedded.Fsync{"always": embedded.FsyncAlways, "everysec": embedded.FsyncEverySecond} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := openIn(t, dir, fsync)
			for i := range 50 {
				mustAppend(t, b, "c", fmt.Sprint("before-", i))
			}
			ctx, stop := context.WithCancel(t.Context())
			var load sync.WaitGroup
			for n := range 4 {
				load.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						b.Append(ctx, "c", []broker.Entry{{Data: []byte(fmt.Sprintf(`{"id":"%d-%d"}`, n, i))}})
					}
				})
			}
			answered := mustAppend(t, b, "c", "answered")
			var backup bytes.Buffer
			if err := b.Backup(t.Context(), &backup); err != nil {
				t.Fatal(err)
			}
			stop()
			load.Wait()
			if left, _ := filepath.Glob(filepath.Join(dir, "backup-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}

			restored := unpack(t, backup.Bytes())
			report, err := embedded.Check(t.Context(), restored)
			if err != nil || len(report.Damaged) > 0 || report.Events < 51 || report.Channels != 1 || !report.Restored || report.Format != embedded.Format {
				t.Errorf("check: %v, %+v", err, report)
			}
			original, err := b.State(t.Context(), "c")
			if err != nil {
				t.Fatal(err)
			}
			r := openIn(t, restored, fsync)
			info, err := r.State(t.Context(), "c")
			if err != nil || info.Head < answered.Offset || info.Head > original.Head {
				t.Fatalf("head %d (%v), want at least the answered %d and at most %d", info.Head, err, answered.Offset, original.Head)
			}
			if after := mustAppend(t, r, "c", "after"); after.Epoch == answered.Epoch {
				t.Errorf("the copy goes on in epoch %s, in which the original goes on too", after.Epoch)
			}
			// Only the first start is one on a backup.
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if report, err = embedded.Check(t.Context(), restored); err != nil || report.Restored {
				t.Errorf("after a start: %v, %+v", err, report)
			}
		})
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	if _, err := embedded.Check(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := embedded.Check(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "no data of a gateway") {
		t.Errorf("empty: %v", err)
	}
	dir := t.TempDir()
	b := openIn(t, dir, embedded.FsyncAlways)
	for i := range 200 {
		mustAppend(t, b, "c", strings.Repeat("x", 4000)+fmt.Sprint(i))
	}
	if _, err := embedded.Check(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "a gateway uses it") {
		t.Errorf("in use: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := embedded.Check(t.Context(), dir); err != nil || len(r.Damaged) > 0 || r.Events != 200 {
		t.Errorf("whole: %v, %+v", err, r)
	}
}

// TestFormats: a directory of a newer longline is refused with one line, one of
// before there were versions is taken.
func TestFormats(t *testing.T) {
	dir := t.TempDir()
	b := openIn(t, dir, embedded.FsyncAlways)
	mustAppend(t, b, "c", "1")
	written := func(format uint64) {
		t.Helper()
		if err := errors.Join(b.SetFormat(format), b.Close()); err != nil {
			t.Fatal(err)
		}
	}
	written(0)
	b = openIn(t, dir, embedded.FsyncAlways)
	if after := mustAppend(t, b, "c", "2"); after.Offset != 2 {
		t.Errorf("the old log was at 1, the next event is %d", after.Offset)
	}
	written(embedded.Format + 1)
	_, err := embedded.Open(embedded.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "a newer longline wrote") || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want one line that says what to do", err)
	}
	if r, err := embedded.Check(t.Context(), dir); err != nil || r.Format != embedded.Format+1 {
		t.Errorf("check: %v, %+v", err, r)
	}
}
