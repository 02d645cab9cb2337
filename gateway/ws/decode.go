package ws

import (
	"bytes"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/longline-push/longline/gateway/wire"
)

// decoder reads frames in one pass.
type decoder struct {
	text   []byte
	reader bytes.Reader
	json   *jsontext.Decoder
	name   []byte
}

var decoders = sync.Pool{New: func() any { return &decoder{json: jsontext.NewDecoder(&bytes.Reader{})} }}

// decode reads a client's frame, valid UTF-8, into m, whose Events lie in text.
// What it doesn't know in it is ignored, and of what is there twice the last
// counts.
func decode(text []byte, m *message) error {
	if text = bytes.TrimSpace(text); len(text) == 0 || text[0] != '{' {
		return wire.BadRequest("frame is not a JSON object")
	}
	d := decoders.Get().(*decoder)
	d.text = text
	d.reader.Reset(text)
	d.json.Reset(&d.reader, jsontext.AllowDuplicateNames(true))
	err := d.object(m)
	d.text = nil
	d.reader.Reset(nil)
	decoders.Put(d)
	return err
}

// object goes on after a member of the wrong type, so that the answer has the
// frame's ref.
func (d *decoder) object(m *message) (wrong error) {
	if _, err := d.json.ReadToken(); err != nil {
		return wire.NotJSON("frame", err)
	}
	for d.json.PeekKind() != '}' {
		name, err := d.value()
		if err != nil {
			return err
		}
		if d.name, err = jsontext.AppendUnquote(d.name[:0], name); err != nil {
			return wire.NotJSON("frame", err)
		}
		value, err := d.value()
		if err != nil {
			return err
		}
		if err := m.set(d.name, value); err != nil && wrong == nil {
			wrong = err
		}
	}
	if _, err := d.json.ReadToken(); err != nil {
		return wire.NotJSON("frame", err)
	}
	if d.json.InputOffset() != int64(len(d.text)) {
		return wire.BadRequest("frame holds more than one JSON object")
	}
	return wrong
}

// value returns the next value's bytes, in text.
func (d *decoder) value() (jsontext.Value, error) {
	v, err := d.json.ReadValue()
	if err != nil {
		return nil, wire.NotJSON("frame", err)
	}
	end := int(d.json.InputOffset())
	return d.text[end-len(v) : end], nil
}

// set takes one member of a frame. null is as good as absent.
func (m *message) set(name []byte, value jsontext.Value) error {
	if value.Kind() == 'n' {
		return nil
	}
	var text *string
	switch string(name) {
	case "op":
		text = &m.Op
	case "since":
		text = &m.Since
	case "filter":
		text = &m.Filter
	case "lag":
		text = &m.Lag
	case "channel":
		text = &m.Channel
	case "token":
		text = &m.Token
	case "cursor":
		text = &m.Cursor
	case "reason":
		text = &m.Reason
	case "channels":
		return setTexts(&m.Channels, name, value, "a list of channel names")
	case "types":
		return setTexts(&m.Types, name, value, "a list of patterns")
	case "events":
		m.Events = value
		return nil
	case "attempts":
		n, err := strconv.Atoi(string(value))
		if err != nil || n < 0 {
			return mistyped(name, value, "a number of calls")
		}
		m.Attempts = n
		return nil
	case "partition":
		n, err := strconv.Atoi(string(value))
		if err != nil || n < 0 {
			return mistyped(name, value, "a partition's number, from 0 on")
		}
		m.Partition = &n
		return nil
	case "ref":
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			return mistyped(name, value, "an integer of 64 bits")
		}
		m.Ref = &n
		return nil
	default:
		return nil
	}
	return setText(text, name, value, "a string")
}

func setText(to *string, name []byte, value jsontext.Value, want string) error {
	if value.Kind() != '"' {
		return mistyped(name, value, want)
	}
	unquoted, err := jsontext.AppendUnquote(nil, value)
	*to = string(unquoted)
	return err
}

func setTexts(to *[]string, name []byte, value jsontext.Value, want string) error {
	if value.Kind() != '[' {
		return mistyped(name, value, want)
	}
	*to = nil
	d := jsontext.NewDecoder(bytes.NewReader(value))
	if _, err := d.ReadToken(); err != nil {
		return wire.NotJSON("frame", err)
	}
	for d.PeekKind() != ']' {
		element, err := d.ReadValue()
		if err != nil {
			return wire.NotJSON("frame", err)
		}
		var text string
		if err := setText(&text, name, element, want); err != nil {
			return err
		}
		*to = append(*to, text)
	}
	return nil
}

func mistyped(name []byte, value jsontext.Value, want string) error {
	kind := "boolean"
	switch value.Kind() {
	case '"':
		kind = "string"
	case '0':
		kind = "number"
	case '[':
		kind = "array"
	case '{':
		kind = "object"
	case 'n':
		kind = "null"
	}
	return wire.BadRequest("frame's %s is a JSON %s; want %s", name, kind, want)
}
