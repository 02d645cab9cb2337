package subscriptions_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
)

// record keeps an attempt as a node's history does.
func (a *api) record(name string, at time.Time, status int, cursors ...string) {
	a.t.Helper()
	data, err := json.Marshal(callback.Attempt{Time: at, Status: status, Method: "POST", URL: "https://crm.example.com/", Cursors: cursors, IDs: cursors})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := a.broker.Record(a.t.Context(), []broker.Attempt{{Name: name, Time: at, Data: data}}); err != nil {
		a.t.Fatal(err)
	}
}

// attemptsOf reads a page as "status:cursors status:cursors" and its next.
func (a *api) attemptsOf(token, name string, query ...string) (list, next string) {
	a.t.Helper()
	q := url.Values{}
	for i := 0; i < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	out := a.want(200, token, "GET", "/v1/subscriptions/"+name+"/attempts?"+q.Encode(), "")
	var texts []string
	for _, v := range out["attempts"].([]any) {
		t := v.(map[string]any)
		status, _ := t["status"].(float64)
		var offsets []string
		for _, c := range t["cursors"].([]any) {
			offsets = append(offsets, c.(string)[strings.LastIndex(c.(string), "-")+1:])
		}
		texts = append(texts, fmt.Sprintf("%v:%s", status, strings.Join(offsets, "+")))
	}
	next, _ = out["next"].(string)
	return strings.Join(texts, " "), next
}

// What was tried is shown newest first, page by page, of the channels that the
// subscription has.
func TestAttempts(t *testing.T) {
	a := newAPI(t)
	mine := token(t, customer)
	a.want(201, mine, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)
	began := time.Now().UTC().Add(-time.Hour).Truncate(time.Millisecond)
	minute := func(n int) time.Time { return began.Add(time.Duration(n) * time.Minute) }
	a.record("crm-1", minute(0), 200, "acct-42@x-1")
	a.record("crm-1", minute(1), 503, "acct-42@x-2", "acct-42@x-3")
	a.record("crm-1", minute(2), 0, "acct-42@x-2")
	a.record("crm-1", minute(3), 200, "acct-7@x-9") // of a channel that it had once
	a.record("crm-1", minute(4), 204, "acct-42@x-12")

	for _, test := range []struct {
		story string
		query []string
		want  string
	}{
		{"all", nil, "204:12 0:2 503:2+3 200:1"},
		{"of one status", []string{"status", "503"}, "503:2+3"},
		{"of a class", []string{"status", "2xx"}, "204:12 200:1"},
		{"without an answer", []string{"status", "0"}, "0:2"},
		{"of one event", []string{"cursor", "acct-42@x-2"}, "0:2 503:2+3"},
		{"of an event that another's cursor begins with", []string{"cursor", "acct-42@x-1"}, "200:1"},
		{"since a time", []string{"since", minute(2).Format(time.RFC3339)}, "204:12 0:2"},
	} {
		if got, next := a.attemptsOf(mine, "crm-1", test.query...); got != test.want || next != "" {
			t.Errorf("%s: got %q and next %q, want %q and no next", test.story, got, next, test.want)
		}
	}
	first, next := a.attemptsOf(mine, "crm-1", "limit", "3")
	rest, end := a.attemptsOf(mine, "crm-1", "limit", "3", "page", next)
	if first != "204:12 0:2 503:2+3" || next == "" || rest != "200:1" || end != "" {
		t.Errorf("pages of three: got %q, next %q, %q, next %q", first, next, rest, end)
	}

	for query, want := range map[string]string{
		"since=yesterday": "RFC 3339", "status=20": "100 to 599", "status=9xx": "5xx", "cursor=acct-42": "one event",
		"page=x": "next of an earlier answer", "limit=0": "1 to 1000",
	} {
		out := a.want(400, mine, "GET", "/v1/subscriptions/crm-1/attempts?"+query, "")
		if detail := fmt.Sprint(out["detail"]); !strings.Contains(detail, want) {
			t.Errorf("%s: got %q, want it to say %q", query, detail, want)
		}
	}
	a.want(403, token(t, auth.Mintage{Subscribe: []string{"news.**"}, Subscriptions: []string{"crm-*"}}), "GET", "/v1/subscriptions/crm-1/attempts", "")
}

// The note of whoever owns a callback may be old: an attempt that it says is due
// has been made since.
func TestAnAttemptThatWasMadeIsNotDue(t *testing.T) {
	a := newAPI(t)
	mine := token(t, customer)
	a.want(201, mine, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"callback":{"url":"https://example.com/"}}`)
	for _, test := range []struct {
		due   time.Duration
		shown bool
	}{{-time.Minute, false}, {time.Minute, true}} {
		at := time.Now().Add(test.due)
		note, err := json.Marshal(callback.Note{Status: callback.Status{Breaker: "closed", NextAttempt: &at}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := a.broker.Load(t.Context(), "crm-1")
		if err != nil {
			t.Fatal(err)
		}
		if err := a.broker.SetNote(t.Context(), "crm-1", s.Generation, note); err != nil {
			t.Fatal(err)
		}
		status := a.want(200, mine, "GET", "/v1/subscriptions/crm-1", "")["status"].(map[string]any)["callback"].(map[string]any)
		if _, shown := status["next_attempt"]; shown != test.shown {
			t.Errorf("an attempt due in %v: %v", test.due, status)
		}
	}
}
