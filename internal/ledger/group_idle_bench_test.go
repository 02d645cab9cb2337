package ledger_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/broker/redis/redistest"
)

// benchmarkIdle is what Redis keeps of groups that nobody uses.
func benchmarkIdle(b *testing.B) {
	const groups = 1000
	for b.Loop() {
		server := redistest.Start(b)
		c := &crew{b: b, n: startNode(b, server.URL(), "one"), ctx: context.Background()}
		keeps := func() float64 {
			for line := range strings.Lines(fmt.Sprint(server.Do("INFO", "memory"))) {
				if value, ok := strings.CutPrefix(line, "used_memory_dataset:"); ok {
					n, err := strconv.Atoi(strings.TrimSpace(value))
					if err != nil {
						b.Fatal(err)
					}
					return float64(n)
				}
			}
			b.Fatal("redis does not tell its used_memory_dataset")
			return 0
		}
		all := func(do func(name string) error) {
			var wait sync.WaitGroup
			slots := make(chan struct{}, 16)
			for i := range groups {
				slots <- struct{}{}
				wait.Go(func() {
					defer func() { <-slots }()
					if err := do("g" + strconv.Itoa(i)); err != nil {
						b.Error(err)
					}
				})
			}
			wait.Wait()
		}
		empty := keeps()
		all(func(name string) error {
			_, err := c.n.do(c.ctx, "PUT", "/v1/subscriptions/"+name, map[string]any{
				"channels": []string{"acct"}, "group": map[string]int{"partitions": partitions},
			}, nil)
			return err
		})
		b.ReportMetric((keeps()-empty)/groups, "B-redis/group")
		all(func(name string) error {
			q := url.Values{"subscription": {name}, "consumer": {"m"}, "access_token": {token()}}
			conn, _, err := websocket.Dial(c.ctx, strings.Replace(c.n.base, "http", "ws", 1)+"/v1/ws?"+q.Encode(), &websocket.DialOptions{Subprotocols: []string{"longline.v1"}})
			if err != nil {
				return err
			}
			defer conn.CloseNow()
			if _, _, err = conn.Read(c.ctx); err != nil {
				return err
			}
			return conn.Close(websocket.StatusNormalClosure, "")
		})
		within(b, time.Minute, "all members have left", func() bool {
			var out struct{ Subscriptions []struct{} }
			c.n.must("GET", "/v1/subscriptions?limit=1&state=live", nil, &out)
			return len(out.Subscriptions) == 0
		})
		b.ReportMetric((keeps()-empty)/groups, "B-redis/group-left")
		within(b, 3*time.Minute, "all groups rest", func() bool {
			return fmt.Sprint(server.Do("KEYS", "*}s:g*/*")) == "[]" // no partition is left
		})
		b.ReportMetric((keeps()-empty)/groups, "B-redis/group-at-rest")
	}
	b.ReportMetric(0, "ns/op")
}
