package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// WithFS makes the broker use fs instead of the operating system's.
func WithFS(o Options, fs vfs.FS) Options {
	o.fs, o.patience = fs, 50*time.Millisecond
	return o
}

// CheckFS is Check of a directory of fs.
func CheckFS(ctx context.Context, fs vfs.FS, dir string) (Report, error) { return check(ctx, fs, dir) }

// SyncNow does what the ticker of FsyncEverySecond does.
func (b *Broker) SyncNow() error { return b.disk.syncLogs() }

// Flush moves to tables what is in memory, and merges all tables.
func (b *Broker) Flush(ctx context.Context) error {
	if err := b.trouble.fatal(); err != nil {
		return err
	}
	return b.orBroken(func() error {
		if err := b.db.Flush(); err != nil {
			return err
		}
		return b.db.Compact(ctx, []byte{0}, []byte{0xff}, false)
	})
}

// Waiting tells of every subscription that is due, once who waits for a channel
// is looked after, and of those that will be.
func (b *Broker) Waiting() (due, later []string, err error) {
	now := b.opt.Now().UnixMilli()
	seen := make(map[string]bool)
	prefix := rowKey(rowWaits)
	err = b.scan(prefix, func(key, value []byte) (bool, error) {
		channel, name, _ := strings.Cut(string(key[len(prefix):]), "\x00")
		at := event.Cursor{Channel: channel}
		if err := parseCursor(value, &at); err != nil {
			return false, err
		}
		differs, err := b.differs(at)
		if differs {
			seen[name] = true
		}
		return true, err
	})
	if err != nil {
		return nil, nil, err
	}
	prefix = rowKey(rowDue)
	err = b.scan(prefix, func(key, value []byte) (bool, error) {
		var d dueRow
		err := d.parse(value)
		name := string(key[len(prefix):])
		if found, e := b.get(byTimeKey(d.at, name), func([]byte) error { return nil }); !found {
			err = errors.Join(err, e, fmt.Errorf("%s is missing in the index by time", name))
		}
		if d.at <= now {
			seen[name] = true
		} else if !seen[name] {
			later = append(later, name)
		}
		return true, err
	})
	return slices.Sorted(maps.Keys(seen)), later, err
}

// Sweep lets the broker look for idle channels as in so many seconds.
func (b *Broker) Sweep(seconds int) {
	for range seconds {
		b.forgetIdle(b.janitor.sweep.Add(1))
	}
}

// Work lets the janitor work for so many seconds and returns how many channels it
// visited.
func (b *Broker) Work(seconds int) (visits int, err error) {
	for range seconds {
		if err := b.janitor.work(); err != nil {
			return 0, err
		}
	}
	b.janitor.turn.Lock()
	defer b.janitor.turn.Unlock()
	visits, b.janitor.visits = b.janitor.visits, 0
	return visits, nil
}

// InMemory counts the channels in memory.
func (b *Broker) InMemory() (n int) {
	for i := range b.channels.shards {
		s := &b.channels.shards[i]
		s.mu.Lock()
		n += len(s.byName)
		s.mu.Unlock()
	}
	return n
}

// AppendUnnoticed adds an event to the store as an append does that is cut
// short before anybody hears of it.
func (b *Broker) AppendUnnoticed(channel string, data []byte) error {
	c, err := b.peek(channel)
	if err != nil {
		return err
	}
	sum := c.sum + eventSize(data)
	value := make([]byte, headerSize(sum)+len(data))
	putEvent(value, c.time, sum, data)
	batch := b.db.NewBatch()
	defer batch.Close()
	_ = batch.Set(eventKey(c.log, c.head+1), value, nil)
	return b.settle(batch)
}

// Snapshot copies the data as a crash would leave it now to a new directory.
func (b *Broker) Snapshot(dir string) error { return b.db.Checkpoint(dir) }

// HoldSubscriptions keeps everything that concerns subscriptions waiting until
// release is called.
func (b *Broker) HoldSubscriptions() (release func()) {
	b.subs.mu.Lock()
	return b.subs.mu.Unlock
}

// SetFormat makes the store look as if a longline of that format had written it.
func (b *Broker) SetFormat(format uint64) error { return b.setFormat(format, false) }

// Letter1 is a dead letter of format 1.
type Letter1 struct {
	Name    string
	Time    time.Time
	Data    []byte
	Redrive bool
}

// WriteFormat1 writes a subscription and its letters as format 1 had them: no
// creator beside the record, letters by any name.
func (b *Broker) WriteFormat1(name string, record []byte, letters []Letter1) error {
	batch := b.db.NewBatch()
	defer batch.Close()
	row := append([]byte{recordVersion}, 1) // version
	row = appendText(row, string(record))
	row = appendText(row, "")       // node
	row = append(row, 1, 1, 'a', 0) // follows a, waits for nothing
	_ = batch.Set(rowKey(rowRecord, name), row, nil)
	_ = batch.Set(rowKey(rowStanding, name), []byte{1}, nil) // generation
	_ = batch.Set(rowKey(rowFollows, "a", name), nil, nil)
	counts := letterCounts{}
	for _, l := range letters {
		counts.dead++
		counts.last++
		_ = batch.Set(letterKey(name, counts.last), appendLetter(nil, &broker.Letter{Cursor: l.Name, Time: l.Time, Data: l.Data}), nil)
		_ = batch.Set(rowKey(rowLetterOf, name, l.Name), appendUint64(nil, counts.last), nil)
		if l.Redrive {
			counts.redriving++
			_ = batch.Set(markKey(name, counts.last), nil, nil)
		}
	}
	if len(letters) > 0 {
		_ = batch.Set(rowKey(rowLetters, name), counts.append(nil), nil)
	}
	return b.settle(batch)
}

// LeaveHalfMigrated copies the data to dir as a crash leaves it once the letters
// of one subscription are migrated, and nothing else.
func (b *Broker) LeaveHalfMigrated(name, dir string) error {
	if err := b.setFormat(2, true); err != nil {
		return err
	}
	batch := b.db.NewBatch()
	defer batch.Close()
	if err := b.nameLettersOf(batch, name); err != nil {
		return err
	}
	if err := b.settle(batch); err != nil {
		return err
	}
	return b.db.Checkpoint(dir)
}
