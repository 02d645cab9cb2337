package embedded

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Keys of durable subscriptions, all beginning with s, and what they hold:
//
//	r <name>                  version, record, and what the indexes below hold of it
//	p <name>                  generation and position
//	q <name>                  when it is due, if it is
//	d <time:8> <name>         the same by time
//	f <channel> 0 <name>      it follows the channel
//	w <channel> 0 <name>      it waits for the channel to leave this cursor
//	o <node> 0 <name>         the node owns it
//	m <creator> 0 <name>      the creator made it
//	c <name>                  counts of its dead letters
//	l <name> 0 <seq:8>        a dead letter
//	i <name> 0 <cursor>       the seq of the letter of that cursor
//	y <name> 0 <seq:8>        the letter is to be delivered again
//	a <name> 0 <seq:8>        an attempt of its callback: time, bytes so far, data
//	b <name>                  which of them there are
//	n <name>                  its note
//	h <id>                    a node that joined
//
// Nothing of this is kept in memory, but for the positions that moved last, so
// a hundred thousand subscriptions that nobody asks about cost nothing and a
// start reads none of them.
const (
	rowRecord   = 'r'
	rowStanding = 'p'
	rowDue      = 'q'
	rowByTime   = 'd'
	rowFollows  = 'f'
	rowWaits    = 'w'
	rowOwner    = 'o'
	rowCreator  = 'm'
	rowLetters  = 'c'
	rowLetter   = 'l'
	rowLetterOf = 'i'
	rowRedrive  = 'y'
	rowAttempt  = 'a'
	rowAttempts = 'b'
	rowNote     = 'n'
	rowNode     = 'h'
)

func rowKey(row byte, parts ...string) []byte {
	key := append(make([]byte, 0, 64), 's', row)
	for i, part := range parts {
		if i > 0 {
			key = append(key, 0)
		}
		key = append(key, part...)
	}
	return key
}

func byTimeKey(at int64, name string) []byte {
	return append(appendUint64(rowKey(rowByTime), uint64(at)), name...)
}

// get calls parse with the value of key; false if there is none.
func (b *Broker) get(key []byte, parse func(value []byte) error) (bool, error) {
	value, closer, err := b.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer closer.Close()
	if err := parse(value); err != nil {
		return false, fmt.Errorf("read %q: %w", key, err)
	}
	return true, nil
}

// scan calls f with all keys that begin with prefix, until it returns false.
func (b *Broker) scan(prefix []byte, f func(key, value []byte) (bool, error)) error {
	return b.scanFrom(prefix, prefix, f)
}

// scanFrom is scan from the key from on.
func (b *Broker) scanFrom(prefix, from []byte, f func(key, value []byte) (bool, error)) error {
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: afterPrefix(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		more, err := f(it.Key(), it.Value())
		if err != nil || !more {
			return err
		}
	}
	return it.Error()
}

// afterPrefix is the first key behind those that begin with prefix, whose
// first byte is a letter.
func afterPrefix(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}

// subscription is a row of rowRecord.
type subscription struct {
	version  uint64
	record   []byte
	node     string
	channels []string
	waits    []string
	creator  string
}

func (s *subscription) append(dst []byte) []byte {
	dst = append(dst, recordVersion)
	dst = binary.AppendUvarint(dst, s.version)
	dst = appendText(dst, string(s.record))
	dst = appendText(dst, s.node)
	dst = appendTexts(dst, s.channels)
	dst = appendTexts(dst, s.waits)
	return appendText(dst, s.creator)
}

func (s *subscription) parse(b []byte) error {
	d := decoder{b: b}
	if d.byte() != recordVersion {
		return errDamaged
	}
	*s = subscription{version: d.uvarint(), record: []byte(d.text()), node: d.text(), channels: d.texts(), waits: d.texts()}
	if len(d.b) > 0 { // before format 2 there was none
		s.creator = d.text()
	}
	return d.end()
}

func appendTexts(dst []byte, texts []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(texts)))
	for _, t := range texts {
		dst = appendText(dst, t)
	}
	return dst
}

func (d *decoder) texts() []string {
	var texts []string
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		texts = append(texts, d.text())
	}
	return texts
}

// standing is a row of rowStanding.
type standing struct {
	broker.Progress
}

func (s *standing) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, s.Generation)
	for _, c := range s.Position {
		dst = appendText(dst, c.Channel)
		dst = appendText(dst, c.Epoch)
		dst = binary.AppendUvarint(dst, c.Offset)
	}
	return dst
}

func (s *standing) parse(b []byte) error {
	d := decoder{b: b}
	s.Generation, s.Position = d.uvarint(), nil
	for !d.bad && len(d.b) > 0 {
		s.Position = append(s.Position, event.Cursor{Channel: d.text(), Epoch: d.text(), Offset: d.uvarint()})
	}
	return d.end()
}

// place puts a cursor into the position, which is ordered by channel.
func (s *standing) place(c event.Cursor) {
	i, found := s.find(c.Channel)
	if found {
		s.Position[i] = c
	} else {
		s.Position = slices.Insert(s.Position, i, c)
	}
}

func (s *standing) forget(channel string) {
	if i, found := s.find(channel); found {
		s.Position = slices.Delete(s.Position, i, i+1)
	}
}

func (s *standing) find(channel string) (int, bool) {
	return slices.BinarySearchFunc(s.Position, channel, func(c event.Cursor, channel string) int {
		return cmp.Compare(c.Channel, channel)
	})
}

// advance moves the position as broker.Move says; false if nothing changed.
func (s *standing) advance(to event.Position) bool {
	changed := false
	for _, c := range to {
		if i, found := s.find(c.Channel); found && s.Position[i].Epoch == c.Epoch && s.Position[i].Offset >= c.Offset {
			continue
		}
		s.place(c)
		changed = true
	}
	return changed
}

func appendCursor(dst []byte, c event.Cursor) []byte {
	return binary.AppendUvarint(appendText(dst, c.Epoch), c.Offset)
}

func parseCursor(b []byte, c *event.Cursor) error {
	d := decoder{b: b}
	c.Epoch, c.Offset = d.text(), d.uvarint()
	return d.end()
}
