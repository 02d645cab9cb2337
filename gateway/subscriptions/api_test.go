package subscriptions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/subscriptions"
	"github.com/longline-push/longline/gateway/webhook"
	"github.com/longline-push/longline/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api is the API over a real broker, and a client of it.
type api struct {
	t       *testing.T
	broker  subscriptions.Broker
	api     *subscriptions.API
	manager *durable.Manager
	auth    *auth.Verifier
	vault   *durable.Vault
	url     string
}

func newAPI(t *testing.T) *api {
	t.Helper()
	return newAPIWithin(t, nil)
}

func newAPIWithin(t *testing.T, budget *quota.Budget) *api {
	t.Helper()
	return newAPIOn(t, durabletest.Open(t), budget)
}

// onBoth runs a test on each broker.
func onBoth(t *testing.T, test func(t *testing.T, a *api)) {
	t.Run("embedded", func(t *testing.T) { test(t, newAPI(t)) })
	t.Run("redis", func(t *testing.T) {
		b, err := redis.Open(t.Context(), redistest.Start(t).URL(), redis.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		test(t, newAPIOn(t, b, nil))
	})
}

func newAPIOn(t *testing.T, b subscriptions.Broker, budget *quota.Budget) *api {
	t.Helper()
	vault, err := durable.NewVault(authtest.Secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier := authtest.Verifier(t, auth.Options{})
	manager := durabletest.Run(t, durable.Options{Broker: b, Node: "test"})
	engine := callback.New(callback.Options{Dialing: callback.Dialing{Loopback: true}})
	a := subscriptions.New(subscriptions.Options{
		Budget: budget, Broker: b, Manager: manager, Vault: vault, Engine: engine, CheckURL: callback.Dialing{Loopback: true}.CheckURL,
	})
	mux := http.NewServeMux()
	for _, route := range a.Routes() {
		mux.HandleFunc(route.Method+" "+route.Path, func(w http.ResponseWriter, r *http.Request) {
			g, _, err := verifier.FromRequest(r)
			if err == nil {
				err = route.Handle(w, r, g)
			}
			if err != nil {
				wire.WriteProblem(w, err)
			}
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.Close()
		engine.Close(context.Background())
		http.DefaultClient.CloseIdleConnections()
	})
	return &api{t, b, a, manager, verifier, vault, server.URL}
}

// token may use what a customer may: subscriptions crm-*, channels acct-42 and
// news.**.
func token(t *testing.T, m auth.Mintage) string {
	t.Helper()
	if m.Subject == "" {
		m.Subject = "customer"
	}
	return authtest.Token(t, m)
}

var customer = auth.Mintage{Subscribe: []string{"acct-42", "news.**"}, Subscriptions: []string{"crm-*"}}

// call makes a request and returns status and decoded answer.
func (a *api) call(token, method, path, body string, header ...string) (int, map[string]any) {
	a.t.Helper()
	r, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var out map[string]any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			a.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
	return resp.StatusCode, out
}

// want makes a call and wants a status.
func (a *api) want(status int, token, method, path, body string, header ...string) map[string]any {
	a.t.Helper()
	got, out := a.call(token, method, path, body, header...)
	if got != status {
		a.t.Fatalf("%s %s %s: got %d %v, want %d", method, path, body, got, out, status)
	}
	return out
}

func (a *api) append(channel string, n int) {
	a.t.Helper()
	for i := range n {
		f := event.Fields{ID: fmt.Sprint("e", i), Source: "/s", Type: "t", Data: []byte(`1`)}
		if _, err := a.broker.Append(a.t.Context(), channel, []broker.Entry{{Data: f.AppendStored(nil)}}); err != nil {
			a.t.Fatal(err)
		}
	}
}

func at(out map[string]any, path ...string) any {
	var v any = out
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func TestDefinitionComesBack(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	out := a.want(201, me, "PUT", "/v1/subscriptions/crm-42", `{"channels":["acct-42"],"types":["email.*"],"callback":{"url":"http://127.0.0.1:9/x","headers":{"X-Tenant":"42"}}}`)
	made, _ := at(out, "callback", "secret").(string)
	if _, err := webhook.ParseSecret(made); err != nil {
		t.Errorf("made secret %q: %v", made, err)
	}
	for _, what := range []struct {
		path []string
		want any
	}{
		{[]string{"window"}, 256.0}, {[]string{"start"}, "latest"}, {[]string{"callback", "mode"}, "fallback"},
		{[]string{"callback", "grace"}, "10s"}, {[]string{"callback", "order"}, "channel"},
		{[]string{"callback", "batch", "max_events"}, 1.0}, {[]string{"callback", "timeout"}, "15s"},
	} {
		if got := at(out, what.path...); got != what.want {
			t.Errorf("default of %v: got %v, want %v", what.path, got, what.want)
		}
	}
	out = a.want(200, me, "GET", "/v1/subscriptions/crm-42", "")
	text, _ := json.Marshal(out)
	if bytes.Contains(text, []byte("whsec_")) || bytes.Contains(text, []byte("X-Tenant")) {
		t.Errorf("secret or headers came back: %s", text)
	}
	out = a.want(200, me, "PUT", "/v1/subscriptions/crm-42", `{"channels":["acct-42"],"callback":{"url":"http://127.0.0.1:9/y"}}`)
	if at(out, "callback", "secret") != nil {
		t.Error("a later PUT made another secret")
	}
	out = a.want(200, me, "POST", "/v1/subscriptions/crm-42/rotate-secret", "")
	if at(out, "secret") == made || at(out, "secret") == nil {
		t.Errorf("rotated to %v, want a new one", at(out, "secret"))
	}
	stored, err := a.broker.Load(t.Context(), "crm-42")
	if err != nil || bytes.Contains(stored.Record, []byte("whsec_")) {
		t.Errorf("the stored record holds a secret in the clear: %s, %v", stored.Record, err)
	}
	if len(stored.Record) > 2048 {
		t.Errorf("an offline subscription has %d bytes, want 2 KiB at most", len(stored.Record))
	}
	a.want(204, me, "DELETE", "/v1/subscriptions/crm-42", "")
	a.want(404, me, "GET", "/v1/subscriptions/crm-42", "")
}

func TestPatchMergesByRFC7396(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	a.want(404, me, "PATCH", "/v1/subscriptions/crm-1", `{"window":10}`)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"types":["a","b"],"callback":{"url":"http://127.0.0.1:9/x","rate":5}}`)
	out := a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"window":10,"types":null,"callback":{"rate":7}}`)
	if at(out, "window") != 10.0 || at(out, "types") != nil || at(out, "callback", "rate") != 7.0 || at(out, "callback", "url") != "http://127.0.0.1:9/x" {
		t.Errorf("got %v, want window 10, no types, rate 7 and the same URL", out)
	}
	out = a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"callback":null}`)
	if at(out, "callback") != nil || at(out, "status", "state") != "offline" {
		t.Errorf("got %v, want no callback and offline", out)
	}
}

func TestWindowFollowsTheCallback(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	cb := func(concurrency, events int) string {
		return fmt.Sprintf(`"callback":{"url":"http://127.0.0.1:9/x","order":"key","concurrency":%d,"batch":{"max_events":%d}}`, concurrency, events)
	}
	out := a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],`+cb(4, 200)+`}`)
	if at(out, "window") != 1600.0 {
		t.Errorf("window is %v, want 2 × 4 × 200", at(out, "window"))
	}
	out = a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"callback":{"batch":{"max_events":500}}}`)
	if at(out, "window") != 4000.0 {
		t.Errorf("after a PATCH of the batch: window is %v, want 2 × 4 × 500", at(out, "window"))
	}
	out = a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"window":2500}`)
	if at(out, "window") != 2500.0 {
		t.Errorf("window is %v, want what was asked for", at(out, "window"))
	}
	for body, says := range map[string]string{
		`{"window":1999}`: "4 × 500 = 2000 events in flight, but window is 1999; want window 2000 at least, or none, which is 4000 then",
		`{"callback":{"batch":{"max_events":700}}}`: "4 × 700 = 2800 events in flight, but window is 2500",
		`{"callback":{"concurrency":200}}`:          "200 × 500 = 100000 events in flight, want 10000",
	} {
		if out := a.want(400, me, "PATCH", "/v1/subscriptions/crm-1", body); !strings.Contains(fmt.Sprint(at(out, "detail")), says) {
			t.Errorf("PATCH %s: got %v, want %q", body, at(out, "detail"), says)
		}
	}
	out = a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"callback":null,"window":null}`)
	if at(out, "window") != 256.0 {
		t.Errorf("without a callback: window is %v, want 256", at(out, "window"))
	}
}

func TestOnlyTheCallbackEnablesTheCallback(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	state := func(out map[string]any) string { return fmt.Sprint(at(out, "status", "state")) }
	const body = `{"channels":["acct-42"],"callback":{"url":"http://127.0.0.1:9/x"}}`
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", body)
	for _, test := range []struct{ method, body, want string }{
		{"PATCH", `{"window":10}`, "disabled"},
		{"PATCH", `{"types":["a"]}`, "disabled"},
		{"PATCH", `{"callback":{"rate":5}}`, "waiting"},
		{"PUT", body, "waiting"},
	} {
		if err := a.manager.Change(t.Context(), "crm-1", func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) {
			s.Disabled, s.Grace, s.Parked = true, time.Time{}, false // it answered 410
			return durable.Reseal(s, s.Sealed), nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := state(a.want(200, me, test.method, "/v1/subscriptions/crm-1", test.body)); test.want == "disabled" && got != "disabled" || test.want != "disabled" && got == "disabled" {
			t.Errorf("disabled, then %s %s: got %s, want %s", test.method, test.body, got, test.want)
		}
	}
}

func TestBadDefinitionsAreNamed(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	cb := func(fields string) string {
		return `{"channels":["acct-42"],"callback":{"url":"http://127.0.0.1:9/x",` + fields + `}}`
	}
	for _, test := range []struct {
		body string
		says string
	}{
		{``, "not a JSON object"},
		{`[]`, "not a JSON object"},
		{`{`, "not JSON"},
		{`{} {}`, "more follows"},
		{`{}`, "channels is empty"},
		{`{"channels":"acct-42"}`, "channels is a JSON string, want an array"},
		{`{"channels":["acct 42"]}`, "channels[0]"},
		{`{"channels":["acct-42","acct-42"]}`, "twice"},
		{`{"channels":["acct-42"],"colour":1}`, `unknown field "colour"`},
		{`{"channels":["acct-42"],"types":["a.**.b"]}`, "types[0]"},
		{`{"channels":["acct-42"],"window":-1}`, "window is -1"},
		{`{"channels":["acct-42"],"window":"many"}`, "window is a JSON string, want a number"},
		{`{"channels":["acct-42"],"start":"yesterday"}`, "start"},
		{`{"channels":["acct-42"],"start":"other@x-1"}`, "not among channels"},
		{`{"channels":["acct-42"],"expires_after":"soon"}`, "not a duration"},
		{`{"channels":["acct-42"],"expires_after":"1s"}`, "expires_after"},
		{`{"channels":["acct-42"],"group":{"partitions":0}}`, "group.partitions is 0, want 1 to 256"},
		{`{"channels":["acct-42"],"group":{"partitions":257}}`, "group.partitions is 257, want 1 to 256"},
		{`{"channels":["acct-42"],"group":{"partitions":"many"}}`, "group.partitions is a JSON string, want a number"},
		{`{"channels":["acct-42"],"group":{"partitions":1.5}}`, "group.partitions"},
		{`{"channels":["acct-42"],"group":{}}`, "group.partitions is 0, want 1 to 256"},
		{`{"channels":["acct-42"],"group":{"partitions":2},"callback":{"url":"http://127.0.0.1:9/x","mode":"always"}}`, "exclude each other"},
		{`{"channels":["acct-42"],"group":{"partitions":2},"callback":{"url":"http://127.0.0.1:9/x","order":"channel"}}`, `callback.order is \"channel\", but a group keeps the order of each key`},
		{`{"channels":["acct-42"],"callback":{}}`, "callback.url"},
		{`{"channels":["acct-42"],"callback":{"url":"ftp://x"}}`, "callback.url"},
		{`{"channels":["acct-42"],"callback":{"url":"http://user:pw@x/"}}`, "user name"},
		{`{"channels":["acct-42"],"callback":{"url":"http://10.0.0.1/"}}`, "callback.url"},
		{cb(`"mode":"sometimes"`), "callback.mode"},
		{cb(`"order":"none"`), "callback.order"},
		{cb(`"concurrency":5`), `order \"channel\"`},
		{cb(`"concurrency":5000,"order":"key"`), "callback.concurrency"},
		{cb(`"rate":-1`), "callback.rate"},
		{cb(`"grace":"2h"`), "callback.grace"},
		{cb(`"timeout":"1ms"`), "callback.timeout"},
		{cb(`"batch":{"max_events":5000}`), "batch.max_events"},
		{cb(`"batch":{"size":5}`), `unknown field "size"`},
		{cb(`"secret":"hunter2"`), "callback.secret"},
		{cb(`"headers":{"webhook-id":"1"}`), "set by the gateway"},
		{cb(`"headers":{"Longline-Cursor":"1"}`), "set by the gateway"},
		{cb(`"headers":{"host":"x"}`), "set by the gateway"},
		{cb(`"headers":{"X-A":"a\r\nX-B: b"}`), "line break"},
		{cb(`"headers":{"X A":"a"}`), "not a header name"},
		{cb(`"method":"GET"`), "callback.method"},
		{cb(`"body":"event.id +"`), "callback.body: line 1, column"},
		{cb(`"format":"data","batch":{"max_events":5}`), "callback.format"},
		{cb(`"outcome":"5"`), "callback.outcome"},
		{cb(`"signature":{"header":"X-Sig","scheme":"md5"}`), "callback.signature.scheme"},
		{cb(`"auth":{}`), "callback.auth"},
		{cb(`"auth":{"bearer":{"token":"hunter2"},"basic":{"username":"a","password":"hunter2"}}`), "callback.auth: want one of"},
		{cb(`"auth":{"bearer":{"token":"hunter2 hunter2"}}`), "callback.auth: bearer.token has a space"},
		{cb(`"auth":{"bearer":{"token":"hunter2"}},"headers":{"authorization":"hunter2"}`), "is what auth sets"},
		{cb(`"auth":{"oauth2":{"token_url":"http://10.0.0.1/","client_id":"a","client_secret":"hunter2"}}`), "callback.auth.oauth2.token_url"},
		{cb(`"auth":{"oauth2":{"token_url":"https://a.example/","client_id":"a","client_secret":"hunter2","style":"odd"}}`), "oauth2.style"},
		{cb(`"auth":{"mtls":{"certificate":"hunter2","key":"hunter2"}}`), "callback.auth: mtls: certificate and key"},
		{`{"channels":["acct-42"],"callback":{"url":"http://{subject}.example.com/"}}`, "callback.url: an attribute stands in"},
	} {
		status, out := a.call(me, "PUT", "/v1/subscriptions/crm-1", test.body)
		text, _ := json.Marshal(out)
		if status != 400 || !bytes.Contains(text, []byte(strings.Trim(fmt.Sprintf("%q", test.says), `"`))) && !bytes.Contains(text, []byte(test.says)) {
			t.Errorf("PUT %s: got %d %s, want 400 that says %q", test.body, status, text, test.says)
		}
		if strings.Contains(test.body, "hunter2") && bytes.Contains(text, []byte("hunter2")) {
			t.Errorf("the answer quotes the secret: %s", text)
		}
	}
	if _, err := a.broker.Load(t.Context(), "crm-1"); err == nil {
		t.Error("a bad definition left something behind")
	}
	a.want(400, me, "PUT", "/v1/subscriptions/crm%20x", `{"channels":["acct-42"]}`)
	a.want(410, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"start":"acct-42@gone-5"}`)
}

func TestTokensReachTheirOwnOnly(t *testing.T) {
	a := newAPI(t)
	me := token(t, customer)
	admin := token(t, auth.Mintage{Admin: true})
	narrower := token(t, auth.Mintage{Subscribe: []string{"news.**"}, Subscriptions: []string{"crm-*"}})
	body := `{"channels":["acct-42"]}`
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", body)
	a.want(201, admin, "PUT", "/v1/subscriptions/erp-1", body)
	a.want(403, me, "PUT", "/v1/subscriptions/erp-1", body)
	a.want(403, me, "GET", "/v1/subscriptions/erp-1", "")
	a.want(403, me, "PUT", "/v1/subscriptions/crm-2", `{"channels":["acct-43"]}`)
	a.want(403, me, "PATCH", "/v1/subscriptions/crm-1", `{"channels":["acct-42","acct-43"]}`)
	a.want(403, me, "PUT", "/v1/subscriptions/crm-2", `{"channels":["longline.events"]}`)
	// The channels must lie within the bearer's, also for what exists.
	for _, call := range [][3]string{
		{"GET", "", ""}, {"DELETE", "", ""}, {"PATCH", "", `{"window":1}`}, {"PUT", "", `{"channels":["news.a"]}`},
		{"POST", "/ack", `{"cursor":"acct-42@x-1"}`}, {"POST", "/reject", `{"cursor":"acct-42@x-1"}`},
		{"POST", "/seek", `{"to":"latest"}`}, {"POST", "/pause", ""},
		{"POST", "/resume", ""}, {"GET", "/dead", ""}, {"DELETE", "/dead", ""}, {"POST", "/dead/redrive", `{"all":true}`},
		{"GET", "/attempts", ""}, {"POST", "/test", ""}, {"POST", "/rotate-secret", ""},
	} {
		a.want(403, narrower, call[0], "/v1/subscriptions/crm-1"+call[1], call[2])
	}
	out := a.want(200, me, "GET", "/v1/subscriptions", "")
	if list, _ := out["subscriptions"].([]any); len(list) != 1 || at(list[0].(map[string]any), "name") != "crm-1" {
		t.Errorf("listed %v, want crm-1 alone", out)
	}
	out = a.want(200, admin, "GET", "/v1/subscriptions?limit=1", "")
	if out["next"] != "crm-1" {
		t.Errorf("got %v, want a next of crm-1", out)
	}
	out = a.want(200, admin, "GET", "/v1/subscriptions?limit=1&cursor=crm-1", "")
	if list, _ := out["subscriptions"].([]any); len(list) != 1 || out["next"] != nil {
		t.Errorf("got %v, want the last one", out)
	}
	a.want(400, admin, "GET", "/v1/subscriptions?state=asleep", "")
	a.want(400, admin, "GET", "/v1/subscriptions?limit=-1", "")
}

// A program that sees to its subscription whenever it starts doesn't undo what
// others set up meanwhile.
func TestCreatedOnlyIfMissing(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	create := func(status int) map[string]any {
		t.Helper()
		return a.want(status, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`, "If-None-Match", "*")
	}
	create(201)
	a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"callback":{"url":"http://127.0.0.1:9/x"}}`)
	create(409)
	if out := a.want(200, me, "GET", "/v1/subscriptions/crm-1", ""); at(out, "callback", "url") != "http://127.0.0.1:9/x" {
		t.Errorf("got %v, want the callback still there", out)
	}
}

// TestLabelsFind what people gave them, and nothing else; so does a channel.
func TestLabelsFind(t *testing.T) {
	a := newAPI(t)
	admin := authtest.Token(t, auth.Mintage{Admin: true})
	a.want(http.StatusCreated, admin, "PUT", "/v1/subscriptions/crm-1", `{"channels":["a"],"description":"Ann's","labels":{"customer":"42","tier":"a=b"}}`)
	a.want(http.StatusCreated, admin, "PUT", "/v1/subscriptions/crm-2", `{"channels":["a"],"labels":{"customer":"43"}}`)
	for query, want := range map[string]int{"": 2, "?label=customer=42": 1, "?label=tier=a=b": 1, "?label=customer=": 0, "?label=tier=a": 0, "?channel=a": 2, "?channel=b": 0} {
		if got := a.want(http.StatusOK, admin, "GET", "/v1/subscriptions"+query, "")["subscriptions"].([]any); len(got) != want {
			t.Errorf("%s: %d subscriptions, want %d", query, len(got), want)
		}
	}
	a.want(http.StatusBadRequest, admin, "GET", "/v1/subscriptions?label=customer", "")
	a.want(http.StatusBadRequest, admin, "GET", "/v1/subscriptions?channel=a%20b", "")
	a.want(http.StatusBadRequest, admin, "PUT", "/v1/subscriptions/crm-3", `{"channels":["a"],"labels":{"a=b":"c"}}`)
}

func TestPositionMoves(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	a.append("acct-42", 10)
	out := a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"start":"earliest"}`)
	start, _ := out["cursor"].(string)
	epoch := strings.TrimSuffix(strings.TrimPrefix(start, "acct-42@"), "-0")
	cursor := func(n int) string { return fmt.Sprintf("acct-42@%s-%d", epoch, n) }
	if start != cursor(0) || at(out, "status", "lag", "events") != 10.0 {
		t.Fatalf("got %v, want the beginning and a lag of 10", out)
	}
	ack := func(status int, to string) any {
		t.Helper()
		return a.want(status, me, "POST", "/v1/subscriptions/crm-1/ack", fmt.Sprintf(`{"cursor":%q}`, to))["cursor"]
	}
	if got := ack(200, cursor(4)); got != cursor(4) {
		t.Errorf("acknowledged to %v, want %s", got, cursor(4))
	}
	if got := ack(200, cursor(2)); got != cursor(4) {
		t.Errorf("an older cursor moved it to %v", got)
	}
	ack(400, cursor(11))
	ack(400, "other@x-1")
	ack(400, "")
	ack(400, "acct-42@x-18446744073709551616")
	out = a.want(409, me, "POST", "/v1/subscriptions/crm-1/ack", `{"cursor":"acct-42@gone-5"}`)
	if detail, _ := out["detail"].(string); !strings.Contains(detail, fmt.Sprintf("%q", epoch)) {
		t.Errorf("an ack of a log that is gone: got %q, want the present epoch, %s, named", detail, epoch)
	}
	a.want(409, me, "POST", "/v1/subscriptions/crm-1/ack", fmt.Sprintf(`{"cursor":%q,"connection":"cabc"}`, cursor(5)))
	for _, test := range []struct {
		to, want string
		status   int
	}{
		{"earliest", cursor(0), 200}, {"latest", cursor(10), 200}, {cursor(7), cursor(7), 200},
		{"acct-42@gone-1", "", 410}, {cursor(11), "", 410}, {"other@x-1", "", 400}, {"", "", 400}, {"soon", "", 400},
	} {
		out := a.want(test.status, me, "POST", "/v1/subscriptions/crm-1/seek", fmt.Sprintf(`{"to":%q}`, test.to))
		if test.status == 200 && out["cursor"] != test.want {
			t.Errorf("seek %s: got %v, want %s", test.to, out["cursor"], test.want)
		}
	}
	// start places channels that a later PUT adds, and no others.
	a.append("news.a", 3)
	out = a.want(200, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42","news.a"],"start":"earliest"}`)
	if got, _ := out["cursor"].(string); !strings.HasPrefix(got, cursor(7)+",news.a@") || !strings.HasSuffix(got, "-0") {
		t.Errorf("got %v, want %s and the beginning of news.a", got, cursor(7))
	}
	out = a.want(200, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["news.a"]}`)
	if got, _ := out["cursor"].(string); !strings.HasPrefix(got, "news.a@") {
		t.Errorf("got %v, want news.a alone", got)
	}
}

func TestPausedAndRevoked(t *testing.T) {
	a := newAPI(t)
	me := token(t, customer)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)
	a.want(201, token(t, auth.Mintage{Admin: true, Subject: "root"}), "PUT", "/v1/subscriptions/crm-2", `{"channels":["acct-42"]}`)
	if out := a.want(200, me, "POST", "/v1/subscriptions/crm-1/pause", ""); at(out, "status", "state") != "paused" {
		t.Errorf("got %v, want paused", out)
	}
	if out := a.want(200, me, "POST", "/v1/subscriptions/crm-1/resume", ""); at(out, "status", "state") != "offline" {
		t.Errorf("got %v, want offline", out)
	}
	revoke := func(subject string, before time.Time) {
		t.Helper()
		if err := a.api.PauseOf(t.Context(), auth.Revocation{Subject: subject, Before: &before}); err != nil {
			t.Fatal(err)
		}
	}
	wantStates := func(want string) {
		t.Helper()
		got := ""
		for _, name := range []string{"crm-1", "crm-2"} {
			got += fmt.Sprint(" ", at(a.want(200, me, "GET", "/v1/subscriptions/"+name, ""), "status", "state"))
		}
		if got != " "+want {
			t.Errorf("got%s, want %s", got, want)
		}
	}
	// Of the tokens issued before the last minute none created it.
	revoke("customer", time.Now().Add(-time.Minute))
	revoke("somebody", time.Now().Add(time.Minute))
	wantStates("offline offline")
	revoke("customer", time.Now().Add(time.Minute))
	wantStates("paused offline")
	if err := a.api.PauseOf(t.Context(), auth.Revocation{TokenID: "x"}); err != nil {
		t.Fatal(err)
	}
}

func TestDeadLettersAreManaged(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)
	crm, err := a.broker.Load(t.Context(), "crm-1")
	if err != nil {
		t.Fatal(err)
	}
	// An event is named by its cursor: two of different sources may have one id.
	for i, id := range []string{"e0", "e1", "e1"} {
		l, err := durable.DeadLetter{Event: fmt.Appendf(nil, `{"id":%q,"source":"/%d","cursor":"acct-42@x-%d"}`, id, i, i+1), Reason: "no", Attempts: 3, Time: time.Now()}.Letter()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.broker.Bury(t.Context(), broker.Burial{Name: "crm-1", Generation: crm.Generation, Letters: []broker.Letter{l}}); err != nil {
			t.Fatal(err)
		}
	}
	out := a.want(200, me, "GET", "/v1/subscriptions/crm-1/dead?limit=2", "")
	if list, _ := out["dead"].([]any); len(list) != 2 || at(list[0].(map[string]any), "event", "id") != "e0" || out["next"] == nil {
		t.Fatalf("got %v, want e0 and e1 and a next", out)
	}
	out = a.want(200, me, "GET", fmt.Sprintf("/v1/subscriptions/crm-1/dead?since=%v", out["next"]), "")
	if list, _ := out["dead"].([]any); len(list) != 1 || out["next"] != nil {
		t.Errorf("got %v, want the other e1", out)
	}
	for _, test := range []struct {
		body string
		want float64
	}{
		{`{"cursors":["acct-42@x-3","acct-42@x-9"]}`, 1},
		{`{"ids":["e1","e9"]}`, 1}, // the other one
		{`{"all":true}`, 1},
	} {
		body, want := test.body, test.want
		if out := a.want(200, me, "POST", "/v1/subscriptions/crm-1/dead/redrive", body); out["redriven"] != want {
			t.Errorf("redrive %s: got %v, want %v", body, out, want)
		}
	}
	for _, body := range []string{`{}`, `{"ids":["e1"],"all":true}`, `{"id":"e1"}`, `{"cursors":["e1"]}`, ``} {
		a.want(400, me, "POST", "/v1/subscriptions/crm-1/dead/redrive", body)
	}
	if out := a.want(200, me, "DELETE", "/v1/subscriptions/crm-1/dead", ""); out["deleted"] != 3.0 {
		t.Errorf("got %v, want 3 deleted", out)
	}
}

func TestTestEventGoesOutSigned(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	var got http.Header
	var body []byte
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(418)
		io.WriteString(w, "short and stout")
	}))
	defer receiver.Close()
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", fmt.Sprintf(`{"channels":["acct-42"],"callback":{"url":%q,"headers":{"X-Tenant":"42"}}}`, receiver.URL))
	out := a.want(200, me, "POST", "/v1/subscriptions/crm-1/test", "")
	if out["status"] != 418.0 || out["body"] != "short and stout" {
		t.Errorf("got %v, want the receiver's answer", out)
	}
	var e map[string]any
	if err := json.Unmarshal(body, &e); err != nil || e["type"] != "longline.test" || e["channel"] != nil || e["cursor"] != nil {
		t.Errorf("got %s, want a longline.test event without a place", body)
	}
	if got.Get("X-Tenant") != "42" || !strings.HasPrefix(got.Get("Webhook-Signature"), "v1,") || got.Get("Longline-Cursor") == "" {
		t.Errorf("got headers %v, want the user's own, a signature and the position", got)
	}
	a.want(201, me, "PUT", "/v1/subscriptions/crm-2", `{"channels":["acct-42"]}`)
	a.want(409, me, "POST", "/v1/subscriptions/crm-2/test", "")
}

func TestTestShowsTheRequest(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	var got *http.Request
	var body []byte
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(t.Context())
		body, _ = io.ReadAll(r.Body)
		io.WriteString(w, `{"ok":false}`)
	}))
	defer receiver.Close()
	put := a.want(201, me, "PUT", "/v1/subscriptions/crm-1", fmt.Sprintf(`{"channels":["acct-42"],"callback":{
		"url":"%s/Contact/{subject}","method":"PATCH","headers":{"X-Api-Key":"hunter2"},"body":"{\"opened\": event.data.n}",
		"outcome":"response.body.ok ? \"ack\" : \"refuse\"","auth":{"basic":{"username":"me","password":"hunter3"}},
		"signature":{"header":"X-Sig","scheme":"hmac-sha256-hex"}}}`, receiver.URL))
	out := a.want(200, me, "POST", "/v1/subscriptions/crm-1/test", `{"subject":"a@b","data":{"n":7}}`)
	request, _ := out["request"].(map[string]any)
	for path, want := range map[string]any{"method": "PATCH", "url": receiver.URL + "/Contact/a%40b", "body": `{"opened":7}`} {
		if request[path] != want {
			t.Errorf("request's %s: got %v, want %v", path, request[path], want)
		}
	}
	for name, want := range map[string]any{"x-api-key": "***", "authorization": "***", "content-type": "application/json", "longline-subscription": "crm-1"} {
		if at(request, "headers", name) != want {
			t.Errorf("request's header %s: got %v, want %v", name, at(request, "headers", name), want)
		}
	}
	if out["status"] != 200.0 || out["error"] != "answered 200; the outcome says refuse" || out["body"] != `{"ok":false}` {
		t.Errorf("got %v, want the answer and what it means", out)
	}
	if user, password, _ := got.BasicAuth(); got.Method != "PATCH" || user != "me" || password != "hunter3" || string(body) != `{"opened":7}` || got.Header.Get("X-Sig") == "" {
		t.Errorf("the receiver got %s %v %s", got.Method, got.Header, body)
	}
	out = a.want(200, me, "POST", "/v1/subscriptions/crm-1/test", "")
	if out["request"] != nil || out["status"] != 0.0 || !strings.Contains(fmt.Sprint(out["error"]), "the event has no subject") {
		t.Errorf("an event that doesn't fit: got %v, want why", out)
	}
	a.want(400, me, "POST", "/v1/subscriptions/crm-1/test", `{"events":1}`)

	stored, err := a.broker.Load(t.Context(), "crm-1")
	if err != nil {
		t.Fatal(err)
	}
	shown, _ := json.Marshal([]any{put, out, a.want(200, me, "GET", "/v1/subscriptions/crm-1", ""), a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"callback":{"rate":5}}`)})
	if bytes.Contains(shown, []byte("hunter")) || bytes.Contains(stored.Record, []byte("hunter")) {
		t.Errorf("credentials came back, or lie open: %s %s", shown, stored.Record)
	}
	a.want(200, me, "POST", "/v1/subscriptions/crm-1/test", `{"subject":"a@b","data":{"n":7}}`)
	if _, password, _ := got.BasicAuth(); password != "hunter3" {
		t.Error("a PATCH of something else lost the credentials")
	}
}

// What one sub creates is bounded, and what it deletes makes room; admins and
// other subs have nothing to do with it.
func TestASubCreatesSoManySubscriptions(t *testing.T) {
	a := newAPIWithin(t, quota.New(quota.Limits{TokenSubscriptions: 2}, nil))
	me, channels := token(t, customer), `{"channels":["acct-42"]}`
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", channels)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-2", channels)
	if out := a.want(429, me, "PUT", "/v1/subscriptions/crm-3", channels); !strings.Contains(fmt.Sprint(out), "created 2 subscriptions") {
		t.Errorf("got %v, want how many are taken", out)
	}
	a.want(200, me, "PUT", "/v1/subscriptions/crm-2", channels)
	other, root := customer, auth.Mintage{Admin: true, Subject: "root"}
	other.Subject = "other"
	a.want(201, token(t, other), "PUT", "/v1/subscriptions/crm-4", channels)
	for i := range 3 {
		a.want(201, token(t, root), "PUT", fmt.Sprint("/v1/subscriptions/crm-r", i), channels)
	}
	a.want(204, me, "DELETE", "/v1/subscriptions/crm-1", "")
	a.want(201, me, "PUT", "/v1/subscriptions/crm-3", channels)
}
