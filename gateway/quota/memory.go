package quota

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// Watch measures the process's memory until ctx ends: it tells the budget
// when to shed, and sets the garbage collector's pace.
func (b *Budget) Watch(ctx context.Context, logger *slog.Logger) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var pace int
	for {
		used, live := memory()
		if p := gcPercent(live); p != pace {
			pace = p
			debug.SetGCPercent(p)
		}
		level := pressureOf(used, b.limits.Memory)
		if before := b.pressure.Swap(level); before != level {
			logger.Warn("memory pressure", "level", level, "was", before, "used", used, "limit", b.limits.Memory)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pressureOf compares memory in use with its limit, both in bytes.
func pressureOf(used, limit int64) int32 {
	switch {
	case limit <= 0:
		return calm
	case used >= limit*92/100:
		return shedPublish
	case used >= limit*85/100:
		return shedConnects
	}
	return calm
}

// memory returns what the process holds of the system's memory, what is not
// Go's included where the system tells, and what of Go's heap the last
// collection found alive.
func memory() (used, live int64) {
	samples := []runtimemetrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	runtimemetrics.Read(samples)
	used = int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
	return max(used, resident()), int64(samples[2].Value.Uint64())
}

// resident is the second field of /proc/self/statm, in pages; 0 if unknown.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// gcPercent: connections are many and live long, publishes make garbage
// quickly. A small heap may grow by 32 MiB before it is collected, so that
// publishing on an empty node doesn't collect a hundred times a second; a large
// one by 40 %, so that ten thousand idle connections cost little more than
// themselves. Steps, so that it seldom changes.
func gcPercent(live int64) int {
	const room = 32 << 20
	for _, percent := range []int{400, 200, 100, 70} {
		if live*int64(percent)/100 <= room {
			return percent
		}
	}
	return 40
}

// MemoryLimit is what the process should stay below: GOMEMLIMIT where that is
// set, else 80 % of the container's or the machine's memory; 0 if unknown.
func MemoryLimit() int64 {
	if _, ok := os.LookupEnv("GOMEMLIMIT"); ok {
		return debug.SetMemoryLimit(-1)
	}
	least := int64(0)
	for _, found := range []int64{cgroupLimit(), machineMemory()} {
		if found > 0 && (least == 0 || found < least) {
			least = found
		}
	}
	return least * 80 / 100
}

func cgroupLimit() int64 {
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			return n
		}
	}
	return 0
}

func machineMemory() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}
