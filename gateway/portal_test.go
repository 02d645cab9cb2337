package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
)

// opened is a portal's link, as whoever asked for it gets it.
type opened struct {
	URL, Path string
	Expires   time.Time
}

func (n *testNode) openPortal(t *testing.T, body string) (token string) {
	t.Helper()
	r := n.do("POST", "/v1/portal", admin(t), body)
	var o opened
	if err := json.Unmarshal([]byte(r.body), &o); r.status != 200 || err != nil {
		t.Fatalf("%d %s", r.status, r.body)
	}
	_, token, ok := strings.Cut(o.URL, "/portal#token=")
	if !ok || o.Path != "/portal#token="+token || !strings.HasPrefix(o.URL, "http://") {
		t.Fatalf("got %+v; want a link with the token in its fragment", o)
	}
	return token
}

func TestAPortalMayWhatWasAskedFor(t *testing.T) {
	n := newTestNode(t, setup{portal: func(m auth.Mintage) (string, error) { return mint(t, m), nil }})
	for _, channel := range []string{"acct-42", "acct-43"} {
		n.publish(channel, "email.opened")
	}
	token := n.openPortal(t, `{"sub":"customer-42","subscriptions":["crm-42-*"],"channels":["acct-42"],"ttl":"5m",
		"theme":{"name":"Mailer","accent":"#5b5bd6"},"return_url":"https://app.example.com/settings"}`)
	r := n.get("/v1/token", token)
	for _, want := range []string{`"sub":"customer-42"`, `"subscribe":["acct-42"]`, `"publish":[]`, `"subscriptions":["crm-42-*"]`, `"admin":false`,
		`"portal":{"name":"Mailer","accent":"#5b5bd6","return_url":"https://app.example.com/settings"}`} {
		if !strings.Contains(r.body, want) {
			t.Errorf("%s lacks %s", r.body, want)
		}
	}
	for path, want := range map[string]int{
		"/v1/channels/acct-42/types":  200,
		"/v1/channels/acct-43/types":  403,
		"/v1/channels/acct-43/events": 403,
		"/v1/channels":                403,
		"/v1/connections":             403,
		"/v1/nodes":                   403,
	} {
		if r := n.get(path, token); r.status != want {
			t.Errorf("%s: got %d, want %d", path, r.status, want)
		}
	}
	for path, body := range map[string]string{
		"/v1/channels/acct-42/events": `{"type":"email.opened"}`,
		"/v1/portal":                  `{"sub":"customer-43","subscriptions":["crm-43-*"],"channels":["acct-43"]}`,
		"/v1/tokens/revoke":           `{"sub":"customer-43","before":"2026-01-01T00:00:00Z"}`,
	} {
		if r := n.do("POST", path, token, body); r.status != 403 {
			t.Errorf("POST %s: got %d %s, want 403", path, r.status, r.body)
		}
	}
}

func TestWhatAPortalIsRefused(t *testing.T) {
	n := newTestNode(t, setup{portal: func(m auth.Mintage) (string, error) { return mint(t, m), nil }})
	for _, tt := range []struct{ name, change, detail string }{
		{"nobody", `"sub":""`, "want whom the portal is for"},
		{"everybody's subscriptions", `"subscriptions":["crm-42-*","*"]`, `subscription "*" may be others' too`},
		{"subscriptions that end in a customer's name", `"subscriptions":["*-42"]`, `subscription "*-42" may be others' too`},
		{"no subscriptions", `"subscriptions":[]`, "subscriptions are 0; want 1 to 64"},
		{"no channels", `"channels":[]`, "channels are 0; want 1 to 64"},
		{"a pattern", `"channels":["acct-*"]`, "no patterns of channels"},
		{"the gateway's own", `"channels":["longline.events"]`, "the gateway's own"},
		{"too short", `"ttl":"30s"`, `ttl is "30s"; want a time from 1m0s to 1h0m0s`},
		{"too long", `"ttl":"24h"`, "want a time from"},
		{"no time", `"ttl":"soon"`, "want a time from"},
		{"a script", `"return_url":"javascript:alert(1)"`, "want https://"},
		{"no host", `"return_url":"https:///x"`, "want https://"},
		{"a user", `"return_url":"https://app.example.com@evil.example.com/"`, "no user"},
		{"a relative URL", `"return_url":"//evil.example.com"`, "want https://"},
		{"no colour", `"theme":{"accent":"red;background:url(//evil)"}`, "want a colour such as"},
		{"a long name", `"theme":{"name":"` + strings.Repeat("x", 61) + `"}`, "want at most 60"},
		{"a logo", `"theme":{"logo":"https://evil.example.com/x.svg"}`, "logo"},
	} {
		body := `{"sub":"customer-42","subscriptions":["crm-42-*"],"channels":["acct-42"]}`
		field, _, _ := strings.Cut(tt.change, ":")
		var all map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatal(err)
		}
		var one map[string]json.RawMessage
		if err := json.Unmarshal([]byte("{"+tt.change+"}"), &one); err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		for name, value := range one {
			all[name] = value
		}
		changed, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		if r := n.do("POST", "/v1/portal", admin(t), string(changed)); r.status != 400 || !strings.Contains(r.detail(t), tt.detail) {
			t.Errorf("%s: got %d %s, want 400 that says %q", tt.name, r.status, r.body, tt.detail)
		}
	}
	customer := mint(t, auth.Mintage{Subject: "c", Subscribe: []string{"acct-42"}, Publish: []string{"**"}, Subscriptions: []string{"*"}})
	whole := `{"sub":"customer-42","subscriptions":["crm-42-*"],"channels":["acct-42"]}`
	if r := n.do("POST", "/v1/portal", customer, whole); r.status != 403 {
		t.Errorf("no admin: got %d, want 403", r.status)
	}
	keyless := newTestNode(t, setup{name: "keyless"})
	if r := keyless.do("POST", "/v1/portal", admin(t), whole); r.status != 403 || !strings.Contains(r.detail(t), "no secret to sign") {
		t.Errorf("without a secret: got %d %s, want 403 that says so", r.status, r.body)
	}
}

func TestWhoMayFrameThePortal(t *testing.T) {
	for want, frames := range map[string][]string{
		"frame-ancestors 'none'": nil,
		"frame-ancestors https://app.example.com https://b.example:8443": {"https://app.example.com", "https://b.example:8443"},
	} {
		n := newTestNode(t, setup{frames: frames})
		r := n.get("/portal", "")
		if got := r.header.Get("Content-Security-Policy"); r.status != 200 || !strings.HasSuffix(got, want) || !strings.Contains(got, "script-src 'self'") {
			t.Errorf("%v: got %d and %q, want …%s", frames, r.status, got, want)
		}
		if got := n.get("/", "").header.Get("Content-Security-Policy"); !strings.HasSuffix(got, "frame-ancestors 'none'") {
			t.Errorf("the console: got %q; nobody frames it", got)
		}
	}
}

func TestRecipesToBeginFrom(t *testing.T) {
	n := newTestNode(t, setup{})
	r := n.get("/v1/recipes", "")
	var got struct {
		Recipes []struct {
			Name, Title, Text string
			Definition        struct{ Callback struct{ URL string } }
		}
	}
	if err := json.Unmarshal([]byte(r.body), &got); r.status != http.StatusOK || err != nil || len(got.Recipes) < 5 {
		t.Fatalf("%d %v %s", r.status, err, r.body)
	}
	for _, one := range got.Recipes {
		if one.Name == "" || one.Title == "" || one.Text == "" || !strings.HasPrefix(one.Definition.Callback.URL, "https://") {
			t.Errorf("got %+v", one)
		}
	}
}
