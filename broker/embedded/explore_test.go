package embedded_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
)

var deep = flag.Bool("deep", false, "explore every point at which the file system may fail (minutes)")

// life is a script, what it begins with, and what is to be there after each of
// its steps, as a run without a fault had it.
type life struct {
	fsync  embedded.Fsync
	start  *vfs.MemFS
	steps  []step
	states []string // [0]: once opened
	points int
	end    *vfs.MemFS // as a killed process leaves it
}

var whole = vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}

// live runs a script without a fault, and notes what it does.
func live(t *testing.T, fsync embedded.Fsync, start *vfs.MemFS, steps []step) *life {
	t.Helper()
	l := &life{fsync: fsync, start: start, steps: steps}
	p := newPoints(start.CrashClone(whole), func(int, string, string) error { return nil })
	a := &actor{t: t, ctx: t.Context()}
	if err := a.open(p, fsync); err != nil {
		t.Fatal(err)
	}
	note := func(after string) {
		t.Helper()
		state, err := describe(t.Context(), a.b)
		if err != nil {
			t.Fatalf("%s: %v", after, err)
		}
		l.states = append(l.states, state)
	}
	note("open")
	for _, s := range steps {
		if err := s.do(a); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		note(s.name)
	}
	l.end = p.mem.CrashClone(whole)
	if err := a.b.Close(); err != nil {
		t.Fatal(err)
	}
	l.points = p.count()
	return l
}

// take does the i-th step, and notes how far the script is.
func (l *life) take(a *actor, i int) error {
	a.mu.Lock()
	a.begun = i + 1
	a.mu.Unlock()
	if err := l.steps[i].do(a); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := l.steps[i].keeps
	if kept >= process {
		a.process = i + 1
	}
	if kept == synced || kept == machine && l.fsync == embedded.FsyncAlways {
		a.machine = i + 1
	}
	return nil
}

// wantSound opens what a crash left: it is what was there after one of the steps
// from to to, and good to go on with.
func (l *life) wantSound(t *testing.T, where string, left *vfs.MemFS, from, to int) {
	t.Helper()
	a := &actor{t: t, ctx: t.Context()}
	if err := a.open(left, l.fsync); err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	state, err := describe(t.Context(), a.b)
	if err != nil {
		t.Errorf("%s: %v", where, err)
	} else if i := slices.Index(l.states[from:to+1], state); i < 0 {
		t.Errorf("%s: is there\n%s\nwant what was there after one of steps %d to %d:\n%s", where, state, from, to, strings.Join(l.states[from:to+1], "or\n"))
	}
	l.wantGoesOn(t, where, a)
	if err := a.b.Close(); err != nil {
		t.Errorf("%s: close: %v", where, err)
	}
	if r, err := embedded.CheckFS(t.Context(), left, "srv/longline/data"); err != nil || len(r.Damaged) > 0 {
		t.Errorf("%s: %+v, %v", where, r, err)
	}
}

// wantGoesOn appends in another epoch, and asks for all that is due.
func (l *life) wantGoesOn(t *testing.T, where string, a *actor) {
	t.Helper()
	old, err := a.b.State(t.Context(), "a")
	if err != nil && !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("%s: %v", where, err)
	}
	places, err := a.b.Append(t.Context(), "a", entry("after"))
	if err != nil || places[0].Offset != old.Head+1 || places[0].Epoch == old.Epoch {
		t.Errorf("%s: append: %+v, %v, after %+v", where, places, err, old)
	}
	due, _, err := a.b.Waiting()
	if err == nil {
		_, err = a.b.Work(1)
	}
	if err != nil {
		t.Errorf("%s: %v", where, err)
	}
	tickets, _, err := a.b.Due(t.Context(), nil, 100, 0)
	for _, name := range due {
		if err != nil || !slices.ContainsFunc(tickets, func(t broker.Ticket) bool { return t.Name == name }) {
			t.Errorf("%s: due are %q, handed out %v, %v", where, due, tickets, err)
		}
	}
}

