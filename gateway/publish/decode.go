package publish

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/wire"
)

// form is one of the ways in which events come.
type form int

const (
	shortForm  form = iota // application/json: one object or an array
	structured             // application/cloudevents+json
	batched                // application/cloudevents-batch+json
	lines                  // application/x-ndjson
	binary                 // ce-* headers
	single                 // application/json where an array makes no sense
)

const formsTaken = "application/json, application/cloudevents+json, application/cloudevents-batch+json, application/x-ndjson, or ce-* headers (CloudEvents binary mode)"

func formOf(h http.Header) (form, error) {
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return 0, wire.Errorf(wire.CodeUnsupportedMedia, "Content-Encoding %.40q; want none", e)
	}
	kind := h.Get("Content-Type")
	if kind != "application/json" {
		media, _, err := mime.ParseMediaType(kind)
		if err != nil && kind != "" && !isBinary(h) {
			return 0, wire.Errorf(wire.CodeUnsupportedMedia, "Content-Type %.80q can't be read; want %s", kind, formsTaken)
		}
		kind = media
	}
	// The type decides first: CloudEvents' HTTP binding §3.
	switch kind {
	case "application/cloudevents+json":
		return structured, nil
	case "application/cloudevents-batch+json":
		return batched, nil
	}
	switch {
	case strings.HasPrefix(kind, "application/cloudevents"):
	case isBinary(h):
		return binary, nil
	case kind == "application/json":
		return shortForm, nil
	case kind == "application/x-ndjson":
		return lines, nil
	}
	return 0, wire.Errorf(wire.CodeUnsupportedMedia, "Content-Type %.80q; want %s", kind, formsTaken)
}

// decode reads all of body into entries.
func (b *batch) decode(f form, h http.Header) error {
	if f == binary {
		return b.readBinary(h)
	}
	if len(b.body) == 0 {
		return wire.BadRequest("body is empty; want at least one event")
	}
	b.startJSON()
	var err error
	switch kind := b.decoder.PeekKind(); {
	case f == lines:
		for err == nil && b.decoder.PeekKind() != 0 {
			err = b.readObject(f)
		}
	case kind == '{' && f != batched:
		err = b.readObject(f)
	case kind == '[' && (f == shortForm || f == batched):
		err = b.readArray(f)
	case kind == 0: // not JSON; atEnd says how
	default:
		return wire.BadRequest("body is %s", notWanted[f])
	}
	if err == nil {
		err = b.atEnd()
	}
	if err == nil && len(b.entries) == 0 && !b.multi {
		err = wire.BadRequest("body holds no event; want at least one")
	}
	return err
}

// notWanted completes a sentence about JSON of another kind.
var notWanted = map[form]string{
	shortForm:  "neither an object nor an array; want one event or an array of events",
	structured: "not an object; want one event",
	single:     "not an object; want one event",
	batched:    "not an array; want an array of events",
}

var decoding = []jsontext.Options{
	// Those among attributes are refused here; in data they are the
	// publisher's business.
	jsontext.AllowDuplicateNames(true),
	jsontext.AllowInvalidUTF8(false),
}

func (b *batch) startJSON() {
	b.reader = *bytes.NewBuffer(b.body)
	b.decoder.Reset(&b.reader, decoding...)
}

func (b *batch) readArray(f form) error {
	if _, err := b.decoder.ReadToken(); err != nil {
		return notJSON(err)
	}
	for b.decoder.PeekKind() != ']' {
		if err := b.readObject(f); err != nil {
			return err
		}
	}
	_, err := b.decoder.ReadToken()
	if err != nil {
		return notJSON(err)
	}
	return nil
}

func (b *batch) atEnd() error {
	switch _, err := b.decoder.ReadToken(); {
	case err == io.EOF:
		return nil
	case err != nil:
		return notJSON(err)
	}
	return wire.BadRequest("something follows the event or the array; want one of them and no more (or application/x-ndjson)")
}

func notJSON(err error) error { return wire.NotJSON("body", err) }

