package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// Which channels retention has something to do for is known without asking all
// of them. What is appended to is on a list, in memory. What will be too old is
// in the store by time, in a row that a visit leaves:
//
//	v <time:4> <channel>   look at the channel then
//
// Time is in visitUnits. A row that is there for nothing costs a visit, and one
// that is missing, after a crash, waits for the round through all channels.

const (
	visitUnit = 15 * time.Second
	// visitSoon and visitLate bound how long it is not looked again at what is old
	// enough to go, and stays by need: an acknowledgement doesn't tell the janitor.
	visitSoon, visitLate = 30 * time.Second, time.Hour
	// dueVisits and changedVisits are how many channels of either kind are visited
	// in a second.
	dueVisits, changedVisits = 512, 512
	prefixVisit              = 'v'
)

func visitKey(unit int64, channel string) []byte {
	key := binary.BigEndian.AppendUint32([]byte{prefixVisit}, uint32(unit))
	return append(key, channel...)
}

// changes are the channels that were appended to since their last visit. Guarded
// by janitor.mu.
type changes struct {
	since time.Time // when next began
	next  []string  // to be visited, each once
	first []string  // to be visited before those
}

// changed asks for a visit within a while. It is called with a shard's mutex
// held, once until that visit.
func (j *janitor) changed(channel string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changes.next = append(j.changes.next, channel)
}

// takeChanged returns some channels that were appended to; each comes by no more
// often than every visitUnit.
func (j *janitor) takeChanged() (some []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := &j.changes
	if len(c.first) == 0 {
		if j.b.opt.Now().Sub(c.since) < visitUnit {
			return nil
		}
		c.first, c.next, c.since = c.next, nil, j.b.opt.Now()
	}
	n := min(len(c.first), changedVisits)
	some, c.first = c.first[:n], c.first[n:]
	return some
}

// visitChanged visits channels that were appended to.
func (j *janitor) visitChanged() error {
	for _, name := range j.takeChanged() {
		if _, err := j.visit(name, false); err != nil {
			return err
		}
	}
	return nil
}

// visitDue visits channels whose time has come.
func (j *janitor) visitDue() error {
	now := j.b.opt.Now().UnixNano() / int64(visitUnit)
	var names []string
	batch := j.b.db.NewBatch()
	defer batch.Close()
	err := j.b.scanFrom([]byte{prefixVisit}, visitKey(j.visited, ""), func(key, _ []byte) (bool, error) {
		unit := int64(binary.BigEndian.Uint32(key[1:]))
		if unit > now || len(names) == dueVisits {
			return false, nil
		}
		j.visited = unit // all before is done
		names = append(names, string(key[5:]))
		return true, batch.Delete(key, nil)
	})
	if err != nil || len(names) == 0 {
		return err
	}
	if err := j.b.apply(batch, pebble.NoSync); err != nil {
		return fmt.Errorf("take visits: %w", err)
	}
	for _, name := range names {
		if _, err := j.visit(name, false); err != nil {
			return err
		}
	}
	return nil
}

// begun notes that a channel is being visited: what is appended from now on asks
// for another visit.
func (b *Broker) begun(name string) {
	s := b.channels.of(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.byName[name]; c != nil {
		c.changed = false
	}
}

// schedule leaves a row for when retention has something to do for a channel
// though nothing is appended: cut is the last offset that is gone.
func (j *janitor) schedule(name string, c *channel, r broker.Retention, cut uint64, now time.Time) error {
	head := c.durable
	if cut >= head {
		return nil
	}
	ms, _, err := j.b.measure(c.log, cut+1)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil // dropped, or trimmed by another
	}
	if err != nil {
		return err
	}
	oldest := time.UnixMilli(ms)
	var at time.Time
	sooner := func(t time.Time) {
		if late := now.Sub(t); late >= 0 {
			t = now.Add(min(max(late/8, visitSoon), visitLate))
		}
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if r.MaxAge > 0 {
		sooner(oldest.Add(r.MaxAge))
	}
	if head-cut > uint64(r.ReplayEvents) {
		sooner(oldest.Add(r.ReplayAge))
	}
	if at.IsZero() {
		return nil
	}
	unit := at.UnixNano()/int64(visitUnit) + 1
	batch := j.b.db.NewBatch()
	defer batch.Close()
	_ = batch.Set(visitKey(unit, name), nil, nil)
	if err := j.b.apply(batch, pebble.NoSync); err != nil {
		return fmt.Errorf("schedule a visit of %s: %w", name, err)
	}
	return nil
}
