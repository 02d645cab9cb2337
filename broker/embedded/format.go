package embedded

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
)

// Format is the version of what a data directory holds: keys, and the bytes of
// records. Whoever changes either so that an older binary would misread it
// raises it, and adds to migrations how the one before becomes it.
const Format = 1

// migrations[n] makes format n+1 of format n. A store of before there was a
// version is format 0; it holds the same as 1.
var migrations = [Format]func(b *Broker, batch *pebble.Batch) error{
	0: func(*Broker, *pebble.Batch) error { return nil },
}

var keyFormat = []byte("mformat")

// settleFormat refuses a store that a newer longline wrote, and migrates one of
// an older one, a version at a time, so that what a crash leaves is one or the
// other. Called before anything else is written.
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
		return b.setFormat(b.db.NewBatch(), Format)
	}
	if format > Format {
		return fmt.Errorf("%s has format %d, which a newer longline wrote; this one reads formats up to %d: start the newer one, or restore a backup made before", b.opt.Dir, format, Format)
	}
	for ; format < Format; format++ {
		batch := b.db.NewBatch()
		if err := migrations[format](b, batch); err != nil {
			_ = batch.Close()
			return fmt.Errorf("migrate %s from format %d to %d: %w", b.opt.Dir, format, format+1, err)
		}
		if err := b.setFormat(batch, format+1); err != nil {
			return err
		}
		b.opt.Logger.Info("data migrated", "dir", b.opt.Dir, "from", format, "to", format+1)
	}
	return nil
}

// setFormat commits a batch together with the version that it makes.
func (b *Broker) setFormat(batch *pebble.Batch, format uint64) error {
	defer batch.Close()
	_ = batch.Set(keyFormat, appendUint64(nil, format), nil)
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
