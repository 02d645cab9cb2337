package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// letterCounts is a row of rowLetters.
type letterCounts struct {
	dead, redriving, last uint64 // last: seq given
	bytes                 uint64 // of their data
}

func (c *letterCounts) append(dst []byte) []byte {
	for _, n := range [...]uint64{c.dead, c.redriving, c.last} {
		dst = binary.AppendUvarint(dst, n)
	}
	if c.bytes > 0 {
		dst = binary.AppendUvarint(dst, c.bytes)
	}
	return dst
}

func (c *letterCounts) parse(b []byte) error {
	d := decoder{b: b}
	*c = letterCounts{dead: d.uvarint(), redriving: d.uvarint(), last: d.uvarint()}
	if len(d.b) > 0 { // before there was a bound, bytes were not counted
		c.bytes = d.uvarint()
	}
	return d.end()
}

func appendLetter(dst []byte, l *broker.Letter) []byte {
	dst = append(dst, recordVersion, 0) // the mark is a row of its own
	dst = appendText(dst, l.Cursor)
	dst = appendUint64(dst, uint64(l.Time.UnixMilli()))
	return appendText(dst, string(l.Data))
}

func parseLetter(key, value []byte) (broker.Letter, error) {
	d := decoder{b: value}
	if d.byte() != recordVersion || len(key) < 8 {
		return broker.Letter{}, errDamaged
	}
	l := broker.Letter{Seq: binary.BigEndian.Uint64(key[len(key)-8:])}
	_, l.Cursor = d.byte(), d.text()
	l.Time, l.Data = time.UnixMilli(int64(d.uint64())).UTC(), []byte(d.text())
	return l, d.end()
}

func letterKey(name string, seq uint64) []byte {
	return appendUint64(rowKey(rowLetter, name, ""), seq)
}

