package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/event"
)

// BenchmarkDurableSessions attaches many durable sessions, each with a channel
// of its own, publishes 5,000 events a second to them in all, and reports the
// gateway's CPU per event: with each event acknowledged by itself, and, where
// events come by tens, with one acknowledgement per ten. What publishing alone
// costs, with nobody attached, stands beside each.
func BenchmarkDurableSessions(b *testing.B) {
	sessions := 10_000
	if text := os.Getenv("SESSIONS"); text != "" {
		sessions, _ = strconv.Atoi(text)
	}
	for _, of := range []struct {
		name       string
		each, tens int
	}{
		{"one-by-one/publish-only", 0, 1}, {"one-by-one/acknowledged", 1, 1},
		{"by-tens/publish-only", 0, 10}, {"by-tens/acknowledged", 10, 10},
	} {
		b.Run(of.name, func(b *testing.B) {
			for b.Loop() {
				benchmarkDurable(b, sessions, of.each, of.tens)
			}
		})
	}
}

func benchmarkDurable(b *testing.B, sessions, each, tens int) {
	n := startNode(b, "embedded:"+filepath.Join(b.TempDir(), "data")+"?fsync=everysec", "one")
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	var got atomic.Int64
	slots := make(chan struct{}, 32)
	var attached sync.WaitGroup
	for i := range sessions {
		slots <- struct{}{}
		attached.Add(1)
		clients.Go(func() {
			up := sync.OnceFunc(func() { attached.Done(); <-slots })
			defer up()
			name := "s" + strconv.Itoa(i)
			if _, err := n.do(ctx, "PUT", "/v1/subscriptions/"+name, map[string]any{"channels": []string{"c" + strconv.Itoa(i)}}, nil); err != nil {
				b.Error(err)
				return
			}
			if each > 0 {
				takeAll(ctx, b, n, name, each, &got, up)
			}
		})
	}
	attached.Wait()
	if b.Failed() {
		return
	}
	settle := time.NewTimer(3 * time.Second)
	<-settle.C
	got.Store(0)
	const rate, span, wave = 5000, 10 * time.Second, 100
	before, start := n.cpu(b), time.Now()
	published := 0
	var posts sync.WaitGroup
	for tick := time.NewTicker(time.Second * wave / rate); time.Since(start) < span; <-tick.C {
		first := published
		published += wave
		posts.Go(func() {
			if err := publishWave(ctx, n, first, wave, sessions, tens); err != nil && ctx.Err() == nil {
				b.Error(err)
			}
		})
	}
	posts.Wait()
	for wait := time.Now().Add(5 * time.Second); each > 0 && int(got.Load()) < published && time.Now().Before(wait); {
		<-time.After(50 * time.Millisecond)
	}
	used := n.cpu(b) - before
	if each > 0 && int(got.Load()) < published {
		b.Errorf("%d of %d events came", got.Load(), published)
	}
	b.ReportMetric(float64(used.Microseconds())/float64(published), "µs-cpu/event")
	b.ReportMetric(float64(published)/time.Since(start).Seconds(), "events/s")
	b.ReportMetric(0, "ns/op")
}

// publishWave publishes the events first to first+wave: each to a channel of
// its own in one request, or ten to a channel at a time.
func publishWave(ctx context.Context, n *node, first, wave, sessions, tens int) error {
	data := map[string]string{"fill": strings.Repeat("x", 150)}
	if tens == 1 {
		channels := make([]string, wave)
		for i := range channels {
			channels[i] = "c" + strconv.Itoa((first+i)%sessions)
		}
		in := map[string]any{"channels": channels, "type": "t", "id": "e" + strconv.Itoa(first), "data": data}
		_, err := n.do(ctx, "POST", "/v1/events", in, nil)
		return err
	}
	for i := 0; i < wave; i += tens {
		batch := make([]any, tens)
		for j := range batch {
			batch[j] = map[string]any{"type": "t", "data": data}
		}
		if _, err := n.do(ctx, "POST", fmt.Sprintf("/v1/channels/c%d/events", (first+i)/tens%sessions), batch, nil); err != nil {
			return err
		}
	}
	return nil
}

// takeAll is a durable client that does as little as it can.
func takeAll(ctx context.Context, b *testing.B, n *node, name string, each int, got *atomic.Int64, up func()) {
	q := url.Values{"subscription": {name}, "access_token": {token()}}
	c, _, err := websocket.Dial(ctx, strings.Replace(n.base, "http", "ws", 1)+"/v1/ws?"+q.Encode(), &websocket.DialOptions{Subprotocols: []string{"longline.v1"}})
	if err != nil {
		b.Error(err)
		return
	}
	defer c.CloseNow()
	for count := 0; ; {
		_, text, err := c.Read(ctx)
		if err != nil {
			return
		}
		up()
		if strings.HasPrefix(string(text), `{"op"`) {
			continue
		}
		got.Add(1)
		if count++; count%each != 0 {
			continue
		}
		var e struct{ Cursor string }
		if json.Unmarshal(text, &e) != nil {
			return
		}
		if _, err := event.ParseCursor(e.Cursor); err != nil {
			b.Error(err)
			return
		}
		if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"op":"ack","cursor":%q}`, e.Cursor)); err != nil {
			return
		}
	}
}

// cpu is what the process has used, by proc(5).
func (n *node) cpu(b *testing.B) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
