package ledger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/internal/ledger"
)

var binary string // the gateway, built once

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "longline")
	build := exec.Command("go", "build", "-o", binary, "github.com/longline-push/longline")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(fmt.Sprint("build the gateway: ", err))
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

const secret = "a secret that is long enough for HS256, and for the vault"

// node is a gateway process.
type node struct {
	t      testing.TB
	base   string
	listen string
	broker string
	name   string
	binary string // what it runs
	cmd    *exec.Cmd
	log    *os.File
	wait   sync.WaitGroup
}

// brokers runs a test on each kind of broker. open returns the URL under which
// one more node finds the broker.
func brokers(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("embedded", func(t *testing.T) { test(t, "embedded:"+filepath.Join(t.TempDir(), "data")) })
	t.Run("redis", func(t *testing.T) { test(t, redistest.Start(t).URL()) })
}

func startNode(t testing.TB, broker, name string) *node {
	t.Helper()
	return startNodeOf(t, binary, broker, name)
}

func startNodeOf(t testing.TB, binary, broker, name string) *node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, listen: l.Addr().String(), broker: broker, name: name, binary: binary}
	l.Close()
	n.base = "http://" + n.listen
	if n.log, err = os.CreateTemp(t.TempDir(), "gateway-*.log"); err != nil {
		t.Fatal(err)
	}
	n.start()
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			text, _ := os.ReadFile(n.log.Name())
			t.Logf("log of %s:\n%s", name, text[max(0, len(text)-8000):])
		}
		n.log.Close()
	})
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.Command(n.binary, "serve", "--listen", n.listen, "--admin-listen", os.Getenv("ADMIN"), "--broker", n.broker, "--node", n.name,
		"--jwt-secret", secret, "--secret-key", secret, "--callback-allow-cidr", "127.0.0.0/8", "--log-level", "warn")
	n.cmd.Stderr, n.cmd.Stdout = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd := n.cmd
	n.wait.Go(func() { cmd.Wait() })
	eventually(n.t, "the gateway is ready", func() bool {
		r, err := http.Get(n.base + "/readyz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// kill kills the process as a crash would.
func (n *node) kill() {
	n.cmd.Process.Kill()
	n.wait.Wait()
}

// end has the process shut down, and waits for it.
func (n *node) end() {
	n.t.Helper()
	n.cmd.Process.Signal(syscall.SIGTERM)
	n.wait.Wait()
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		n.t.Errorf("%s ended with status %d", n.name, code)
	}
}

var token = sync.OnceValue(func() string {
	text, err := auth.Mint([]byte(secret), auth.Mintage{Subject: "ledger", Admin: true, TTL: time.Hour}, time.Now())
	if err != nil {
		panic(err)
	}
	return text
})

// do makes a request and decodes the answer.
func (n *node) do(ctx context.Context, method, path string, in, out any) (int, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, n.base+path, body)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token())
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, text)
	}
	if out != nil {
		err = json.Unmarshal(text, out)
	}
	return resp.StatusCode, err
}

func (n *node) must(method, path string, in, out any) {
	n.t.Helper()
	if _, err := n.do(n.t.Context(), method, path, in, out); err != nil {
		n.t.Fatal(err)
	}
}

// publisher publishes numbered events at a rate until it is stopped. What
// wasn't answered is sent again with the same id until it is.
type publisher struct {
	nodes  []*node
	book   *ledger.Ledger
	stop   context.CancelFunc
	ended  sync.WaitGroup
	number int
}

func publish(t *testing.T, book *ledger.Ledger, perSecond int, nodes ...*node) *publisher {
	ctx, stop := context.WithCancel(context.Background())
	p := &publisher{nodes: nodes, book: book, stop: stop}
	p.ended.Go(func() { p.run(ctx, t, perSecond) })
	t.Cleanup(p.finish)
	return p
}

func (p *publisher) finish() { p.stop(); p.ended.Wait() }

func (p *publisher) run(ctx context.Context, t *testing.T, perSecond int) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.number++
		p.one(t, p.number)
	}
}

func (p *publisher) one(t *testing.T, number int) {
	id := "e-" + strconv.Itoa(number)
	in := map[string]any{"type": "test.numbered", "id": id, "data": map[string]int{"n": number}, "partitionkey": "k" + strconv.Itoa(number%7)}
	var out struct{ Events []struct{ Cursor string } }
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := p.nodes[try%len(p.nodes)].do(ctx, "POST", "/v1/channels/acct-1/events", in, &out)
		cancel()
		if err == nil {
			break
		}
		if try > 600 {
			t.Errorf("publish %s: %v", id, err)
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	if err := p.book.Published(number, id, "k"+strconv.Itoa(number%7), out.Events[0].Cursor); err != nil {
		t.Error(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, 30*time.Second, what, ok)
}

func within(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}
