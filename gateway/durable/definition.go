// Package durable holds what a durable subscription is, who may own it when,
// and the part of a node that owns some: its lease, its acks, its claims.
//
// The rules of ownership are pure functions from one State to a Change
// (step.go). The tests explore them exhaustively; the Manager applies them to a
// broker by comparing versions.
package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/expr"
	"github.com/longline-push/longline/gateway/shape"
)

// Definition is what people say a subscription is: the JSON of PUT and GET.
type Definition struct {
	Channels     []string  `json:"channels"`
	Types        []string  `json:"types,omitempty"`
	Filter       string    `json:"filter,omitempty"` // an expression over event
	Start        string    `json:"start"`
	Window       int       `json:"window"`
	Group        *Group    `json:"group,omitempty"`
	ExpiresAfter Duration  `json:"expires_after,omitempty"`
	Callback     *Callback `json:"callback,omitempty"`

	// For people; nothing depends on them.
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

// Callback says where events go while nobody is attached, and how.
type Callback struct {
	URL         string            `json:"url"`
	Mode        Mode              `json:"mode"`
	Grace       Duration          `json:"grace"`
	Secret      string            `json:"secret,omitempty"`  // never in a stored or shown definition
	Headers     map[string]string `json:"headers,omitempty"` // likewise
	Rate        float64           `json:"rate,omitempty"`    // calls a second, 0: as fast as answered
	Concurrency int               `json:"concurrency"`
	Order       Order             `json:"order"`
	Batch       Batch             `json:"batch"`
	Timeout     Duration          `json:"timeout"`
	shape.Spec
	Auth *shape.Auth `json:"auth,omitempty"` // never in a stored or shown definition
}

// Batch says how many events go into one call.
type Batch struct {
	MaxEvents int      `json:"max_events"`
	MaxWait   Duration `json:"max_wait"`
}

// Mode says when the callback is called.
type Mode string

// Fallback calls only while nobody is attached, Always makes the subscription
// a plain webhook.
const (
	Fallback Mode = "fallback"
	Always   Mode = "always"
)

// Order says what is kept in order where calls run in parallel.
type Order string

// ByChannel is one call at a time; ByKey is one call at a time for each key.
const (
	ByChannel Order = "channel"
	ByKey     Order = "key"
)

// Duration is a time.Duration that reads and shows itself as "10s" in JSON.
type Duration time.Duration

// MarshalJSON writes the duration's text.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(shortDuration(time.Duration(d)))
}

// UnmarshalJSON takes texts like "720h" and "1m30s".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("%s is not a duration, want a text like \"10s\" or \"720h\"", b)
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration, want a text like \"10s\" or \"720h\"", text)
	}
	*d = Duration(v)
	return nil
}

// shortDuration is d.String without the units that are zero: 720h, not
// 720h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// What a definition may say at most.
const (
	MaxName         = 128
	MaxChannels     = 64
	MaxTypes        = event.MaxPatterns
	MaxDescription  = 1024
	MaxLabels       = 16
	MaxLabel        = 64  // bytes of a label's name, and of its value
	minWindow       = 256 // where none is given
	MaxWindow       = 10_000
	MaxConcurrency  = 256
	MaxBatch        = 1000
	MaxHeaders      = 32
	MaxHeaderBytes  = 8 << 10
	MaxURL          = 2048
	MaxTimeout      = 60 * time.Second
	MaxGrace        = time.Hour
	MaxBatchWait    = time.Minute
	MinExpiresAfter = time.Minute
	MaxRate         = 10_000
)

// ParseDefinition reads a definition, fills in what isn't said and checks it.
// Errors are for the user.
func ParseDefinition(b []byte) (Definition, error) {
	var d Definition
	if err := DecodeStrict(b, &d); err != nil {
		return d, err
	}
	d.fill()
	return d, d.check()
}

