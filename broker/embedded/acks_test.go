package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/event"
)

// A copy of the data is put back after more was appended: what is appended then
// is not to be taken for what was forgotten.
func TestRestoredCopy(t *testing.T) {
	for name, fsync := range map[string]embedded.Fsync{"always": embedded.FsyncAlways, "everysec": embedded.FsyncEverySecond} {
		t.Run(name, func(t *testing.T) {
			dir, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
			open := func() *embedded.Broker {
				return mustOpen(t, embedded.Options{Dir: dir, Fsync: fsync, Logger: quiet(t)})
			}
			b := open()
			mustPlace(t, b, "e1")
			mustPlace(t, b, "e2")
			if err := errors.Join(b.Close(), os.CopyFS(copied, os.DirFS(dir))); err != nil {
				t.Fatal(err)
			}
			b = open()
			forgotten := mustPlace(t, b, "e3")
			if err := errors.Join(b.Close(), os.RemoveAll(dir), os.Rename(copied, dir)); err != nil {
				t.Fatal(err)
			}
			b = open()
			got := mustPlace(t, b, "another e3")
			if got.Offset != 3 || got.Epoch == forgotten.Epoch {
				t.Errorf("put in place of %+v at %+v, want offset 3 of another epoch", forgotten, got)
			}
		})
	}
}

func mustPlace(t *testing.T, b *embedded.Broker, data string) broker.Appended {
	t.Helper()
	places, err := b.Append(t.Context(), "a", entry(data))
	if err != nil {
		t.Fatal(err)
	}
	return places[0]
}

// acknowledgeForever moves positions as fast as it can, and prints what was
// answered and what Load showed, one line each.
func acknowledgeForever(dir string, fsync embedded.Fsync) error {
	b, err := embedded.Open(embedded.Options{Dir: dir, Fsync: fsync})
	if err != nil {
		return err
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	for a := range 4 {
		name := fmt.Sprint("s", a)
		if err := b.Store(ctx, broker.Update{Name: name, Generation: 7, Due: broker.Never, Durable: true}); err != nil {
			return err
		}
		wg.Go(func() {
			for n := uint64(1); ; n++ {
				to := event.Position{{Channel: "a", Epoch: "e", Offset: n}}
				move := broker.Move{Name: name, Generation: 7, Position: to, Durable: n%16 == 0}
				if _, err := b.Advance(ctx, []broker.Move{move}); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Printf("%s %d\n", name, n)
			}
		})
		wg.Go(func() {
			for {
				s, err := b.Load(ctx, name)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				if c, ok := s.Position.Of("a"); ok {
					fmt.Printf("%s %d\n", name, c.Offset)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// A process is killed: what it answered or showed as acknowledged stays so.
func TestKilledProcessKeepsAcks(t *testing.T) {
	for role, fsync := range map[string]embedded.Fsync{"acknowledge-always": embedded.FsyncAlways, "acknowledge-everysec": embedded.FsyncEverySecond} {
		t.Run(role, func(t *testing.T) {
			dir := t.TempDir()
			cmd := child(t, role, dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			told := make(map[string]uint64)
			lines := bufio.NewScanner(out)
			for n := 0; lines.Scan(); n++ {
				if n >= 5000 && len(told) == 4 {
					_ = cmd.Process.Kill()
				}
				var name string
				var offset uint64
				if _, err := fmt.Sscanf(lines.Text(), "%s %d", &name, &offset); err != nil {
					continue // cut short
				}
				told[name] = max(told[name], offset)
			}
			_ = cmd.Wait()
			b := mustOpen(t, embedded.Options{Dir: dir, Fsync: fsync, Logger: quiet(t)})
			for name, want := range told {
				s, err := b.Load(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				if c, _ := s.Position.Of("a"); c.Offset < want {
					t.Errorf("%s: %d was told to be acknowledged, %d is left", name, want, c.Offset)
				}
			}
		})
	}
}
