package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/broker/redis/redistest"
)

// Published at one gateway, received at the other, at 2,000 events a second
// over 50 channels: from when a publish was to be sent.
func BenchmarkAcrossGateways(b *testing.B) {
	const channels, rate, publishers = 50, 2000, 16
	s := redistest.Start(b)
	one, two := startGateway(b, s.URL()), startGateway(b, s.URL())
	bearer := token(b)
	query := make([]string, channels)
	for i := range query {
		query[i] = fmt.Sprintf("channel=acct-%d", i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, strings.Replace(two.url, "http", "ws", 1)+"/v1/ws?"+strings.Join(query, "&"),
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + bearer}}, Subprotocols: []string{"longline.v1"}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	if _, _, err := c.Read(ctx); err != nil { // hello
		b.Fatal(err)
	}

	start := time.Now().Add(100 * time.Millisecond)
	due := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second / rate) }
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			pub := &publisher{t: b}
			for n := p; n < b.N; n += publishers {
				time.Sleep(time.Until(due(n)))
				if status := pub.post(one, bearer, fmt.Sprintf("acct-%d", n%channels), strconv.Itoa(n)); status != http.StatusOK {
					b.Errorf("publish: %d", status)
					return
				}
			}
		})
	}
	var took []time.Duration
	for len(took) < b.N {
		_, text, err := c.Read(ctx)
		if err != nil {
			b.Fatal(err)
		}
		var f frame
		if json.Unmarshal(text, &f) == nil && f.SpecVersion != "" {
			n, _ := strconv.Atoi(f.ID)
			took = append(took, time.Since(due(n)))
		}
	}
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	slices.Sort(took)
	ms := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(ms(0.50), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}