// DecodeStrict reads one JSON object without unknown fields. Errors are for
// the user.
func DecodeStrict(b []byte, into any) error {
	if b = bytes.TrimSpace(b); len(b) == 0 || b[0] != '{' {
		return errors.New("the body is not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return jsonError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows the JSON object of the body")
	}
	return nil
}

func (d *Definition) fill() {
	if d.Start == "" {
		d.Start = "latest"
	}
	if d.Callback != nil {
		if d.Group != nil && d.Callback.Order == "" {
			d.Callback.Order = ByKey // what a group keeps, whoever delivers
		}
		d.Callback.fill()
	}
	if d.Window == 0 {
		d.Window = d.defaultWindow()
	}
}

func (c *Callback) fill() {
	if c.Mode == "" {
		c.Mode = Fallback
	}
	if c.Grace == 0 && c.Mode == Fallback {
		c.Grace = Duration(10 * time.Second)
	}
	if c.Concurrency == 0 {
		c.Concurrency = 1
	}
	if c.Order == "" {
		c.Order = ByChannel
	}
	if c.Batch.MaxEvents == 0 {
		c.Batch.MaxEvents = 1
	}
	if c.Timeout == 0 {
		c.Timeout = Duration(15 * time.Second)
	}
}

// defaultWindow is the window where none is given: twice what a callback has in
// flight, so that the next batches are at hand when one is answered.
func (d *Definition) defaultWindow() int {
	if d.Callback == nil {
		return minWindow
	}
	return min(max(minWindow, 2*d.Callback.inFlight()), MaxWindow)
}

// check returns the first thing that is wrong, named as in the JSON.
func (d *Definition) check() error {
	if len(d.Channels) == 0 {
		return errors.New("channels is empty, want at least one channel name")
	}
	if len(d.Channels) > MaxChannels {
		return fmt.Errorf("channels has %d names, want %d at most", len(d.Channels), MaxChannels)
	}
	seen := map[string]bool{}
	for i, c := range d.Channels {
		if err := event.CheckChannel(c); err != nil {
			return fmt.Errorf("channels[%d]: %w", i, err)
		}
		if seen[c] {
			return fmt.Errorf("channels names %q twice", c)
		}
		seen[c] = true
	}
	if len(d.Types) > MaxTypes {
		return fmt.Errorf("types has %d patterns, want %d at most", len(d.Types), MaxTypes)
	}
	for i, text := range d.Types {
		if _, err := event.ParsePattern(text); err != nil {
			return fmt.Errorf("types[%d]: %w", i, err)
		}
		if strings.Contains(text, ",") {
			return fmt.Errorf("types[%d]: %q has a comma, want one pattern per element", i, text)
		}
	}
	if d.Filter != "" {
		if _, err := expr.CompileFilter(d.Filter); err != nil {
			return fmt.Errorf("filter: %w", err)
		}
	}
	if len(d.Description) > MaxDescription {
		return fmt.Errorf("description has %d bytes, want %d at most", len(d.Description), MaxDescription)
	}
	if len(d.Labels) > MaxLabels {
		return fmt.Errorf("labels has %d, want %d at most", len(d.Labels), MaxLabels)
	}
	for name, value := range d.Labels {
		if name == "" || strings.Contains(name, "=") || len(name) > MaxLabel || len(value) > MaxLabel {
			return fmt.Errorf("labels: %.40q: %.40q; want a name without \"=\", and 1 to %d bytes each", name, value, MaxLabel)
		}
	}
	if d.Window < 1 || d.Window > MaxWindow {
		return fmt.Errorf("window is %d, want 1 to %d", d.Window, MaxWindow)
	}
	if e := time.Duration(d.ExpiresAfter); e != 0 && e < MinExpiresAfter {
		return fmt.Errorf("expires_after is %v, want %v at least", e, MinExpiresAfter)
	}
	if d.Group != nil {
		if err := d.Group.check(); err != nil {
			return err
		}
		if d.Callback != nil && d.Callback.Order == ByChannel {
			return errors.New("callback.order is \"channel\", but a group keeps the order of each key and no other; want \"key\", or none, which is that")
		}
		if d.Callback != nil && d.Callback.Mode == Always {
			return errors.New("group and callback.mode \"always\" exclude each other: nobody can attach where the callback is always called")
		}
	}
	if _, err := ParseSince(d.Start); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if d.Callback != nil {
		if err := d.Callback.check(d.Window); err != nil {
			return fmt.Errorf("callback.%w", err)
		}
	}
	return nil
}

