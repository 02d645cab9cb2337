package durable_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/durable"
)

// TestAssignment tells how partitions move as members come and go.
func TestAssignment(t *testing.T) {
	for _, tt := range []struct{ story, members, previous, want string }{
		{"nobody is there", "", "- - - -", "- - - -"},
		{"the first gets all", "a", "- - - -", "a a a a"},
		{"the second takes half, the first keeps its lowest", "a b", "a a a a", "a a b b"},
		{"the third takes one", "a b c", "a a b b", "a a b c"},
		{"who leaves gives to the rest, who keep theirs", "b c", "a a b c", "b c b c"},
		{"a fifth of five stands by for four", "a b c d e", "a b c d", "a b c d"},
		{"and moves up", "a c d e", "a b c d", "a e c d"},
		{"all are new", "x y", "a b c d", "x x y y"},
		{"who has more keeps the odd one", "a b", "a b b", "a b b"},
		{"one partition", "a b", "a", "a"},
	} {
		fields := func(s string) []string {
			f := strings.Fields(s)
			for i := range f {
				if f[i] == "-" {
					f[i] = ""
				}
			}
			return f
		}
		if got := durable.Assign(fields(tt.members), fields(tt.previous)); !slices.Equal(got, fields(tt.want)) {
			t.Errorf("%s: Assign(%s; %s) = %q, want %s", tt.story, tt.members, tt.previous, got, tt.want)
		}
	}
}

// FuzzAssign: balanced within one, nobody who isn't there, the fewest moves,
// and nothing moves when nothing changed.
func FuzzAssign(f *testing.F) {
	f.Add(uint8(3), uint16(0b1011), []byte{0, 1, 2, 0, 1, 9})
	f.Add(uint8(16), uint16(0xffff), []byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, of uint8, there uint16, had []byte) {
		previous := make([]string, of)
		name := func(i int) string { return string(rune('a' + i)) }
		for p := range previous {
			if p < len(had) && had[p] < 20 { // some of whom are gone
				previous[p] = name(int(had[p]))
			}
		}
		var members []string
		for i := range 16 {
			if there&(1<<i) != 0 {
				members = append(members, name(i))
			}
		}
		next := durable.Assign(members, previous)
		if len(next) != len(previous) {
			t.Fatalf("%d partitions became %d", len(previous), len(next))
		}
		counts, before, moved := map[string]int{}, map[string]int{}, 0
		for p, m := range next {
			if (m == "") != (len(members) == 0) || m != "" && !slices.Contains(members, m) {
				t.Fatalf("partition %d went to %q of %q", p, m, members)
			}
			counts[m]++
			before[previous[p]]++
			if m != previous[p] {
				moved++
			}
		}
		if len(members) == 0 {
			return
		}
		least, rest := len(next)/len(members), len(next)%len(members)
		var have []int
		for _, m := range members {
			if c := counts[m]; c < least || c > least+1 {
				t.Fatalf("%q has %d of %d among %d", m, c, len(next), len(members))
			}
			have = append(have, before[m])
		}
		// At best each member keeps what it had up to its share, and the larger
		// shares are with those who had most.
		slices.SortFunc(have, func(a, b int) int { return b - a })
		kept := 0
		for i, n := range have {
			share := least
			if i < rest {
				share++
			}
			kept += min(n, share)
		}
		if moved != len(next)-kept {
			t.Fatalf("%d moved, %d would do: %q to %q", moved, len(next)-kept, previous, next)
		}
		if again := durable.Assign(members, next); !slices.Equal(again, next) {
			t.Fatalf("%q is not at rest: %q", next, again)
		}
	})
}
