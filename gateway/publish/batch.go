package publish

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"sync"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// batch is one publish under way. It is pooled: but for what the broker keeps,
// a publish allocates next to nothing. The strings of fields and ids point
// into body and scratch and are good until free.
type batch struct {
	p       *Publisher
	channel string
	source  string // what events without a source get
	now     string // what events without a time get

	body    []byte // as it came
	reader  bytes.Buffer
	decoder *jsontext.Decoder
	scratch []byte // what had to be unescaped, decoded or compacted; only grows
	encoded []byte // the event being encoded

	at     int // the number of the event being read, from 0
	fields event.Fields
	given  attributes // of the present event, what the publisher gave
	// channels is what a publish to several names; multi allows it.
	channels []string
	multi    bool

	entries  []broker.Entry
	ids      []string
	size     int // of all entries
	appended []broker.Appended
	out      []byte
}

var batches = sync.Pool{New: func() any {
	b := new(batch)
	b.decoder = jsontext.NewDecoder(&b.reader)
	return b
}}

func newBatch(p *Publisher, channel string) *batch {
	b := batches.Get().(*batch)
	b.p, b.channel = p, channel
	return b
}

// keptBuffer is the largest buffer worth keeping for the next publish.
const keptBuffer = 256 << 10

func (b *batch) free() {
	b.p, b.channel, b.source, b.now = nil, "", "", ""
	b.size, b.at, b.multi, b.given = 0, 0, false, 0
	b.appended = nil
	clear(b.entries)
	clear(b.ids)
	clear(b.channels)
	clear(b.fields.Extensions)
	b.entries, b.ids, b.channels = b.entries[:0], b.ids[:0], b.channels[:0]
	b.fields = event.Fields{Extensions: b.fields.Extensions[:0]}
	for _, buffer := range []*[]byte{&b.body, &b.scratch, &b.encoded, &b.out} {
		*buffer = (*buffer)[:0]
		if cap(*buffer) > keptBuffer {
			*buffer = nil
		}
	}
	b.reader = bytes.Buffer{}
	batches.Put(b)
}

// alias returns b as a string without copying it. It may be used for as long
// as nobody writes to b, which here is until free: scratch only grows.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// begin clears fields for the next event.
func (b *batch) begin() error {
	if limit := b.p.o.Limits.Events; len(b.entries) == limit {
		return wire.TooLarge("more than %d events", limit)
	}
	b.at = len(b.entries)
	b.given = 0
	b.fields = event.Fields{Extensions: b.fields.Extensions[:0]}
	return nil
}

// complete fills in what the publisher left out.
func (b *batch) complete() error {
	f := &b.fields
	if f.Type == "" {
		return b.bad("type is missing; want what happened, e.g. \"email.opened\"")
	}
	if f.Time == "" {
		if b.now == "" {
			b.now = event.FormatTime(b.p.o.Now())
		}
		f.Time = b.now
	}
	if f.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		f.ID = b.writeUUID(id)
	}
	return nil
}

// writeUUID is uuid.UUID.String into scratch.
func (b *batch) writeUUID(id uuid.UUID) string {
	from := len(b.scratch)
	for i, part := range [...][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b.scratch = append(b.scratch, '-')
		}
		b.scratch = hex.AppendEncode(b.scratch, part)
	}
	return alias(b.scratch[from:])
}

// end completes the event that was read, encodes it, and adds it to entries.
func (b *batch) end() error {
	if err := b.complete(); err != nil {
		return err
	}
	entry, err := b.encode(b.channel)
	if err != nil {
		return err
	}
	b.entries = append(b.entries, entry)
	b.ids = append(b.ids, b.fields.ID)
	b.size += len(entry.Data)
	return nil
}

// encode makes the entry of the present event for a channel.
func (b *batch) encode(channel string) (broker.Entry, error) {
	f := b.fields
	if f.Source == "" {
		if b.source == "" {
			b.source = "/channels/" + channel
		}
		f.Source = b.source
	}
	b.encoded = f.AppendStored(b.encoded[:0])
	if limit := b.p.o.Limits.Event; len(b.encoded) > limit {
		return broker.Entry{}, wire.TooLarge("event %d has %d bytes encoded; want at most %d", b.at, len(b.encoded), limit)
	}
	// The one copy that is kept, as long as it needs to be.
	entry := broker.Entry{Data: append(make([]byte, 0, len(b.encoded)), b.encoded...)}
	if b.given.has(attrID) {
		// Neither holds control characters, so no two pairs are alike.
		entry.Identity = f.Source + "\x00" + f.ID
	}
	return entry, nil
}

// because says which event an error is about, counted from 0.
func (b *batch) because(err error) error {
	e := *wire.From(err)
	e.Detail = fmt.Sprintf("event %d: %s", b.at, e.Detail)
	return &e
}

// bad is an error about the present event, counted from 0.
func (b *batch) bad(format string, args ...any) error {
	return wire.BadRequest("event %d: %s", b.at, fmt.Sprintf(format, args...))
}
