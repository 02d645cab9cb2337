package node

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
)

// tries are how each operation of the description is asked for what is another
// tenant's, as queries or bodies; one of the description that isn't here fails
// the test. NAME, CURSOR and CONNECTION are the other tenant's.
var tries = map[string][]string{
	"POST /v1/channels/{channel}/events":          {`{"type":"t"}`, `[{"type":"t"}]`},
	"POST /v1/events":                             {`{"type":"t","id":"1","channels":["acct-42"]}`, `{"type":"t","id":"1","channels":["acct-43","acct-42"]}`},
	"GET /v1/channels/{channel}/events":           {"?since=earliest", "?since=CURSOR", "?since=earliest&types=**"},
	"GET /v1/channels":                            {"?prefix=acct-42", "?details=true"},
	"GET /v1/channels/{channel}":                  {""},
	"DELETE /v1/channels/{channel}":               {""},
	"GET /v1/channels/{channel}/types":            {""},
	"GET /v1/sse":                                 {"?channel=acct-42&since=earliest", "?channel=acct-43&channel=acct-42", "?channel=acct-43&since=CURSOR", "?subscription=NAME", "?subscription=NAME&consumer=hush-consumer"},
	"GET /v1/ws":                                  {"?channel=acct-42&since=earliest", "?channel=acct-43&since=CURSOR", "?subscription=NAME&consumer=hush-consumer"},
	"GET /v1/token":                               {""},
	"POST /v1/tokens":                             {`{"sub":"hush-creator","admin":true,"ttl":"1h"}`},
	"POST /v1/tokens/revoke":                      {`{"sub":"hush-creator","before":"2100-01-01T00:00:00Z"}`},
	"POST /v1/portal":                             {`{"sub":"hush-creator","subscriptions":["crm-42-*"],"channels":["acct-42"]}`},
	"GET /v1/recipes":                             {""},
	"GET /v1/stats":                               {"", "?node=n1"},
	"GET /v1/nodes":                               {""},
	"POST /v1/nodes/{node}/drain":                 {""},
	"DELETE /v1/nodes/{node}/drain":               {""},
	"GET /v1/connections":                         {"", "?sub=hush-creator", "?channel=acct-42"},
	"DELETE /v1/connections/{id}":                 {""},
	"GET /livez":                                  {""},
	"GET /readyz":                                 {""},
	"GET /v1/openapi.json":                        {""},
	"GET /":                                       {""},
	"GET /console/{part}":                         {""},
	"GET /longline.js":                            {""},
	"GET /portal":                                 {""},
	"GET /v1/subscriptions":                       {"", "?prefix=crm-42", "?label=l=hush-label", "?channel=acct-42", "?state=callback", "?cursor=a&limit=1000"},
	"PUT /v1/subscriptions/{name}":                {`{"channels":["acct-42"]}`, `{"channels":["acct-43"]}`, `{"channels":["acct-43"],"start":"CURSOR"}`},
	"PATCH /v1/subscriptions/{name}":              {`{}`, `{"channels":["acct-43"]}`, `{"callback":null}`},
	"GET /v1/subscriptions/{name}":                {""},
	"DELETE /v1/subscriptions/{name}":             {""},
	"GET /v1/subscriptions/{name}/events":         {"?wait=0s", "?wait=0s&consumer=hush-consumer", "?wait=0s&ack=CURSOR"},
	"DELETE /v1/subscriptions/{name}/events":      {"", "?consumer=hush-consumer"},
	"POST /v1/subscriptions/{name}/ack":           {`{"cursor":"CURSOR"}`, `{"cursor":"CURSOR","connection":"CONNECTION"}`},
	"POST /v1/subscriptions/{name}/reject":        {`{"cursor":"CURSOR"}`, `{"cursor":"CURSOR","connection":"CONNECTION"}`},
	"POST /v1/subscriptions/{name}/seek":          {`{"to":"latest"}`, `{"to":"CURSOR"}`},
	"POST /v1/subscriptions/{name}/pause":         {""},
	"POST /v1/subscriptions/{name}/resume":        {""},
	"GET /v1/subscriptions/{name}/dead":           {""},
	"DELETE /v1/subscriptions/{name}/dead":        {""},
	"POST /v1/subscriptions/{name}/dead/redrive":  {`{"all":true}`, `{"cursors":["CURSOR"]}`},
	"GET /v1/subscriptions/{name}/attempts":       {"", "?cursor=CURSOR"},
	"GET /v1/subscriptions/{name}/trace":          {"?cursor=CURSOR", "?id=hush-id"},
	"POST /v1/subscriptions/{name}/resend":        {`{"cursors":["CURSOR"]}`},
	"POST /v1/subscriptions/{name}/replay":        {`{"from":"earliest"}`, `{"from":"earliest","callback":true}`},
	"POST /v1/subscriptions/{name}/test":          {""},
	"POST /v1/subscriptions/{name}/rotate-secret": {""},
	"POST /v1/backup":                             {""},
}

