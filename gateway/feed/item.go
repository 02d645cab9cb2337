package feed

import (
	"bytes"
	"encoding/json"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// Item is an event as it goes out on this node: completed and framed once,
// shared by every session. It is immutable.
//
// Its bytes are laid out so that each transport sends slices of them:
//
//	id: <cursor>\ndata: │ WebSocket header │ event's JSON │ \n\n
//	└──── Prefix ─────┘                    └──── Rest ──────────┘
//	                    └────────── Frame ─────────────┘
type Item struct {
	Offset   uint64
	Appended time.Time

	number uint64 // unlike any other item's

	buf          []byte
	frame, json  int32 // where the WebSocket header and the JSON begin
	typ, key     span
	escaped      bool // type or key hold an escape
	unescapedTyp string
	unescapedKey string
	traced       atomic.Pointer[Traced] // once somebody asked
	hash         atomic.Uint64          // of its partition, once somebody asked; 0: nobody did
}

type span struct{ from, to int32 }

func (s span) shifted(by int32) span {
	if s == (span{}) {
		return s // there is none
	}
	return span{s.from + by, s.to + by}
}

// NewItem completes a stored event with its place in the channel.
func NewItem(channel, epoch string, stored broker.Item) (*Item, error) {
	v, err := event.Stored(stored.Data).View()
	if err != nil {
		return nil, err
	}
	c := event.Cursor{Channel: channel, Epoch: epoch, Offset: stored.Offset}
	size := v.Size(c)
	i := &Item{Offset: stored.Offset, Appended: stored.Time, number: items.Add(1)}
	b := make([]byte, 0, size+len(channel)+len(epoch)+48)
	b = c.Append(append(b, "id: "...))
	b = append(b, "\ndata: "...)
	i.frame = int32(len(b))
	b = wire.AppendTextHeader(b, size)
	i.json = int32(len(b))
	b = v.AppendJSON(b, c)
	i.buf = append(b, "\n\n"...)

	typeFrom, typeTo := v.TypeAt()
	keyFrom, keyTo := v.KeyAt()
	i.typ = span{i.json + int32(typeFrom) + 1, i.json + int32(typeTo) - 1}
	if keyTo > 0 {
		i.key = span{i.json + int32(keyFrom) + 1, i.json + int32(keyTo) - 1}
	}
	if bytes.IndexByte(i.text(i.typ), '\\') >= 0 || bytes.IndexByte(i.text(i.key), '\\') >= 0 {
		i.escaped, i.unescapedTyp, i.unescapedKey = true, v.Type(), v.Key()
	}
	return i, nil
}

var items atomic.Uint64 // that were made

// Number is unlike that of any other item of this process, and never 0: by it
// what was found out about an item can be remembered without holding it.
func (i *Item) Number() uint64 { return i.number }

func (i *Item) text(s span) []byte { return i.buf[s.from:s.to] }

// Prefix is what precedes the JSON in an event stream whose position is this
// event's cursor alone.
func (i *Item) Prefix() []byte { return i.buf[:i.frame] }

// Channel is where the event was published.
func (i *Item) Channel() string {
	channel, _, _ := bytes.Cut(i.buf[len("id: "):i.frame], []byte("@"))
	return unsafe.String(unsafe.SliceData(channel), len(channel))
}

// JSON is the event's JSON.
func (i *Item) JSON() []byte { return i.buf[i.json : len(i.buf)-2] }

// Frame is the event as an unmasked WebSocket text frame.
func (i *Item) Frame() []byte { return i.buf[i.frame : len(i.buf)-2] }

// Rest is what follows "data: " in an event stream: the JSON and the empty
// line.
func (i *Item) Rest() []byte { return i.buf[i.json:] }

// Corrupt tells whether it is a placeholder for an event that can't be read.
// Nobody but a feed and whoever reads it meets one.
func (i *Item) Corrupt() bool { return len(i.buf) == 0 }

// Size is how many bytes the item holds.
func (i *Item) Size() int { return cap(i.buf) + int(unsafe.Sizeof(*i)) }

// Type returns the event's type.
func (i *Item) Type() string {
	if i.escaped {
		return i.unescapedTyp
	}
	return unsafe.String(&i.buf[i.typ.from], int(i.typ.to-i.typ.from))
}

// Key returns the event's partitionkey, or "".
func (i *Item) Key() string {
	if i.escaped {
		return i.unescapedKey
	}
	if i.key.to == i.key.from {
		return ""
	}
	return unsafe.String(&i.buf[i.key.from], int(i.key.to-i.key.from))
}

// ID returns the event's id. It decodes it, so it is not for hot paths.
func (i *Item) ID() string {
	var e struct{ ID string }
	json.Unmarshal(i.JSON(), &e)
	return e.ID
}

// Partition returns which of n partitions of a group the event belongs to.
func (i *Item) Partition(n int) int {
	h := i.hash.Load()
	if h == 0 {
		if key := i.Key(); key != "" {
			h = event.PartitionHash(key, "", "")
		} else {
			var e struct{ ID, Source string }
			json.Unmarshal(i.JSON(), &e)
			h = event.PartitionHash("", e.Source, e.ID)
		}
		i.hash.Store(h)
	}
	return int(h % uint64(n))
}

// in is the item in another epoch of its log, which a fork that lost nothing of
// it began. What is sent from then on has cursors of that one alone: a client
// couldn't compare others with what it is told.
func (i *Item) in(from, to event.Cursor) *Item {
	if i.Corrupt() {
		return i
	}
	from.Offset, to.Offset = i.Offset, i.Offset
	text := event.AppendMoved(nil, i.JSON(), from, to)
	moved := Remade(to, text, i.unescapedTyp, i.unescapedKey)
	moved.Appended, moved.escaped = i.Appended, i.escaped
	by := moved.json - i.json // type and key stand before the cursor
	moved.typ, moved.key = i.typ.shifted(by), i.key.shifted(by)
	moved.hash.Store(i.hash.Load())
	return moved
}

// Traced is an event's own trace, and how many more deliveries of it are to be
// traced here: those of an event to ten thousand connections are much the same.
type Traced struct {
	event.Trace
	Left atomic.Int32
}

const maxTraced = 16

// Traced returns the event's own trace; its Parent is "" if there is none.
func (i *Item) Traced() *Traced {
	t := i.traced.Load()
	if t == nil {
		t = untraced
		if of := event.TraceOf(i.JSON()); of.Parent != "" {
			t = &Traced{Trace: of}
			t.Left.Store(maxTraced)
		}
		if !i.traced.CompareAndSwap(nil, t) {
			t = i.traced.Load()
		}
	}
	return t
}

var untraced = new(Traced)

// Remade is an event that is known by its JSON alone, such as a dead letter
// that is delivered again.
func Remade(c event.Cursor, text []byte, typ, key string) *Item {
	i := &Item{Offset: c.Offset, number: items.Add(1), escaped: true, unescapedTyp: typ, unescapedKey: key}
	b := make([]byte, 0, len(text)+len(c.Channel)+80)
	b = c.Append(append(b, "id: "...))
	b = append(b, "\ndata: "...)
	i.frame = int32(len(b))
	b = wire.AppendTextHeader(b, len(text))
	i.json = int32(len(b))
	i.buf = append(append(b, text...), "\n\n"...)
	return i
}
