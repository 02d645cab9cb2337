package embedded

import "github.com/cockroachdb/pebble/v2/vfs"

// WithFS makes the broker use fs instead of the operating system's.
func WithFS(o Options, fs vfs.FS) Options {
	o.fs = fs
	return o
}

// Sweep lets the broker look for idle channels as in so many seconds.
func (b *Broker) Sweep(seconds int) {
	for range seconds {
		b.forgetIdle(b.janitor.sweep.Add(1))
	}
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
func (b *Broker) SetFormat(format uint64) error { return b.setFormat(b.db.NewBatch(), format) }
