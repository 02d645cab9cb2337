package durable

import "slices"

// Assign shares a group's partitions out among its members. members are their
// names in the order in which they joined, each once; previous names the member
// that has each partition, "" for none. The result names the next one of each:
// it is a function of its arguments alone, so every node comes to the same.
//
// The counts of any two members differ by one at most, and no more partitions
// change hands than that asks for. Where there are more members than
// partitions, those without one stand by. Without members nobody has any.
func Assign(members, previous []string) []string {
	next := make([]string, len(previous))
	if len(members) == 0 || len(previous) == 0 {
		return next
	}
	has := make(map[string]int, len(members))
	for _, m := range members {
		has[m] = 0
	}
	for _, m := range previous {
		if _, ok := has[m]; ok {
			has[m]++
		}
	}

	// Who has most keeps one more than the rest where they don't divide evenly:
	// taking it away would move it for nothing.
	order := slices.Clone(members)
	slices.SortStableFunc(order, func(a, b string) int { return has[b] - has[a] })
	share := make(map[string]int, len(members))
	for i, m := range order {
		if share[m] = len(previous) / len(members); i < len(previous)%len(members) {
			share[m]++
		}
	}

	for p, m := range previous {
		if share[m] > 0 {
			next[p] = m
			share[m]--
		}
	}
	giving := order
	for p := range next {
		if next[p] != "" {
			continue
		}
		for share[giving[0]] == 0 {
			giving = giving[1:]
		}
		next[p] = giving[0]
		share[giving[0]]--
	}
	return next
}
