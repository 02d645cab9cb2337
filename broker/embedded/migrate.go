package embedded

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
)

// migrations[n] makes format n+1 of format n. A store of before there was a
// version is format 0; it holds the same as 1. Each commits a piece at a time, so
// it may find that one before it, which a crash ended, was half done.
var migrations = [Format]func(b *Broker) error{
	0: func(*Broker) error { return nil },
	1: func(b *Broker) error {
		if err := b.nameLetters(); err != nil {
			return fmt.Errorf("name dead letters by their cursors: %w", err)
		}
		if err := b.indexCreators(); err != nil {
			return fmt.Errorf("index subscriptions by who created them: %w", err)
		}
		return nil
	},
}

// migrationPiece is about how many bytes one piece of a migration writes.
const migrationPiece = 4 << 20

// nameLetters gives dead letters the names of format 2: their events' cursors
// instead of ids.
func (b *Broker) nameLetters() error {
	batch := b.db.NewBatch()
	defer func() { _ = batch.Close() }()
	prefix := rowKey(rowLetters)
	err := b.scan(prefix, func(key, _ []byte) (bool, error) {
		if err := b.nameLettersOf(batch, string(key[len(prefix):])); err != nil {
			return false, err
		}
		return true, b.settlePiece(&batch, migrationPiece)
	})
	if err == nil {
		err = b.settlePiece(&batch, 0)
	}
	return err
}

// nameLettersOf rewrites a subscription's letters and counts them anew.
func (b *Broker) nameLettersOf(batch *pebble.Batch, name string) error {
	var counts letterCounts
	if _, err := b.get(rowKey(rowLetters, name), counts.parse); err != nil {
		return err
	}
	counts = letterCounts{last: counts.last}
	names := rowKey(rowLetterOf, name, "")
	_ = batch.DeleteRange(names, afterPrefix(names), nil)
	type letter struct {
		seq, size uint64
		marked    bool
	}
	kept := make(map[string]letter) // by cursor
	err := b.scan(rowKey(rowLetter, name, ""), func(key, value []byte) (bool, error) {
		l, err := parseLetter(key, value)
		if err != nil {
			return false, fmt.Errorf("read %q: %w", key, err)
		}
		if cursor := broker.CursorIn(l.Data); cursor != "" && cursor != l.Cursor {
			l.Cursor = cursor
			_ = batch.Set(key, appendLetter(nil, &l), nil)
		}
		// One event has one letter, its last.
		if old, twice := kept[l.Cursor]; twice {
			_ = batch.Delete(letterKey(name, old.seq), nil)
			_ = batch.Delete(markKey(name, old.seq), nil)
		}
		marked, err := b.get(markKey(name, l.Seq), func([]byte) error { return nil })
		kept[l.Cursor] = letter{l.Seq, uint64(len(l.Data)), marked}
		return true, err
	})
	if err != nil {
		return err
	}
	for cursor, l := range kept {
		_ = batch.Set(rowKey(rowLetterOf, name, cursor), appendUint64(nil, l.seq), nil)
		counts.dead++
		counts.bytes += l.size
		if l.marked {
			counts.redriving++
		}
	}
	return batch.Set(rowKey(rowLetters, name), counts.append(nil), nil)
}

// indexCreators makes the index of who created what.
func (b *Broker) indexCreators() error {
	batch := b.db.NewBatch()
	defer func() { _ = batch.Close() }()
	prefix := rowKey(rowRecord)
	err := b.scan(prefix, func(key, value []byte) (bool, error) {
		var s subscription
		if err := s.parse(value); err != nil {
			return false, fmt.Errorf("read %q: %w", key, err)
		}
		name := string(key[len(prefix):])
		if s.creator != "" || broker.IsPartition(name) {
			return true, nil
		}
		if s.creator = broker.CreatorIn(s.record); s.creator == "" {
			return true, nil
		}
		_ = batch.Set(key, s.append(nil), nil)
		_ = batch.Set(rowKey(rowCreator, s.creator, name), nil, nil)
		return true, b.settlePiece(&batch, migrationPiece)
	})
	if err == nil {
		err = b.settlePiece(&batch, 0)
	}
	return err
}

// settlePiece commits a batch that has grown beyond size, and begins another.
func (b *Broker) settlePiece(batch **pebble.Batch, size int) error {
	if (*batch).Empty() || (*batch).Len() < size {
		return nil
	}
	err := b.settle(*batch)
	_ = (*batch).Close()
	*batch = b.db.NewBatch()
	return err
}