// value returns the next value's bytes, in body.
func (b *batch) value() (jsontext.Value, error) {
	v, err := b.decoder.ReadValue()
	if err != nil {
		return nil, notJSON(err)
	}
	// The decoder's slice is only good until its next call; ours is for good.
	end := int(b.decoder.InputOffset())
	return b.body[end-len(v) : end], nil
}

// readObject reads one event and adds it.
func (b *batch) readObject(f form) error {
	if err := b.begin(); err != nil {
		return err
	}
	if kind := b.decoder.PeekKind(); kind != '{' && kind != 0 {
		return b.bad("it is not an object; want {\"type\":…}")
	}
	if _, err := b.decoder.ReadToken(); err != nil {
		return notJSON(err)
	}
	for b.decoder.PeekKind() != '}' {
		quoted, err := b.value()
		if err != nil {
			return err
		}
		value, err := b.value()
		if err != nil {
			return err
		}
		if err := b.attribute(b.unquote(quoted), value); err != nil {
			return err
		}
	}
	if _, err := b.decoder.ReadToken(); err != nil {
		return notJSON(err)
	}
	if (f == structured || f == batched) && !b.given.has(attrVersion) {
		return b.bad("specversion is missing; want \"1.0\"")
	}
	if b.multi {
		return b.complete()
	}
	return b.end()
}

// unquote returns what a JSON string, known to be good, says.
func (b *batch) unquote(quoted jsontext.Value) string {
	inner := quoted[1 : len(quoted)-1]
	for _, c := range inner {
		if c == '\\' {
			from := len(b.scratch)
			b.scratch, _ = jsontext.AppendUnquote(b.scratch, quoted)
			return alias(b.scratch[from:])
		}
	}
	return alias(inner)
}

// attributes is a set of those that CloudEvents or the gateway gives a
// meaning.
type attributes uint16

const (
	attrVersion attributes = 1 << iota
	attrID
	attrSource
	attrType
	attrTime
	attrSubject
	attrKey
	attrContentType
	attrDataSchema
	attrData
	attrBase64
	attrChannels
)

func (a attributes) has(b attributes) bool { return a&b != 0 }

// attribute takes one member of an event's object.
func (b *batch) attribute(name string, value jsontext.Value) error {
	switch name {
	case "data":
		if err := b.once(attrData, name); err != nil {
			return err
		}
		if b.given.has(attrBase64) {
			return b.twoDatas()
		}
		var err error
		if b.fields.Data, err = b.compact(value); err != nil {
			return err
		}
		return nil
	case "channels":
		if b.multi {
			return b.readChannels(value)
		}
	}
	if value.Kind() == 'n' {
		return nil // null is absent: CloudEvents' JSON format §2.2
	}
	set, to := b.field(name)
	if set == 0 {
		return b.extension(name, value)
	}
	if value.Kind() != '"' {
		return b.bad("%s is not a string", name)
	}
	if err := b.once(set, name); err != nil {
		return err
	}
	return b.set(set, name, b.unquote(value), to)
}

// field says where a known string attribute goes; to is nil where it is only
// looked at.
func (b *batch) field(name string) (set attributes, to *string) {
	f := &b.fields
	switch name {
	case "specversion":
		return attrVersion, nil
	case "id":
		return attrID, &f.ID
	case "source":
		return attrSource, &f.Source
	case "type":
		return attrType, &f.Type
	case "time":
		return attrTime, &f.Time
	case "subject":
		return attrSubject, &f.Subject
	case "partitionkey":
		return attrKey, &f.Key
	case "datacontenttype":
		return attrContentType, &f.ContentType
	case "dataschema":
		return attrDataSchema, &f.DataSchema
	case "data_base64":
		return attrBase64, nil
	}
	return 0, nil
}

func (b *batch) once(a attributes, name string) error {
	if b.given.has(a) {
		return b.bad("%s is there twice", name)
	}
	b.given |= a
	return nil
}

