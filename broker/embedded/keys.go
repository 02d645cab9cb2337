package embedded

import (
	"encoding/binary"
	"errors"

	"github.com/longline-push/longline/broker"
)

// Keys, and what they hold:
//
//	c <channel>                    record: log, term, epoch, forks
//	d <bucket:4> <log:8> <hash:16> an identity: offset, time
//	e <log:8> <offset:8>           an event: time, bytes so far, data
//	e <log:8> 0                    how far the log is trimmed
//	m <name>                       the store's own
//	v <time:4> <channel>           when retention looks at it: see visits.go
//
// A log is known by a random number instead of its channel's name: keys are
// short, a channel's events lie together, and a dropped log's keys never meet
// those of its successor. Its head is its last key, so that an append writes
// nothing but its events.
const (
	prefixChannel = 'c'
	prefixDedupe  = 'd'
	prefixEvent   = 'e'
)

var (
	keyBoot     = []byte("mboot")
	keyVersions = []byte("mversions") // the greatest version of a subscription that is gone
)

var errDamaged = errors.New("stored record is damaged")

func channelKey(name string) []byte {
	return append(append(make([]byte, 0, 1+len(name)), prefixChannel), name...)
}

const eventKeySize = 1 + 8 + 8

// eventKey is the key of an event; of offset 0 that of the trim record.
func eventKey(log, offset uint64) []byte {
	k := make([]byte, eventKeySize)
	putEventKey(k, log, offset)
	return k
}

func putEventKey(k []byte, log, offset uint64) {
	k[0] = prefixEvent
	binary.BigEndian.PutUint64(k[1:], log)
	binary.BigEndian.PutUint64(k[9:], offset)
}

func offsetOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[9:]) }

// afterLog is the first key behind all of a log.
func afterLog(log uint64) []byte {
	if log == 1<<64-1 {
		return []byte{prefixEvent + 1}
	}
	return eventKey(log+1, 0)[:9]
}

// An event's value begins with its time in milliseconds (6 bytes) and the sum
// of sizes of all events of the log up to it, itself included. The sum makes
// the bytes of any stretch a subtraction, so that nothing has to be counted.
const (
	timeSize = 6
	// overhead is what an event counts for besides its data.
	overhead = 32
)

func eventSize(data []byte) uint64 { return uint64(len(data)) + overhead }

func headerSize(sum uint64) int { return timeSize + uvarintSize(sum) }

// putEvent fills value, of length headerSize(sum)+len(data).
func putEvent(value []byte, ms int64, sum uint64, data []byte) {
	putMillis(value, ms)
	n := binary.PutUvarint(value[timeSize:], sum)
	copy(value[timeSize+n:], data)
}

// eventOf takes a value apart.
func eventOf(value []byte) (ms int64, sum uint64, data []byte, err error) {
	if len(value) <= timeSize {
		return 0, 0, nil, errDamaged
	}
	sum, n := binary.Uvarint(value[timeSize:])
	if n <= 0 {
		return 0, 0, nil, errDamaged
	}
	return millisOf(value), sum, value[timeSize+n:], nil
}

func putMillis(b []byte, ms int64) {
	b[0], b[1] = byte(ms>>40), byte(ms>>32)
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
}

func millisOf(b []byte) int64 {
	return int64(b[0])<<40 | int64(b[1])<<32 | int64(binary.BigEndian.Uint32(b[2:]))
}

func uvarintSize(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// record is what is kept of a channel besides its events.
type record struct {
	log, term uint64
	epoch     string
	forks     []broker.Fork
}

const recordVersion = 1

func (r *record) append(dst []byte) []byte {
	dst = append(dst, recordVersion)
	dst = appendUint64(dst, r.log)
	dst = appendUint64(dst, r.term)
	dst = appendText(dst, r.epoch)
	dst = binary.AppendUvarint(dst, uint64(len(r.forks)))
	for _, f := range r.forks {
		dst = appendText(dst, f.Epoch)
		dst = binary.AppendUvarint(dst, f.Head)
	}
	return dst
}

func parseRecord(b []byte) (record, error) {
	d := decoder{b: b}
	if d.byte() != recordVersion {
		return record{}, errDamaged
	}
	r := record{log: d.uint64(), term: d.uint64(), epoch: d.text()}
	n := d.uvarint()
	if n > broker.MaxForks {
		return record{}, errDamaged
	}
	for range n {
		r.forks = append(r.forks, broker.Fork{Epoch: d.text(), Head: d.uvarint()})
	}
	return r, d.end()
}

// trimmed says what of a log is gone: events before first, with sum bytes, the
// last of them of that time.
type trimmed struct {
	first, sum uint64
	time       int64
}

func (t *trimmed) append(dst []byte) []byte {
	for _, n := range [...]uint64{t.first, t.sum, uint64(t.time)} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func parseTrimmed(b []byte) (trimmed, error) {
	d := decoder{b: b}
	t := trimmed{first: d.uvarint(), sum: d.uvarint(), time: int64(d.uvarint())}
	if t.first == 0 {
		return trimmed{}, errDamaged
	}
	return t, d.end()
}

func appendUint64(dst []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(dst, n) }

func uint64Of(b []byte) (uint64, bool) {
	if len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// decoder reads fields one after the other; after the first that isn't there
// all are zero and end tells.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	n, _ := uint64Of(d.take(8))
	return n
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.b)
	if d.bad || size <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) text() string { return string(d.take(d.uvarint())) }

func (d *decoder) end() error {
	if d.bad || len(d.b) != 0 {
		return errDamaged
	}
	return nil
}
