package embedded

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Report is what a data directory holds.
type Report struct {
	Format        uint64 `json:"format"`
	Channels      int    `json:"channels"`
	Events        int    `json:"events"`
	Bytes         int64  `json:"bytes"` // of events, as stored
	Subscriptions int    `json:"subscriptions"`
	DeadLetters   int    `json:"dead_letters"`
	Restored      bool   `json:"restored"` // a backup that wasn't started yet
	// Damaged names what can't be read, at most maxDamaged of it.
	Damaged []string `json:"damaged,omitempty"`
}

const maxDamaged = 20

// Check reads all of a data directory that no gateway uses, and changes
// nothing. The error is that it can't be opened; what is damaged is in the
// report.
func Check(ctx context.Context, dir string) (r Report, err error) {
	return check(ctx, vfs.Default, dir)
}

func check(ctx context.Context, disk vfs.FS, dir string) (r Report, err error) {
	b := &Broker{opt: Options{Dir: dir, fs: disk}.withDefaults()}
	b.disk = newDisk(disk, dir, &b.trouble)
	b.trouble.init(b.opt.Logger)
	if _, err := disk.Stat(dir); err != nil {
		return r, fmt.Errorf("check %s: %w", dir, err)
	}
	desc, err := pebble.Peek(dir, disk)
	if err != nil {
		return r, fmt.Errorf("check %s: %w", dir, err)
	}
	if !desc.Exists {
		return r, fmt.Errorf("check %s: there is no data of a gateway in it", dir)
	}
	lock, err := pebble.LockDirectory(dir, disk)
	if err != nil {
		return r, fmt.Errorf("check %s: a gateway uses it; longline backup makes a copy that can be checked", dir)
	}
	defer lock.Close()
	compactions := newCompactions()
	o := tuned(b.disk, lock, &b.trouble, compactions)
	o.ReadOnly = true
	if err := b.trouble.guard(func() (err error) { b.db, err = pebble.Open(dir, o); return err }); err != nil {
		return r, fmt.Errorf("check %s: %w", dir, err)
	}
	defer b.db.Close()
	if r.Format, _, err = b.getUint64(keyFormat); err != nil {
		r.damaged("its format: %v", err)
	}
	if r.Restored, err = b.restored(); err != nil {
		return r, fmt.Errorf("check %s: %w", dir, err)
	}
	if r.Format > Format {
		return r, nil // whatever else is there, it isn't ours to judge
	}
	it, err := b.db.NewIterWithContext(ctx, nil)
	if err != nil {
		return r, fmt.Errorf("check %s: %w", dir, err)
	}
	for ok := it.First(); ok && ctx.Err() == nil; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err == nil {
			err = r.add(it.Key(), value)
		}
		if err != nil {
			r.damaged("%.80q: %v", it.Key(), err)
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		r.damaged("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return r, ctx.Err()
}

func (r *Report) damaged(format string, args ...any) {
	if len(r.Damaged) < maxDamaged {
		r.Damaged = append(r.Damaged, fmt.Sprintf(format, args...))
	}
}

// add counts a record that can be read.
func (r *Report) add(key, value []byte) error {
	switch {
	case key[0] == prefixChannel:
		r.Channels++
		_, err := parseRecord(value)
		return err
	case key[0] == prefixEvent && len(key) == eventKeySize && offsetOf(key) == 0:
		_, err := parseTrimmed(value)
		return err
	case key[0] == prefixEvent:
		_, _, data, err := eventOf(value)
		r.Events, r.Bytes = r.Events+1, r.Bytes+int64(len(data))
		return err
	case key[0] == 's' && len(key) > 1 && key[1] == rowRecord:
		r.Subscriptions++
		var row subscription
		return row.parse(value)
	case key[0] == 's' && len(key) > 1 && key[1] == rowStanding:
		var row standing
		return row.parse(value)
	case key[0] == 's' && len(key) > 1 && key[1] == rowLetter:
		r.DeadLetters++
	}
	return nil
}
