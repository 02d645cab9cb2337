package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// letterCounts is a row of rowLetters.
type letterCounts struct {
	dead, redriving, last uint64 // last: seq given
}

func (c *letterCounts) append(dst []byte) []byte {
	for _, n := range [...]uint64{c.dead, c.redriving, c.last} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func (c *letterCounts) parse(b []byte) error {
	d := decoder{b: b}
	*c = letterCounts{dead: d.uvarint(), redriving: d.uvarint(), last: d.uvarint()}
	return d.end()
}

func appendLetter(dst []byte, l *broker.Letter) []byte {
	mark := byte(0)
	if l.Redrive {
		mark = 1
	}
	dst = append(dst, recordVersion, mark)
	dst = appendText(dst, l.ID)
	dst = appendUint64(dst, uint64(l.Time.UnixMilli()))
	return appendText(dst, string(l.Data))
}

func parseLetter(key, value []byte) (broker.Letter, error) {
	d := decoder{b: value}
	if d.byte() != recordVersion || len(key) < 8 {
		return broker.Letter{}, errDamaged
	}
	l := broker.Letter{Seq: binary.BigEndian.Uint64(key[len(key)-8:])}
	l.Redrive, l.ID = d.byte() == 1, d.text()
	l.Time, l.Data = time.UnixMilli(int64(d.uint64())).UTC(), []byte(d.text())
	return l, d.end()
}

func letterKey(name string, seq uint64) []byte {
	return appendUint64(rowKey(rowLetter, name, ""), seq)
}

// mailbox is a subscription's dead letters during one change. Its batch can be
// read from.
type mailbox struct {
	batch  *pebble.Batch
	name   string
	counts letterCounts
}

// openMailboxLocked begins a change of a subscription's letters.
func (b *Broker) openMailboxLocked(name string) (*mailbox, error) {
	m := &mailbox{batch: b.db.NewIndexedBatch(), name: name}
	if _, err := b.get(rowKey(rowLetters, name), m.counts.parse); err != nil {
		_ = m.batch.Close()
		return nil, err
	}
	return m, nil
}

// find returns the letter with an id.
func (m *mailbox) find(id string) (l broker.Letter, ok bool, err error) {
	value, closer, err := m.batch.Get(rowKey(rowLetterID, m.name, id))
	if errors.Is(err, pebble.ErrNotFound) {
		return l, false, nil
	}
	if err != nil {
		return l, false, err
	}
	seq, ok := uint64Of(value)
	_ = closer.Close()
	if !ok {
		return l, false, errDamaged
	}
	key := letterKey(m.name, seq)
	if value, closer, err = m.batch.Get(key); err != nil {
		return l, false, err
	}
	defer closer.Close()
	l, err = parseLetter(key, value)
	return l, err == nil, err
}

func (m *mailbox) put(l *broker.Letter) {
	_ = m.batch.Set(letterKey(m.name, l.Seq), appendLetter(nil, l), nil)
}

// add keeps a letter, in the place of one with the same id.
func (m *mailbox) add(l broker.Letter) error {
	l.Redrive = false
	old, found, err := m.find(l.ID)
	if err != nil {
		return err
	}
	if found {
		l.Seq = old.Seq
		if old.Redrive {
			m.counts.redriving--
		}
	} else {
		m.counts.last++
		m.counts.dead++
		l.Seq = m.counts.last
		_ = m.batch.Set(rowKey(rowLetterID, m.name, l.ID), appendUint64(nil, l.Seq), nil)
	}
	m.put(&l)
	return nil
}

func (m *mailbox) remove(l *broker.Letter) {
	_ = m.batch.Delete(letterKey(m.name, l.Seq), nil)
	_ = m.batch.Delete(rowKey(rowLetterID, m.name, l.ID), nil)
	m.counts.dead--
	if l.Redrive {
		m.counts.redriving--
	}
}

// each calls f with the letters in order until it returns false.
func (m *mailbox) each(f func(l *broker.Letter) bool) error {
	prefix := rowKey(rowLetter, m.name, "")
	it, err := m.batch.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: afterPrefix(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		l, err := parseLetter(it.Key(), it.Value())
		if err != nil {
			return fmt.Errorf("read %q: %w", it.Key(), err)
		}
		if !f(&l) {
			return nil
		}
	}
	return it.Error()
}

// those calls f with the letters that have these ids, nil for all.
func (m *mailbox) those(ids []string, f func(l *broker.Letter)) error {
	if ids == nil {
		var all []broker.Letter // not while iterating over the batch
		if err := m.each(func(l *broker.Letter) bool { all = append(all, *l); return true }); err != nil {
			return err
		}
		for i := range all {
			f(&all[i])
		}
		return nil
	}
	for _, id := range ids {
		l, found, err := m.find(id)
		if err != nil {
			return err
		}
		if found {
			f(&l)
		}
	}
	return nil
}

// bound drops the oldest letters where there are too many or they too old.
func (m *mailbox) bound(now time.Time) (dropped int, err error) {
	var old []broker.Letter
	err = m.each(func(l *broker.Letter) bool {
		if m.counts.dead-uint64(len(old)) <= broker.MaxDeadLetters && now.Sub(l.Time) <= broker.MaxDeadAge {
			return false
		}
		old = append(old, *l)
		return true
	})
	for i := range old {
		m.remove(&old[i])
	}
	return len(old), err
}

// commit ends the change.
func (b *Broker) commit(m *mailbox) error {
	_ = m.batch.Set(rowKey(rowLetters, m.name), m.counts.append(nil), nil)
	return b.applySoon(m.batch)
}

// Bury implements broker.DeadLetters.
func (b *Broker) Bury(ctx context.Context, burial broker.Burial) (dropped int, err error) {
	if err := b.enter(ctx); err != nil {
		return 0, err
	}
	defer b.calls.leave()
	if err := b.trouble.now().err; err != nil {
		return 0, fmt.Errorf("bury letters of %s: %w", burial.Name, err)
	}
	if dropped, err = b.bury(burial); err != nil {
		return 0, unavailable(fmt.Errorf("bury letters of %s: %w", burial.Name, err))
	}
	if err := b.harden(ctx); err != nil {
		return 0, fmt.Errorf("bury letters of %s: %w", burial.Name, err)
	}
	return dropped, nil
}

func (b *Broker) bury(burial broker.Burial) (dropped int, err error) {
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	at, found, err := b.standing(burial.Name)
	if err != nil {
		return 0, err
	}
	if !found || at.Generation != burial.Generation {
		return 0, broker.ErrFenced
	}
	m, err := b.openMailboxLocked(burial.Name)
	if err != nil {
		return 0, err
	}
	defer m.batch.Close()
	for _, l := range burial.Letters {
		if err := m.add(l); err != nil {
			return 0, err
		}
	}
	if dropped, err = m.bound(b.opt.Now()); err != nil {
		return 0, err
	}
	if at.advance(burial.Position) {
		b.subs.moving.Remove(burial.Name)
		_ = m.batch.Set(rowKey(rowStanding, burial.Name), at.append(nil), nil)
	}
	return dropped, b.commit(m)
}

// Dead implements broker.DeadLetters.
func (b *Broker) Dead(ctx context.Context, name string, after uint64, limit int) ([]broker.Letter, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	var page []broker.Letter
	if after == 1<<64-1 {
		return nil, nil
	}
	err := b.scanFrom(rowKey(rowLetter, name, ""), letterKey(name, after+1), func(key, value []byte) (bool, error) {
		if len(page) == limit {
			return false, nil
		}
		l, err := parseLetter(key, value)
		page = append(page, l)
		return true, err
	})
	if err != nil {
		return nil, unavailable(fmt.Errorf("read dead letters of %s: %w", name, err))
	}
	return page, nil
}

// Redrive implements broker.DeadLetters.
func (b *Broker) Redrive(ctx context.Context, name string, ids []string) (int, error) {
	return b.changeLetters(ctx, name, ids, func(m *mailbox, l *broker.Letter) bool {
		if l.Redrive {
			return false
		}
		l.Redrive = true
		m.counts.redriving++
		m.put(l)
		return true
	})
}

// Remove implements broker.DeadLetters.
func (b *Broker) Remove(ctx context.Context, name string, ids []string) (int, error) {
	return b.changeLetters(ctx, name, ids, func(m *mailbox, l *broker.Letter) bool {
		m.remove(l)
		return true
	})
}

// changeLetters counts the letters for which change returned true.
func (b *Broker) changeLetters(ctx context.Context, name string, ids []string, change func(*mailbox, *broker.Letter) bool) (n int, err error) {
	if err := b.enter(ctx); err != nil {
		return 0, err
	}
	defer b.calls.leave()
	err = func() error {
		b.subs.mu.Lock()
		defer b.subs.mu.Unlock()
		m, err := b.openMailboxLocked(name)
		if err != nil {
			return err
		}
		defer m.batch.Close()
		err = m.those(ids, func(l *broker.Letter) {
			if change(m, l) {
				n++
			}
		})
		if err != nil || n == 0 {
			return err
		}
		return b.commit(m)
	}()
	if err != nil {
		return 0, unavailable(fmt.Errorf("change dead letters of %s: %w", name, err))
	}
	if n == 0 {
		return 0, nil
	}
	return n, b.harden(ctx)
}

// SetNote implements broker.Notes.
func (b *Broker) SetNote(ctx context.Context, name string, generation uint64, note []byte) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	if err := b.trouble.now().err; err != nil {
		return fmt.Errorf("set note of %s: %w", name, err)
	}
	batch := b.db.NewBatch()
	defer batch.Close()
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	at, found, err := b.standing(name)
	if err == nil && (!found || at.Generation != generation) {
		err = broker.ErrFenced
	}
	if err == nil {
		_ = batch.Set(rowKey(rowNote, name), note, nil)
		err = b.applySoon(batch)
	}
	if err != nil {
		return unavailable(fmt.Errorf("set note of %s: %w", name, err))
	}
	return nil
}

// Note implements broker.Notes.
func (b *Broker) Note(ctx context.Context, name string) (note []byte, err error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	defer b.calls.leave()
	_, err = b.get(rowKey(rowNote, name), func(value []byte) error {
		note = append([]byte{}, value...)
		return nil
	})
	if err != nil {
		return nil, unavailable(fmt.Errorf("read note of %s: %w", name, err))
	}
	return note, nil
}
