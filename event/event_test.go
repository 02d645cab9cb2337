package event_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
)

func TestChannelNames(t *testing.T) {
	for _, name := range []string{"a", "acct-42", "mail.eu.acct-42", "A_z:9-.x", strings.Repeat("a", 128), "longline.events"} {
		if err := event.CheckChannel(name); err != nil {
			t.Errorf("%q: %v, want none", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a..b", ".a", "a.", "a/b", "a b", "ä", "a\n", "a@b", "a,b", "*", strings.Repeat("a", 129)} {
		if err := event.CheckChannel(name); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

func TestCursors(t *testing.T) {
	for _, tt := range []struct {
		text string
		want event.Cursor
	}{
		{"acct-42@k3f9zq-1053", event.Cursor{Channel: "acct-42", Epoch: "k3f9zq", Offset: 1053}},
		{"a.b:c_d@0-0", event.Cursor{Channel: "a.b:c_d", Epoch: "0", Offset: 0}},
		{"a@e-18446744073709551615", event.Cursor{Channel: "a", Epoch: "e", Offset: 1<<64 - 1}},
	} {
		got, err := event.ParseCursor(tt.text)
		if err != nil || got != tt.want || got.String() != tt.text {
			t.Errorf("%q: got %+v, %v", tt.text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                         "want <channel>@<epoch>-<offset>",
		"a":                        "want <channel>@<epoch>-<offset>",
		"a@":                       "want <channel>@<epoch>-<offset>",
		"a@e":                      "want <channel>@<epoch>-<offset>",
		"a@e-":                     "not a number",
		"a@-1":                     "want <channel>@<epoch>-<offset>",
		"a@E-1":                    "want <channel>@<epoch>-<offset>",
		"a@e--1":                   "not a number",
		"a@e-+1":                   "not a number",
		"a@e-01":                   "not a number",
		"a@e-1x":                   "not a number",
		"a@e-18446744073709551616": "64 bits",
		"a/b@e-1":                  "channel",
		"@e-1":                     "channel",
		"a@e-1,b@e-1":              "not a number",
		strings.Repeat("x", 1000):  "…",
	} {
		if _, err := event.ParseCursor(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", text, err, want)
		}
	}
}

func TestPositions(t *testing.T) {
	text := "a@e1-7,b.c@e2-0"
	p, err := event.ParsePosition(text)
	if err != nil || p.String() != text {
		t.Fatalf("got %v, %v", p, err)
	}
	if c, ok := p.Of("b.c"); !ok || c.Epoch != "e2" {
		t.Errorf("of b.c: %v, %v", c, ok)
	}
	if _, ok := p.Of("zz"); ok {
		t.Error("has a channel it hasn't")
	}
	if p, err := event.ParsePosition(""); p != nil || err != nil {
		t.Errorf("empty: %v, %v", p, err)
	}
	for _, bad := range []string{"a@e1-1,a@e1-2", "a@e1-1,", ",a@e1-1", "a@e1-1 b@e1-1"} {
		if _, err := event.ParsePosition(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		yes, no []string
	}{
		{"email.opened", []string{"email.opened"}, []string{"email", "email.opened.x", "emailxopened", ""}},
		{"email.*", []string{"email.opened", "email.clicked"}, []string{"email", "email.", "email.a.b", "x.opened"}},
		{"*", []string{"a"}, []string{"a.b", ""}},
		{"*.b", []string{"a.b"}, []string{"b", "a.b.c"}},
		{"**", []string{"a", "a.b", "a.b.c"}, []string{""}},
		{"a.**", []string{"a.b", "a.b.c"}, []string{"a", "b.a"}},
		{"*.x.**", []string{"a.x.b"}, []string{"a.x", "x.b.c"}},
	} {
		p, err := event.ParsePattern(tt.pattern)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		for _, name := range tt.yes {
			if !p.Match(name) {
				t.Errorf("%q doesn't match %q", tt.pattern, name)
			}
		}
		for _, name := range tt.no {
			if p.Match(name) {
				t.Errorf("%q matches %q", tt.pattern, name)
			}
		}
	}
	for _, bad := range []string{"", "a.**.b", "**.a", "a..b", ".", "a*", "a.b*", "***", strings.Repeat("a", 257)} {
		if _, err := event.ParsePattern(bad); err == nil {
			t.Errorf("pattern %q is taken", bad)
		}
	}
	var zero event.Pattern
	if zero.Match("") || zero.Match("a") {
		t.Error("the zero pattern matches")
	}
}

func TestTheGatewaysOwnChannelsMustBeNamed(t *testing.T) {
	for pattern, want := range map[string]bool{"**": false, "*.events": false, "*.**": false, "longline.events": true, "longline.*": true, "longline.**": true} {
		p, err := event.ParsePattern(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.MatchChannel("longline.events"); got != want {
			t.Errorf("%q covers longline.events: %v, want %v", pattern, got, want)
		}
	}
}

var full = event.Fields{
	ID: `0198"f2`, Source: "/mailshots/42", Type: "email.opened", Time: "2026-11-22T13:31:00.123Z",
	Subject: "ali\nce", Key: "älice\\", ContentType: "application/json", DataSchema: "https://s",
	Extensions: []event.Attribute{{Name: "n", Value: []byte("7")}, {Name: "traceparent", Value: []byte(`"00-1"`)}},
	Data:       []byte(`{"ip":"203.0.113.7"}`),
}

func TestStoredEventsGoOutWithTheirPlace(t *testing.T) {
	at := event.Cursor{Channel: "acct-42", Epoch: "k3f9zq", Offset: 1053}
	v, err := event.Stored(full.AppendStored(nil)).View()
	if err != nil {
		t.Fatal(err)
	}
	text := v.AppendJSON(nil, at)
	want := `{"specversion":"1.0","id":"0198\"f2","source":"/mailshots/42","type":"email.opened","time":"2026-11-22T13:31:00.123Z",` +
		`"subject":"ali\u000ace","partitionkey":"älice\\","n":7,"traceparent":"00-1","channel":"acct-42","cursor":"acct-42@k3f9zq-1053",` +
		`"datacontenttype":"application/json","dataschema":"https://s","data":{"ip":"203.0.113.7"}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if v.Size(at) != len(text) {
		t.Errorf("size %d, want %d", v.Size(at), len(text))
	}
	if v.ID() != full.ID || v.Type() != full.Type || v.Key() != full.Key {
		t.Errorf("got %q, %q, %q", v.ID(), v.Type(), v.Key())
	}
	if from, to := v.TypeAt(); string(text[from:to]) != `"email.opened"` {
		t.Errorf("type at %s", text[from:to])
	}
	if from, to := v.KeyAt(); string(text[from:to]) != `"älice\\"` {
		t.Errorf("key at %s", text[from:to])
	}
	if detached := v.AppendDetached(nil); !json.Valid(detached) || strings.Contains(string(detached), "cursor") {
		t.Errorf("detached: %s", detached)
	}

	// A client reads it, and writes the same bytes.
	var e event.Event
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	if e.Cursor != at.String() || e.Extension("traceparent") != "00-1" || e.Extension("n") != "" || !e.Time.Equal(time.Date(2026, 11, 22, 13, 31, 0, 123e6, time.UTC)) {
		t.Errorf("got %+v", e)
	}
	var data struct{ IP string }
	if err := e.DataAs(&data); err != nil || data.IP != "203.0.113.7" {
		t.Errorf("data %+v, %v", data, err)
	}
	if again, err := e.MarshalJSON(); err != nil || string(again) != string(text) {
		t.Errorf("again %s, %v", again, err)
	}
}

func TestTheLeastAnEventCanHave(t *testing.T) {
	f := event.Fields{ID: "1", Source: "/s", Type: "t"}
	v, err := event.Stored(f.AppendStored(nil)).View()
	if err != nil {
		t.Fatal(err)
	}
	got := string(v.AppendJSON(nil, event.Cursor{Channel: "a", Epoch: "e", Offset: 1}))
	if want := `{"specversion":"1.0","id":"1","source":"/s","type":"t","channel":"a","cursor":"a@e-1"}`; got != want || v.Key() != "" {
		t.Errorf("got %s, key %q", got, v.Key())
	}
	if from, to := v.KeyAt(); from != to {
		t.Errorf("a key at %d, %d", from, to)
	}
}

func TestBinaryData(t *testing.T) {
	f := event.Fields{ID: "1", Source: "/s", Type: "t", Binary: []byte{0, 255}}
	v, _ := event.Stored(f.AppendStored(nil)).View()
	var e event.Event
	if err := json.Unmarshal(v.AppendDetached(nil), &e); err != nil || !reflect.DeepEqual(e.Binary, f.Binary) || e.Data != nil {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestDamagedStoredEventsAreNoticed(t *testing.T) {
	good := full.AppendStored(nil)
	for _, bad := range [][]byte{nil, {}, {2}, good[:1], good[:5], append([]byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, good...)} {
		if _, err := event.Stored(bad).View(); err == nil {
			t.Errorf("%x is taken", bad)
		}
	}
}

func FuzzStored(f *testing.F) {
	f.Add(full.AppendStored(nil))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := event.Stored(b).View()
		if err != nil {
			return
		}
		c := event.Cursor{Channel: "a", Epoch: "e", Offset: 12}
		if got := len(v.AppendJSON(nil, c)); got != v.Size(c) {
			t.Errorf("%d bytes, size says %d", got, v.Size(c))
		}
		v.ID()
		v.Type()
		v.Key()
	})
}

func FuzzCursor(f *testing.F) {
	f.Add("acct-42@k3f9zq-1053")
	f.Add("a@e-18446744073709551616")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := event.ParseCursor(s); err == nil && c.String() != s {
			t.Errorf("%q became %q", s, c)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add("a@e1-7,b.c@e2-0")
	f.Add(",")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := event.ParsePosition(s); err == nil && p.String() != s {
			t.Errorf("%q became %q", s, p)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("a.*.**", "a.b.c")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, s, name string) {
		p, err := event.ParsePattern(s)
		if err == nil && p.Literal() && p.Match(name) != (name == s) {
			t.Errorf("literal %q matches %q: %v", s, name, p.Match(name))
		}
	})
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AP8=","x":{"y":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e event.Event
		if json.Unmarshal(b, &e) != nil {
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("%s became %v", b, err)
		}
		var back event.Event
		if err := json.Unmarshal(again, &back); err != nil || back.ID != e.ID || back.Type != e.Type {
			t.Errorf("%s became %s: %v", b, again, err)
		}
	})
}

func TestMatchingDoesNotAllocate(t *testing.T) {
	p, _ := event.ParsePattern("email.*.x.**")
	if n := testing.AllocsPerRun(100, func() { p.Match("email.opened.x.y.z") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAListOfPatternsIsBounded(t *testing.T) {
	list := strings.Repeat("a,", event.MaxPatterns-1) + "a"
	if ps, err := event.ParsePatterns(list); err != nil || len(ps) != event.MaxPatterns {
		t.Errorf("%d patterns: %d, %v", event.MaxPatterns, len(ps), err)
	}
	if _, err := event.ParsePatterns(list + ",a"); err == nil || !strings.Contains(err.Error(), "want at most 64") {
		t.Errorf("one more: %v", err)
	}
}
