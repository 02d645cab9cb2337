package longline

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/longline-push/longline/event"
)

const golden = "../../gateway/wire/testdata"

func readGolden(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(golden, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

type goldenFrame struct {
	Name, From, Frame, Kind, Error string
	Value                          json.RawMessage
}

func TestGoldenFrames(t *testing.T) {
	var frames []goldenFrame
	readGolden(t, "frames.json", &frames)
	known := map[string]bool{"hello": true, "ok": true, "error": true, "gap": true, "position": true, "redelivery": true, "standby": true, "bye": true}
	decoded := 0
	for _, g := range frames {
		if g.From == "client" {
			continue
		}
		decoded++
		t.Run(g.Name, func(t *testing.T) {
			f, err := decodeFrame([]byte(g.Frame))
			if g.Error != "" {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("got error %v, want ErrMalformed", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case g.Kind == "event":
				if f.op != "" {
					t.Fatalf("got op %q, want an event", f.op)
				}
				wantSameJSON(t, f.event.Raw, g.Value)
				again, err := f.event.MarshalJSON() // not json.Marshal, which escapes more
				if err != nil {
					t.Fatal(err)
				}
				var want, got Event
				mustDecode(t, []byte(g.Frame), &want)
				mustDecode(t, again, &got)
				if !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v\nwant %+v", got, want)
				}
			case g.Kind == "unknown":
				if known[f.op] {
					t.Errorf("got the known op %q, want an unknown one", f.op)
				}
			case f.op != g.Kind:
				t.Errorf("got op %q, want %q", f.op, g.Kind)
			}
		})
	}
	if decoded < 30 {
		t.Errorf("got %d frames from gateways, want 30 or more", decoded)
	}
}

func mustDecode(t *testing.T, b []byte, e *Event) {
	t.Helper()
	if err := e.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
}

func wantSameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(want, &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestGoldenHelloAndBye(t *testing.T) {
	f, err := decodeFrame([]byte(`{"op":"hello","connection":"c-7f3c","node":"n2","session":"durable","subscription":"crm-42","cursor":"acct-42@k3f9zq-1041","recovered":true,"window":256,"heartbeat_ms":25000,"expires":"2026-11-22T14:31:00Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	if f.Connection != "c-7f3c" || f.Window != 256 || f.HeartbeatMS != 25000 || !f.Recovered || f.Expires.Unix() != 1795357860 {
		t.Errorf("got %+v", f.control)
	}
	f, err = decodeFrame([]byte(`{"op":"bye","code":4403,"reason":"forbidden","retry_ms":0,"reconnect":false}`))
	if err != nil {
		t.Fatal(err)
	}
	if e := byeError(f.control); !errors.Is(e, ErrForbidden) || !e.final {
		t.Errorf("got %v, want a final ErrForbidden", e)
	}
}

func TestGoldenPositions(t *testing.T) {
	var positions []struct {
		Position, Error string
		Cursors         []struct {
			Channel, Epoch string
			Offset         uint64
		}
	}
	readGolden(t, "positions.json", &positions)
	for _, g := range positions {
		p, err := event.ParsePosition(g.Position)
		if (err != nil) != (g.Error != "") {
			t.Errorf("position %q: got error %v, want %q", g.Position, err, g.Error)
			continue
		}
		if len(p) != len(g.Cursors) {
			t.Errorf("position %q: got %d cursors, want %d", g.Position, len(p), len(g.Cursors))
			continue
		}
		for i, c := range g.Cursors {
			if want := (event.Cursor{Channel: c.Channel, Epoch: c.Epoch, Offset: c.Offset}); p[i] != want {
				t.Errorf("position %q: got %v, want %v", g.Position, p[i], want)
			}
		}
	}
}

// The scanner and encoding/json must agree about what is an event and what it
// says.
func FuzzDecodeFrame(f *testing.F) {
	var frames []goldenFrame
	readGolden(f, "frames.json", &frames)
	for _, g := range frames {
		f.Add([]byte(g.Frame))
	}
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1e5,-0.1,{"a":[]},"\ud800",null],"x":"\/"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFrame(b)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("got error %v, want ErrMalformed", err)
		}
		if !strings.HasPrefix(string(b), `{"specversion":`) || err != nil {
			if err == nil && !json.Valid(b) {
				t.Fatalf("took %q, which is not JSON", b)
			}
			if err != nil && bytes.HasPrefix(b, []byte(`{"specversion":`)) && !strings.Contains(err.Error(), "UTF-8") {
				var e Event
				if e.UnmarshalJSON(b) == nil {
					t.Fatalf("refused %q: %v; encoding/json takes it", b, err)
				}
			}
			return
		}
		var want Event
		if err := want.UnmarshalJSON(b); err != nil {
			t.Fatalf("took %q; encoding/json says %v", b, err)
		}
		got.event.Raw = nil
		if !reflect.DeepEqual(got.event, want) {
			t.Errorf("%q:\ngot  %+v\nwant %+v", b, got.event, want)
		}
	})
}

func FuzzParseCallback(f *testing.F) {
	var callbacks []goldenCallback
	readGolden(f, "callbacks.json", &callbacks)
	for _, g := range callbacks {
		f.Add(g.Headers["content-type"], []byte(g.Body))
	}
	f.Fuzz(func(t *testing.T, contentType string, b []byte) {
		events, _, err := parseCallback(contentType, b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got error %v, want ErrMalformed", err)
			}
			return
		}
		for _, e := range events {
			if e.ID == "" || e.Type == "" {
				t.Fatalf("took an event without id or type: %q", b)
			}
		}
	})
}

var frame300 = []byte(`{"specversion":"1.0","id":"0198f2aa-1c5e-7d40-9a51-0a6d6d1b7f01","source":"/mailshots/42","type":"email.opened","time":"2026-11-22T13:31:00.123Z","partitionkey":"alice@example.com","channel":"acct-42","cursor":"acct-42@k3f9zq-1053","datacontenttype":"application/json","data":{"ip":"203.0.113.7"}}`)

func BenchmarkDecodeFrame(b *testing.B) {
	b.SetBytes(int64(len(frame300)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeFrame(frame300); err != nil {
			b.Fatal(err)
		}
	}
}