// Check returns the first thing that is wrong, named as in the JSON. Errors are
// for the user.
func (d *Definition) Check() error { return d.check() }

// CheckName returns nil if name can be a subscription's.
func CheckName(name string) error {
	ok := len(name) >= 1 && len(name) <= MaxName
	for i := 0; i < len(name) && ok; i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':' || c == '-' || c == '.'
	}
	if !ok || name == "." || name == ".." {
		return fmt.Errorf("subscription name %.140q: want 1 to %d bytes of A-Z a-z 0-9 _ : - and dots", name, MaxName)
	}
	return nil
}

// Patch applies an RFC 7396 merge patch to the definition's JSON and returns
// the result, parsed and checked anew.
func (d Definition) Patch(patch []byte) (Definition, error) {
	var p any
	if err := json.Unmarshal(patch, &p); err != nil {
		return d, jsonError(err)
	}
	if _, ok := p.(map[string]any); !ok {
		return d, errors.New("the patch is not a JSON object (RFC 7396)")
	}
	if d.Window == d.defaultWindow() {
		d.Window = 0 // it goes on following the callback, unless the patch names it
	}
	if cb := d.Callback; cb != nil && d.Group == nil && cb.Order == ByChannel {
		c := *cb
		c.Order = "" // likewise, of whether there is a group
		d.Callback = &c
	}
	var doc any
	text, err := json.Marshal(d)
	if err != nil {
		return d, fmt.Errorf("encode definition: %w", err)
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return d, fmt.Errorf("decode definition: %w", err)
	}
	merged, err := json.Marshal(mergePatch(doc, p))
	if err != nil {
		return d, fmt.Errorf("encode definition: %w", err)
	}
	return ParseDefinition(merged)
}

// mergePatch is the algorithm of RFC 7396 §2.
func mergePatch(target, patch any) any {
	fields, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	result, ok := target.(map[string]any)
	if !ok {
		result = map[string]any{}
	}
	for name, value := range fields {
		if value == nil {
			delete(result, name)
		} else {
			result[name] = mergePatch(result[name], value)
		}
	}
	return result
}

// jsonError says what was wrong with a JSON text, in the words of the user.
func jsonError(err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return fmt.Errorf("%s is a JSON %s, want %s", wrongType.Field, wrongType.Value, jsonName(wrongType.Type.Kind().String()))
	case errors.As(err, &wrongType):
		return fmt.Errorf("the body is a JSON %s, want an object", wrongType.Value)
	case errors.As(err, &syntax), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the body is not JSON: %v", err)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

func jsonName(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "slice":
		return "an array"
	case kind == "struct", kind == "map", kind == "ptr":
		return "an object"
	}
	return "a " + kind
}

// Since is a parsed `since`, `start` or `to`: one of a position, a time or an
// end of the log.
type Since struct {
	Earliest, Latest bool
	Time             time.Time
	Position         event.Position
}

// ParseSince reads "latest", "earliest", a cursor (or several, joined by ",")
// or an RFC 3339 time.
func ParseSince(s string) (Since, error) {
	switch s {
	case "latest":
		return Since{Latest: true}, nil
	case "earliest":
		return Since{Earliest: true}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return Since{Time: t}, nil
	}
	if !strings.Contains(s, "@") {
		return Since{}, fmt.Errorf("%.80q is not a place, want earliest, latest, a cursor or an RFC 3339 time", s)
	}
	p, err := event.ParsePosition(s)
	return Since{Position: p}, err
}
