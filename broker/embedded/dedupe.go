package embedded

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// dedupe remembers identities for a window of time. They are kept on the disk
// in buckets of a quarter of the window, each of which is dropped as a whole.
// A filter per bucket says for nearly all new identities, without looking
// there, that they are new. What was there at the start has no filter; as it
// doesn't change any more, appenders look it up themselves, outside the
// committer, while it is within the window.
//
// But for identify and old, all is called by the committer.
type dedupe struct {
	db      *pebble.DB
	window  int64 // milliseconds
	width   int64 // of a bucket
	started int64 // bucket of the start; -1 if nothing was there

	now    int64
	recent map[recentKey]uint64 // offsets of this batch
	filter []bucketFilter
}

type recentKey struct {
	log  uint64
	hash [16]byte
}

// identity is an entry's, if it is set.
type identity struct {
	hash [16]byte
	set  bool
	twin int    // an earlier entry of the same append with the same one, or -1
	old  uint64 // the offset it has from before the start, or 0,
	log  uint64 // in this log
}

const bucketsPerWindow = 4

func newDedupe(db *pebble.DB, window time.Duration, now time.Time, existing bool) *dedupe {
	d := &dedupe{db: db, window: window.Milliseconds(), started: -1, recent: make(map[recentKey]uint64)}
	d.width = max(1, d.window/bucketsPerWindow)
	if existing {
		d.started = d.bucket(now.UnixMilli())
	}
	return d
}

func (d *dedupe) bucket(ms int64) int64 { return ms / d.width }

// identify appends the identities of entries to ids.
func (d *dedupe) identify(ids []identity, entries []broker.Entry) []identity {
	var first map[[16]byte]int
	if len(entries) > 1 {
		first = make(map[[16]byte]int, len(entries))
	}
	for i := range entries {
		id := identity{twin: -1}
		if text := entries[i].Identity; text != "" {
			sum := sha256.Sum256([]byte(text))
			copy(id.hash[:], sum[:])
			id.set = true
			if twin, ok := first[id.hash]; ok {
				id.twin = twin
			} else if first != nil {
				first[id.hash] = i
			}
		}
		ids = append(ids, id)
	}
	return ids
}

// lookBack finds the entries' offsets of before the start.
func (b *Broker) lookBack(r *request) error {
	now := b.opt.Now().UnixMilli()
	oldest := b.dedupe.bucket(now - b.dedupe.window)
	if oldest > b.dedupe.started {
		return nil
	}
	r.shard.mu.Lock()
	log := r.channel.log
	r.shard.mu.Unlock()
	if log == 0 {
		return nil
	}
	for i := range r.ids {
		id := &r.ids[i]
		if !id.set || id.twin >= 0 {
			continue
		}
		offset, err := b.dedupe.stored(log, id.hash, b.dedupe.started, oldest, now)
		if err != nil {
			return err
		}
		id.old, id.log = offset, log
	}
	return nil
}

// stored looks into buckets from newest to oldest and returns 0 for not found.
func (d *dedupe) stored(log uint64, hash [16]byte, newest, oldest, now int64) (uint64, error) {
	var key [1 + 4 + 8 + 16]byte
	for bucket := newest; bucket >= oldest; bucket-- {
		putDedupeKey(key[:], bucket, log, hash)
		value, closer, err := d.db.Get(key[:])
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		offset, n := binary.Uvarint(value)
		ms := int64(0)
		if n > 0 && len(value) == n+timeSize {
			ms = millisOf(value[n:])
		}
		if err := closer.Close(); err != nil {
			return 0, err
		}
		if now-ms < d.window {
			return offset, nil
		}
	}
	return 0, nil
}

func putDedupeKey(key []byte, bucket int64, log uint64, hash [16]byte) {
	key[0] = prefixDedupe
	// Seconds-wide buckets fit 32 bits for a century; narrower ones wrap
	// around, far outside of any window.
	binary.BigEndian.PutUint32(key[1:], uint32(bucket))
	binary.BigEndian.PutUint64(key[5:], log)
	copy(key[13:], hash[:])
}

// begin begins a batch.
func (d *dedupe) begin(now int64) {
	d.now = now
	if len(d.recent) > 0 {
		clear(d.recent)
	}
	oldest := d.bucket(now - d.window)
	for len(d.filter) > 0 && d.filter[0].bucket < oldest {
		d.filter = d.filter[1:]
	}
}

