package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

func TestMain(m *testing.M) {
	if os.Getenv(fewFilesEnv) != "" {
		if err := runWithFewFiles(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func TestNodeRunsUntilItsContextEnds(t *testing.T) {
	n, err := node.New(t.Context(), node.Options{Broker: "embedded:" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()

	token, err := n.Mint(auth.Mintage{Admin: true, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("POST", n.URL()+"/v1/channels/c/events", strings.NewReader(`{"type":"t"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	// The node listens since New, so this waits until Run answers.
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("publish: %s", resp.Status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := n.Shutdown(); err != nil {
		t.Errorf("shut down: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestNodeThatNeverRanLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // the second finds the data unlocked
		n, err := node.New(t.Context(), node.Options{Broker: "embedded:" + dir, AdminListen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Shutdown(); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if resp, err := http.Get(n.URL()); err == nil {
			resp.Body.Close()
			t.Errorf("%s still answers", n.URL())
		}
	}
}

func TestNodeThatCannotBeMadeLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []node.Options{
		{Listen: "127.0.0.1:none"},
		{AdminListen: "127.0.0.1:none"},
		{JWTPublicKey: dir + "/none.pem"},
	} {
		o.Broker = "embedded:" + dir
		if n, err := node.New(t.Context(), o); err == nil {
			n.Shutdown()
			t.Errorf("%+v made a node", o)
		}
	}
	n, err := node.New(t.Context(), node.Options{Broker: "embedded:" + dir})
	if err != nil {
		t.Fatalf("after that: %v", err)
	}
	n.Shutdown()
}

// A revocation pauses once, when it is issued: a node that starts later only
// remembers which tokens don't count.
func TestRestartPausesNothingAgain(t *testing.T) {
	dir := t.TempDir()
	for start := range 2 {
		n, err := node.New(t.Context(), node.Options{Broker: "embedded:" + dir})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		mint := func(m auth.Mintage) string {
			m.TTL = time.Hour
			token, err := n.Mint(m)
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		customer, root := mint(auth.Mintage{Subject: "customer", Subscribe: []string{"c"}, Subscriptions: []string{"*"}}), mint(auth.Mintage{Subject: "root", Admin: true})
		do := func(status int, token, method, path, body string) string {
			t.Helper()
			req, err := http.NewRequest(method, n.URL()+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != status {
				t.Fatalf("%s %s: %s %s %v, want %d", method, path, resp.Status, text, err, status)
			}
			return string(text)
		}
		if start == 0 {
			do(201, customer, "PUT", "/v1/subscriptions/crm", `{"channels":["c"]}`)
			do(204, root, "POST", "/v1/tokens/revoke", `{"sub":"customer","before":"`+time.Now().Add(time.Minute).Format(time.RFC3339)+`"}`)
			do(401, customer, "GET", "/v1/subscriptions/crm", "")
			if got := do(200, root, "GET", "/v1/subscriptions/crm", ""); !strings.Contains(got, `"state":"paused"`) {
				t.Errorf("once revoked: %s, want paused", got)
			}
			do(200, root, "POST", "/v1/subscriptions/crm/resume", "")
		} else {
			do(401, customer, "GET", "/v1/subscriptions/crm", "")
		}
		if start == 1 {
			if got := do(200, root, "GET", "/v1/subscriptions/crm", ""); !strings.Contains(got, `"state":"offline"`) {
				t.Errorf("after the restart: %s, want offline", got)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := n.Shutdown(); err != nil {
			t.Errorf("shut down: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
}

// lost is a store that only a restart mends.
type lost chan struct{}

func (l lost) Broken() <-chan struct{} { return l }
func (l lost) Err() error {
	select {
	case <-l:
		return errors.New("the disk is gone")
	default:
		return nil
	}
}

func TestNodeWhoseStoreFailsEnds(t *testing.T) {
	n, err := node.New(t.Context(), node.Options{Broker: "embedded:" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	store := make(lost)
	n.Break(store)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(t.Context()) }()
	livez := func() int {
		resp, err := http.Get(n.URL() + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if status := livez(); status != http.StatusOK {
		t.Errorf("livez: %d", status)
	}
	close(store)
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("run: %v, want what is wrong with the store", err)
	}
	if status := livez(); status != http.StatusServiceUnavailable {
		t.Errorf("livez of a broken store: %d, want 503", status)
	}
	http.DefaultClient.CloseIdleConnections()
	n.Shutdown()
}
