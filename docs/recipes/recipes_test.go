// Package recipes_test puts each recipe's JSON as it stands, and runs it
// against a server that behaves as that API's documentation says.
package recipes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api is somebody's API. Its handler is called by one request at a time.
type api struct {
	mu     sync.Mutex
	calls  int
	got    []string // what it took in, in order
	handle func(a *api, w http.ResponseWriter, r *http.Request, body map[string]any)
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	text, _ := io.ReadAll(r.Body)
	var body map[string]any
	if r.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(text, &body); err != nil {
			http.Error(w, "not JSON", http.StatusBadRequest)
			return
		}
	} else {
		body = map[string]any{"form": string(text)}
	}
	if !strings.HasSuffix(r.URL.Path, "/token") {
		if a.calls++; a.calls == 1 {
			w.Header().Set("Retry-After", "1") // its limit was reached just now
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
	}
	a.handle(a, w, r, body)
}

func (a *api) taken() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.got, " ")
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

type object = map[string]any

func salesforce(a *api, w http.ResponseWriter, r *http.Request, body map[string]any) {
	if r.URL.Path == "/services/oauth2/token" {
		form := fmt.Sprint(body["form"])
		if r.Method != "POST" || !strings.Contains(form, "grant_type=client_credentials") || !strings.Contains(form, "client_secret=CLIENT_SECRET") {
			answer(w, 400, object{"error": "invalid_client"})
			return
		}
		answer(w, 200, object{"access_token": "00D!x", "token_type": "Bearer"})
		return
	}
	records, _ := body["records"].([]any)
	switch {
	case r.Header.Get("Authorization") != "Bearer 00D!x":
		answer(w, 401, []any{object{"errorCode": "INVALID_SESSION_ID"}})
		return
	case r.Method != "PATCH" || r.URL.Path != "/services/data/v61.0/composite/sobjects/Contact/Email_Key__c" || len(records) == 0 || len(records) > 200:
		answer(w, 400, []any{object{"errorCode": "INVALID_INPUT"}})
		return
	}
	var results []any
	for _, one := range records {
		record := one.(map[string]any)
		key, _ := record["Email_Key__c"].(string)
		fail := func(code string) {
			results = append(results, object{"success": false, "errors": []any{object{"statusCode": code, "message": "…", "fields": []any{}}}})
		}
		switch {
		case fmt.Sprint(record["attributes"]) != "map[type:Contact]":
			fail("INVALID_TYPE")
		case key == "bad":
			fail("INVALID_EMAIL_ADDRESS")
		case key == "locked" && a.calls == 2:
			fail("UNABLE_TO_LOCK_ROW")
		default:
			a.got = append(a.got, key)
			results = append(results, object{"id": "003", "success": true, "created": false, "errors": []any{}})
		}
	}
	answer(w, 200, results)
}

func hubspot(a *api, w http.ResponseWriter, r *http.Request, body map[string]any) {
	inputs, _ := body["inputs"].([]any)
	switch {
	case r.Header.Get("Authorization") != "Bearer PRIVATE_APP_TOKEN":
		answer(w, 401, object{"status": "error", "category": "INVALID_AUTHENTICATION"})
		return
	case r.Method != "POST" || r.URL.Path != "/crm/v3/objects/contacts/batch/upsert" || len(inputs) == 0 || len(inputs) > 100:
		answer(w, 400, object{"status": "error", "category": "VALIDATION_ERROR"})
		return
	}
	var ids []string
	for _, one := range inputs {
		ids = append(ids, one.(map[string]any)["id"].(string))
	}
	if slices.Sort(ids); len(slices.Compact(slices.Clone(ids))) != len(ids) {
		answer(w, 400, object{"status": "error", "message": "Duplicate IDs found in batch input"})
		return
	}
	results, errors := []any{}, []any{}
	for _, one := range inputs {
		input := one.(map[string]any)
		if input["id"] == "bad" || input["idProperty"] != "email" {
			errors = append(errors, object{"status": "error", "category": "VALIDATION_ERROR", "context": object{"objectWriteTraceId": []any{input["objectWriteTraceId"]}}})
			continue
		}
		a.got = append(a.got, input["id"].(string))
		results = append(results, object{"id": "1", "new": false, "objectWriteTraceId": input["objectWriteTraceId"]})
	}
	if len(errors) > 0 {
		answer(w, 207, object{"status": "COMPLETE", "results": results, "numErrors": len(errors), "errors": errors})
		return
	}
	answer(w, 200, object{"status": "COMPLETE", "results": results})
}

func pipedrive(a *api, w http.ResponseWriter, r *http.Request, body map[string]any) {
	fields, _ := body["custom_fields"].(map[string]any)
	id := strings.TrimPrefix(r.URL.Path, "/api/v2/persons/")
	switch {
	case r.Header.Get("x-api-token") != "API_TOKEN":
		answer(w, 401, object{"success": false, "error": "unauthorized access"})
	case r.Method != "PATCH" || len(fields) != 1:
		answer(w, 400, object{"success": false, "error": "Bad request"})
	case id == "404":
		answer(w, 404, object{"success": false, "error": "Person not found"})
	default:
		a.got = append(a.got, id)
		answer(w, 200, object{"success": true, "data": object{"id": id}})
	}
}

