// Package event is Longline's vocabulary: events, cursors, channel names and
// patterns. It imports the standard library only; everything else imports it.
package event

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Event is a CloudEvents 1.0 event as it arrives from a gateway. The zero
// value is not a valid event.
type Event struct {
	ID          string
	Source      string
	Type        string
	Time        time.Time // zero if absent
	Subject     string
	Key         string // the partitionkey extension
	Channel     string // set by the gateway
	Cursor      string // set by the gateway; see ParseCursor
	ContentType string // datacontenttype
	DataSchema  string
	// Data is the publisher's JSON, compacted, or nil.
	Data json.RawMessage
	// Binary is what the publisher sent as data_base64, decoded, or nil.
	Binary []byte
	// Extensions holds every other attribute as its JSON value.
	Extensions map[string]json.RawMessage
	// Raw is the JSON the event arrived as, where its reader keeps it. It is
	// not written: MarshalJSON writes the other fields.
	Raw json.RawMessage
}

// DataAs decodes the event's data into v, which must be a pointer.
func (e *Event) DataAs(v any) error {
	if e.Data == nil {
		return errors.New("event has no JSON data")
	}
	return json.Unmarshal(e.Data, v)
}

// Extension returns a string extension attribute such as "traceparent", or ""
// if the event has none or it is not a string.
func (e *Event) Extension(name string) string {
	var s string
	if json.Unmarshal(e.Extensions[name], &s) != nil {
		return ""
	}
	return s
}

// UnmarshalJSON reads the JSON format of CloudEvents 1.0 (§3.2).
func (e *Event) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	var version, when, encoded string
	*e = Event{}
	for name, to := range map[string]*string{
		"specversion": &version, "id": &e.ID, "source": &e.Source, "type": &e.Type, "time": &when,
		"subject": &e.Subject, "partitionkey": &e.Key, "channel": &e.Channel, "cursor": &e.Cursor,
		"datacontenttype": &e.ContentType, "dataschema": &e.DataSchema, "data_base64": &encoded,
	} {
		value, ok := raw[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(value, to); err != nil {
			return fmt.Errorf("decode event: %s must be a string", name)
		}
		delete(raw, name)
	}
	if version != "1.0" {
		return fmt.Errorf("decode event: specversion is %q, want \"1.0\"", version)
	}
	if e.ID == "" || e.Source == "" || e.Type == "" {
		return errors.New("decode event: id, source and type must not be empty")
	}
	if when != "" {
		t, err := time.Parse(time.RFC3339Nano, when)
		if err != nil {
			return fmt.Errorf("decode event: time is %q, want RFC 3339", when)
		}
		e.Time = t
	}
	if encoded != "" {
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return errors.New("decode event: data_base64 is not base64")
		}
		e.Binary = data
	}
	if data, ok := raw["data"]; ok {
		e.Data = data
		delete(raw, "data")
	}
	if len(raw) > 0 {
		e.Extensions = raw
	}
	return nil
}

// MarshalJSON writes the event in the attribute order the gateway uses, so
// that an event read from a gateway and written again has the same bytes,
// provided its time and extensions were written as the gateway writes them.
func (e Event) MarshalJSON() ([]byte, error) {
	f := Fields{
		ID: e.ID, Source: e.Source, Type: e.Type, Subject: e.Subject, Key: e.Key,
		ContentType: e.ContentType, DataSchema: e.DataSchema, Data: e.Data, Binary: e.Binary,
	}
	if !e.Time.IsZero() {
		f.Time = FormatTime(e.Time)
	}
	for _, name := range sortedKeys(e.Extensions) {
		f.Extensions = append(f.Extensions, Attribute{Name: name, Value: e.Extensions[name]})
	}
	head, tail := f.appendHead(nil), f.appendTail(nil)
	if e.Channel != "" {
		head = appendString(append(head, `,"channel":`...), e.Channel)
	}
	if e.Cursor != "" {
		head = appendString(append(head, `,"cursor":`...), e.Cursor)
	}
	return append(head, tail...), nil
}
