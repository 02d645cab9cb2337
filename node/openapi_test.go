package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/longline-push/longline/gateway/auth"
)

// description is the API's description, and what of it was seen to be so.
type description struct {
	t       *testing.T
	doc     map[string]any
	schemas *jsonschema.Compiler
	paths   map[string]map[string]map[string]any // path, method, status → response
	seen    map[string]bool                      // "GET /livez 200"
}

const openAPIFile = "../gateway/openapi.json"

func readDescription(t *testing.T) *description {
	t.Helper()
	text, err := os.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	d := &description{t: t, doc: whole.(map[string]any), schemas: jsonschema.NewCompiler(), paths: make(map[string]map[string]map[string]any), seen: make(map[string]bool)}
	if err := d.schemas.AddResource("openapi.json", whole); err != nil {
		t.Fatal(err)
	}
	for path, item := range d.doc["paths"].(map[string]any) {
		d.paths[path] = make(map[string]map[string]any)
		for method, operation := range item.(map[string]any) {
			if method != "parameters" {
				d.paths[path][strings.ToUpper(method)] = operation.(map[string]any)["responses"].(map[string]any)
			}
		}
	}
	return d
}

// template finds the path of the description that a request's is of.
func (d *description) template(path string) string {
	path, _, _ = strings.Cut(path, "?")
	want := strings.Split(path, "/")
	var found string
	for template := range d.paths {
		parts := strings.Split(template, "/")
		if len(parts) != len(want) {
			continue
		}
		fits, literal := true, 0
		for i, part := range parts {
			if part == want[i] {
				literal++
			} else if !strings.HasPrefix(part, "{") {
				fits = false
			}
		}
		if fits && (found == "" || literal > strings.Count(found, "/")+1-strings.Count(found, "{")) {
			found = template
		}
	}
	return found
}

// check holds an answer to what is said of it.
func (d *description) check(method, path string, resp *http.Response, body []byte) {
	d.t.Helper()
	template, status := d.template(path), fmt.Sprint(resp.StatusCode)
	name := method + " " + template + " " + status
	d.seen[name] = true
	response, ok := d.paths[template][method][status].(map[string]any)
	if !ok {
		d.t.Errorf("%s %s: %s %s is not documented: %.200s", method, path, resp.Status, template, body)
		return
	}
	at := "#/paths/" + escape(template) + "/" + strings.ToLower(method) + "/responses/" + status
	if ref, ok := response["$ref"].(string); ok {
		at = ref
		response = d.doc["components"].(map[string]any)["responses"].(map[string]any)[ref[strings.LastIndex(ref, "/")+1:]].(map[string]any)
	}
	for header, h := range mapOf(response["headers"]) {
		if mapOf(h)["required"] == true && resp.Header.Get(header) == "" {
			d.t.Errorf("%s: no header %s", name, header)
		}
	}
	content := mapOf(response["content"])
	if len(content) == 0 {
		if len(body) > 0 {
			d.t.Errorf("%s: a body that is not documented: %.200s", name, body)
		}
		return
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if content[kind] == nil {
		d.t.Errorf("%s: Content-Type %q is not documented", name, kind)
		return
	}
	if !strings.HasSuffix(kind, "json") {
		return
	}
	schema, err := d.schemas.Compile("openapi.json" + at + "/content/" + escape(kind) + "/schema")
	if err != nil {
		d.t.Errorf("%s: %v", name, err)
		return
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		d.t.Errorf("%s: %v\n%.600s", name, err, body)
	}
}

func mapOf(v any) map[string]any { m, _ := v.(map[string]any); return m }

func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "+", "%2B").Replace(name)
}

// asking is a client of a node whose answers are held to the description.
type asking struct {
	*description
	url string
}

func (a *asking) do(want int, method, path, token, body string, headers ...string) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, application/problem+json, text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	var text []byte
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusSwitchingProtocols && !strings.HasPrefix(kind, "text/event-stream") {
		if text, err = io.ReadAll(resp.Body); err != nil {
			a.t.Fatal(err)
		}
	}
	if resp.StatusCode != want {
		a.t.Errorf("%s %s: got %s, want %d: %.300s", method, path, resp.Status, want, text)
	}
	a.check(method, path, resp, text)
	return string(text)
}

