package embedded

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// reachLeast moves what u sets forward to the least of the partitions' cursors,
// in channels where all are of its epoch.
func (b *Broker) reachLeast(u broker.Update, s *standing) error {
	var parts []standing
	err := b.scan(rowKey(rowRecord, u.Name+"/"), func(key, _ []byte) (bool, error) {
		part, _, err := b.standing(string(key[2:]))
		parts = append(parts, part)
		return true, err
	})
	if err != nil || len(parts) == 0 {
		return err
	}
channels:
	for _, least := range u.Set {
		for n, part := range parts {
			at, ok := part.Position.Of(least.Channel)
			if !ok || at.Epoch != least.Epoch {
				continue channels
			}
			if n == 0 || at.Offset < least.Offset {
				least = at
			}
		}
		s.advance([]event.Cursor{least})
	}
	return nil
}

// pruneLocked removes a subscription's partitions, and notes the greatest
// version that is gone: theirs, or version.
func (b *Broker) pruneLocked(batch *pebble.Batch, name string, version uint64) error {
	err := b.scan(rowKey(rowRecord, name+"/"), func(key, value []byte) (bool, error) {
		var old subscription
		if err := old.parse(value); err != nil {
			return false, fmt.Errorf("read %q: %w", key, err)
		}
		version = max(version, old.version)
		return true, b.dropLocked(batch, string(key[2:]), &old)
	})
	if err != nil {
		return err
	}
	last, _, err := b.getUint64(keyVersions)
	if err != nil {
		return err
	}
	_ = batch.Set(keyVersions, appendUint64(nil, max(last, version)), nil)
	return nil
}
