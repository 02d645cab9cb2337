package embedded

import (
	"errors"
	"fmt"
	"io/fs"
)

// Format is the version of what a data directory holds: keys, and the bytes of
// records. Whoever changes either so that an older binary would misread it
// raises it, and adds to migrations how the one before becomes it.
//
//	2  letters are named by cursors, what somebody created is indexed
const Format = 2

var (
	keyFormat = []byte("mformat")
	// keyMigrating is of which format there may still be something: a crash ended
	// its migration.
	keyMigrating = []byte("mmigrating")
)

// settleFormat refuses a store that a newer longline wrote, and migrates one of
// an older one, a version at a time. From the first change on it has the newer
// version, so that an older binary refuses what a crash leaves, and this one
// finishes it. Called before anything else is written.
func (b *Broker) settleFormat() error {
	format, _, err := b.getUint64(keyFormat)
	if err != nil {
		return err
	}
	_, existing, err := b.getUint64(keyBoot)
	if err != nil {
		return err
	}
	if !existing {
		return b.setFormat(Format, false)
	}
	if format > Format {
		return fmt.Errorf("%s has format %d, which a newer longline wrote; this one reads formats up to %d: start the newer one, or restore a backup made before", b.opt.Dir, format, Format)
	}
	from, unfinished, err := b.getUint64(keyMigrating)
	if err != nil {
		return err
	}
	if !unfinished {
		from = format
	}
	for ; from < Format; from++ {
		if err := b.setFormat(from+1, true); err != nil {
			return err
		}
		if err := migrations[from](b); err != nil {
			return fmt.Errorf("migrate %s from format %d to %d: %w", b.opt.Dir, from, from+1, err)
		}
		if err := b.setFormat(from+1, false); err != nil {
			return err
		}
		b.opt.Logger.Info("data migrated", "dir", b.opt.Dir, "from", from, "to", from+1)
	}
	return nil
}

// setFormat makes the store one of a format, or one that is becoming so.
func (b *Broker) setFormat(format uint64, becoming bool) error {
	batch := b.db.NewBatch()
	defer batch.Close()
	_ = batch.Set(keyFormat, appendUint64(nil, format), nil)
	if becoming {
		_ = batch.Set(keyMigrating, appendUint64(nil, format-1), nil)
	} else {
		_ = batch.Delete(keyMigrating, nil)
	}
	return b.settle(batch)
}

// restoredFile stands in a copy that Backup made. The first start on it takes
// the logs for ones that lost their tails, since what the original appended
// after it is unknown here: a new term.
const restoredFile = "RESTORED"

// restored tells whether this is the first start on a copy.
func (b *Broker) restored() (bool, error) {
	_, err := b.opt.fs.Stat(b.opt.fs.PathJoin(b.opt.Dir, restoredFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
