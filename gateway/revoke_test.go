package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
)

// halting is a broker that stops where a channel is opened until it is told to
// go on.
type halting struct {
	gateway.Broker
	channel string
	halted  chan struct{}
	goOn    chan struct{}
}

func (h *halting) Follow(ctx context.Context, channel string, f broker.Follower) (broker.State, error) {
	if channel == h.channel {
		h.halted <- struct{}{}
		<-h.goOn
	}
	return h.Broker.Follow(ctx, channel, f)
}

// revoke revokes one token.
func (n *testNode) revoke(token string) {
	n.t.Helper()
	jti := decodeSegment(n.t, strings.Split(token, ".")[1]).ID
	if r := n.do("POST", "/v1/tokens/revoke", admin(n.t), `{"jti":"`+jti+`"}`); r.status != 204 {
		n.t.Fatalf("revoke: %d %s", r.status, r.body)
	}
}

// opens asks for a stream and returns what comes until it ends.
func (n *testNode) opens(ctx context.Context, channel, token string) <-chan string {
	n.t.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", n.url+"/v1/sse?channel="+channel, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	ended := make(chan string, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			ended <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		ended <- fmt.Sprint(resp.StatusCode, " ", string(text), err)
	}()
	return ended
}

func TestTokenRevokedWhileItsConnectionOpens(t *testing.T) {
	b := &halting{Broker: openBroker(t), channel: "slow", halted: make(chan struct{}), goOn: make(chan struct{})}
	n := newTestNode(t, setup{broker: b})
	token := mint(t, auth.Mintage{Subscribe: []string{"slow"}})
	ended := n.opens(t.Context(), "slow", token)
	<-b.halted // the token was good
	n.revoke(token)
	b.goOn <- struct{}{}
	until(t, "the connection is refused", func() bool { return len(ended) == 1 })
	if got := <-ended; !strings.HasPrefix(got, "401 ") || !strings.Contains(got, "revoked") {
		t.Errorf("got %s, want 401 because it was revoked", got)
	}
	if got := n.hub.Count(); got != 0 {
		t.Errorf("%d connections are left", got)
	}
}

// However else a revocation and a connection that opens meet, none is left.
func TestNoConnectionSlipsPastARevocation(t *testing.T) {
	n := newTestNode(t, setup{})
	for i := range 40 {
		channel := fmt.Sprintf("c%d", i) // its feed has to be opened
		token := mint(t, auth.Mintage{Subscribe: []string{channel}})
		ended := n.opens(t.Context(), channel, token)
		n.revoke(token)
		until(t, "the connection ends", func() bool { return len(ended) == 1 })
	}
	until(t, "no connection is left", func() bool { return n.hub.Count() == 0 })
}

func TestTokenRevokedWhileItRenews(t *testing.T) {
	n := newTestNode(t, setup{})
	m := auth.Mintage{Subscribe: []string{"c"}}
	s := n.listen("channel=c", mint(t, m))
	s.want("longline.hello")
	next := mint(t, m)
	g, err := authtest.Verifier(t, auth.Options{}).Verify(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	n.revoke(next) // which ends nothing: no connection has it yet
	if err := n.hub.Sessions()[0].Renew(g); err == nil {
		t.Error("renewed by a token that was revoked")
	}
	s.want(`"code":4401`)
	s.wantEnd()
}