// How old the oldest event is that waits, and when a call is due, which change
// by themselves.
var ages = regexp.MustCompile(`"seconds":\d+|"next_attempt":"[^"]*",`)

// Whatever a token that isn't theirs asks the gateway for, it is told nothing of
// a tenant's, and changes nothing of it: not with no token, one of another tenant,
// one that has ended, one whose names are nearly theirs, one with the name of the
// subscription but not its channels.
func TestNoTenantIsToldOfAnother(t *testing.T) {
	d := readDescription(t)
	n, end := run(t, Options{Broker: "embedded:" + t.TempDir(), Name: "n1", Drain: time.Second})
	defer end()
	mint := func(m auth.Mintage, at time.Time) string {
		t.Helper()
		m.TTL = time.Hour
		token, err := auth.Mint(n.config.secret, m, at)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	now := time.Now()
	theirs := auth.Mintage{Subject: "hush-creator", Subscribe: []string{"acct-42"}, Publish: []string{"acct-42"}, Subscriptions: []string{"crm-42-*"}}
	owner, ops := mint(theirs, now), mint(auth.Mintage{Subject: "ops", Admin: true}, now)
	nearly := []string{"acct", "acct-4", "acct-42.*", "acct-42.**", "acct-422", "public.**", "acct-43"}
	others := map[string]string{
		"no token":         "",
		"an ended token":   mint(theirs, now.Add(-2*time.Hour)),
		"another tenant":   mint(auth.Mintage{Subject: "customer-43", Subscribe: []string{"acct-43"}, Publish: []string{"acct-43"}, Subscriptions: []string{"crm-43-*"}}, now),
		"a like-named one": mint(auth.Mintage{Subject: "hush", Subscribe: nearly, Publish: nearly, Subscriptions: []string{"crm-42", "crm-42-", "crm-42-mai", "crm-42-main2", "crm-4", "*crm-42", "~r-*", "*-43"}}, now),
		"the name alone":   mint(auth.Mintage{Subject: "customer-43", Subscribe: []string{"acct-43"}, Publish: []string{"acct-43"}, Subscriptions: []string{"*"}}, now),
	}

	ask := func(method, path, token, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, n.URL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		r.Header.Set("Content-Type", "application/json")
		if strings.HasPrefix(path, "/v1/ws") {
			for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
				r.Header.Set(name, value)
			}
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		// A stream, where one began, would not end: what it says at once is enough.
		if kind := resp.Header.Get("Content-Type"); resp.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(kind, "text/event-stream") {
			return resp.StatusCode, ""
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	must := func(method, path, token, body string) string {
		t.Helper()
		status, text := ask(method, path, token, body)
		if status/100 != 2 {
			t.Fatalf("%s %s: %d %s", method, path, status, text)
		}
		return text
	}

	for status := 0; status != 200; status, _ = ask("GET", "/readyz", "", "") {
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}

	// What there is to be told of.
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "hush-answer", http.StatusUnprocessableEntity)
	}))
	defer endpoint.Close()
	must("PUT", "/v1/subscriptions/crm-42-main", owner, fmt.Sprintf(`{"channels":["acct-42"],"description":"hush-description","labels":{"l":"hush-label"},"filter":"event.type != 'hush-filter'",
		"callback":{"url":"%s/hush-url","mode":"always","headers":{"X-Key":"hush-header"},"method":"PUT"}}`, endpoint.URL))
	var published struct{ Events []struct{ Cursor string } }
	if err := json.Unmarshal([]byte(must("POST", "/v1/channels/acct-42/events", owner, `{"type":"hush.type","id":"hush-id","subject":"hush-subject","data":"hush-data"}`)), &published); err != nil {
		t.Fatal(err)
	}
	cursor := published.Events[0].Cursor
	for !strings.Contains(must("GET", "/v1/subscriptions/crm-42-main/dead", owner, ""), "hush-data") ||
		strings.Count(must("GET", "/v1/subscriptions/crm-42-main/attempts", owner, ""), "hush-answer") < 3 { // it is refused three times
		select {
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	must("PUT", "/v1/subscriptions/crm-42-line", owner, `{"channels":["acct-42"]}`)
	var replay struct{ Name string }
	if err := json.Unmarshal([]byte(must("POST", "/v1/subscriptions/crm-42-main/replay", owner, `{"from":"earliest"}`)), &replay); err != nil {
		t.Fatal(err)
	}
	line, err := http.Get(n.URL() + "/v1/sse?subscription=crm-42-line&consumer=hush-consumer&access_token=" + owner)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Body.Close()
	var hello struct{ Connection string }
	for lines := bufio.NewScanner(line.Body); hello.Connection == "" && lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &hello); err != nil {
				t.Fatal(err)
			}
		}
	}
	state := func() string {
		var all strings.Builder
		for _, path := range []string{"/v1/subscriptions", "/v1/subscriptions/crm-42-main/dead", "/v1/subscriptions/crm-42-main/attempts", "/v1/channels/acct-42/events?since=earliest", "/v1/channels/acct-42"} {
			all.WriteString(must("GET", path, owner, ""))
		}
		all.WriteString(must("GET", "/v1/connections", ops, ""))
		return ages.ReplaceAllString(all.String(), "")
	}
	before := state()
	for _, secret := range []string{"data", "type", "subject", "description", "label", "filter", "url", "answer", "consumer", "creator"} {
		if !strings.Contains(before, "hush-"+secret) && !strings.Contains(before, "hush."+secret) {
			t.Fatalf("their own %s isn't there to be told: %s", secret, before)
		}
	}

	names := []string{"crm-42-main", "crm-42-line", replay.Name}
	for path, methods := range d.paths {
		for method := range methods {
			operation := method + " " + path
			asked, ok := tries[operation]
			if !ok {
				t.Errorf("%s: nobody tried to be told of another's by it; say how, among tries", operation)
			}
			open := d.paths[path][method]["401"] == nil
			for _, name := range names {
				for _, with := range asked {
					fill := strings.NewReplacer("NAME", url.QueryEscape(name), "CURSOR", cursor, "CONNECTION", hello.Connection,
						"{name}", url.PathEscape(name), "{channel}", "acct-42", "{node}", "n1", "{id}", hello.Connection, "{part}", "page.js")
					to, body := path, with
					if strings.HasPrefix(with, "?") {
						to, body = path+with, ""
					}
					to, body = fill.Replace(to), fill.Replace(body)
					for who, token := range others {
						status, text := ask(method, to, token, body)
						ended := token == "" || who == "an ended token"
						switch {
						case !open && ended && status != 401:
							t.Errorf("%s, %s %s %s: %d %.300s, want 401", who, method, to, body, status, text)
						case status >= 500 && path != "/readyz":
							t.Errorf("%s, %s %s %s: %d %.300s", who, method, to, body, status, text)
						case strings.Contains(text, "hush") && !strings.Contains(who, "like-named"), strings.Contains(text, "hush-"), strings.Contains(text, "hush."):
							t.Errorf("%s, %s %s %s is told of another's: %d %.600s", who, method, to, body, status, text)
						case strings.Contains(path, "/{") && status/100 == 2 && path != "/console/{part}":
							t.Errorf("%s, %s %s %s: %d %.300s, want it refused", who, method, to, body, status, text)
						}
					}
				}
				if !strings.Contains(path+fmt.Sprint(asked), "{name}") && !slices.ContainsFunc(asked, func(s string) bool { return strings.Contains(s, "NAME") }) {
					break
				}
			}
		}
	}
	if after := state(); after != before {
		t.Errorf("they were changed by others:\n%s\nwere:\n%s", after, before)
	}
}
