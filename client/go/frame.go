package longline

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// frame is what the gateway sent: an event, or where op isn't empty, control.
type frame struct {
	op    string
	event Event
	control
}

// control holds the fields of every control frame; which of them matter
// depends on the op.
//
//	hello       connection node session subscription cursor recovered window heartbeat_ms expires placed replay partitions of members
//	ok, error   ref, cursor of subscribe / code detail retry_ms
//	gap         channel from to reason
//	position    cursor
//	redelivery  cursor
//	partitions  partitions of members
//	standby
//	bye         code reason retry_ms reconnect
type control struct {
	Ref          int64     `json:"ref"`
	Connection   string    `json:"connection"`
	Node         string    `json:"node"`
	Session      string    `json:"session"`
	Subscription string    `json:"subscription"`
	Cursor       string    `json:"cursor"`
	Recovered    bool      `json:"recovered"`
	Window       int       `json:"window"`
	HeartbeatMS  int64     `json:"heartbeat_ms"`
	Expires      time.Time `json:"expires"`
	Placed       string    `json:"placed"` // when somebody put the cursor somewhere
	Detail       string    `json:"detail"`
	RetryMS      int64     `json:"retry_ms"`
	Channel      string    `json:"channel"`
	From         string    `json:"from"`
	To           string    `json:"to"`
	Reason       string    `json:"reason"`
	Reconnect    bool      `json:"reconnect"`
	Replay       bool      `json:"replay"`
	Partitions   []int     `json:"partitions"` // of a group: this connection's
	Of           int       `json:"of"`         // how many it has; 0: there is no group
	Members      int       `json:"members"`
	// Code is a number in bye and a word in error.
	Code json.RawMessage `json:"code"`
}

// decodeFrame reads a frame and keeps none of b. Its errors are ErrMalformed.
func decodeFrame(b []byte) (frame, error) {
	var f frame
	if !utf8.Valid(b) {
		return f, malformed("frame is not valid UTF-8")
	}
	raw := append(make([]byte, 0, len(b)), b...)
	s := scanner{text: string(raw)}
	if strings.HasPrefix(s.text, `{"specversion":`) { // as gateways begin events
		err := decodeEvent(&f.event, s.text, raw)
		return f, err
	}
	var op, version string // as they stand
	whole := s.object(func(key string, from, to int) {
		switch key {
		case `"op"`:
			op = s.text[from:to]
		case `"specversion"`:
			version = s.text[from:to]
		}
	})
	switch {
	case !whole:
		return f, malformed("frame is not one JSON object: %s", clip(b))
	case version != "":
		err := decodeEvent(&f.event, s.text, raw)
		return f, err
	case op == "":
		return f, malformed("frame has neither op nor specversion: %s", clip(b))
	}
	if err := json.Unmarshal(raw, &f.control); err != nil {
		return f, &Error{Code: ErrMalformed.Code, Detail: "frame " + clip(b), cause: err}
	}
	var ok bool
	if f.op, ok = unquote(op); !ok || f.op == "" {
		return f, malformed("frame's op is no string: %s", clip(b))
	}
	return f, nil
}

// parseEvent reads an event's JSON and keeps none of b.
func parseEvent(b []byte) (Event, error) {
	var e Event
	if !utf8.Valid(b) {
		return e, malformed("event is not valid UTF-8")
	}
	raw := append(make([]byte, 0, len(b)), b...)
	err := decodeEvent(&e, string(raw), raw)
	return e, err
}

// maxShared is the largest frame that its event's strings may keep in memory.
const maxShared = 2048

// decodeEvent reads the event that text is; raw holds the same bytes. The
// event's strings point into the one, if that is small, its data into the
// other.
func decodeEvent(e *Event, text string, raw []byte) error {
	s := scanner{text: text}
	var version, when, encoded, wrong string
	whole := s.object(func(key string, from, to int) {
		var field *string
		switch key {
		case `"specversion"`:
			field = &version
		case `"id"`:
			field = &e.ID
		case `"source"`:
			field = &e.Source
		case `"type"`:
			field = &e.Type
		case `"time"`:
			field = &when
		case `"subject"`:
			field = &e.Subject
		case `"partitionkey"`:
			field = &e.Key
		case `"channel"`:
			field = &e.Channel
		case `"cursor"`:
			field = &e.Cursor
		case `"datacontenttype"`:
			field = &e.ContentType
		case `"dataschema"`:
			field = &e.DataSchema
		case `"data_base64"`:
			field = &encoded
		case `"data"`:
			e.Data = raw[from:to:to]
			return
		default:
			name, _ := unquote(key)
			if e.Extensions == nil {
				e.Extensions = make(map[string]json.RawMessage)
			}
			e.Extensions[name] = raw[from:to:to]
			return
		}
		value, ok := unquote(text[from:to])
		if !ok {
			wrong = key
		}
		if len(text) > maxShared {
			value = strings.Clone(value)
		}
		*field = value
	})
	switch {
	case !whole:
		return malformed("event is not one JSON object: %s", clip(raw))
	case wrong != "":
		return malformed("event's %s is no string", wrong)
	case version != "1.0":
		return malformed("event's specversion is %q, want \"1.0\"", version)
	case e.ID == "" || e.Source == "" || e.Type == "":
		return malformed("event's id, source and type must not be empty: %s", clip(raw))
	}
	if when != "" {
		t, err := time.Parse(time.RFC3339Nano, when)
		if err != nil {
			return malformed("event's time is %s, want RFC 3339", clip([]byte(when)))
		}
		e.Time = t
	}
	if encoded != "" {
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return malformed("event's data_base64 is not base64")
		}
		e.Binary = data
	}
	e.Raw = raw
	return nil
}

// parseEvents reads the body of a batch.
func parseEvents(b []byte) ([]Event, error) {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return nil, malformed("batch is not a JSON array: %s", clip(b))
	}
	events := make([]Event, len(parts))
	for i, part := range parts {
		e, err := parseEvent(part)
		if err != nil {
			return nil, err
		}
		events[i] = e
	}
	return events, nil
}

// clip quotes what somebody sent, shortened, for an error text.
func clip(b []byte) string {
	const most = 80
	if len(b) > most {
		b = b[:most]
	}
	quoted, err := json.Marshal(string(b))
	if err != nil {
		return `""` // a string always marshals
	}
	return string(quoted)
}