// duplicatesLocked marks what r.entries has that was seen, with its offset if
// that is known yet, and counts the rest.
func (c *committer) duplicatesLocked(r *request) (added int, err error) {
	if len(r.ids) == 0 {
		return len(r.entries), nil
	}
	for i := range r.ids {
		id, place := &r.ids[i], &r.places[i]
		switch {
		case !id.set:
		case id.twin >= 0:
			*place = broker.Appended{Offset: r.places[id.twin].Offset, Duplicate: true}
		case r.channel.exists() && !r.channel.live:
			offset, err := c.dedupe.lookup(r.channel.log, id)
			if err != nil {
				return 0, err
			}
			*place = broker.Appended{Offset: offset, Duplicate: offset > 0}
		}
		if !place.Duplicate {
			added++
		}
	}
	return added, nil
}

// lookup returns an identity's offset, 0 if it was not seen.
func (d *dedupe) lookup(log uint64, id *identity) (uint64, error) {
	if id.old > 0 && id.log == log {
		return id.old, nil
	}
	for i := len(d.filter) - 1; i >= 0; i-- {
		f := &d.filter[i]
		if !f.has(log, id.hash) {
			continue
		}
		if offset, ok := d.recent[recentKey{log, id.hash}]; ok {
			return offset, nil
		}
		if offset, err := d.stored(log, id.hash, f.bucket, f.bucket, d.now); err != nil || offset > 0 {
			return offset, err
		}
	}
	return 0, nil
}

// remember notes that an identity is at offset.
func (d *dedupe) remember(batch *pebble.Batch, log uint64, id *identity, offset uint64) {
	bucket := d.bucket(d.now)
	op := batch.SetDeferred(1+4+8+16, uvarintSize(offset)+timeSize)
	putDedupeKey(op.Key, bucket, log, id.hash)
	n := binary.PutUvarint(op.Value, offset)
	putMillis(op.Value[n:], d.now)
	_ = op.Finish()
	d.recent[recentKey{log, id.hash}] = offset
	d.filterOf(bucket).add(log, id.hash)
}

// filterOf returns the filter of a bucket, oldest buckets first.
func (d *dedupe) filterOf(bucket int64) *bucketFilter {
	for i := len(d.filter) - 1; i >= 0; i-- {
		if d.filter[i].bucket == bucket {
			return &d.filter[i]
		}
	}
	d.filter = append(d.filter, bucketFilter{bucket: bucket})
	return &d.filter[len(d.filter)-1]
}

// expired returns the keys of all buckets that are out of the window at now.
func (d *dedupe) expired(now time.Time) (from, to []byte) {
	from, to = make([]byte, 5), make([]byte, 5)
	from[0], to[0] = prefixDedupe, prefixDedupe
	binary.BigEndian.PutUint32(to[1:], uint32(d.bucket(now.UnixMilli()-d.window)))
	return from, to
}

// bucketFilter is a Bloom filter that grows: when one part is full, another of
// four times the size is added, up to a size that bounds the whole; beyond it
// the filter errs more often, which costs a look at the disk.
type bucketFilter struct {
	bucket int64
	parts  [][]uint64
	left   int // how many more the last part takes
}

const (
	bitsPerIdentity = 10
	probes          = 6
	firstPart       = 1 << 10 // words of 64 bits
	largestPart     = 1 << 19 // 4 MiB
)

func (f *bucketFilter) add(log uint64, hash [16]byte) {
	if f.left == 0 {
		size := firstPart
		if n := len(f.parts); n > 0 {
			size = 4 * len(f.parts[n-1])
		}
		if size <= largestPart {
			f.parts = append(f.parts, make([]uint64, size))
			f.left = size * 64 / bitsPerIdentity
		} else {
			f.left = largestPart
		}
	}
	f.left--
	part := f.parts[len(f.parts)-1]
	h, step := seeds(log, hash)
	for range probes {
		part[h>>6&uint64(len(part)-1)] |= 1 << (h & 63)
		h += step
	}
}

func (f *bucketFilter) has(log uint64, hash [16]byte) bool {
	first, step := seeds(log, hash)
next:
	for _, part := range f.parts {
		h := first
		for range probes {
			if part[h>>6&uint64(len(part)-1)]&(1<<(h&63)) == 0 {
				continue next
			}
			h += step
		}
		return true
	}
	return false
}

func seeds(log uint64, hash [16]byte) (h, step uint64) {
	return binary.LittleEndian.Uint64(hash[:]) ^ log, binary.LittleEndian.Uint64(hash[8:]) | 1
}
