package event_test

import (
	"hash/fnv"
	"testing"

	"github.com/longline-push/longline/event"
)

// TestPartitionsAreTheProtocols holds the hash to the standard library's, and
// to values that clients in other languages are held to as well.
func TestPartitionsAreTheProtocols(t *testing.T) {
	for _, tt := range []struct {
		key, source, id string
		n, want         int
	}{
		{key: "alice@example.com", n: 16, want: 6},
		{key: "bob@example.com", n: 16, want: 9},
		{key: "Zoë", n: 256, want: 188},
		{source: "/mailshots/42", id: "7", n: 16, want: 4},
		{key: "anything", n: 1, want: 0},
	} {
		h := fnv.New64a()
		if tt.key != "" {
			h.Write([]byte(tt.key))
		} else {
			h.Write([]byte(tt.source + "\x00" + tt.id))
		}
		if std := int(h.Sum64() % uint64(tt.n)); std != tt.want {
			t.Errorf("the standard library says %d for %+v", std, tt)
		}
		if got := event.Partition(tt.key, tt.source, tt.id, tt.n); got != tt.want {
			t.Errorf("Partition(%+v) = %d", tt, got)
		}
	}
}
