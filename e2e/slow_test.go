package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/longline-push/longline/broker/redis/redistest"
)

// A durable client takes one event a second while 500 come, for a minute. That
// costs the gateway no memory and the others nothing; then it catches up.
func TestSlowDurableClient(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := startGateway(t, s.URL())
	bearer := token(t)
	put(t, g, bearer, "crm-slow", `{"channels":["acct-0"],"window":64,"start":"latest"}`)
	others := gather(t, 20, 1, g)

	slow := attach(t, g, bearer, "crm-slow")
	p := publish(t, others.channels, g)
	p.more(2000)
	settled := g.memory()
	minute := time.NewTimer(time.Minute)
	<-minute.C
	if grown := g.memory() - settled; grown > 48<<20 {
		t.Errorf("the gateway grew by %d MiB while a client was slow", grown>>20)
	}
	if n := slow.handled.Load(); n > 200 {
		t.Fatalf("the slow client took %d events, which isn't slow", n)
	}
	acknowledged := p.halt()
	others.wantAll(acknowledged)

	slow.hurry.Store(true)
	want := acknowledged["acct-0"]
	redistest.Eventually(t, func() error { return slow.behind(len(want)) })
	for i, id := range slow.stop() {
		if id != want[i] {
			t.Fatalf("event %d of the slow client is %s, want %s", i+1, id, want[i])
		}
	}
}

// durable is a client of a durable subscription.
type durable struct {
	handled atomic.Int64
	hurry   atomic.Bool // takes events as they come; else one a second
	cancel  context.CancelFunc
	ended   chan struct{}
	ids     []string // owned by the client until it ended
}

func attach(t testing.TB, g *gateway, bearer, name string) *durable {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &durable{cancel: cancel, ended: make(chan struct{})}
	c, _, err := websocket.Dial(ctx, strings.Replace(g.url, "http", "ws", 1)+"/v1/ws?subscription="+name,
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + bearer}}, Subprotocols: []string{"longline.v1"}})
	if err != nil {
		cancel()
		t.Fatalf("attach to %s: %v", name, err)
	}
	c.SetReadLimit(4 << 20)
	go func() {
		defer close(d.ended)
		defer c.CloseNow()
		for {
			var f frame
			if err := wsjson.Read(ctx, c, &f); err != nil {
				return
			}
			switch {
			case f.SpecVersion != "":
			case f.Op == "gap" || f.Op == "bye" || f.Op == "redelivery":
				text, _ := json.Marshal(f)
				t.Errorf("the slow client was told %s", text)
				return
			default:
				continue
			}
			for i := 0; i < 20 && !d.hurry.Load(); i++ {
				select {
				case <-ctx.Done():
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
			d.ids = append(d.ids, f.ID)
			if wsjson.Write(ctx, c, map[string]string{"op": "ack", "cursor": f.Cursor}) != nil {
				return
			}
			d.handled.Add(1)
		}
	}()
	t.Cleanup(func() { _ = d.stop() })
	return d
}

func (d *durable) behind(want int) error {
	if n := int(d.handled.Load()); n < want {
		return fmt.Errorf("the slow client has %d events of %d", n, want)
	}
	return nil
}

// stop ends the client and returns what it handled.
func (d *durable) stop() []string {
	d.cancel()
	<-d.ended
	return d.ids
}

func put(t testing.TB, g *gateway, bearer, name, definition string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, g.url+"/v1/subscriptions/"+name, strings.NewReader(definition))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("put subscription %s: %s", name, resp.Status)
	}
}
