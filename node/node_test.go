package node_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
