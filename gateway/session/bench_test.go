package session

import (
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/feed/feedtest"
	"github.com/longline-push/longline/gateway/wire"
)

// sink takes everything and does nothing with it.
type sink struct{ frames int }

func (s *sink) Send(bufs [][]byte, stride int) (int, bool, error) {
	s.frames += len(bufs) / stride
	return len(bufs) / stride, false, nil
}
func (*sink) Finish()      {}
func (*sink) Close() error { return nil }

type frames struct{}

func (frames) Traits() Traits { return Traits{Stride: 1} }
func (frames) AppendEvent(bufs [][]byte, scratch []byte, item *feed.Item, _ []byte) ([][]byte, []byte) {
	return append(bufs, item.Frame()), scratch
}
func (frames) Control(wire.Control, string) []byte { return nil }
func (frames) Heartbeat(string) []byte             { return nil }
func (frames) Close(wire.CloseCode, string) []byte { return nil }

// BenchmarkSend is what a delivery costs apart from the system call: one event
// to each of many sessions of a channel, by one writer.
func BenchmarkSend(b *testing.B) {
	for _, bb := range []struct {
		name     string
		sessions int
	}{{"1,000 sessions", 1000}, {"10,000 sessions", 10000}} {
		b.Run(bb.name, func(b *testing.B) {
			log := feedtest.New()
			h := NewHub(Options{Broker: log, Times: log, Writers: -1})
			defer h.Close()
			grant := authtest.Grant(b, auth.Mintage{Subject: "ann", Subscribe: []string{"a"}, TTL: 24 * time.Hour})
			all := make([]*Session, bb.sessions)
			for i := range all {
				s, err := h.New(b.Context(), Config{Grant: grant, Codec: frames{}, Channels: []string{"a"}})
				if err != nil {
					b.Fatal(err)
				}
				s.Start(&sink{})
				all[i] = s
			}
			members := make([]feed.Member, 32)
			var out batch
			sends := func() {
				for range (len(all) + len(members) - 1) / len(members) {
					n, _ := h.ready.Pop(members)
					for _, m := range members[:n] {
						m.(*Session).send(&out)
					}
				}
			}
			sends()
			b.ReportAllocs()
			for b.Loop() {
				log.Append("a", "t", "", `"0123456789"`)
				sends()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(all)), "ns/delivery")
			if got := all[0].conn.(*sink).frames; got < b.N {
				b.Errorf("%d frames, want %d", got, b.N)
			}
		})
	}
}
