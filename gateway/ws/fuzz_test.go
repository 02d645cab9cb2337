package ws

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/longline-push/longline/gateway/wire"
)

// golden are the frames that both SDKs read too.
func golden(tb testing.TB) (frames []struct {
	Name, From, Frame, Error string
}) {
	tb.Helper()
	b, err := os.ReadFile("../wire/testdata/frames.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct{ Frames json.RawMessage }
	if json.Unmarshal(b, &file) != nil || file.Frames == nil {
		file.Frames = b
	}
	if err := json.Unmarshal(file.Frames, &frames); err != nil || len(frames) == 0 {
		tb.Fatalf("golden frames: %v", err)
	}
	return frames
}

func TestGoldenClientFramesAreTaken(t *testing.T) {
	taken := 0
	for _, f := range golden(t) {
		if f.From != "client" || f.Error != "" {
			continue
		}
		var m message
		if err := decode([]byte(f.Frame), &m); err != nil || m.Op == "" {
			t.Errorf("%s: %+v, %v", f.Name, m, err)
		}
		taken++
	}
	if taken == 0 {
		t.Error("no frames")
	}
}

func FuzzFrame(f *testing.F) {
	for _, g := range golden(f) {
		f.Add([]byte(g.Frame))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var m message
		if err := decode(text, &m); err != nil && wire.From(err).Code != wire.CodeBadRequest {
			t.Errorf("%q: %v", text, err)
		}
	})
}
