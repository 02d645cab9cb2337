package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// attemptRange is a row of rowAttempts: attempts first to last are there. bytes
// is the sum of the sizes of all there ever were, so that the bytes of any
// stretch are a subtraction, as in a log.
type attemptRange struct{ first, last, bytes uint64 }

func (r *attemptRange) append(dst []byte) []byte {
	for _, n := range [...]uint64{r.first, r.last, r.bytes} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func (r *attemptRange) parse(b []byte) error {
	d := decoder{b: b}
	*r = attemptRange{first: d.uvarint(), last: d.uvarint(), bytes: d.uvarint()}
	return d.end()
}

func attemptKey(name string, seq uint64) []byte {
	return appendUint64(rowKey(rowAttempt, name, ""), seq)
}

// trimSlack is how many attempts too many there may be before they are removed:
// that is done for many at once. Nobody is shown them.
const trimSlack = 256

// Record implements broker.Attempts.
func (b *Broker) Record(ctx context.Context, attempts []broker.Attempt) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	if err := b.trouble.now().err; err != nil {
		return fmt.Errorf("record attempts: %w", err)
	}
	byName := make(map[string][]broker.Attempt)
	for _, a := range attempts {
		byName[a.Name] = append(byName[a.Name], a)
	}
	for name, list := range byName {
		if err := b.recordAttempts(name, list); err != nil {
			return unavailable(fmt.Errorf("record attempts of %s: %w", name, err))
		}
	}
	return nil
}

func (b *Broker) recordAttempts(name string, list []broker.Attempt) error {
	batch := b.db.NewBatch()
	defer batch.Close()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	exists, err := b.get(rowKey(rowRecord, name), func([]byte) error { return nil })
	if err != nil || !exists {
		return err
	}
	r := attemptRange{first: 1}
	if _, err := b.get(rowKey(rowAttempts, name), r.parse); err != nil {
		return err
	}
	for _, a := range list {
		r.last++
		r.bytes += uint64(len(a.Data))
		value := make([]byte, headerSize(r.bytes)+len(a.Data))
		putEvent(value, a.Time.UnixMilli(), r.bytes, a.Data)
		_ = batch.Set(attemptKey(name, r.last), value, nil)
	}
	had := r.last - uint64(len(list)) // what is stored already
	first, err := b.firstAttempt(name, r, had)
	if err != nil {
		return err
	}
	if first > r.first+trimSlack || first > had {
		_ = batch.DeleteRange(attemptKey(name, r.first), attemptKey(name, first), nil)
		r.first = first
	}
	_ = batch.Set(rowKey(rowAttempts, name), r.append(nil), nil)
	return b.applySoonLocked(batch)
}

// firstAttempt is the first attempt that is to be kept, of those up to stored;
// stored+1 if all of them are to go.
func (b *Broker) firstAttempt(name string, r attemptRange, stored uint64) (uint64, error) {
	first := r.first
	if n := r.last - first + 1; n > broker.MaxAttempts {
		first = min(r.last-broker.MaxAttempts+1, stored+1)
	}
	old := b.opt.Now().Add(-broker.MaxAttemptAge).UnixMilli()
	var failed error
	n := sort.Search(int(stored+1-first), func(i int) bool {
		seq := first + uint64(i)
		kept := false
		_, err := b.get(attemptKey(name, seq), func(value []byte) error {
			ms, sum, data, err := eventOf(value)
			kept = ms >= old && r.bytes-sum+uint64(len(data)) <= broker.MaxAttemptBytes
			return err
		})
		if err != nil {
			failed = err
		}
		return kept
	})
	if first += uint64(n); first > r.last && r.last > 0 {
		first = r.last
	}
	return first, failed
}

// Attempts implements broker.Attempts.
func (b *Broker) Attempts(ctx context.Context, name string, before uint64, limit int) ([]broker.Attempt, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	list, err := b.attempts(name, before, limit)
	if err != nil {
		return nil, unavailable(fmt.Errorf("read attempts of %s: %w", name, err))
	}
	return list, nil
}

func (b *Broker) attempts(name string, before uint64, limit int) (list []broker.Attempt, err error) {
	r := attemptRange{first: 1}
	if found, err := b.get(rowKey(rowAttempts, name), r.parse); err != nil || !found {
		return nil, err
	}
	if r.last > broker.MaxAttempts {
		r.first = max(r.first, r.last-broker.MaxAttempts+1)
	}
	end := r.last + 1
	if before > 0 {
		end = min(end, before)
	}
	if end <= r.first {
		return nil, nil
	}
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: attemptKey(name, r.first), UpperBound: attemptKey(name, end)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	old := b.opt.Now().Add(-broker.MaxAttemptAge).UnixMilli()
	for ok := it.Last(); ok && len(list) < limit; ok = it.Prev() {
		ms, _, data, err := eventOf(it.Value())
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", it.Key(), err)
		}
		if ms < old {
			break
		}
		key := it.Key()
		list = append(list, broker.Attempt{
			Name: name, Seq: binary.BigEndian.Uint64(key[len(key)-8:]), Time: time.UnixMilli(ms).UTC(), Data: slices.Clone(data),
		})
	}
	return list, it.Error()
}
