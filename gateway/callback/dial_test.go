package callback_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/callback"
)

func TestAddressesThatCallbacksMayNotReach(t *testing.T) {
	for _, host := range []string{
		"127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
		"169.254.169.254", "224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1",
		"[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]",
		"[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::127.0.0.1]",
		"[64:ff9b::7f00:1]", "[64:ff9b::a00:1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[2001:db8::1]",
	} {
		for _, scheme := range []string{"http", "https"} {
			u, err := url.Parse(scheme + "://" + host + "/hook")
			if err != nil {
				t.Fatal(err)
			}
			if err := (callback.Dialing{}).CheckURL(u); err == nil {
				t.Errorf("%s may be called", u)
			}
		}
	}
}

func TestCheckURL(t *testing.T) {
	private := callback.Dialing{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")}}
	for _, tc := range []struct {
		d    callback.Dialing
		url  string
		want string // in the error; "" for none
	}{
		{callback.Dialing{}, "https://crm.example.com/x", ""},
		{callback.Dialing{}, "http://crm.example.com:8443/x", ""},
		{callback.Dialing{}, "http://crm.example.com:22/x", "port 22"},
		{callback.Dialing{}, "http://crm.example.com:0/x", "port"},
		{callback.Dialing{}, "http://crm.example.com:99999/x", "port"},
		{callback.Dialing{Ports: []uint16{9000}}, "http://crm.example.com:9000/x", ""},
		{callback.Dialing{Ports: []uint16{9000}}, "https://crm.example.com/x", "port 443"},
		{callback.Dialing{}, "http://93.184.216.34/x", ""},
		{callback.Dialing{}, "http://93.184.216.34:22/x", "address"},
		{private, "http://10.1.2.3:22/x", ""},
		{private, "http://[::ffff:10.1.2.3]:22/x", ""},
		{private, "http://[fd00::1]:1234/x", ""},
		{private, "http://10.2.0.1/x", "address"},
		{private, "http://127.0.0.1/x", "address"},
		{callback.Dialing{Loopback: true}, "http://127.0.0.1:3000/x", ""},
		{callback.Dialing{Loopback: true}, "http://[::1]:3000/x", ""},
		{callback.Dialing{Loopback: true}, "http://localhost:3000/x", ""},
		{callback.Dialing{Loopback: true}, "http://10.0.0.1/x", "address"},
	} {
		u, err := url.Parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		err = tc.d.CheckURL(u)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s with %+v: got %v, want %q", tc.url, tc.d, err, tc.want)
		}
	}
}
