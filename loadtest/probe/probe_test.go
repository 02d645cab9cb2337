package probe_test

import (
	"encoding/json"
	"testing"

	"github.com/longline-push/longline/loadtest/probe"
)

func TestDataHasTheSizeAskedFor(t *testing.T) {
	for _, size := range []int{0, 60, 256, 16 << 10} {
		b := probe.AppendData(nil, probe.Mark{Seq: 1234, At: 987654321}, size)
		if !json.Valid(b) {
			t.Errorf("size %d: %s isn't JSON", size, b)
		}
		if size >= 60 && len(b) != size {
			t.Errorf("size %d: got %d bytes", size, len(b))
		}
		if m, ok := probe.ReadMark(b); !ok || m != (probe.Mark{Seq: 1234, At: 987654321}) {
			t.Errorf("size %d: read back %+v, %v", size, m, ok)
		}
		want := probe.Mark{Seq: 1, At: 2, By: 63}
		if m, ok := probe.ReadMark(probe.AppendData(nil, want, size)); !ok || m != want {
			t.Errorf("size %d: read back %+v, %v, want %+v", size, m, ok, want)
		}
	}
}

func TestEventIsJSON(t *testing.T) {
	var e struct {
		ID, Type string
		Data     struct{ Seq, At int64 }
	}
	for _, id := range []string{"", "7-1"} {
		e.ID = ""
		if err := json.Unmarshal(probe.AppendEvent(nil, id, probe.Mark{Seq: 1, At: 2}, 64), &e); err != nil {
			t.Fatal(err)
		}
		if e.ID != id || e.Type != probe.Type || e.Data.Seq != 1 || e.Data.At != 2 {
			t.Errorf("got %+v", e)
		}
	}
}

func TestRead(t *testing.T) {
	const good = `{"specversion":"1.0","id":"x","channel":"acct-42","cursor":"acct-42@k3f9zq-1053","data":{"seq":7,"at":99,"pad":""}}`
	a, ok := probe.Read([]byte(good))
	if !ok || string(a.Epoch) != "k3f9zq" || a.Offset != 1053 || a.Seq != 7 || a.At != 99 {
		t.Errorf("got %+v, %v", a, ok)
	}
	for _, bad := range []string{
		``, `{}`, `{"cursor":"`, `{"cursor":"a@b-1"}`, `{"cursor":"a-b","data":{"seq":1,"at":1}}`,
		`{"cursor":"a@b-x","data":{"seq":1,"at":1}}`, `{"cursor":"a@b-1","data":{"seq":,"at":1}}`,
		`{"cursor":"a@b-1","data":{"seq":1}}`, `{"cursor":"a@b-99999999999999999999","data":{"seq":1,"at":1}}`,
	} {
		if a, ok := probe.Read([]byte(bad)); ok {
			t.Errorf("%s: got %+v, want none", bad, a)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"cursor":"a@b-1","data":{"seq":1,"at":1}}`))
	f.Add([]byte(`{"cursor":"@-","data":{"seq":18446744073709551616,"at":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := probe.Read(b); ok && len(a.Epoch) > len(b) {
			t.Fatalf("epoch %q of %q", a.Epoch, b)
		}
	})
}
