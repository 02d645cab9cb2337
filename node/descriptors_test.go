package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

const (
	fewFilesEnv = "LONGLINE_TEST_FEW_FILES" // where a process of few files keeps its data
	fewFiles    = 256
	// Of 256 files 128 are for what is accepted, and half of the rest for calls.
	fewSockets = 64
)

// runWithFewFiles is a node that may open few files, in a process of its own. It
// says where it is and what opens it.
func runWithFewFiles() error {
	few := syscall.Rlimit{Cur: fewFiles, Max: fewFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	n, err := node.New(ctx, node.Options{Broker: "embedded:" + os.Getenv(fewFilesEnv), Drain: time.Second})
	if err != nil {
		return err
	}
	token, err := n.Mint(auth.Mintage{Subject: "ops", Admin: true, TTL: time.Hour})
	if err != nil {
		return err
	}
	fmt.Println(n.URL(), token)
	err = n.Run(ctx)
	n.Shutdown()
	return err
}

// hanging takes connections and never answers.
type hanging struct {
	net.Listener
	mu         sync.Mutex
	open, most int
}

func newHanging(t *testing.T) *hanging {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hanging{Listener: l}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.count(1)
			serving.Go(func() {
				io.Copy(io.Discard, c)
				c.Close()
				h.count(-1)
			})
		}
	})
	return h
}

func (h *hanging) count(by int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open += by
	h.most = max(h.most, h.open)
}

func (h *hanging) seen() (open, most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open, h.most
}

// Endpoints that hang take connections from one another, and from those that
// answer for a while, but none from the store, publishers and new lines: neither
// by callbacks nor by tests of them.
func TestHangingEndpointsLeaveFilesToTheRest(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fewFilesEnv+"="+t.TempDir())
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if text := said.String(); t.Failed() {
			t.Logf("the node said, at last: %s", text[max(0, len(text)-2000):])
		}
	}()
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, token, _ := strings.Cut(strings.TrimSpace(first), " ")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	open := func(method, path, body string) (*http.Response, error) {
		r, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		return client.Do(r)
	}
	ask := func(method, path, body string) string {
		resp, err := open(method, path, body)
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
			return ""
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode/100 != 2 {
			t.Errorf("%s %s: %s %.300s %v", method, path, resp.Status, text, err)
		}
		return string(text)
	}

	for ready := false; !ready; {
		resp, err := open("GET", "/readyz", "")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		ready = resp.StatusCode == 200
	}

	stuck := newHanging(t)
	for i := range 300 {
		ask("PUT", fmt.Sprint("/v1/subscriptions/stuck-", i), fmt.Sprintf(`{"channels":["a"],"callback":{"url":"http://%s/%d","mode":"always","timeout":"2s"}}`, stuck.Addr(), i))
	}
	answered := make(chan struct{}, 100)
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { answered <- struct{}{} }))
	defer well.Close()
	ask("PUT", "/v1/subscriptions/well", fmt.Sprintf(`{"channels":["b"],"callback":{"url":%q,"mode":"always"}}`, well.URL))
	ask("POST", "/v1/channels/a/events", `{"type":"t"}`)
	for open, _ := stuck.seen(); open < fewSockets*3/4; open, _ = stuck.seen() {
		ask("POST", "/v1/channels/other/events", `{"type":"t"}`)
	}
	if t.Failed() {
		return
	}

	// Now all that calls may have is taken, and more is wanted.
	var testing sync.WaitGroup
	for i := range 50 {
		testing.Go(func() { ask("POST", fmt.Sprintf("/v1/subscriptions/stuck-%d/test", i), "") })
	}
	large := `{"type":"t","data":"` + strings.Repeat("x", 100<<10) + `"}`
	for i := range 60 {
		resp, err := open("GET", fmt.Sprintf("/v1/sse?channel=line-%d&since=earliest", i), "")
		if err != nil {
			t.Fatalf("a new line: %v", err)
		}
		var published struct{ Events []struct{ Cursor string } }
		if err := json.Unmarshal([]byte(ask("POST", fmt.Sprintf("/v1/channels/line-%d/events", i), large)), &published); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for came := false; !came; {
			if !lines.Scan() {
				t.Fatalf("line %d ended: %v", i, lines.Err())
			}
			came = lines.Text() == "id: "+published.Events[0].Cursor
		}
		resp.Body.Close()
	}
	if copied := ask("POST", "/v1/backup", ""); len(copied) < 4<<20 {
		t.Errorf("a copy of the data has %d bytes", len(copied))
	}
	ask("POST", "/v1/channels/b/events", `{"type":"t"}`)
	<-answered
	testing.Wait()
	// Those that the node has closed are seen here until their end arrives.
	if _, most := stuck.seen(); most > fewSockets*3/2 {
		t.Errorf("hanging endpoints had %d connections, want some %d", most, fewSockets)
	}
}
