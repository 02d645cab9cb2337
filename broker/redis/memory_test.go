package redis_test

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
)

// What an event of 300 bytes takes of Redis's memory, with everything that
// belongs to it, on a server with default settings: the figures of
// docs/adr/0002-redis-log.md.
func TestMemoryPerEvent(t *testing.T) {
	const events, size, together = 60_000, 300, 30
	for _, test := range []struct {
		channels   int
		identities bool
		most       float64 // times the event's own bytes
	}{
		{1, false, 1.6}, {100, false, 1.6}, {2000, false, 1.6},
		{1, true, 2.2}, {100, true, 2.2}, {2000, true, 2.2},
	} {
		t.Run(fmt.Sprintf("channels=%d,identities=%t", test.channels, test.identities), func(t *testing.T) {
			s := redistest.Start(t)
			b := mustOpen(t, s.URL(), redis.Options{})
			before := dataset(t, s)
			entries := make([]broker.Entry, together)
			for i := 0; i < events; i += together {
				for j := range entries {
					entries[j].Data = make([]byte, size)
					_, _ = rand.Read(entries[j].Data)
					if test.identities {
						entries[j].Identity = "/mailshots/42 " + strconv.Itoa(i+j)
					}
				}
				if _, err := b.Append(t.Context(), fmt.Sprintf("acct-%d", i/together%test.channels), entries); err != nil {
					t.Fatal(err)
				}
			}
			got := float64(dataset(t, s)-before) / events / size
			t.Logf("%.2f bytes per byte", got)
			if got > test.most {
				t.Errorf("an event of %d bytes takes %.2f times as much, want at most %.1f", size, got, test.most)
			}
		})
	}
}

func dataset(t testing.TB, s *redistest.Server) int {
	t.Helper()
	for line := range strings.Lines(fmt.Sprint(s.Do("INFO", "memory"))) {
		if value, ok := strings.CutPrefix(line, "used_memory_dataset:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("redis does not tell its used_memory_dataset")
	return 0
}