// set checks a string attribute and sets it.
func (b *batch) set(a attributes, name, value string, to *string) error {
	if a == attrBase64 {
		return b.setBase64(value)
	}
	if err := b.checkText(name, value); err != nil {
		return err
	}
	switch a {
	case attrVersion:
		if value != "1.0" {
			return b.bad("specversion is %.40q; want \"1.0\"", value)
		}
		return nil
	case attrType:
		if err := access.PublishType(value); err != nil {
			return b.because(err)
		}
	case attrTime:
		if _, err := time.Parse(time.RFC3339Nano, value); err != nil {
			return b.bad("time is %.80q; want RFC 3339, e.g. \"2026-11-22T13:31:00.123Z\"", value)
		}
	case attrContentType:
		if value != "application/json" {
			if _, _, err := mime.ParseMediaType(value); err != nil {
				return b.bad("datacontenttype is %.80q; want a media type (RFC 2046)", value)
			}
		}
	}
	*to = value
	return nil
}

// checkText refuses what CloudEvents does not take in a string: nothing, and
// control characters, which would also break headers and event streams.
func (b *batch) checkText(name, value string) error {
	if value == "" && name == "type" {
		return b.bad("type is empty; want what happened, e.g. \"email.opened\"")
	}
	if value == "" {
		return b.bad("%s is empty; leave it out or give it a value", name)
	}
	for i := 0; i < len(value); i++ {
		c := value[i]
		// U+0080 to U+009F are C2 80 to C2 9F.
		if c < ' ' || c == 0x7f || c == 0xc2 && i+1 < len(value) && value[i+1] < 0xa0 {
			return b.bad("%s holds a control character", name)
		}
	}
	return nil
}

func (b *batch) setBase64(value string) error {
	if b.given.has(attrData) {
		return b.twoDatas()
	}
	from := len(b.scratch)
	var err error
	if b.scratch, err = base64.StdEncoding.AppendDecode(b.scratch, []byte(value)); err != nil {
		return b.bad("data_base64 is not base64 (RFC 4648 §4)")
	}
	b.fields.Binary = b.scratch[from:len(b.scratch):len(b.scratch)]
	if b.fields.Binary == nil {
		b.fields.Binary = []byte{}
	}
	return nil
}

func (b *batch) twoDatas() error { return b.bad("both data and data_base64; want one") }

// extension takes an attribute that means nothing to the gateway.
func (b *batch) extension(name string, value jsontext.Value) error {
	if name == "channel" || name == "cursor" {
		return b.bad("%s is set by the gateway; leave it out", name)
	}
	if !extensionName(name) {
		return b.bad("attribute name %.40q; want a-z and 0-9 only, at most %d", name, maxExtensionName)
	}
	switch value.Kind() {
	case '"':
		if text := b.unquote(value); text != "" {
			if err := b.checkText(name, text); err != nil {
				return err
			}
		}
	case '{', '[':
		return b.bad("attribute %s is an object or array; want a string, number or boolean (or put it into data)", name)
	}
	for _, x := range b.fields.Extensions {
		if x.Name == name {
			return b.bad("%s is there twice", name)
		}
	}
	b.fields.Extensions = append(b.fields.Extensions, event.Attribute{Name: name, Value: value})
	return nil
}

const maxExtensionName = 64

// extensionName is CloudEvents' rule for attribute names.
func extensionName(s string) bool {
	if s == "" || len(s) > maxExtensionName {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') {
			return false
		}
	}
	return true
}

// maxDepth is how deep data may be nested: the parsers of many languages give up
// somewhere beyond, and one event must not stop whoever reads it with them.
const maxDepth = 500

// compact returns a JSON value, known to be good, without white space between
// its tokens and otherwise byte for byte the same.
func (b *batch) compact(value jsontext.Value) ([]byte, error) {
	from, copied, inString := len(b.scratch), 0, false
	depth := 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return nil, b.bad("data is nested more than %d levels deep; want no more, since many a JSON parser takes no more", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			b.scratch = append(b.scratch, value[copied:i]...)
			copied = i + 1
		}
	}
	if copied == 0 {
		return value, nil
	}
	b.scratch = append(b.scratch, value[copied:]...)
	return b.scratch[from:len(b.scratch):len(b.scratch)], nil
}
