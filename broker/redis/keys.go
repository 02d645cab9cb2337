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

// bucketOf is FNV-1a, folded, of a name or, for a partition's, of its
// subscription's.
func bucketOf(name string) int {
	h := uint32(2166136261)
	for i := 0; i < len(name) && name[i] != '/'; i++ {
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

// logKeys are meta, log, changed, counter, names, waiting, woken and moves: what
// scripts want that change a log.
func (k *keyspace) logKeys(b int, channel string) []string {
	return []string{k.meta(b, channel), k.log(b, channel), k.changed(b), k.counter(b), k.names(b), k.waiting(b), k.woken(b), k.moves(b)}
}

// waiting is a sorted set of who waits for a bucket's channels, in byte order,
// woken one of those channels that changed, moves a hash of what they are at.
func (k *keyspace) waiting(b int) string { return k.tags[b] + "waiting" }
func (k *keyspace) woken(b int) string   { return k.tags[b] + "woken" }
func (k *keyspace) moves(b int) string   { return k.tags[b] + "moves" }

// janitor is who applies retention to a bucket, trimmed the sequence up to which
// it saw to what changed, repaired the term for which it was seen to that nothing
// of this bucket is forgotten.
func (k *keyspace) janitor(b int) string  { return k.tags[b] + "janitor" }
func (k *keyspace) trimmed(b int) string  { return k.tags[b] + "trimmed" }
func (k *keyspace) repaired(b int) string { return k.tags[b] + "repaired" }

// visits is a sorted set of a bucket's channels by when retention has something
// to do for them though nothing is appended, bytes what its logs hold, backlogs
// a sorted set of channels by what they keep by need alone.
func (k *keyspace) visits(b int) string   { return k.tags[b] + "visits" }
func (k *keyspace) bytes(b int) string    { return k.tags[b] + "bytes" }
func (k *keyspace) backlogs(b int) string { return k.tags[b] + "backlogs" }

// following is a hash of the subscriptions that follow a channel, with the
// version that began to.
func (k *keyspace) following(b int, channel string) string { return k.tags[b] + "f:" + channel }

// due is a sorted set of subscriptions, by when they are due.
func (k *keyspace) due(b int) string { return k.tags[b] + "due" }

// dueTopic is where it is told that something became due.
func (k *keyspace) dueTopic(b int) string { return k.topics[b] + "!due" }

// subscription is the hash of a subscription's record and what goes with it.
func (k *keyspace) subscription(b int, name string) string { return k.tags[b] + "s:" + name }

// position is the hash of a subscription's generation and cursors.
func (k *keyspace) position(b int, name string) string { return k.tags[b] + "p:" + name }

// letters are a sorted set and a hash of a subscription's dead letters.
func (k *keyspace) letters(b int, name string) (order, texts string) {
	return k.tags[b] + "d:" + name, k.tags[b] + "t:" + name
}

// redriven is a set of those of them that are to be delivered again.
func (k *keyspace) redriven(b int, name string) string { return k.tags[b] + "y:" + name }

// attempts is a list of what a subscription's callback tried.
func (k *keyspace) attempts(b int, name string) string { return k.tags[b] + "a:" + name }

// note is what an owner wants others to see.
func (k *keyspace) note(b int, name string) string { return k.tags[b] + "o:" + name }

// subscriptions is a sorted set of a bucket's subscriptions, in byte order.
func (k *keyspace) subscriptions(b int) string { return k.tags[b] + "subscriptions" }

// versions is the greatest version of a bucket's subscriptions that are gone.
func (k *keyspace) versions(b int) string { return k.tags[b] + "versions" }

// owned is a sorted set of a bucket's subscriptions that are owned: node, a zero
// byte and name, in byte order.
func (k *keyspace) owned(b int) string { return k.tags[b] + "owned" }

// created is a sorted set of a bucket's subscriptions that somebody created, in
// byte order.
func (k *keyspace) created(b int, creator string) string { return k.tags[b] + "b:" + creator }

// format is the version of what a bucket's keys hold.
func (k *keyspace) format(b int) string { return k.tags[b] + "format" }

// leaseBuckets are the three buckets that each keep all nodes and leases. Their
// slots lie a third of all slots apart, so that in a cluster whose slots are
// spread as usual they are on three masters.
func (k *keyspace) leaseBuckets() (list [copies]int) {
	for i := range list {
		ideal, best := (2*i+1)*slots/(2*copies), slots
		for b, tag := range k.tags {
			if d := max(slotOf(tag)-ideal, ideal-slotOf(tag)); d < best {
				list[i], best = b, d
			}
		}
	}
	return list
}

// nodes and leases are a hash of all nodes and a sorted set of when they end.
func (k *keyspace) nodes(b int) (nodes, leases string) {
	return k.tags[b] + "nodes", k.tags[b] + "leases"
}

// signals is the topic of what is sent to a node, "" for all.
func (k *keyspace) signals(node string) (b int, topic string) {
	b = bucketOf(node)
	return b, k.topics[b] + "!to:" + node
}
