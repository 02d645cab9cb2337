package gateway_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
)

func TestATokenIsToldWhatItMayDo(t *testing.T) {
	n := newTestNode(t, setup{})
	token := mint(t, auth.Mintage{
		Subject: "customer-42", Subscribe: []string{"public.**", "acct-42"}, Subscriptions: []string{"crm-42-*"}, MaxConnections: 4,
	})
	r := n.get("/v1/token", token)
	var got struct {
		Sub                               string
		Subscribe, Publish, Subscriptions []string
		Admin, Mints                      bool
		MaxConnections                    int `json:"max_connections"`
		Issued, Expires                   time.Time
	}
	if err := json.Unmarshal([]byte(r.body), &got); r.status != 200 || err != nil {
		t.Fatalf("%d %s", r.status, r.body)
	}
	slices.Sort(got.Subscribe)
	if got.Sub != "customer-42" || got.Admin || got.Mints || got.MaxConnections != 4 || !slices.Equal(got.Subscribe, []string{"acct-42", "public.**"}) ||
		len(got.Publish) != 0 || !slices.Equal(got.Subscriptions, []string{"crm-42-*"}) || !got.Expires.After(got.Issued) {
		t.Errorf("%s", r.body)
	}
	if r := n.get("/v1/token", token+"x"); r.status != 401 {
		t.Errorf("forged: %d", r.status)
	}
}

func TestTokensAreMadeForAdminsOfADevelopersGateway(t *testing.T) {
	n := newTestNode(t, setup{mint: func(m auth.Mintage) (string, error) { return mint(t, m), nil }})
	r := n.do("POST", "/v1/tokens", admin(t), `{"sub":"dev","subscribe":["acct-42"],"ttl":"5m"}`)
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(r.body), &made); r.status != 200 || err != nil {
		t.Fatalf("%d %s", r.status, r.body)
	}
	n.publish("acct-42", "email.opened")
	if r := n.get("/v1/channels/acct-42", made.Token); r.status != 200 {
		t.Errorf("the token made is worth nothing: %d %s", r.status, r.body)
	}
	for _, tt := range []struct {
		name, token, body string
		status            int
		detail            string
	}{
		{"no admin", made.Token, `{"sub":"dev"}`, 403, "for admins"},
		{"no sub", admin(t), `{"ttl":"5m"}`, 400, "needs sub"},
		{"no time", admin(t), `{"sub":"dev","ttl":"soon"}`, 400, `ttl is "soon"; want a time from 1s`},
		{"too long", admin(t), `{"sub":"dev","ttl":"8760h"}`, 400, "want a time"},
		{"unknown field", admin(t), `{"sub":"dev","rights":"all"}`, 400, "rights"},
	} {
		if r := n.do("POST", "/v1/tokens", tt.token, tt.body); r.status != tt.status || !strings.Contains(r.detail(t), tt.detail) {
			t.Errorf("%s: %d %s", tt.name, r.status, r.body)
		}
	}
	elsewhere := newTestNode(t, setup{name: "elsewhere"})
	if r := elsewhere.do("POST", "/v1/tokens", admin(t), `{"sub":"dev"}`); r.status != 403 || !strings.Contains(r.detail(t), "makes no tokens") {
		t.Errorf("with a key from outside: %d %s", r.status, r.body)
	}
}
