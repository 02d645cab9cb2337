package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/internal/process"
)

// seen is what the workers printed: who had a contact last, and which numbers
// of it came.
type seen struct {
	mu      sync.Mutex
	by      map[string]string
	numbers map[string]map[int]bool
	fresh   chan struct{}
}

func (s *seen) line(text string) {
	var contact string
	var number int
	worker, rest, _ := strings.Cut(text, ": ")
	if _, err := fmt.Sscanf(rest, "%s %d", &contact, &number); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[contact] = worker; s.numbers[contact] == nil {
		s.numbers[contact] = make(map[int]bool)
	}
	s.numbers[contact][number] = true
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}

// until waits until ok holds of what was printed.
func (s *seen) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.After(20 * time.Second); ; {
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-s.fresh:
		case <-late:
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("not seen: %s; contacts are with %v, came %v", what, s.by, s.numbers)
		}
	}
}

func TestOneOfThreeIsKilled(t *testing.T) {
	dir := t.TempDir()
	worker := filepath.Join(dir, "three-workers")
	if out, err := exec.Command("go", "build", "-o", worker, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the example: %v: %s", err, out)
	}
	binary, err := process.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	said := new(bytes.Buffer)
	gateway, err := process.New(binary, said, "--broker", "embedded:"+filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.Start(t.Context()); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	t.Cleanup(gateway.Kill)
	token, err := auth.Mint([]byte(process.Secret), auth.Mintage{Subject: "example", Admin: true, TTL: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}

	s := &seen{by: make(map[string]string), numbers: make(map[string]map[int]bool), fresh: make(chan struct{}, 1)}
	start := func(name string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(worker, name)
		cmd.Env = append(os.Environ(), "LONGLINE_URL="+gateway.URL, "LONGLINE_TOKEN="+token)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var reads sync.WaitGroup
		reads.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				s.line(lines.Text())
			}
		})
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // an error means that it has ended
			reads.Wait()
			_ = cmd.Wait()
		})
		return cmd
	}
	processes := make(map[string]*exec.Cmd)
	for _, name := range []string{"anna", "bela", "carla"} {
		processes[name] = start(name)
	}
	start("publish")
	workers := func() map[string]int {
		have := make(map[string]int)
		for _, name := range s.by {
			have[name]++
		}
		return have
	}
	s.until(t, "all three have contacts", func() bool { return len(s.by) == 12 && len(workers()) == 3 })

	s.mu.Lock()
	victim := s.by["contact-0@example.com"]
	s.mu.Unlock()
	if err := processes[victim].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	after := make(map[string]int)
	s.until(t, "the killed one's contacts go on elsewhere", func() bool {
		if have := workers(); have[victim] > 0 || len(have) != 2 {
			return false
		}
		more := true
		for contact, numbers := range s.numbers {
			if after[contact] == 0 {
				after[contact] = len(numbers)
			}
			more = more && len(numbers) > after[contact]
		}
		return more
	})
	start(victim)
	s.until(t, "it has contacts again, and no number is missing", func() bool {
		whole := true
		for _, numbers := range s.numbers {
			low, high := math.MaxInt, 0
			for n := range numbers {
				low, high = min(low, n), max(high, n)
			}
			whole = whole && low == 0 && len(numbers) == high+1
		}
		return whole && workers()[victim] > 0
	})
}