func markKey(name string, seq uint64) []byte {
	return appendUint64(rowKey(rowRedrive, name, ""), seq)
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

// find returns the letter of a cursor.
func (m *mailbox) find(cursor string) (l broker.Letter, ok bool, err error) {
	value, closer, err := m.batch.Get(rowKey(rowLetterOf, m.name, cursor))
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

// mark says whether a letter is to be delivered again, and whether that is new.
func (m *mailbox) mark(seq uint64, redrive bool) (changed bool, err error) {
	key := markKey(m.name, seq)
	_, closer, err := m.batch.Get(key)
	switch {
	case err == nil:
		_ = closer.Close()
		if redrive {
			return false, nil
		}
		m.counts.redriving -= min(1, m.counts.redriving)
		return true, m.batch.Delete(key, nil)
	case !errors.Is(err, pebble.ErrNotFound):
		return false, err
	case !redrive:
		return false, nil
	}
	m.counts.redriving++
	return true, m.batch.Set(key, nil, nil)
}

// add keeps a letter, in the place of one of the same cursor.
func (m *mailbox) add(l broker.Letter) error {
	old, found, err := m.find(l.Cursor)
	if err != nil {
		return err
	}
	if found {
		l.Seq = old.Seq
		m.counts.bytes -= min(m.counts.bytes, uint64(len(old.Data)))
		if _, err := m.mark(l.Seq, false); err != nil {
			return err
		}
	} else {
		m.counts.last++
		m.counts.dead++
		l.Seq = m.counts.last
		_ = m.batch.Set(rowKey(rowLetterOf, m.name, l.Cursor), appendUint64(nil, l.Seq), nil)
	}
	m.counts.bytes += uint64(len(l.Data))
	return m.batch.Set(letterKey(m.name, l.Seq), appendLetter(nil, &l), nil)
}

func (m *mailbox) remove(l *broker.Letter) error {
	_ = m.batch.Delete(letterKey(m.name, l.Seq), nil)
	_ = m.batch.Delete(rowKey(rowLetterOf, m.name, l.Cursor), nil)
	m.counts.dead -= min(1, m.counts.dead)
	m.counts.bytes -= min(m.counts.bytes, uint64(len(l.Data)))
	_, err := m.mark(l.Seq, false)
	return err
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

// bound drops the oldest letters where there are too many or they too old or too
// large, but for the newest.
func (m *mailbox) bound(now time.Time) (dropped int, err error) {
	var old []broker.Letter
	dead, bytes := m.counts.dead, m.counts.bytes
	err = m.each(func(l *broker.Letter) bool {
		tooMany := dead > broker.MaxDeadLetters || dead > 1 && bytes > broker.MaxDeadBytes
		if !tooMany && now.Sub(l.Time) <= broker.MaxDeadAge {
			return false
		}
		dead, bytes = dead-1, bytes-min(bytes, uint64(len(l.Data)))
		old = append(old, *l)
		return true
	})
	for i := range old {
		if err := m.remove(&old[i]); err != nil {
			return 0, err
		}
	}
	return len(old), err
}

// commit ends the change.
func (b *Broker) commit(m *mailbox) error {
	_ = m.batch.Set(rowKey(rowLetters, m.name), m.counts.append(nil), nil)
	return b.applySoonLocked(m.batch)
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
		if err != nil {
			return false, err
		}
		l.Redrive, err = b.get(markKey(name, l.Seq), func([]byte) error { return nil })
		page = append(page, l)
		return true, err
	})
	if err != nil {
		return nil, unavailable(fmt.Errorf("read dead letters of %s: %w", name, err))
	}
	return page, nil
}

// Redrive implements broker.DeadLetters.
func (b *Broker) Redrive(ctx context.Context, name string, cursors []string) (int, error) {
	return b.changeLetters(ctx, name, cursors, func(m *mailbox, l *broker.Letter) (bool, error) { return m.mark(l.Seq, true) })
}

// Remove implements broker.DeadLetters.
func (b *Broker) Remove(ctx context.Context, name string, cursors []string) (int, error) {
	return b.changeLetters(ctx, name, cursors, func(m *mailbox, l *broker.Letter) (bool, error) { return true, m.remove(l) })
}

// lettersPiece is how many letters are changed in one step.
const lettersPiece = 500

// changeLetters changes the letters of these cursors, nil for all, a piece at a
// time, and counts those for which change returned true.
func (b *Broker) changeLetters(ctx context.Context, name string, cursors []string, change func(*mailbox, *broker.Letter) (bool, error)) (n int, err error) {
	if err := b.enter(ctx); err != nil {
		return 0, err
	}
	defer b.calls.leave()
	if cursors == nil {
		n, err = b.changeAllLetters(ctx, name, change)
	} else {
		for some := range slices.Chunk(cursors, lettersPiece) {
			var changed int
			changed, err = b.changeSomeLetters(name, change, func(m *mailbox, f func(*broker.Letter) error) error {
				for _, cursor := range some {
					if l, found, err := m.find(cursor); err != nil {
						return err
					} else if found {
						if err := f(&l); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if n += changed; err != nil {
				break
			}
		}
	}
	if err != nil {
		return 0, unavailable(fmt.Errorf("change dead letters of %s: %w", name, err))
	}
	if n == 0 {
		return 0, nil
	}
	return n, b.harden(ctx)
}

// changeAllLetters changes those that are there when it begins.
func (b *Broker) changeAllLetters(ctx context.Context, name string, change func(*mailbox, *broker.Letter) (bool, error)) (n int, err error) {
	var counts letterCounts
	if _, err := b.get(rowKey(rowLetters, name), counts.parse); err != nil {
		return 0, err
	}
	for after := uint64(0); after < counts.last; {
		changed, err := b.changeSomeLetters(name, change, func(_ *mailbox, f func(*broker.Letter) error) error {
			var some []broker.Letter // from the store, and not while the batch changes
			last := counts.last
			err := b.scanFrom(rowKey(rowLetter, name, ""), letterKey(name, after+1), func(key, value []byte) (bool, error) {
				l, err := parseLetter(key, value)
				if err != nil || l.Seq > counts.last {
					return false, err
				}
				if len(some) == lettersPiece {
					last = some[len(some)-1].Seq
					return false, nil
				}
				some = append(some, l)
				return true, nil
			})
			after = last
			for i := range some {
				if err == nil {
					err = f(&some[i])
				}
			}
			return err
		})
		if n += changed; err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// changeSomeLetters is one step: each calls its function with the letters.
func (b *Broker) changeSomeLetters(name string, change func(*mailbox, *broker.Letter) (bool, error),
	each func(*mailbox, func(*broker.Letter) error) error) (n int, err error) {
	b.subs.mu.Lock()
	defer b.subs.mu.Unlock()
	m, err := b.openMailboxLocked(name)
	if err != nil {
		return 0, err
	}
	defer m.batch.Close()
	err = each(m, func(l *broker.Letter) error {
		changed, err := change(m, l)
		if changed {
			n++
		}
		return err
	})
	if err != nil || n == 0 {
		return 0, err
	}
	return n, b.commit(m)
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
		err = b.applySoonLocked(batch)
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
