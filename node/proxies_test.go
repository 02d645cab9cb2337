package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

// Clients behind a proxy are told apart by what the proxy says: each has its
// own limit, and none can take another's.
func TestClientsBehindAProxyAreToldApart(t *testing.T) {
	n, err := node.New(t.Context(), node.Options{Broker: "embedded:" + t.TempDir(), TrustedProxies: []string{"127.0.0.0/8"}, MaxAddressConnections: 2, Drain: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
		n.Shutdown()
	}()
	token, err := n.Mint(auth.Mintage{Subject: "s", Admin: true, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(path, from string) *http.Response {
		t.Helper()
		r, err := http.NewRequest("GET", n.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Accept", "text/event-stream, application/problem+json")
		r.Header.Set("X-Forwarded-For", from)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	var open []*http.Response
	for _, tt := range []struct {
		story, from string
		want        int
	}{
		{"the first of an address", "203.0.113.7", 200},
		{"its second", "203.0.113.7", 200},
		{"one too many", "203.0.113.7", 429},
		{"one too many, under a name that the client wrote", "198.51.100.1, 203.0.113.7", 429},
		{"another's", "203.0.113.8", 200},
		{"a network of IPv6", "2001:db8::1", 200},
		{"another address in it", "2001:db8::2", 200},
		{"and a third", "2001:db8::3", 429},
		{"another network", "2001:db8:0:1::1", 200},
	} {
		resp := ask("/v1/sse?channel=a", tt.from)
		if resp.StatusCode != tt.want {
			t.Errorf("%s: %s, want %d", tt.story, resp.Status, tt.want)
		}
		open = append(open, resp)
	}
	var listed struct{ Connections []struct{ Address string } }
	resp := ask("/v1/connections", "198.51.100.1")
	if err := json.NewDecoder(resp.Body).Decode(&listed); err != nil {
		t.Fatal(err)
	}
	got := make([]string, len(listed.Connections))
	for i, c := range listed.Connections {
		got[i] = c.Address
	}
	slices.Sort(got)
	if want := "2001:db8:0:1::1 2001:db8::1 2001:db8::2 203.0.113.7 203.0.113.7 203.0.113.8"; strings.Join(got, " ") != want {
		t.Errorf("connections are from %q, want %q", got, want)
	}
	// Who leaves makes room.
	open[0].Body.Close()
	for ask("/v1/sse?channel=a", "203.0.113.7").StatusCode != 200 {
	}
}

func TestWrongProxiesAreAnError(t *testing.T) {
	_, err := node.New(t.Context(), node.Options{Broker: "embedded:" + t.TempDir(), TrustedProxies: []string{"10.0.0.0/33"}})
	var wrong *node.OptionError
	if want := `trusted-proxies: "10.0.0.0/33"; want a network such as 10.0.0.0/8, or an address such as 127.0.0.1 or ::1`; !errors.As(err, &wrong) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
