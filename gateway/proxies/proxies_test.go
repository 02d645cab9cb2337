package proxies_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/proxies"
)

func TestWhoseRequestItIs(t *testing.T) {
	trusted, err := proxies.Parse([]string{"10.0.0.0/8", "127.0.0.1", "fd00::/8", "::ffff:192.168.0.0/112"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ story, peer, list, forwarded, want string }{
		{"no proxy", "203.0.113.7:4711", "", "", "203.0.113.7"},
		{"no proxy, and a client that would be another", "203.0.113.7:4711", "198.51.100.1", "for=198.51.100.1", "203.0.113.7"},
		{"a proxy's own request", "10.1.2.3:4711", "", "", "10.1.2.3"},
		{"one proxy", "10.1.2.3:4711", "203.0.113.7", "", "203.0.113.7"},
		{"one proxy, and a client that would be another", "10.1.2.3:4711", "198.51.100.1, 203.0.113.7", "", "203.0.113.7"},
		{"a client that would be a proxy", "10.1.2.3:4711", "198.51.100.1, 10.9.9.9, 203.0.113.7", "", "203.0.113.7"},
		{"two proxies", "10.1.2.3:4711", "203.0.113.7, 192.168.4.5", "", "203.0.113.7"},
		{"two headers of one name are one list", "10.1.2.3:4711", "198.51.100.1\n203.0.113.7, 127.0.0.1", "", "203.0.113.7"},
		{"within the trusted networks alone", "10.1.2.3:4711", "10.4.5.6, 10.7.8.9", "", "10.4.5.6"},
		{"a list with a port", "10.1.2.3:4711", "203.0.113.7:9999", "", "203.0.113.7"},
		{"IPv6", "[fd00::1]:4711", "2001:db8::7", "", "2001:db8::7"},
		{"IPv4 in IPv6", "[::ffff:10.1.2.3]:4711", "::ffff:203.0.113.7", "", "203.0.113.7"},
		{"nonsense ends the walk", "10.1.2.3:4711", "198.51.100.1, nonsense, 10.4.5.6", "", "10.4.5.6"},
		{"nothing but nonsense", "10.1.2.3:4711", "unknown", "", "10.1.2.3"},
		{"Forwarded", "10.1.2.3:4711", "", "for=203.0.113.7;proto=https;by=10.1.2.3", "203.0.113.7"},
		{"Forwarded, quoted", "10.1.2.3:4711", "", `For="[2001:db8::7]:4711";host="a, for=198.51.100.1; \"b", for=10.4.5.6`, "2001:db8::7"},
		{"Forwarded by who hides it", "10.1.2.3:4711", "", "for=198.51.100.1, for=_hidden", "10.1.2.3"},
		{"Forwarded by a client that leaves a quote open, to swallow what the proxy adds", "10.1.2.3:4711", "", `for=198.51.100.1;x=", for=203.0.113.7`, "10.1.2.3"},
		{"the same before a proxy that quotes", "10.1.2.3:4711", "", `for=198.51.100.1;x=", for="[2001:db8::7]:4711"`, "10.1.2.3"},
		{"the same with an escape", "10.1.2.3:4711", "", `for=198.51.100.1;x="\, for="203.0.113.7"`, "10.1.2.3"},
		{"the same before a proxy that writes a line of its own", "10.1.2.3:4711", "", "for=198.51.100.1;x=\"\nfor=203.0.113.7", "203.0.113.7"},
		{"Forwarded without a for", "10.1.2.3:4711", "", "proto=https", "10.1.2.3"},
		{"both, and they agree", "10.1.2.3:4711", "203.0.113.7", "for=203.0.113.7", "203.0.113.7"},
		{"both, one of which a client wrote", "10.1.2.3:4711", "203.0.113.7", "for=198.51.100.1", "10.1.2.3"},
	} {
		r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{}}
		for name, lines := range map[string]string{"X-Forwarded-For": tt.list, "Forwarded": tt.forwarded} {
			if lines != "" {
				r.Header[name] = strings.Split(lines, "\n")
			}
		}
		if got := trusted.Client(r); got != netip.MustParseAddr(tt.want) {
			t.Errorf("%s: %v, want %s", tt.story, got, tt.want)
		}
	}
	if _, err := proxies.Parse([]string{"10.0.0.0/8", "10.0.0.0/33"}); err == nil || !strings.Contains(err.Error(), `"10.0.0.0/33"; want a network`) {
		t.Errorf("a wrong network: %v", err)
	}
}

// FuzzClient: whatever a client sends through one proxy, the address is what
// the proxy saw.
func FuzzClient(f *testing.F) {
	f.Add("198.51.100.1, 10.0.0.1")
	f.Add(`"`)
	f.Add(`for=198.51.100.1;x="`)
	trusted, err := proxies.Parse([]string{"10.0.0.0/8"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		r := &http.Request{RemoteAddr: "10.1.2.3:4711", Header: http.Header{"X-Forwarded-For": {sent + ", 203.0.113.7"}}}
		if got := trusted.Client(r).String(); got != "203.0.113.7" {
			t.Errorf("%q: %s", sent, got)
		}
		for _, hop := range []string{"203.0.113.7", `"203.0.113.7:4711"`} {
			r.Header = http.Header{"Forwarded": {sent + ", for=" + hop + ";proto=https"}}
			if got := trusted.Client(r).String(); got != "203.0.113.7" && got != "10.1.2.3" {
				t.Errorf("Forwarded: %q, for=%s: %s", sent, hop, got)
			}
		}
		r.Header = http.Header{"X-Forwarded-For": {"203.0.113.7"}, "Forwarded": {sent}}
		if got := trusted.Client(r).String(); got != "203.0.113.7" && got != "10.1.2.3" {
			t.Errorf("Forwarded: %q: %s", sent, got)
		}
	})
}
