package wire_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/longline-push/longline/loadtest/wire"
)

func TestFramesOfAllSizes(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20} {
		payload := bytes.Repeat([]byte{'x'}, size)
		for name, b := range map[string][]byte{
			"server": wire.AppendFrame(nil, wire.OpText, payload),
			"client": wire.AppendClientFrame(nil, wire.OpText, payload),
		} {
			for _, cut := range []int{0, 1, 2, 5, len(b) - 1} {
				if _, n, err := wire.NextFrame(b[:min(cut, len(b)-1)]); n != 0 || err != nil {
					t.Errorf("%s frame of %d, first %d bytes: got size %d, error %v, want neither", name, size, cut, n, err)
				}
			}
			f, n, err := wire.NextFrame(append(b, "rest"...))
			if err != nil || n != len(b) || f.Op != wire.OpText || !bytes.Equal(f.Payload, payload) {
				t.Errorf("%s frame of %d: got size %d, op %d, error %v", name, size, n, f.Op, err)
			}
		}
	}
}

func TestMaskedFrameIsUnmasked(t *testing.T) {
	// RFC 6455 section 5.7: a single-frame masked text message.
	b := []byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}
	for range 2 { // what was read once may be read again
		f, n, err := wire.NextFrame(b)
		if err != nil || n != len(b) || string(f.Payload) != "Hello" {
			t.Errorf("got %q, size %d, error %v, want Hello", f.Payload, n, err)
		}
	}
}

func TestFramesThatAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"fragment":          {0x01, 0x01, 'x'},
		"continuation":      {0x80, 0x01, 'x'},
		"reserved bit":      {0xc1, 0x01, 'x'},
		"unknown opcode":    {0x83, 0x00},
		"long control":      {0x89, 0x7e, 0x00, 0x80},
		"longer than taken": {0x81, 0x7f, 0, 0, 1, 0, 0, 0, 0, 0},
	} {
		if _, _, err := wire.NextFrame(b); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestBlocks(t *testing.T) {
	stream := "retry: 2000\n\nid: a@e-1\nevent: longline.hello\ndata: {}\n\n: \n\nid: a@e-2\ndata: {\"x\":1}\n\nid: a@e-3\n\n"
	want := []wire.Block{
		{}, {ID: []byte("a@e-1"), Event: []byte("longline.hello"), Data: []byte("{}")}, {},
		{ID: []byte("a@e-2"), Data: []byte(`{"x":1}`)}, {ID: []byte("a@e-3")},
	}
	b := []byte(stream)
	for i, w := range want {
		got, n := wire.NextBlock(b)
		if n == 0 || string(got.ID) != string(w.ID) || string(got.Event) != string(w.Event) || string(got.Data) != string(w.Data) {
			t.Errorf("block %d: got %q %q %q, size %d", i, got.ID, got.Event, got.Data, n)
		}
		b = b[n:]
	}
	if _, n := wire.NextBlock([]byte("data: half\n")); n != 0 {
		t.Errorf("half a block: got size %d, want 0", n)
	}
}

func TestHead(t *testing.T) {
	b := []byte("HTTP/1.1 200 OK\r\ncontent-length:  12 \r\nX-Empty:\r\nTransfer-Encoding: Chunked\r\n\r\nbody")
	h, n, err := wire.NextHead(b)
	if err != nil || n != len(b)-4 || h.Status != 200 || h.Length != 12 || !h.Chunked {
		t.Errorf("got %+v, size %d, error %v", h, n, err)
	}
	for _, name := range []string{"X-Empty", "X-None"} {
		if got := h.Get(name); len(got) != 0 {
			t.Errorf("%s: got %q, want nothing", name, got)
		}
	}
	for _, bad := range []string{
		"HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", strings.Repeat("x", 70<<10),
	} {
		if _, _, err := wire.NextHead([]byte(bad)); err == nil {
			t.Errorf("head %.40q: got no error", bad)
		}
	}
}

// TestDechunker decodes what net/http encoded, in pieces of every size.
func TestDechunker(t *testing.T) {
	want := strings.Repeat("some event\n\n", 20)
	var encoded bytes.Buffer
	cw := httputil.NewChunkedWriter(&encoded)
	for rest := want; rest != ""; {
		n := min(37, len(rest))
		if _, err := io.WriteString(cw, rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	cw.Close()
	encoded.WriteString("Trailer: x\r\n\r\n")
	for size := 1; size < 60; size++ {
		var d wire.Dechunker
		var got []byte
		for b := bytes.Clone(encoded.Bytes()); len(b) > 0; {
			n := min(size, len(b))
			out, err := d.Decode(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, out...)
			b = b[n:]
		}
		if string(got) != want || !d.Done {
			t.Fatalf("pieces of %d: got %d bytes, done %v, want %d, true", size, len(got), d.Done, len(want))
		}
	}
}

func FuzzNextFrame(f *testing.F) {
	f.Add(wire.AppendFrame(nil, wire.OpText, []byte(`{"op":"hello"}`)))
	f.Add(wire.AppendClientFrame(nil, wire.OpPong, []byte("x")))
	f.Add([]byte{0x81, 0xfe, 0x01, 0x00})
	f.Add([]byte{0x81, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			fr, n, err := wire.NextFrame(b)
			if n == 0 || err != nil {
				return
			}
			if n > len(b) || len(fr.Payload) > n {
				t.Fatalf("size %d, payload %d of %d bytes", n, len(fr.Payload), len(b))
			}
			again, m, err := wire.NextFrame(wire.AppendFrame(nil, fr.Op, fr.Payload))
			if err != nil || m == 0 || again.Op != fr.Op || !bytes.Equal(again.Payload, fr.Payload) {
				t.Fatalf("written again it reads %v, error %v", again, err)
			}
			b = b[n:]
		}
	})
}

func FuzzNextBlock(f *testing.F) {
	f.Add([]byte("id: a@e-1\ndata: {}\n\n: \n\n"))
	f.Add([]byte("data\n:\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for {
			_, n := wire.NextBlock(b)
			if n == 0 {
				return
			}
			b = b[n:]
		}
	})
}

func FuzzNextHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := wire.NextHead(b)
		if n > len(b) || err == nil && h.Length > 1<<30 {
			t.Fatalf("head %+v, size %d of %d bytes", h, n, len(b))
		}
		h.Get("Content-Length")
	})
}

// FuzzDechunker compares with net/http wherever that takes the body.
func FuzzDechunker(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\n"), 2)
	f.Add([]byte("A;ext=1\r\n0123456789\r\n0\r\nT: x\r\n\r\n"), 3)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		want, wantErr := io.ReadAll(io.LimitReader(httputil.NewChunkedReader(bufio.NewReader(bytes.NewReader(b))), 1<<20))
		var d wire.Dechunker
		var got []byte
		for rest := bytes.Clone(b); len(rest) > 0; {
			n := min(max(size, 1), len(rest))
			out, err := d.Decode(rest[:n])
			if err != nil {
				return // stricter than net/http is fine
			}
			got, rest = append(got, out...), rest[n:]
		}
		if wantErr == nil && d.Done && !bytes.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}
