package redis

import "fmt"

// buckets is into how many parts channels and subscriptions are divided, each
// in one slot of a cluster. It is part of the data's shape: never changed.
const buckets = 256

// keyspace makes the names of keys. All keys of a bucket share its tag.
type keyspace struct {
	tags   [buckets]string
	topics [buckets]string
}

func newKeyspace(prefix string, db int) *keyspace {
	k := &keyspace{}
	for i := range k.tags {
		k.tags[i] = fmt.Sprintf("{%s%02x}", prefix, i)
		// Pub/sub knows no databases, so a topic names its own.
		k.topics[i] = fmt.Sprintf("%sa%d:", k.tags[i], db)
	}
	return k
}

// bucketOf is FNV-1a, folded.
func bucketOf(name string) int {
	h := uint32(2166136261)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return int((h ^ h>>8 ^ h>>16 ^ h>>24) % buckets)
}

// meta is the hash that says where a channel's log stands.
func (k *keyspace) meta(b int, channel string) string { return k.tags[b] + "m:" + channel }

// log is the stream of a channel's events.
func (k *keyspace) log(b int, channel string) string { return k.tags[b] + "l:" + channel }

// ids are the two hashes that take turns to remember a channel's identities.
func (k *keyspace) ids(b int, channel string) [2]string {
	return [2]string{k.tags[b] + "i0:" + channel, k.tags[b] + "i1:" + channel}
}

// changed is a sorted set of a bucket's channels by when they last changed.
func (k *keyspace) changed(b int) string { return k.tags[b] + "changed" }

// counter counts the changes of a bucket.
func (k *keyspace) counter(b int) string { return k.tags[b] + "count" }

// names is a sorted set of a bucket's existing channels, in byte order.
func (k *keyspace) names(b int) string { return k.tags[b] + "names" }

// topic is the pub/sub channel that announces what is appended to a channel.
func (k *keyspace) topic(b int, channel string) string { return k.topics[b] + channel }

// logKeys are meta, log, changed, counter and names: what most scripts want.
func (k *keyspace) logKeys(b int, channel string) []string {
	return []string{k.meta(b, channel), k.log(b, channel), k.changed(b), k.counter(b), k.names(b)}
}
