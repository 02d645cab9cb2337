package event

import (
	"bytes"
	"encoding/json"
)

// Trace is what an event says of the trace it belongs to: the extension
// attributes of CloudEvents' distributed tracing, which are W3C Trace Context's.
type Trace struct {
	Parent string `json:"traceparent"`
	State  string `json:"tracestate"`
}

// TraceOf reads an event's JSON, the zero Trace if it says nothing. That costs
// nothing to speak of where it doesn't.
func TraceOf(text []byte) (t Trace) {
	if bytes.Contains(text, []byte(`"traceparent"`)) {
		_ = json.Unmarshal(text, &t) // attributes that aren't texts are none
	}
	return t
}

// Trace is TraceOf of a stored event.
func (s Stored) Trace() Trace {
	if !bytes.Contains(s, []byte(`"traceparent"`)) {
		return Trace{}
	}
	v, err := s.View()
	if err != nil {
		return Trace{}
	}
	return TraceOf(v.AppendJSON(nil, Cursor{}))
}
