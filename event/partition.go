package event

// Partition returns which of n partitions of a group an event belongs to, from
// 0 to n-1: that of its partitionkey, so that a key's events stay together,
// or, without one, that of source and id, which orders nothing.
//
// The hash is part of the protocol, so that a client can tell an event's
// partition by itself: 64-bit FNV-1a of the key's bytes, or of source, NUL and
// id, modulo n. n is at least 1.
func Partition(key, source, id string, n int) int {
	return int(PartitionHash(key, source, id) % uint64(n))
}

// PartitionHash is what Partition takes modulo n.
func PartitionHash(key, source, id string) uint64 {
	h := fnvOffset
	if key != "" {
		h = fnv1a(h, key)
	} else {
		h = fnv1a(h, source)
		h *= fnvPrime // NUL: exclusive or with 0 changes nothing
		h = fnv1a(h, id)
	}
	return h
}

// The parameters of 64-bit FNV-1a (draft-eastlake-fnv).
const (
	fnvOffset uint64 = 14695981039346656037
	fnvPrime  uint64 = 1099511628211
)

// fnv1a goes on with a hash; hash/fnv would allocate for each event.
func fnv1a(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}
