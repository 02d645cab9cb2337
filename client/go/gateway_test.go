package longline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const gatewaySecret = "a secret of thirty-two bytes, ok."

var buildGateway = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(gatewayDir, "longline")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/longline-push/longline").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return binary, nil
})

// gateway is a real one, as a process, which a test may kill and start again
// at the same address with the same data.
type gateway struct {
	t       testing.TB
	url     string
	address string
	flags   []string
	dir     string
	process *exec.Cmd
	log     *bytes.Buffer
}

func newGateway(t testing.TB, flags ...string) *gateway {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, address: l.Addr().String(), flags: flags, dir: t.TempDir()}
	g.url = "http://" + g.address
	l.Close()
	g.start()
	t.Cleanup(func() {
		if g.process != nil {
			g.kill()
		}
		if t.Failed() {
			t.Logf("the gateway said:\n%s", tail(g.log.String(), 4000))
		}
	})
	return g
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (g *gateway) start() {
	g.t.Helper()
	process, said, err := launch(g.address, g.dir, g.flags...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.process, g.log = process, said
	client := newHTTPClient(g.t)
	until(g.t, "the gateway answers", func() bool {
		res, err := client.Get(g.url + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// launch starts a gateway's process.
func launch(address, dir string, flags ...string) (*exec.Cmd, *bytes.Buffer, error) {
	binary, err := buildGateway()
	if err != nil {
		return nil, nil, err
	}
	process := exec.Command(binary, append([]string{
		"serve", "--listen", address, "--broker", "embedded:" + dir + "?fsync=everysec", "--jwt-secret", gatewaySecret, "--admin-listen", "",
	}, flags...)...)
	process.Env = append(os.Environ(), "LONGLINE_TOKEN=", "LONGLINE_URL=")
	said := new(bytes.Buffer)
	process.Stdout, process.Stderr = said, said
	return process, said, process.Start()
}

// forExamples starts a gateway and has the examples find it and a token.
func forExamples(dir string) (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	text, err := sign("example", time.Hour, everything)
	if err != nil {
		return nil, err
	}
	process, said, err := launch(address, dir)
	if err != nil {
		return nil, err
	}
	stop = func() {
		process.Process.Kill() // an error means that it has ended
		process.Wait()         // likewise: it was killed
		http.DefaultClient.CloseIdleConnections()
	}
	os.Setenv("LONGLINE_URL", "http://"+address)
	os.Setenv("LONGLINE_TOKEN", text)
	for range 3000 {
		res, err := http.Get("http://" + address + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return stop, nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	return nil, fmt.Errorf("the gateway does not answer; it said:\n%s", said)
}

// kill ends the process by SIGKILL.
func (g *gateway) kill() {
	g.t.Helper()
	g.process.Process.Kill() // an error means that it has ended
	g.process.Wait()         // likewise: it was killed
	g.process = nil
}

// until polls with a deadline.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited 30 s in vain: %s", what)
		case <-tick.C:
		}
	}
}

// newHTTPClient has connections of its own, which end with the test.
func newHTTPClient(t testing.TB) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

var everything = map[string]any{"subscribe": []string{"**"}, "publish": []string{"**"}, "subscriptions": []string{"*"}}

// token mints one for everything under that subject.
func token(t testing.TB, sub string, ttl time.Duration) string {
	t.Helper()
	return mint(t, sub, ttl, everything)
}

func mint(t testing.TB, sub string, ttl time.Duration, rights map[string]any) string {
	t.Helper()
	text, err := sign(sub, ttl, rights)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func sign(sub string, ttl time.Duration, rights map[string]any) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": sub, "exp": time.Now().Add(ttl).Unix(), "jti": newID(), "longline": rights,
	}).SignedString([]byte(gatewaySecret))
}

func (g *gateway) client(t testing.TB, o Options) *Client {
	t.Helper()
	if o.Token == "" && o.TokenFunc == nil {
		o.Token = token(t, "customer-42", time.Hour)
	}
	if o.HTTPClient == nil {
		o.HTTPClient = newHTTPClient(t)
	}
	if o.MinBackoff == 0 {
		o.MinBackoff, o.MaxBackoff = 20*time.Millisecond, 200*time.Millisecond
	}
	c, err := New(g.url, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// subscription creates a durable subscription.
func subscription(t testing.TB, c *Client, name string, settings map[string]any) map[string]any {
	t.Helper()
	var answer map[string]any
	if err := c.Do(context.Background(), http.MethodPut, "/v1/subscriptions/"+name, settings, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// publish appends n events of one key each in turn, numbered from first, and
// returns the last cursor.
func publish(t testing.TB, c *Client, channel string, first, n, keys int) string {
	t.Helper()
	events := make([]Event, n)
	for i := range events {
		e, err := NewEvent("email.opened", map[string]int{"n": first + i})
		if err != nil {
			t.Fatal(err)
		}
		if keys > 0 {
			e.Key = fmt.Sprintf("key-%d", (first+i)%keys)
		}
		events[i] = e
	}
	published, err := c.Publish(context.Background(), channel, events...)
	if err != nil {
		t.Fatal(err)
	}
	if len(published) != n {
		t.Fatalf("got %d published, want %d", len(published), n)
	}
	return published[n-1].Cursor
}

// counter is a handler that counts each event's deliveries by its number and
// checks that each key comes in order.
type counter struct {
	t       testing.TB
	mu      sync.Mutex
	times   map[int]int
	last    map[string]int
	ordered bool
	before  func(n int) error
}

func newCounter(t testing.TB) *counter {
	return &counter{t: t, times: make(map[int]int), last: make(map[string]int), ordered: true}
}

func (c *counter) handle(_ context.Context, e Event) error {
	var data struct{ N int }
	if err := e.DataAs(&data); err != nil {
		c.t.Errorf("decode %s: %v", e.Raw, err)
		return Reject(err)
	}
	if c.before != nil {
		if err := c.before(data.N); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times[data.N]++
	if c.ordered && data.N <= c.last[e.Key] {
		c.t.Errorf("key %q: got %d after %d", e.Key, data.N, c.last[e.Key])
	}
	c.last[e.Key] = data.N
	return nil
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.times)
}

// wantOnce waits until events 1 to n came, and checks that each came once.
func (c *counter) wantOnce(n int) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("%d events come", n), func() bool { return c.count() >= n })
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 1; i <= n; i++ {
		if c.times[i] != 1 {
			c.t.Errorf("event %d: got it %d times, want once", i, c.times[i])
		}
	}
	if len(c.times) != n {
		c.t.Errorf("got %d events, want %d", len(c.times), n)
	}
}

// watcher notes a subscription's states.
type watcher struct {
	mu     sync.Mutex
	states []State
	live   chan struct{} // gets a token for each Live
}

func newWatcher() *watcher { return &watcher{live: make(chan struct{}, 1000)} }

func (w *watcher) tell(s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, s)
	if s.Phase == Live {
		w.live <- struct{}{}
	}
}

func (w *watcher) last() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.states) == 0 {
		return State{}
	}
	return w.states[len(w.states)-1]
}

func (w *watcher) wantLive(t testing.TB) {
	t.Helper()
	select {
	case <-w.live:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited 30 s in vain for the subscription to be live; it is %+v", w.last())
	}
}

// runSubscription runs the subscription until the test ends or end is called, which returns
// what Run did.
func runSubscription(t testing.TB, l *Subscription) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	end = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { end() })
	return end
}

// wantEnd waits for Run to return by itself, with that error.
func wantEnd(t testing.TB, l *Subscription, want error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := l.Run(ctx); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func mustSubscribe(t testing.TB, c *Client, s Selection, o SubscriptionOptions) *Subscription {
	t.Helper()
	l, err := c.Subscribe(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustAttach(t testing.TB, c *Client, name string, o SubscriptionOptions) *Subscription {
	t.Helper()
	l, err := c.Attach(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
