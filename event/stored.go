package event

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Fields is an event on its way in: validated and completed by whoever
// publishes, not yet placed in a channel.
type Fields struct {
	ID, Source, Type string
	Time             string // RFC 3339, or empty
	Subject, Key     string
	ContentType      string
	DataSchema       string
	Extensions       []Attribute
	Data             []byte // compact JSON without newlines, or nil
	Binary           []byte // becomes data_base64; never together with Data
}

// Attribute is an extension attribute: its name and its value as compact JSON.
type Attribute struct {
	Name  string
	Value []byte
}

// FormatTime is how the gateway writes times: RFC 3339 in UTC, milliseconds.
func FormatTime(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// Stored is an event as a broker keeps it: the JSON that every transport
// sends, but for channel and cursor, which are known only once it is appended.
//
// Shape: a version byte; uvarints for where channel and cursor belong and for
// offset and length of id, type and key, all counted in the JSON's bytes; the
// JSON.
type Stored []byte

const storedVersion = 1

var errStored = errors.New("stored event is damaged or of an unknown version")

// maxHeader is how long a stored event's header gets: lengths up to 4 GiB.
const maxHeader = 1 + 7*5

// AppendStored appends the stored form of f to dst. It allocates only if dst
// must grow.
func (f *Fields) AppendStored(dst []byte) []byte {
	// The JSON is written first, behind room for the header, whose size is
	// known only then; what is left of the room is closed.
	start := len(dst)
	from := start + maxHeader
	dst = append(dst, make([]byte, maxHeader)...)
	dst = append(dst, `{"specversion":"1.0","id":`...)
	idAt := len(dst)
	dst = appendString(dst, f.ID)
	idEnd := len(dst)
	dst = appendString(append(dst, `,"source":`...), f.Source)
	dst = append(dst, `,"type":`...)
	typeAt := len(dst)
	dst = appendString(dst, f.Type)
	typeEnd := len(dst)
	dst, keyAt, keyEnd := f.appendOptional(dst)
	split := len(dst)
	dst = f.appendTail(dst)

	header := append(dst[start:start:from], storedVersion)
	for _, n := range [...]int{split - from, idAt - from, idEnd - idAt, typeAt - from, typeEnd - typeAt, max(keyAt-from, 0), keyEnd - keyAt} {
		header = binary.AppendUvarint(header, uint64(n))
	}
	end := start + len(header)
	return dst[:end+copy(dst[end:], dst[from:])]
}

func (f *Fields) appendHead(dst []byte) []byte {
	dst = appendString(append(dst, `{"specversion":"1.0","id":`...), f.ID)
	dst = appendString(append(dst, `,"source":`...), f.Source)
	dst = appendString(append(dst, `,"type":`...), f.Type)
	dst, _, _ = f.appendOptional(dst)
	return dst
}

// appendOptional appends time to extensions and says where the key stands.
func (f *Fields) appendOptional(dst []byte) (out []byte, keyAt, keyEnd int) {
	if f.Time != "" {
		dst = appendString(append(dst, `,"time":`...), f.Time)
	}
	if f.Subject != "" {
		dst = appendString(append(dst, `,"subject":`...), f.Subject)
	}
	if f.Key != "" {
		dst = append(dst, `,"partitionkey":`...)
		keyAt = len(dst)
		dst = appendString(dst, f.Key)
		keyEnd = len(dst)
	}
	for _, a := range f.Extensions {
		dst = append(appendString(append(dst, ','), a.Name), ':')
		dst = append(dst, a.Value...)
	}
	return dst, keyAt, keyEnd
}

func (f *Fields) appendTail(dst []byte) []byte {
	if f.ContentType != "" {
		dst = appendString(append(dst, `,"datacontenttype":`...), f.ContentType)
	}
	if f.DataSchema != "" {
		dst = appendString(append(dst, `,"dataschema":`...), f.DataSchema)
	}
	switch {
	case f.Binary != nil:
		dst = append(dst, `,"data_base64":"`...)
		dst = append(base64.StdEncoding.AppendEncode(dst, f.Binary), '"')
	case f.Data != nil:
		dst = append(append(dst, `,"data":`...), f.Data...)
	}
	return append(dst, '}')
}

// View is a stored event taken apart without copying. Its slices point into
// the stored bytes.
type View struct {
	head, tail []byte
	id, typ    []byte // quoted JSON strings
	key        []byte // quoted, or empty

	typeAt, keyAt int
}

// View checks the header and takes s apart.
func (s Stored) View() (View, error) {
	if len(s) == 0 || s[0] != storedVersion {
		return View{}, errStored
	}
	rest := s[1:]
	var n [7]int
	for i := range n {
		v, size := binary.Uvarint(rest)
		if size <= 0 || v > uint64(len(s)) {
			return View{}, errStored
		}
		n[i], rest = int(v), rest[size:]
	}
	for _, end := range [...]int{n[0], n[1] + n[2], n[3] + n[4], n[5] + n[6]} {
		if end > len(rest) {
			return View{}, errStored
		}
	}
	return View{
		head: rest[:n[0]], tail: rest[n[0]:],
		id: rest[n[1] : n[1]+n[2]], typ: rest[n[3] : n[3]+n[4]], key: rest[n[5] : n[5]+n[6]],
		typeAt: n[3], keyAt: n[5],
	}, nil
}

// ID, Type and Key return the attributes as strings; Key is empty if absent.
func (v View) ID() string   { return unquote(v.id) }
func (v View) Type() string { return unquote(v.typ) }
func (v View) Key() string  { return unquote(v.key) }

// TypeAt and KeyAt say where the attribute's quoted text stands in the JSON
// that AppendJSON appends; KeyAt is 0, 0 if there is none.
func (v View) TypeAt() (from, to int) { return v.typeAt, v.typeAt + len(v.typ) }
func (v View) KeyAt() (from, to int)  { return v.keyAt, v.keyAt + len(v.key) }

// Size is the length of what AppendJSON appends, in bytes.
func (v View) Size(c Cursor) int {
	digits := 1
	for n := c.Offset; n >= 10; n /= 10 {
		digits++
	}
	cursor := len(c.Channel) + len("@") + len(c.Epoch) + len("-") + digits
	return len(v.head) + len(channelOpen) + len(c.Channel) + len(cursorOpen) + cursor + len(`"`) + len(v.tail)
}

const (
	channelOpen = `,"channel":"`
	cursorOpen  = `","cursor":"`
)

// AppendJSON appends the event's JSON as every transport sends it: the stored
// bytes with channel and cursor put in.
func (v View) AppendJSON(dst []byte, c Cursor) []byte {
	dst = append(dst, v.head...)
	// Channel names and epochs hold nothing that JSON would escape.
	dst = append(append(append(dst, channelOpen...), c.Channel...), cursorOpen...)
	dst = append(c.Append(dst), '"')
	return append(dst, v.tail...)
}

// AppendMoved appends an event's JSON, as AppendJSON made it with the cursor
// from, with the cursor to in its place. Both are of one channel.
func AppendMoved(dst, text []byte, from, to Cursor) []byte {
	place := from.Append([]byte(channelOpen + from.Channel + cursorOpen))
	// A text of the publisher's can't look like it: its quotes are escaped. Data
	// could, but comes after it.
	head, tail, _ := bytes.Cut(text, append(place, '"'))
	dst = append(append(append(append(dst, head...), channelOpen...), to.Channel...), cursorOpen...)
	dst = append(to.Append(dst), '"')
	return append(dst, tail...)
}

// AppendDetached appends the JSON without channel and cursor.
func (v View) AppendDetached(dst []byte) []byte {
	return append(append(dst, v.head...), v.tail...)
}

func unquote(q []byte) string {
	if len(q) < 2 {
		return ""
	}
	for _, c := range q {
		if c == '\\' {
			var s string
			if json.Unmarshal(q, &s) != nil {
				return ""
			}
			return s
		}
	}
	return string(q[1 : len(q)-1])
}

// appendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD, so
// that the result is always valid; publishing refuses it long before.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[from:i]...), `\ufffd`...)
				from = i + size
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}

// AppendString appends s to dst as a JSON string.
func AppendString(dst []byte, s string) []byte { return appendString(dst, s) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// appendUint is here so that cursors and numbers are written one way.
func appendUint(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }
