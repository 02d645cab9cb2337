package callback

import (
	"slices"
	"time"
)

// pick returns the next unit to send, now in flight, or nil and when to ask
// again; zero if only events, time aside, can change that. all overrides the
// units' own times, when the endpoint's rules instead.
func (q *queue) pick(now time.Time, all bool) (*unit, time.Time) {
	var at time.Time
	for i, u := range q.retry {
		if all || !u.notBefore.After(now) {
			q.retry = slices.Delete(q.retry, i, i+1)
			return u, at
		}
		at = sooner(at, u.notBefore)
	}
	u, full := q.next(now, all)
	if u == nil {
		at = sooner(at, full)
	}
	return u, at
}

// another returns an event to try besides a suspect, if there is one: of
// another lane, or in the order of a channel simply a later one. Others that
// are suspected themselves would prove nothing.
func (q *queue) another() *unit {
	suspect := q.suspect()
	if suspect == nil {
		return nil
	}
	var skipped map[lane]bool // behind others that are suspected
	for _, it := range q.items {
		if it.state != waiting {
			continue
		}
		l, keyed := q.lane(it)
		ordered := q.byKey && keyed
		if ordered && (q.taken[l] || skipped[l]) {
			continue
		}
		if it.alone != nil && (it.alone.fails >= suspectAfter || it.alone.condemned != "") {
			if ordered {
				skipped = with(skipped, l)
			}
			continue
		}
		u := q.single(it)
		u.probe = !q.byKey
		q.take(u)
		return u
	}
	for i, u := range q.retry {
		if u.fails < suspectAfter && u.condemned == "" && u.refusals == 0 {
			q.retry = slices.Delete(q.retry, i, i+1)
			return u
		}
	}
	return nil
}

// next makes a unit of events that were not sent yet, or returns when a batch
// will have waited long enough, or an event that waits by itself.
func (q *queue) next(now time.Time, all bool) (*unit, time.Time) {
	if q.idle == 0 || !q.byKey && q.taken[lane{}] {
		return nil, time.Time{}
	}
	var (
		batch   []*item
		size    int
		skipped map[lane]bool
		at      time.Time // when one that waits by itself may go
	)
	for _, it := range q.items {
		if it.state != waiting {
			continue
		}
		l, keyed := q.lane(it)
		if keyed && (q.taken[l] || skipped[l]) {
			continue
		}
		if it.alone != nil && !all && it.alone.notBefore.After(now) {
			at = sooner(at, it.alone.notBefore)
			if !q.byKey {
				break
			}
			if keyed {
				skipped = with(skipped, l)
			}
			continue
		}
		if it.alone != nil || len(batch) > 0 && size+len(it.ev.JSON) >= maxBatchBytes {
			if len(batch) == 0 {
				u := it.alone
				q.take(u)
				return u, time.Time{}
			}
			if !q.byKey {
				now = now.Add(q.maxWait) // nothing more can join
				break
			}
			if keyed {
				skipped = with(skipped, l)
			}
			continue
		}
		batch, size = append(batch, it), size+len(it.ev.JSON)+1
		if len(batch) == q.maxEvents {
			break
		}
	}
	if len(batch) == 0 {
		q.starved = true
		return nil, at
	}
	if len(batch) < q.maxEvents && q.room() > 0 && !q.tight {
		if full := batch[0].seen.Add(q.maxWait); now.Before(full) {
			return nil, sooner(at, full)
		}
	}
	u := &unit{items: batch, batch: q.maxEvents > 1}
	q.take(u)
	return u, time.Time{}
}

// with adds a lane to a set that is made when there is one.
func with(set map[lane]bool, l lane) map[lane]bool {
	if set == nil {
		set = map[lane]bool{}
	}
	set[l] = true
	return set
}

func (q *queue) single(it *item) *unit {
	if it.alone == nil {
		it.alone = &unit{items: []*item{it}, batch: q.maxEvents > 1}
	}
	return it.alone
}

func (q *queue) take(u *unit) {
	for _, it := range u.items {
		q.setState(it, sending)
		if l, keyed := q.lane(it); keyed && !u.probe {
			q.taken[l] = true
		}
	}
}