func slack(a *api, w http.ResponseWriter, r *http.Request, body map[string]any) {
	text := ""
	if blocks, _ := body["blocks"].([]any); len(blocks) == 1 {
		inner, _ := blocks[0].(map[string]any)["text"].(map[string]any)
		if inner["type"] == "plain_text" {
			text, _ = inner["text"].(string)
		}
	}
	if r.Method != "POST" || text == "" {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, "no_text")
		return
	}
	a.got = append(a.got, text)
	io.WriteString(w, "ok")
}

func wordpress(a *api, w http.ResponseWriter, r *http.Request, body map[string]any) {
	user, password, _ := r.BasicAuth()
	switch {
	case user != "USER" || password != "APPLICATION PASSWORD":
		answer(w, 401, object{"code": "rest_cannot_create"})
	case r.Method != "POST" || r.URL.Path != "/wp-json/wp/v2/pages" || body["status"] != "draft" || body["title"] == "":
		answer(w, 400, object{"code": "rest_invalid_param"})
	default:
		a.got = append(a.got, fmt.Sprint(body["title"], "|", body["slug"], "|", body["content"]))
		answer(w, 201, object{"id": 7})
	}
}

// gateway is a node, and an admin of it.
type gateway struct {
	t          *testing.T
	url, token string
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	n, err := node.New(t.Context(), node.Options{Broker: "embedded:" + t.TempDir(), Drain: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := n.Shutdown(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	token, err := n.Mint(auth.Mintage{Admin: true, Subject: "test", TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return &gateway{t, n.URL(), token}
}

func (g *gateway) do(method, path, body string, into any) {
	g.t.Helper()
	r, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		g.t.Fatalf("%s %s: %s %s", method, path, resp.Status, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			g.t.Fatal(err)
		}
	}
}

var (
	block = regexp.MustCompile("(?s)```json\n(.*?)```")
	host  = regexp.MustCompile(`https://[A-Za-z0-9.-]+`)
)

// recipe is the JSON of a page, with its hosts at this address.
func recipe(t *testing.T, page, url string) string {
	t.Helper()
	text, err := os.ReadFile(page + ".md")
	if err != nil {
		t.Fatal(err)
	}
	m := block.FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s.md has no JSON", page)
	}
	return host.ReplaceAllString(string(m[1]), url)
}

func TestRecipes(t *testing.T) {
	for _, tc := range []struct {
		page   string
		handle func(*api, http.ResponseWriter, *http.Request, map[string]any)
		events []string // subject and data
		got    string   // as the API took it in, in any order
		dead   string   // ids
	}{
		{"salesforce", salesforce, []string{`"subject":"ann"`, `"subject":"bad"`, `"subject":"locked"`, `"subject":"eve"`, `"id":"none"`}, "ann eve locked", "e2 none"},
		{"hubspot", hubspot, []string{`"subject":"ann"`, `"subject":"bad"`, `"subject":"eve"`}, "ann eve", "e2"},
		{"pipedrive", pipedrive, []string{`"data":{"person_id":42}`, `"data":{"person_id":404}`, `"data":{"person_id":"../deals"}`, `"data":{}`}, "../deals 42", "e2 e4"},
		{"slack", slack, []string{`"data":{"name":"Spring <sale>","sent":1200}`}, "Mailshot Spring <sale> went to 1200 people.", ""},
		{"wordpress", wordpress, []string{`"data":{"name":"Spring","sent":1200}`}, "Spring|mailshot-e1|<p>Sent to 1200 people.</p>", ""},
	} {
		t.Run(tc.page, func(t *testing.T) {
			t.Parallel()
			a := &api{handle: tc.handle}
			server := httptest.NewServer(a)
			defer server.Close()
			g := newGateway(t)
			text := recipe(t, tc.page, server.URL)
			g.do("PUT", "/v1/subscriptions/crm-42", text, nil)
			var said struct{ Types []string }
			if err := json.Unmarshal([]byte(text), &said); err != nil {
				t.Fatal(err)
			}
			var events []string
			for i, e := range tc.events {
				if !strings.Contains(e, `"id"`) {
					e += fmt.Sprintf(`,"id":"e%d"`, i+1)
				}
				events = append(events, fmt.Sprintf(`{"type":%q,%s}`, said.Types[0], e))
			}
			g.do("POST", "/v1/channels/acct-42/events", "["+strings.Join(events, ",")+"]", nil)

			var s struct {
				Status struct {
					Lag  struct{ Events int }
					Dead int
				}
			}
			for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				if g.do("GET", "/v1/subscriptions/crm-42", "", &s); s.Status.Lag.Events == 0 {
					break
				}
				if time.Now().After(deadline) {
					var attempts any
					g.do("GET", "/v1/subscriptions/crm-42/attempts", "", &attempts)
					t.Fatalf("%d events are left; attempts: %v", s.Status.Lag.Events, attempts)
				}
			}
			var letters struct {
				Dead []struct {
					Event  struct{ ID string }
					Reason string
				}
			}
			g.do("GET", "/v1/subscriptions/crm-42/dead", "", &letters)
			var dead []string
			for _, l := range letters.Dead {
				dead = append(dead, l.Event.ID)
			}
			slices.Sort(dead)
			if got := strings.Join(dead, " "); got != tc.dead {
				t.Errorf("dead letters %q, want %q: %v", got, tc.dead, letters.Dead)
			}
			got := a.taken()
			if tc.page != "slack" && tc.page != "wordpress" {
				words := strings.Fields(got)
				slices.Sort(words)
				got = strings.Join(words, " ")
			}
			if got != tc.got {
				t.Errorf("the API took in %q, want %q", got, tc.got)
			}
		})
	}
}
