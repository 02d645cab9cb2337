package embedded

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// replayCut returns the last offset that replay doesn't keep.
func (b *Broker) replayCut(c *channel, r broker.Retention, now time.Time) (uint64, error) {
	s := c.stateLocked()
	none := s.First - 1
	if s.Head-none <= uint64(r.ReplayEvents) {
		return none, nil
	}
	byNumber := s.Head - uint64(r.ReplayEvents)
	byAge, err := b.offsetBefore(c.log, s, now.Add(-r.ReplayAge).UnixMilli())
	if r.ReplayAge == 0 {
		byAge, err = s.Head, nil
	}
	return min(byNumber, byAge), err
}

// hardCut returns the last offset that is too old or too much.
func (b *Broker) hardCut(c *channel, r broker.Retention, now time.Time) (uint64, error) {
	s := c.stateLocked()
	cut := s.First - 1
	if r.MaxAge > 0 {
		byAge, err := b.offsetBefore(c.log, s, now.Add(-r.MaxAge).UnixMilli())
		if err != nil {
			return 0, err
		}
		cut = max(cut, byAge)
	}
	if r.MaxBytes > 0 && s.Bytes > r.MaxBytes {
		before, err := b.search(c.log, s, func(_ int64, sum uint64) bool { return c.sum-sum <= uint64(r.MaxBytes) })
		if err != nil {
			return 0, err
		}
		cut = max(cut, min(before+1, s.Head))
	}
	return cut, nil
}

// bytesAfter returns how much a log holds after an offset.
func (b *Broker) bytesAfter(c *channel, offset uint64) (int64, error) {
	if offset < c.first {
		return int64(c.sum - c.gone), nil
	}
	_, sum, err := b.measure(c.log, offset)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	return int64(c.sum - sum), err
}

// measure returns time and sum of an event. An event that is gone has none:
// then somebody else trimmed or dropped the log.
func (b *Broker) measure(log, offset uint64) (ms int64, sum uint64, err error) {
	value, closer, err := b.db.Get(eventKey(log, offset))
	if err != nil {
		return 0, 0, err
	}
	defer closer.Close()
	ms, sum, _, err = eventOf(value)
	return ms, sum, err
}

// trim removes events of a log up to cut, if the channel still has that log.
func (b *Broker) trim(name string, log, cut uint64) error {
	c, s, err := b.pin(name)
	if err != nil {
		return err
	}
	defer s.unpin(c)
	ms, sum, err := b.measure(log, cut)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("trim %s: %w", name, err)
	}
	batch := b.db.NewBatch()
	defer batch.Close()
	t := trimmed{first: cut + 1, sum: sum, time: ms}
	_ = batch.Set(eventKey(log, 0), t.append(nil), nil)
	_ = batch.DeleteRange(eventKey(log, 1), eventKey(log, cut+1), nil)
	// With the lock held, so that a drop comes either before, and is seen, or
	// after, and takes the record with it.
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.log != log || cut < c.first {
		return nil
	}
	if err := b.apply(batch, pebble.NoSync); err != nil {
		return fmt.Errorf("trim %s: %w", name, err)
	}
	c.first, c.gone, c.seen = cut+1, sum, c.sum
	return nil
}

// removeStored removes what is stored of a channel that is now live only.
func (b *Broker) removeStored(name string) error {
	r, ok, err := b.readRecord(name)
	if err != nil || !ok {
		return err
	}
	batch := b.db.NewBatch()
	defer batch.Close()
	_ = batch.Delete(channelKey(name), nil)
	_ = batch.DeleteRange(eventKey(r.log, 0), afterLog(r.log), nil)
	return b.apply(batch, pebble.NoSync)
}
