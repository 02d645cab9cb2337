package brokertest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/longline-push/longline/broker"
)

func createdBySomebody(t *testing.T, b Durable) {
	for i := range 4 {
		mustStore(t, b, broker.Update{Name: fmt.Sprint("s", i), Generation: 1, Creator: "ann", Node: "one", Due: broker.Never})
	}
	mustStore(t, b, broker.Update{Name: "s4", Generation: 1, Creator: "bob", Due: broker.Never})
	mustStore(t, b, broker.Update{Name: "s5", Generation: 1, Due: broker.Never})
	mustReplace(t, b, broker.Update{Name: "s0", Generation: 2, Creator: "ann", Due: broker.Never}) // another owner
	mustDelete(t, b, "s1")
	mustStore(t, b, broker.Update{Name: "s1", Generation: 3, Creator: "bob", Due: broker.Never}) // made anew by another
	wantCreated(t, b, map[string][]string{"ann": {"s0", "s2", "s3"}, "bob": {"s1", "s4"}, "an": nil, "one": nil, "s": nil})

	// Partitions are nobody's creation, and take nothing along when they go.
	divide := func() {
		for p := range 3 {
			mustStore(t, b, broker.Update{Name: fmt.Sprint("s2/", p), Generation: uint64(10 + p), Creator: "ann", Node: "one", Due: broker.Never})
		}
	}
	divide()
	wantCreated(t, b, map[string][]string{"ann": {"s0", "s2", "s3"}})
	mustReplace(t, b, broker.Update{Name: "s2", Generation: 4, Creator: "ann", Undivided: true, Due: broker.Never})
	wantCreated(t, b, map[string][]string{"ann": {"s0", "s2", "s3"}})
	divide()
	mustDelete(t, b, "s2")
	mustReplace(t, b, broker.Update{Name: "s3", Generation: 4, Due: broker.Never}) // given up
	wantCreated(t, b, map[string][]string{"ann": {"s0"}, "bob": {"s1", "s4"}})
}

func mustDelete(t *testing.T, b Durable, name string) {
	t.Helper()
	if err := b.Delete(t.Context(), name, mustLoad(t, b, name).Version); err != nil {
		t.Fatal(err)
	}
}

func wantCreated(t *testing.T, b Durable, want map[string][]string) {
	t.Helper()
	for _, creator := range slices.Sorted(maps.Keys(want)) {
		if got := mustCreated(t, b, creator); !slices.Equal(got, want[creator]) {
			t.Errorf("created by %s: got %q, want %q", creator, got, want[creator])
		}
	}
}

// mustCreated is all that somebody created, read by twos.
func mustCreated(t *testing.T, b Durable, creator string) (names []string) {
	t.Helper()
	for after := ""; ; {
		page, err := b.Created(t.Context(), creator, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		names = append(names, page...)
		after = page[len(page)-1]
	}
	slices.Sort(names)
	return names
}
