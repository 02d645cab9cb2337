package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
)

// childRole names, in the environment, what this test binary does instead of
// running tests.
const childRole = "LONGLINE_TEST_CHILD"

// beChild does what the environment asks for, if it does, and never returns
// then.
func beChild() {
	role, dir, _ := strings.Cut(os.Getenv(childRole), ":")
	var err error
	switch role {
	case "":
		return
	case "append-always":
		err = appendForever(dir, embedded.FsyncAlways)
	case "append-everysec":
		err = appendForever(dir, embedded.FsyncEverySecond)
	case "acknowledge-always":
		err = acknowledgeForever(dir, embedded.FsyncAlways)
	case "acknowledge-everysec":
		err = acknowledgeForever(dir, embedded.FsyncEverySecond)
	case "fill-always":
		err = fillUp(dir, embedded.FsyncAlways)
	case "fill-everysec":
		err = fillUp(dir, embedded.FsyncEverySecond)
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childRole+"="+role+":"+dir)
	cmd.Stderr = t.Output()
	return cmd
}

// appendForever appends as fast as it can and prints what was answered, one
// line each.
func appendForever(dir string, fsync embedded.Fsync) error {
	b, err := embedded.Open(embedded.Options{Dir: dir, Fsync: fsync})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for a := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				channel := fmt.Sprintf("kill.%d", (a+n)%3)
				entries := make([]broker.Entry, 1+n%3)
				for i := range entries {
					data := fmt.Sprintf("%d/%d/%d/%d", os.Getpid(), a, n, i)
					entries[i] = broker.Entry{Identity: data, Data: []byte(data)}
				}
				places, err := b.Append(context.Background(), channel, entries)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				var lines strings.Builder
				for i, p := range places {
					fmt.Fprintf(&lines, "%s %s %d %s\n", channel, p.Epoch, p.Offset, entries[i].Data)
				}
				os.Stdout.WriteString(lines.String())
			}
		})
	}
	wg.Wait()
	return nil
}

type deaf struct{}

func (deaf) Announce(broker.Announcement) {}

func TestKilledProcessLosesNothingAlways(t *testing.T) {
	testKills(t, embedded.FsyncAlways, "append-always")
}

func TestKilledProcessLosesNothingEverySecond(t *testing.T) {
	testKills(t, embedded.FsyncEverySecond, "append-everysec")
}

type answer struct {
	channel, epoch string
	offset         uint64
	data           string
}

// A process is killed twenty times while it appends. Whatever it had answered
// is there each time, where it said, and the logs have no holes.
func testKills(t *testing.T, fsync embedded.Fsync, role string) {
	dir := t.TempDir()
	var answers []answer
	for round := range 20 {
		answers = append(answers, appendUntilKilled(t, role, dir)...)
		checkAnswers(t, round, embedded.Options{Dir: dir, Fsync: fsync, Logger: quiet(t)}, answers)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d answers over 20 kills", len(answers))
}

func appendUntilKilled(t *testing.T, role, dir string) []answer {
	t.Helper()
	cmd := child(t, role, dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var answers []answer
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill == nil {
			kill = time.AfterFunc(time.Duration(rand.IntN(60_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		}
		var a answer
		if n, _ := fmt.Sscanf(lines.Text(), "%s %s %d %s", &a.channel, &a.epoch, &a.offset, &a.data); n == 4 {
			answers = append(answers, a)
		}
	}
	_ = cmd.Wait()
	if kill == nil {
		t.Fatal("the appender ended before it was killed")
	}
	return answers
}

func checkAnswers(t *testing.T, round int, o embedded.Options, answers []answer) {
	t.Helper()
	b := mustOpen(t, o)
	states := map[string]broker.State{}
	logs := map[string]map[uint64]string{}
	for _, a := range answers {
		s, ok := states[a.channel]
		if !ok {
			var err error
			if s, err = b.State(t.Context(), a.channel); err != nil {
				t.Fatalf("round %d: %s was answered: %v", round, a.channel, err)
			}
			states[a.channel], logs[a.channel] = s, readAll(t, b, a.channel)
		}
		offset, place := s.Locate(a.epoch, a.offset)
		if place != broker.Here || offset != a.offset {
			t.Fatalf("round %d: answered cursor %s@%s-%d is at %d (%v) of %+v", round, a.channel, a.epoch, a.offset, offset, place, s)
		}
		if got := logs[a.channel][a.offset]; a.offset > 0 && got != a.data {
			t.Fatalf("round %d: %s %d holds %q, answered was %q", round, a.channel, a.offset, got, a.data)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// readAll returns a log's events by offset and checks that it has no holes.
func readAll(t *testing.T, b *embedded.Broker, channel string) map[uint64]string {
	t.Helper()
	log := map[uint64]string{}
	for offset := uint64(0); ; {
		p, err := b.Read(t.Context(), channel, offset, broker.Limit{})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Items) == 0 {
			if offset != p.State.Head {
				t.Fatalf("%s ends at %d, its head is %d", channel, offset, p.State.Head)
			}
			return log
		}
		for _, item := range p.Items {
			if item.Offset != offset+1 {
				t.Fatalf("%s has a hole before %d", channel, item.Offset)
			}
			offset = item.Offset
			log[offset] = string(item.Data)
		}
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "longline-data")
	cmd := child(t, "append-always", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the appender appended nothing")
	}
	b, err := embedded.Open(embedded.Options{Dir: dir, Logger: quiet(t)})
	if err == nil {
		_ = b.Close()
	}
	_ = cmd.Process.Kill()
	for lines.Scan() {
	}
	_ = cmd.Wait()
	if err == nil || !strings.Contains(err.Error(), dir+" is in use by another process") {
		t.Errorf("opening a directory in use: %v", err)
	}
	mustOpen(t, embedded.Options{Dir: dir, Logger: quiet(t)})
}

func TestSameProcessIsRefused(t *testing.T) {
	o := embedded.Options{Dir: t.TempDir(), Logger: quiet(t)}
	mustOpen(t, o)
	if b, err := embedded.Open(o); err == nil {
		_ = b.Close()
		t.Fatal("one directory was opened twice")
	} else if !strings.Contains(err.Error(), "in use") {
		t.Errorf("opening a directory in use: %v", err)
	}
}

func quiet(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}
