package longline

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"os"

	"github.com/tmaxmax/go-sse"
)

// The library's reader must make of streams what the golden files say,
// however they are cut; but for type "message", which it leaves empty.
func TestGoldenStreams(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(golden, "sse", "*.txt"))
	if err != nil || len(files) < 10 {
		t.Fatalf("got %d streams, error %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		var want struct {
			Events []struct{ Type, Data, ID string }
		}
		readGolden(t, filepath.Join("sse", name+".json"), &want)
		stream, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for cut, r := range map[string]io.Reader{"whole": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream))} {
			t.Run(name+" "+cut, func(t *testing.T) {
				n := 0
				for e, err := range sse.Read(r, nil) {
					if err != nil {
						t.Fatal(err)
					}
					if e.Data == "" && (e.Type != "" || n >= len(want.Events) || want.Events[n].Data != "") {
						continue // not dispatched to EventSource listeners: our positions
					}
					if n >= len(want.Events) {
						t.Fatalf("got %+v, want no more events", e)
					}
					w := want.Events[n]
					if w.Type == "message" {
						w.Type = ""
					}
					// The library leaves bytes beyond UTF-8, for decodeFrame to refuse.
					if e.Type != w.Type || string([]rune(e.Data)) != w.Data || e.LastEventID != w.ID {
						t.Errorf("event %d: got %+v, want %+v", n, e, w)
					}
					n++
				}
				if n != len(want.Events) {
					t.Errorf("got %d events, want %d", n, len(want.Events))
				}
			})
		}
	}
}

// What comes by SSE makes the same frames as what comes by WebSocket.
func TestGatewayStream(t *testing.T) {
	stream, err := os.ReadFile(filepath.Join(golden, "sse", "gateway.txt"))
	if err != nil {
		t.Fatal(err)
	}
	c := newTestStream(bytes.NewReader(stream))
	defer c.readEnded()
	var got []string
	for {
		f, err := c.read()
		if err != nil {
			break
		}
		switch f.op {
		case "":
			got = append(got, "event "+f.event.Cursor)
		case "nothing":
		case "bye":
			got = append(got, "bye "+string(f.Code))
		case "gap":
			got = append(got, "gap "+f.To)
		default:
			got = append(got, f.op+" "+f.Cursor)
		}
	}
	want := []string{
		"hello acct-42@k3f9zq-1041", "event acct-42@k3f9zq-1053", "position acct-42@k3f9zq-1060",
		"gap acct-42@k3f9zq-1070", "bye 1012",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if c.id.Load() == nil || *c.id.Load() != "c-7f3a" {
		t.Error("the connection's name was not kept")
	}
}

func newTestStream(r io.Reader) *sseConn {
	c := &sseConn{}
	c.pull(&heardReader{r, new(atomic.Int64)}, 1<<20)
	return c
}
