package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/broker/redis/redistest"
)

// subscriber follows a channel by WebSocket, at whichever gateway takes it, and
// comes back with its cursor.
type subscriber struct {
	channel  string
	gateways []*gateway
	first    int // the gateway it begins with
	bearer   string

	mu     sync.Mutex
	cursor string
	ids    []string
	gaps   []string
	online bool
}

// frame is what the gateway says: an event or control.
type frame struct {
	SpecVersion string `json:"specversion"`
	ID          string `json:"id"`
	Cursor      string `json:"cursor"`
	Op          string `json:"op"`
	Reason      string `json:"reason"`
}

// run follows until ctx ends.
func (s *subscriber) run(ctx context.Context) {
	for try := s.first; ctx.Err() == nil; try++ {
		s.session(ctx, s.gateways[try%len(s.gateways)])
		s.set(func() { s.online = false })
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *subscriber) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// session is one connection's.
func (s *subscriber) session(ctx context.Context, g *gateway) {
	query := url.Values{"channel": {s.channel}}
	s.set(func() {
		if s.cursor != "" {
			query.Set("since", s.cursor)
		}
	})
	dialing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, resp, err := websocket.Dial(dialing, strings.Replace(g.url, "http", "ws", 1)+"/v1/ws?"+query.Encode(), &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + s.bearer}}, Subprotocols: []string{"longline.v1"},
	})
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	for {
		_, text, err := c.Read(ctx)
		if err != nil {
			return
		}
		var f frame
		if json.Unmarshal(text, &f) != nil {
			return
		}
		s.set(func() {
			switch {
			case f.SpecVersion != "":
				s.cursor = f.Cursor
				s.ids = append(s.ids, f.ID)
			case f.Op == "hello":
				s.cursor, s.online = f.Cursor, true
			case f.Op == "gap":
				s.gaps = append(s.gaps, f.Reason)
			}
		})
	}
}

// crowd is many subscribers over some channels.
type crowd struct {
	t        testing.TB
	members  []*subscriber
	channels []string
}

// gather connects n subscribers, over channels and gateways in turn, and waits
// until all are there.
func gather(t testing.TB, n, channels int, gateways ...*gateway) *crowd {
	t.Helper()
	c := &crowd{t: t}
	for i := range channels {
		c.channels = append(c.channels, fmt.Sprintf("acct-%d", i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	bearer := token(t)
	for i := range n {
		s := &subscriber{channel: c.channels[i%channels], gateways: gateways, first: i / channels, bearer: bearer}
		c.members = append(c.members, s)
		wg.Go(func() { s.run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	c.online()
	return c
}

// online waits until all are connected.
func (c *crowd) online() {
	c.t.Helper()
	redistest.Eventually(c.t, func() error {
		for i, s := range c.members {
			on := false
			s.set(func() { on = s.online })
			if !on {
				return fmt.Errorf("subscriber %d is not connected", i)
			}
		}
		return nil
	})
}

// wantAll waits until every subscriber has exactly the acknowledged events of
// its channel, each once, in order.
func (c *crowd) wantAll(acknowledged map[string][]string) {
	c.t.Helper()
	for i, s := range c.members {
		want := acknowledged[s.channel]
		redistest.Eventually(c.t, func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.gaps) > 0 {
				c.t.Fatalf("subscriber %d was told of gaps: %v", i, s.gaps)
			}
			for k, id := range s.ids {
				if k >= len(want) || id != want[k] {
					c.t.Fatalf("subscriber %d got %s as event %d of %d", i, id, k+1, len(want))
				}
			}
			if len(s.ids) < len(want) {
				return fmt.Errorf("subscriber %d has %d events of %d", i, len(s.ids), len(want))
			}
			return nil
		})
	}
}

// publisher publishes by HTTP, some 500 events a second, each until a gateway
// acknowledges it.
type publisher struct {
	t        testing.TB
	gateways []*gateway
	stop     chan struct{}
	ended    sync.WaitGroup

	mu           sync.Mutex
	acknowledged map[string][]string // ids by channel
	total        int
	refused      int
	odd          []string // answers that are neither 200 nor 503
}

func publish(t testing.TB, channels []string, gateways ...*gateway) *publisher {
	p := &publisher{t: t, gateways: gateways, stop: make(chan struct{}), acknowledged: make(map[string][]string)}
	bearer := token(t)
	p.ended.Go(func() { p.run(channels, bearer) })
	t.Cleanup(func() {
		select {
		case <-p.stop:
		default:
			close(p.stop)
		}
		p.ended.Wait()
	})
	return p
}

func (p *publisher) run(channels []string, bearer string) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	at := 0 // the gateway that answered last
	for n := 0; ; n++ {
		channel, id := channels[n%len(channels)], fmt.Sprintf("event-%d", n)
		for ; ; at++ {
			status := p.post(p.gateways[at%len(p.gateways)], bearer, channel, id)
			if status == http.StatusOK {
				break
			}
			p.mu.Lock()
			p.refused++
			if status != 0 && status != http.StatusServiceUnavailable {
				p.odd = append(p.odd, fmt.Sprint(status))
			}
			p.mu.Unlock()
			select {
			case <-p.stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		p.mu.Lock()
		p.acknowledged[channel] = append(p.acknowledged[channel], id)
		p.total++
		p.mu.Unlock()
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
	}
}

func (p *publisher) post(g *gateway, bearer, channel, id string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	body := fmt.Sprintf(`{"id":%q,"source":"/e2e","type":"e2e.happened","data":{"n":1}}`, id)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/channels/"+channel+"/events", strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_ = json.NewDecoder(resp.Body).Decode(&struct{}{})
	return resp.StatusCode
}

// more waits until n more events are acknowledged.
func (p *publisher) more(n int) {
	p.t.Helper()
	p.mu.Lock()
	want := p.total + n
	p.mu.Unlock()
	redistest.Eventually(p.t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.total < want {
			return fmt.Errorf("%d events acknowledged of %d", p.total, want)
		}
		return nil
	})
}

// halt ends publishing and returns what was acknowledged.
func (p *publisher) halt() map[string][]string {
	p.t.Helper()
	close(p.stop)
	p.ended.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.odd) > 0 {
		p.t.Errorf("publishes were answered %v, want 200 or 503", p.odd)
	}
	return p.acknowledged
}
