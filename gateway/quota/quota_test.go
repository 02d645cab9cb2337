package quota

import (
	"bufio"
	"net"
	"net/http"
	"testing"

	"github.com/longline-push/longline/gateway/auth"
)

func TestConnectionsAreShedBeforePublishes(t *testing.T) {
	for used, want := range map[int64]int32{0: calm, 84: calm, 85: shedConnects, 91: shedConnects, 92: shedPublish, 200: shedPublish} {
		if got := pressureOf(used, 100); got != want {
			t.Errorf("pressure at %d %% = %d, want %d", used, got, want)
		}
	}
	if got := pressureOf(1<<40, 0); got != calm {
		t.Errorf("pressure without a limit = %d", got)
	}
}

func TestWhatIsRefusedAboveIsNotTakenBelow(t *testing.T) {
	node := NewAccount("node", 10, nil)
	a, b := NewAccount("token", 8, node), NewAccount("token", 8, node)
	if full := a.Take(9); full != a {
		t.Errorf("9 of 8: %v is full, want the token", full)
	}
	if full := a.Take(8); full != nil {
		t.Errorf("8 of 8: %s is full", full.Name())
	}
	if full := b.Take(3); full != node {
		t.Errorf("11 of the node's 10: %v is full, want the node", full)
	}
	a.Give(1)
	if full := b.Take(3); full != nil || node.Held() != 10 || b.Held() != 3 {
		t.Errorf("10 of 10: node holds %d, token %d, %v is full", node.Held(), b.Held(), full)
	}
}

func TestAcceptedSocketsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	budget := New(Limits{Sockets: 2}, nil)
	server := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan struct{})
	go func() { server.Serve(budget.Listen(inner, true)); close(done) }()
	defer func() { server.Close(); <-done }()
	ask := func() (net.Conn, int) {
		t.Helper()
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c, r.StatusCode
	}
	first, status := ask()
	if _, second := ask(); status != 404 || second != 404 {
		t.Fatalf("the first two: %d, %d", status, second)
	}
	if _, third := ask(); third != 503 {
		t.Errorf("the third: %d, want 503", third)
	}
	first.Close()
	for status = 0; status != 404; _, status = ask() {
	}
	if n := budget.sockets.Held(); n > 2 {
		t.Errorf("%d sockets are held of 2", n)
	}
}

func TestChannelsOfATokenAreBounded(t *testing.T) {
	b := New(Limits{TokenChannels: 3}, nil)
	g, other, admin := &auth.Grant{Subject: "a"}, &auth.Grant{Subject: "b"}, &auth.Grant{Subject: "root", Admin: true}
	if err := b.Token(g).Channels(g, 3); err != nil {
		t.Fatal(err)
	}
	if err := b.Token(g).Channels(g, 1); err == nil {
		t.Error("a fourth channel of three")
	}
	if b.Token(other).Channels(other, 3) != nil || b.Token(admin).Channels(admin, 9) != nil {
		t.Error("another's channels are counted")
	}
	b.Token(g).GiveChannels(1)
	if err := b.Token(g).Channels(g, 1); err != nil {
		t.Error(err)
	}
}