// crashes stops the world at points: the machine is lost with all or some of what
// wasn't synced, or only the process is.
func (l *life) crashes(t *testing.T, every, first int) (tried int) {
	type crash struct {
		where string
		left  *vfs.MemFS
		from  int
		to    int
	}
	var crashes []crash
	a := &actor{t: t, ctx: t.Context()}
	var p *points
	p = newPoints(l.start.CrashClone(whole), func(n int, op, file string) error {
		if n%every != first%every {
			return nil
		}
		a.mu.Lock()
		at := a.progress
		a.mu.Unlock()
		where := fmt.Sprintf("point %d, %s %s, in step %d: ", n, op, file, at.begun)
		some := vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, uint64(n)))}
		crashes = append(crashes,
			crash{where + "killed", p.mem.CrashClone(whole), max(at.process, at.machine), at.begun},
			crash{where + "lost", p.mem.CrashClone(vfs.CrashCloneCfg{}), at.machine, at.begun},
			crash{where + "torn", p.mem.CrashClone(some), at.machine, at.begun})
		return nil
	})
	if err := a.open(p, l.fsync); err != nil {
		t.Fatal(err)
	}
	for i, s := range l.steps {
		if err := l.take(a, i); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	if err := a.b.Close(); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range crashes {
		l.wantSound(t, c.where, c.left, c.from, c.to)
		if t.Failed() {
			break
		}
	}
	return len(crashes)
}

// fails runs the script on a disk that fails from a point on, many times. The
// broker says so once and goes on, or says so from there on.
func (l *life) fails(t *testing.T, first, many int, with syscall.Errno) {
	where := fmt.Sprintf("%v from point %d on, %d times", with, first, many)
	p := newPoints(l.start.CrashClone(whole), faulty(first, many, with))
	a := &actor{t: t, ctx: t.Context()}
	if err := a.open(p, l.fsync); err != nil {
		l.wantSound(t, where+", at the start", p.mem.CrashClone(vfs.CrashCloneCfg{}), 0, 0)
		return
	}
	for i, s := range l.steps {
		err := l.take(a, i)
		if err == nil && s.keeps != nothing && isBroken(a.b) {
			// It may have been answered just before.
			err = s.do(a)
		}
		if err == nil {
			continue
		}
		if isBroken(a.b) {
			l.wantRefused(t, where+", "+s.name, a.b)
			break
		}
		if err := until(func() error {
			if err := l.take(a, i); !isBroken(a.b) {
				return err
			}
			return nil
		}); isBroken(a.b) {
			l.wantRefused(t, where+", "+s.name, a.b)
			break
		} else if err != nil {
			t.Errorf("%s: %s failed, and again: %v", where, s.name, err)
			break
		}
	}
	broken := isBroken(a.b)
	if err := a.b.Close(); (err != nil) != (broken || isBroken(a.b)) {
		t.Errorf("%s: closing: %v; broken by %v", where, err, a.b.Err())
	}
	cfg, from := vfs.CrashCloneCfg{}, a.machine
	if l.fsync == embedded.FsyncEverySecond {
		cfg, from = whole, max(a.machine, a.process)
	}
	l.wantSound(t, where, p.mem.CrashClone(cfg), from, a.begun)
}

func isBroken(b *embedded.Broker) bool {
	select {
	case <-b.Broken():
		return true
	default:
		return false
	}
}

// wantRefused wants one clear error for all that a broken broker is asked to do.
func (l *life) wantRefused(t *testing.T, where string, b *embedded.Broker) {
	t.Helper()
	a := &actor{t: t, ctx: t.Context(), b: b}
	for _, s := range l.steps {
		if s.keeps == nothing {
			continue
		}
		if err := s.do(a); err == nil && (s.name == "drop b" || s.name == "delete soon") {
			continue // it may be gone already
		} else if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "restart is needed") {
			t.Errorf("%s: %s: %v, want that a restart is needed", where, s.name, err)
		}
	}
}

// Whatever moment the machine or the process is lost at, and whichever operation
// of the file system fails, what was answered is there, in order.
func TestEveryPoint(t *testing.T) {
	points := func(l *life, few int) (every int) {
		if *deep {
			return 1
		}
		return max(1, l.points/few)
	}
	for name, fsync := range map[string]embedded.Fsync{"always": embedded.FsyncAlways, "everysec": embedded.FsyncEverySecond} {
		first := live(t, fsync, vfs.NewCrashableMem(), firstLife)
		second := live(t, fsync, first.end, secondLife)
		for which, l := range map[string]*life{"first": first, "second": second} {
			t.Run("crash/"+name+"/"+which, func(t *testing.T) {
				n := l.crashes(t, points(l, 10), 1)
				t.Logf("%d crashes at %d points", n, l.points)
			})
			for what, fault := range map[string]struct {
				many int
				err  syscall.Errno
			}{"once": {1, syscall.EIO}, "for good": {1 << 30, syscall.EIO}, "full": {3, syscall.ENOSPC}} {
				t.Run("fail/"+name+"/"+which+"/"+what, func(t *testing.T) {
					n := 0
					for at := 1; at <= l.points && !t.Failed(); at += points(l, 4) {
						l.fails(t, at, fault.many, fault.err)
						n++
					}
					t.Logf("%d of %d points failed", n, l.points)
				})
			}
		}
	}
}
