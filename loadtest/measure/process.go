package measure

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a server's processes have used or hold at one moment.
type Usage struct {
	At  int64         // Now
	CPU time.Duration // user and system, since they started
	RSS int64         // bytes resident
	FDs int           // open descriptors
}

// Processes are the ones whose cost is counted as the server's: the gateway
// and, on request, its broker.
type Processes []int

// ErrNoProcess says that one of the processes is gone or was never there.
var ErrNoProcess = errors.New("no such process")

// Sample adds up what the processes use.
func (ps Processes) Sample() (Usage, error) {
	u := Usage{At: Now()}
	for _, pid := range ps {
		cpu, err := cpuTime(pid)
		if err != nil {
			return u, err
		}
		rss, err := resident(pid)
		if err != nil {
			return u, err
		}
		u.CPU += cpu
		u.RSS += rss
		// Reading another user's descriptors may be forbidden: then they read 0.
		if names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
			u.FDs += len(names)
		}
	}
	return u, nil
}

// CPU adds up the processes' user and system time.
func (ps Processes) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range ps {
		d, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// cpuTime reads the process's CPU clock: utime+stime of /proc/<pid>/stat, of
// ended threads too, but in nanoseconds instead of ticks of 10 ms. The clock's
// id is made from the pid as clock_getcpuclockid(3) does.
func cpuTime(pid int) (time.Duration, error) {
	const scheduler = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &ts); err == nil {
		return time.Duration(ts.Nano()), nil
	}
	return cpuTicks(pid)
}

// cpuTicks is the fallback where the CPU clock can't be read.
func cpuTicks(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU of process %d: %w", pid, ErrNoProcess)
	}
	// The name, in parentheses, may itself hold spaces: fields count after it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read CPU of process %d: unknown form of stat", pid)
	}
	utime, err1 := strconv.ParseInt(fields[11], 10, 64)
	stime, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("read CPU of process %d: %w", pid, err)
	}
	const tick = time.Second / 100 // USER_HZ, the same on every Linux that Go runs on
	return time.Duration(utime+stime) * tick, nil
}

// resident reads the exact Rss of smaps_rollup; VmRSS of status, which the
// kernel keeps per CPU and rounds, where that may not be read.
func resident(pid int) (int64, error) {
	for _, from := range []struct{ file, key string }{{"smaps_rollup", "Rss:"}, {"status", "VmRSS:"}} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, from.file))
		if err != nil {
			continue
		}
		sc := bufio.NewScanner(bytes.NewReader(b))
		for sc.Scan() {
			if rest, ok := strings.CutPrefix(sc.Text(), from.key); ok {
				kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
				if err != nil {
					return 0, fmt.Errorf("read RSS of process %d: %w", pid, err)
				}
				return kb << 10, nil
			}
		}
	}
	return 0, fmt.Errorf("read RSS of process %d: %w", pid, ErrNoProcess)
}