// status asks without knowing the answer.
func (a *asking) status(path string) int {
	a.t.Helper()
	resp, err := http.Get(a.url + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	a.check("GET", path, resp, body)
	return resp.StatusCode
}

// run starts a node and returns how to end it.
func run(t *testing.T, o Options) (n *Node, end func()) {
	t.Helper()
	n, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	return n, func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		<-ended
		n.Shutdown()
	}
}

// TestAPIIsAsDescribed asks for everything that gateway/openapi.json describes,
// in each way that it says it can end, and holds each answer to it: status,
// headers, media type, and the JSON to its schema.
func TestAPIIsAsDescribed(t *testing.T) {
	d := readDescription(t)
	n, end := run(t, Options{Broker: "embedded:" + t.TempDir(), Name: "n1", Drain: time.Second, Version: "test"})
	defer end()
	a := &asking{d, n.URL()}
	mint := func(m auth.Mintage) string {
		t.Helper()
		m.TTL = time.Hour
		token, err := n.Mint(m)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	all := mint(auth.Mintage{Subject: "ops", Admin: true})
	none := mint(auth.Mintage{Subject: "nobody"})
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer endpoint.Close()

	for s := 503; s != 200; s = a.status("/readyz") { // a node that begins is either
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	const event = `{"type":"email.opened","id":"1","subject":"alice@example.com","data":{"n":1}}`
	var published struct {
		Events []struct{ Cursor string }
	}
	if err := json.Unmarshal([]byte(a.do(200, "POST", "/v1/channels/c/events", all, event)), &published); err != nil {
		t.Fatal(err)
	}
	first := published.Events[0].Cursor
	beyond := strings.TrimSuffix(first, "1") + "99"
	const define = `{"channels":["c"],"start":"earliest","description":"of a test","labels":{"customer":"42"}}`
	withCallback := fmt.Sprintf(`{"channels":["quiet"],"callback":{"url":%q,"mode":"always"}}`, endpoint.URL)

	// Each operation as it succeeds, in an order in which it does.
	works := []struct {
		want         int
		method, path string
		body         string
	}{
		{200, "POST", "/v1/events", `{"type":"t","id":"2","channels":["c","d"]}`},
		{200, "GET", "/v1/channels/c/events?since=earliest", ""},
		{200, "GET", "/v1/channels", ""},
		{200, "GET", "/v1/channels/c", ""},
		{200, "GET", "/v1/channels/c/types", ""},
		{200, "GET", "/v1/sse?channel=c", ""},
		{200, "GET", "/v1/nodes", ""},
		{200, "GET", "/v1/stats", ""},
		{200, "GET", "/v1/token", ""},
		{200, "POST", "/v1/tokens", `{"sub":"customer-42","subscribe":["c"],"ttl":"1h"}`},
		{200, "GET", "/v1/connections?node=n1", ""},
		{200, "GET", "/livez", ""},
		{200, "GET", "/v1/openapi.json", ""},
		{200, "GET", "/", ""},
		{200, "POST", "/v1/portal", `{"sub":"customer-42","subscriptions":["crm-42-*"],"channels":["c"],"theme":{"name":"Mailer","accent":"#0a7464"},"return_url":"https://app.example.com/"}`},
		{200, "GET", "/v1/recipes", ""},
		{200, "GET", "/portal", ""},
		{200, "GET", "/longline.js", ""},
		{200, "GET", "/console/page.js", ""},
		{201, "PUT", "/v1/subscriptions/crm", define},
		{200, "PUT", "/v1/subscriptions/crm", define},
		{200, "PATCH", "/v1/subscriptions/crm", `{"window":64}`},
		{200, "GET", "/v1/subscriptions/crm", ""},
		{200, "GET", "/v1/subscriptions?label=customer=42", ""},
		{200, "GET", "/v1/subscriptions/crm/events?max=1&consumer=a", ""},
		{200, "POST", "/v1/subscriptions/crm/reject", `{"cursor":"` + first + `","reason":"no such contact"}`},
		{200, "GET", "/v1/subscriptions/crm/dead", ""},
		{200, "POST", "/v1/subscriptions/crm/resend", `{"cursors":["` + first + `"]}`},
		{200, "POST", "/v1/subscriptions/crm/dead/redrive", `{"all":true}`},
		{200, "DELETE", "/v1/subscriptions/crm/dead", ""},
		{200, "GET", "/v1/subscriptions/crm/attempts", ""},
		{200, "GET", "/v1/subscriptions/crm/trace?cursor=" + first, ""},
		{200, "POST", "/v1/subscriptions/crm/ack", `{"cursor":"` + first + `"}`},
		{204, "DELETE", "/v1/subscriptions/crm/events?consumer=a", ""},
		{200, "POST", "/v1/subscriptions/crm/seek", `{"to":"earliest"}`},
		{201, "POST", "/v1/subscriptions/crm/replay", `{"from":"earliest","to":"` + first + `"}`},
		{200, "POST", "/v1/subscriptions/crm/pause", ""},
		{200, "POST", "/v1/subscriptions/crm/resume", ""},
		{201, "PUT", "/v1/subscriptions/hook", withCallback},
		{200, "POST", "/v1/subscriptions/hook/test", ""},
		{200, "POST", "/v1/subscriptions/hook/rotate-secret", ""},
		{200, "POST", "/v1/backup", ""},
		{204, "POST", "/v1/tokens/revoke", `{"jti":"somebody's"}`},
	}
	for _, r := range works {
		a.do(r.want, r.method, r.path, all, r.body)
	}
	refused := func(method, path, body string, headers ...string) { // without a token, and with one that allows nothing
		operation := d.paths[d.template(path)][method]
		if operation["401"] != nil {
			a.do(401, method, path, "", body, headers...)
		}
		if operation["403"] != nil {
			a.do(403, method, path, none, body, headers...)
		}
	}
	for _, r := range works {
		refused(r.method, r.path, r.body)
	}
	// Of what isn't there.
	for _, r := range works {
		if operation := d.paths[d.template(r.path)][r.method]; operation["404"] != nil {
			a.do(404, r.method, strings.NewReplacer("/crm", "/missing", "/hook", "/missing", "/channels/c", "/channels/missing", "page.js", "missing.js", "node=n1", "node=missing").Replace(r.path), all, r.body)
		}
	}
	for _, r := range []struct {
		want         int
		method, path string
		body         string
		headers      []string
	}{
		{400, "POST", "/v1/channels/c/events", `{`, nil},
		{400, "POST", "/v1/events", `{`, nil},
		{413, "POST", "/v1/channels/c/events", "[" + strings.Repeat(`{"type":"t"},`, 1000) + `{"type":"t"}]`, nil},
		{413, "POST", "/v1/events", `{"type":"t","id":"3","channels":["a` + strings.Repeat(`","a`, 1000) + `"]}`, nil},
		{415, "POST", "/v1/channels/c/events", `x`, []string{"Content-Type", "text/plain"}},
		{415, "POST", "/v1/events", `x`, []string{"Content-Type", "text/plain"}},
		{403, "POST", "/v1/channels/c/events", `{"type":"longline.bye"}`, nil},
		{400, "GET", "/v1/channels/c/events?limit=x", "", nil},
		{410, "GET", "/v1/channels/c/events?since=" + beyond, "", nil},
		{400, "GET", "/v1/channels?limit=x", "", nil},
		{400, "GET", "/v1/channels/a..b", "", nil},
		{400, "DELETE", "/v1/channels/a..b", "", nil},
		{400, "GET", "/v1/channels/a..b/types", "", nil},
		{404, "DELETE", "/v1/channels/missing", "", nil},
		{400, "GET", "/v1/sse?channel=..", "", nil},
		{400, "GET", "/v1/ws?channel=c", "", nil},
		{400, "POST", "/v1/tokens/revoke", `{}`, nil},
		{400, "POST", "/v1/tokens", `{}`, nil},
		{400, "POST", "/v1/portal", `{}`, nil},
		{400, "GET", "/v1/connections?limit=x", "", nil},
		{404, "DELETE", "/v1/connections/missing", "", nil},
		{400, "GET", "/v1/subscriptions?limit=x", "", nil},
		{400, "PUT", "/v1/subscriptions/crm", `{}`, nil},
		{409, "PUT", "/v1/subscriptions/crm", define, []string{"If-None-Match", "*"}},
		{413, "PUT", "/v1/subscriptions/crm", `{"description":"` + strings.Repeat("x", 1<<20) + `"}`, nil},
		{413, "PATCH", "/v1/subscriptions/crm", `{"description":"` + strings.Repeat("x", 1<<20) + `"}`, nil},
		{400, "PATCH", "/v1/subscriptions/crm", `{"window":-1}`, nil},
		{400, "GET", "/v1/subscriptions/crm/events?max=x", "", nil},
		{400, "POST", "/v1/subscriptions/crm/ack", `{}`, nil},
		{400, "POST", "/v1/subscriptions/crm/reject", `{}`, nil},
		{400, "POST", "/v1/subscriptions/crm/seek", `{}`, nil},
		{400, "GET", "/v1/subscriptions/crm/dead?limit=x", "", nil},
		{400, "POST", "/v1/subscriptions/crm/dead/redrive", `{}`, nil},
		{400, "GET", "/v1/subscriptions/crm/attempts?limit=x", "", nil},
		{400, "GET", "/v1/subscriptions/crm/trace", "", nil},
		{410, "GET", "/v1/subscriptions/crm/trace?cursor=c@gone-1", "", nil},
		{400, "POST", "/v1/subscriptions/crm/resend", `{}`, nil},
		{410, "POST", "/v1/subscriptions/crm/resend", `{"cursors":["c@gone-1"]}`, nil},
		{409, "POST", "/v1/subscriptions/crm/test", "", nil},
		{409, "POST", "/v1/subscriptions/crm/replay", `{"from":"earliest","callback":true}`, nil},
		{410, "POST", "/v1/subscriptions/crm/replay", `{"from":"c@gone-1"}`, nil},
		{409, "POST", "/v1/subscriptions/crm/rotate-secret", "", nil},
		{409, "POST", "/v1/subscriptions/crm/ack", `{"cursor":"c@gone-1"}`, nil},
		{409, "POST", "/v1/subscriptions/crm/resend", `{"cursors":["` + first + `"]}`, nil},
		{200, "GET", "/v1/subscriptions/crm/events?consumer=b", "", nil},
		{409, "GET", "/v1/subscriptions/crm/events?consumer=c&wait=0s", "", nil},
		{409, "DELETE", "/v1/subscriptions/crm/events?consumer=c", "", nil},
		{409, "POST", "/v1/subscriptions/crm/reject", `{"cursor":"` + first + `","connection":"another"}`, nil},
		{400, "GET", "/v1/stats?span=x", "", nil},
		{400, "DELETE", "/v1/subscriptions/crm/events?consumer=" + strings.Repeat("x", 200), "", nil},
		{404, "GET", "/console/missing", "", nil},
	} {
		a.do(r.want, r.method, r.path, all, r.body, r.headers...)
	}

	for path, methods := range d.paths { // a name that can't be one
		for method, responses := range methods {
			if strings.Contains(path, "/subscriptions/{name}") && !strings.HasSuffix(path, "/events") && responses["400"] != nil {
				a.do(400, method, strings.Replace(path, "{name}", "crm%20x", 1), all, "")
			}
		}
	}
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	a.do(101, "GET", "/v1/ws?channel=c", all, "", upgrade...)
	refused("GET", "/v1/ws?channel=c", "", upgrade...)
	refused("POST", "/v1/channels/c/events", event)

	// What ends things comes last.
	stream, err := http.Get(n.URL() + "/v1/sse?channel=c&access_token=" + all)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	line := bufio.NewScanner(stream.Body)
	var hello struct{ Connection string }
	for hello.Connection == "" && line.Scan() {
		if data, ok := strings.CutPrefix(line.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &hello); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range []struct {
		want         int
		method, path string
	}{
		{204, "DELETE", "/v1/connections/" + hello.Connection},
		{204, "DELETE", "/v1/subscriptions/hook"},
		{404, "DELETE", "/v1/subscriptions/hook"},
		{204, "DELETE", "/v1/channels/d"},
		{404, "POST", "/v1/nodes/missing/drain"},
		{404, "DELETE", "/v1/nodes/missing/drain"},
		{204, "POST", "/v1/nodes/n1/drain"},
		{204, "DELETE", "/v1/nodes/n1/drain"},
	} {
		refused(r.method, r.path, "")
		a.do(r.want, r.method, r.path, all, "")
		if r.method == "POST" && r.want == 204 {
			a.do(503, "GET", "/v1/ws?channel=c", all, "", upgrade...)
		}
	}

	narrow, endNarrow := run(t, Options{Broker: "embedded:" + t.TempDir(), Drain: time.Second, PublishRate: 1, ConnectRate: 0.001, MaxTokenSubscriptions: 1})
	defer endNarrow()
	a.url, n = narrow.URL(), narrow
	customer := mint(auth.Mintage{Subject: "customer-42", Publish: []string{"c", "d"}, Subscribe: []string{"c"}, Subscriptions: []string{"*"}})
	a.do(200, "POST", "/v1/channels/c/events", customer, event)
	a.do(429, "POST", "/v1/channels/c/events", customer, event)
	a.do(429, "POST", "/v1/events", customer, `{"type":"t","id":"2","channels":["c","d"]}`)
	a.do(201, "PUT", "/v1/subscriptions/crm", customer, define)
	a.do(429, "PUT", "/v1/subscriptions/crm-2", customer, define)
	a.do(200, "GET", "/v1/sse?channel=c", customer, "")
	a.do(429, "GET", "/v1/sse?channel=c", customer, "")
	a.do(429, "GET", "/v1/ws?channel=c", customer, "", upgrade...)

	// A node whose store is gone.
	broken, endBroken := run(t, Options{Broker: "embedded:" + t.TempDir(), Name: "n1", Drain: time.Second})
	defer endBroken()
	a.url, n = broken.URL(), broken
	all = mint(auth.Mintage{Subject: "ops", Admin: true})
	a.do(201, "PUT", "/v1/subscriptions/crm", all, define)
	if err := broken.broker.Close(); err != nil {
		t.Fatal(err)
	}
	a.do(503, "POST", "/v1/channels/c/events", all, event)
	a.do(503, "DELETE", "/v1/channels/c", all, "")
	a.do(503, "DELETE", "/v1/subscriptions/crm", all, "")
	for _, r := range works {
		if operation := d.paths[d.template(r.path)][r.method]; operation["503"] != nil && unseen[r.method+" "+d.template(r.path)+" 503"] == "" {
			a.do(503, r.method, r.path, all, r.body)
		}
	}

	var missing []string
	for path, methods := range d.paths {
		for method, responses := range methods {
			for status := range responses {
				if name := method + " " + path + " " + status; !d.seen[name] && unseen[name] == "" {
					missing = append(missing, name)
				}
			}
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("documented and not produced here:\n%s", strings.Join(missing, "\n"))
	}
}

// unseen is what one node by itself doesn't answer, with the test that has it or
// why none can.
var unseen = map[string]string{
	"GET /readyz 503":                                "TestReadyOnlyWhileEventsComeBack",
	"DELETE /v1/connections/{id} 202":                "TestConnectionOfAnotherNodeIsClosed",
	"DELETE /v1/connections/{id} 503":                "the other node can't be told",
	"POST /v1/nodes/{node}/drain 202":                "TestAnOperatorDrainsANodeAndTakesItBack",
	"DELETE /v1/nodes/{node}/drain 202":              "TestAnOperatorDrainsANodeAndTakesItBack",
	"GET /v1/connections 503":                        "TestConnectionsOfAnotherNodeAreListed",
	"POST /v1/nodes/{node}/drain 503":                "the other node can't be told",
	"DELETE /v1/nodes/{node}/drain 503":              "the other node can't be told",
	"POST /v1/backup 409":                            "a gateway on Redis",
	"PATCH /v1/subscriptions/{name} 409":             "changed by two at once",
	"DELETE /v1/subscriptions/{name} 409":            "changed by two at once",
	"POST /v1/subscriptions/{name}/pause 409":        "changed by two at once",
	"POST /v1/subscriptions/{name}/resume 409":       "changed by two at once",
	"POST /v1/subscriptions/{name}/seek 409":         "changed by two at once",
	"POST /v1/subscriptions/{name}/dead/redrive 409": "changed by two at once",
}
