package deploy_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

// TestProxies has 200 clients live behind each proxy, as deploy/proxies sets it
// up, while it is reloaded and one of two gateways is drained. Every client
// gets every event of its channel, once, in order.
func TestProxies(t *testing.T) {
	for _, kind := range proxyKinds {
		t.Run(kind.name, func(t *testing.T) {
			site := newSite(t, kind)
			site.checkRequests(t)
			crowd := site.join(t, 200)
			eventually(t, "all are live", crowd.live)
			site.checkAddresses(t, 200)
			crowd.publish(t, 5)
			site.proxy.reload(t)
			crowd.publish(t, 25) // old connections are cut while these are on their way
			site.gateways[0].cmd.Process.Signal(syscall.SIGTERM)
			<-site.gateways[0].ended
			site.checkLogs(t)
			crowd.publish(t, 10)
			eventually(t, "everybody has everything", crowd.complete)
			crowd.leave()
			t.Logf("%d connections were made for 200 clients", crowd.connects.Load())
		})
	}
}

// checkRequests asks what a page, and who would be somebody else, ask.
func (s *site) checkRequests(t *testing.T) {
	t.Helper()
	ask := func(proto int, header http.Header) {
		t.Helper()
		r, err := http.NewRequest("GET", s.url+"/v1/nodes", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		client := s.http1
		if proto == 2 {
			client = s.http2
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != proto {
			t.Errorf("HTTP/%d with %v: %s over %s", proto, slices.Collect(maps.Keys(header)), resp.Status, resp.Proto)
		}
	}
	for _, proto := range []int{1, 2} {
		ask(proto, http.Header{"Authorization": {"Bearer " + s.token}})
		ask(proto, http.Header{"Cookie": {"a=b; longline_token=" + s.token}, "Sec-Fetch-Site": {"same-origin"}})
		// A page of the proxy's own name is of the same origin, so Host arrives.
		ask(proto, http.Header{"Cookie": {"longline_token=" + s.token}, "Origin": {s.url}})
	}
}

// checkAddresses: the gateways know clients by their own addresses.
func (s *site) checkAddresses(t *testing.T, want int) {
	t.Helper()
	seen := map[string]int{}
	for _, g := range s.gateways {
		var list struct{ Connections []struct{ Address string } }
		c, err := longline.New("http://"+g.address, longline.Options{Token: s.token})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Do(t.Context(), "GET", "/v1/connections?limit=1000", nil, &list); err != nil {
			t.Fatal(err)
		}
		for _, c := range list.Connections {
			seen[c.Address]++
		}
	}
	if len(seen) != 1 || seen[clientAddress] != want {
		t.Errorf("connections are from %v, want %d from %s", seen, want, clientAddress)
	}
}

// checkLogs: a token in a query is in no log of the proxy's, though a gateway is
// gone and requests to it fail.
func (s *site) checkLogs(t *testing.T) {
	t.Helper()
	for range 8 {
		resp, err := s.http1.Get(s.url + "/v1/nodes?access_token=" + s.token)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	logged := 0
	for _, place := range []string{s.proxy.log, filepath.Join(s.proxy.dir, "*.log")} {
		files, err := filepath.Glob(place)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if logged += len(text); strings.Contains(string(text), s.token) {
				t.Errorf("a token stands in %s", file)
			}
		}
	}
	if logged == 0 {
		t.Error("the proxy logged nothing")
	}
}

// crowd are clients that have a tenth of the channels' events each.
type crowd struct {
	publisher *longline.Client
	members   []*member
	connects  atomic.Int64
	stop      context.CancelFunc
	left      sync.WaitGroup

	mu        sync.Mutex
	published [10][]int // by channel, in the order of the log
}

type member struct {
	channel int
	live    atomic.Bool

	mu  sync.Mutex
	got []int
}

// join has n clients subscribe, half by WebSocket, half by SSE over HTTP/1.1
// and HTTP/2.
func (s *site) join(t *testing.T, n int) *crowd {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &crowd{stop: stop}
	t.Cleanup(c.leave)
	client := func(transport longline.Transport, h *http.Client) *longline.Client {
		t.Helper()
		c, err := longline.New(s.url, longline.Options{Token: s.token, Transport: transport, HTTPClient: h, MaxBackoff: time.Second, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c.publisher = client(longline.Auto, s.http1)
	clients := []*longline.Client{
		client(longline.WebSocket, s.http1), client(longline.SSE, s.http1), client(longline.WebSocket, s.http1), client(longline.SSE, s.http2),
	}
	for i := range n {
		m := &member{channel: i % len(c.published)}
		c.members = append(c.members, m)
		sub, err := clients[i/len(c.published)%4].Subscribe(longline.Selection{Channels: []string{fmt.Sprintf("acct-%d", m.channel)}}, longline.SubscriptionOptions{
			Handler: func(_ context.Context, e longline.Event) error {
				var number int
				if err := e.DataAs(&number); err != nil {
					return longline.Reject(err)
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				m.got = append(m.got, number)
				return nil
			},
			OnState: func(s longline.State) {
				if s.Phase == longline.Live {
					c.connects.Add(1)
					m.live.Store(true)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.left.Go(func() {
			if err := sub.Run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	return c
}

func (c *crowd) leave() { c.stop(); c.left.Wait() }

func (c *crowd) live() error {
	for i, m := range c.members {
		if !m.live.Load() {
			return fmt.Errorf("client %d is not", i)
		}
	}
	return nil
}

// publish publishes so many events to each channel, one after the other, about
// ten a second.
func (c *crowd) publish(t *testing.T, n int) {
	t.Helper()
	var channels sync.WaitGroup
	for channel := range c.published {
		channels.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for range n {
				<-tick.C
				number := len(c.published[channel])
				e, err := longline.NewEvent("test.numbered", number)
				if err == nil {
					_, err = c.publisher.Publish(t.Context(), fmt.Sprintf("acct-%d", channel), e)
				}
				if err != nil {
					t.Errorf("publish %d: %v", number, err)
					return
				}
				c.mu.Lock()
				c.published[channel] = append(c.published[channel], number)
				c.mu.Unlock()
			}
		})
	}
	channels.Wait()
}

func (c *crowd) complete() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range c.members {
		m.mu.Lock()
		got := slices.Clone(m.got)
		m.mu.Unlock()
		if !slices.Equal(got, c.published[m.channel]) {
			return fmt.Errorf("client %d got %v of %v", i, got, c.published[m.channel])
		}
	}
	return nil
}

// BenchmarkBehindProxies shows how late events are behind proxies with nothing
// else to do, a histogram each: go test ./deploy -run - -bench Proxies -benchtime 500x
func BenchmarkBehindProxies(b *testing.B) {
	for _, kind := range append([]*proxyKind{nil}, proxyKinds...) {
		name := "none"
		if kind != nil {
			name = kind.name
		}
		for _, transport := range []longline.Transport{longline.WebSocket, longline.SSE} {
			b.Run(name+"/"+string(transport), func(b *testing.B) {
				site := newSite(b, kind)
				published := sync.Map{}
				arrived := make(chan time.Duration, 1)
				live := make(chan struct{}, 1)
				client, err := longline.New(site.url, longline.Options{Token: site.token, Transport: transport, HTTPClient: site.http1})
				if err != nil {
					b.Fatal(err)
				}
				direct, err := longline.New("http://"+site.gateways[0].address, longline.Options{Token: site.token})
				if err != nil {
					b.Fatal(err)
				}
				sub, err := client.Subscribe(longline.Selection{Channels: []string{"a"}}, longline.SubscriptionOptions{
					Handler: func(_ context.Context, e longline.Event) error {
						at, _ := published.LoadAndDelete(e.ID)
						arrived <- time.Since(at.(time.Time))
						return nil
					},
					OnState: func(s longline.State) {
						if s.Phase == longline.Live {
							live <- struct{}{}
						}
					},
				})
				if err != nil {
					b.Fatal(err)
				}
				ctx, stop := context.WithCancel(b.Context())
				var ran sync.WaitGroup
				ran.Go(func() { sub.Run(ctx) })
				defer ran.Wait()
				defer stop()
				<-live
				var took []time.Duration
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for b.Loop() {
					<-tick.C
					e, err := longline.NewEvent("t", nil)
					if err != nil {
						b.Fatal(err)
					}
					published.Store(e.ID, time.Now())
					if _, err := direct.Publish(ctx, "a", e); err != nil {
						b.Fatal(err)
					}
					took = append(took, <-arrived)
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
				b.ReportMetric(0, "ns/op")
				if len(took) > 1 {
					b.Log(histogram(took))
				}
			})
		}
	}
}

// histogram counts sorted times by powers of two of a millisecond.
func histogram(took []time.Duration) string {
	var text strings.Builder
	for from, to := time.Duration(0), time.Millisecond; len(took) > 0; from, to = to, 2*to {
		n, _ := slices.BinarySearch(took, to)
		fmt.Fprintf(&text, "\n%6v to %6v: %d", from, to, n)
		took = took[n:]
	}
	return text.String()
}
