package gateway_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/gateway"
)

// TestAnOutageIsAFewLines: a hundred requests a second meet it, for ten seconds.
func TestAnOutageIsAFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		may := gateway.Complaints()
		var lines []int64
		for range 1000 {
			if more, ok := may(); ok {
				lines = append(lines, more)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if got, want := fmt.Sprint(lines), "[0 0 0 0 0 95 99 99 99 99 99 99 99 99]"; got != want {
			t.Errorf("left out before each line: got %s, want %s", got, want)
		}
	})
}
