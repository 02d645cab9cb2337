// Package measure holds what a run of the load tester finds out: times,
// histograms, the cost of processes, time series, and the results kept from
// them.
package measure

import (
	"time"

	"golang.org/x/sys/unix"
)

var (
	start     = time.Now()
	startMono = monotonic()
)

func monotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return start.UnixNano()
	}
	return ts.Nano()
}

// Now is the machine's monotonic clock in nanoseconds: the same in every
// process, so that one may stamp an event and another take its age, and never
// set back.
func Now() int64 { return startMono + int64(time.Since(start)) }
