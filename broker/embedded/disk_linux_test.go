package embedded

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// told is a file that counts the writes it is told of.
type told struct {
	vfs.File
	w      *os.File
	writes int
}

func (f *told) Fd() uintptr { return f.w.Fd() }

func (f *told) Write(p []byte) (int, error) {
	f.writes++
	return f.w.Write(p)
}

// A pipe stands for a disk that may be slow: it takes no more than fits.
func TestLogWritesAreHiddenUntilOneIsSlow(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// A process of its own: a hidden write may hold the only processor.
	out := filepath.Join(t.TempDir(), "out")
	slow := exec.Command("sh", "-c", "sleep 0.05; exec cat >"+out)
	slow.Stdin = r
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	d, f := newDisk(vfs.Default, true, nil), &told{w: w}
	var want strings.Builder
	write := func(text string) {
		t.Helper()
		want.WriteString(text)
		if n, err := d.write(f, []byte(text)); n != len(text) || err != nil {
			t.Fatalf("wrote %d of %d bytes: %v", n, len(text), err)
		}
	}
	write("quick, ")
	if f.writes != 0 {
		t.Error("a quick write was told of")
	}
	write(strings.Repeat("slow, ", 100_000)) // more than a pipe holds
	if f.writes != 0 {
		t.Error("the first slow write was told of")
	}
	write("ordinary")
	if f.writes != 1 {
		t.Errorf("%d writes were told of after a slow one, want 1", f.writes)
	}
	w.Close()
	if err := slow.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != want.String() {
		t.Errorf("%d bytes were read (%v), not the %d that were written", len(got), err, want.Len())
	}
}
