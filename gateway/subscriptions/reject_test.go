package subscriptions_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/sse"
)

// streams serves event streams on the node of manager.
func (a *api) streams(manager *durable.Manager) (url string) {
	hub := session.NewHub(session.Options{Broker: a.broker, Times: a.broker, Manager: manager, Logger: slog.New(slog.DiscardHandler)})
	server := httptest.NewServer(&sse.Handler{Hub: hub, Verifier: a.auth})
	a.t.Cleanup(func() {
		hub.Close()
		server.Close()
	})
	return server.URL
}

// otherNode is a second node on the same broker.
func (a *api) otherNode() *durable.Manager {
	return durabletest.Run(a.t, durable.Options{Broker: a.broker, Node: "other"})
}

// listen attaches to crm-1; the function it returns reads on until a line of
// the stream matches, and returns what the pattern's group did.
func (a *api) listen(url, token, query string, header ...string) func(pattern string) string {
	a.t.Helper()
	return a.listenTo("crm-1", url, token, query, header...)
}

// listenTo is listen for another subscription.
func (a *api) listenTo(name, url, token, query string, header ...string) func(pattern string) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	a.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", url+"/v1/sse?subscription="+name+query, nil)
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
	a.t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	return func(pattern string) string {
		a.t.Helper()
		re := regexp.MustCompile(pattern)
		for lines.Scan() {
			if m := re.FindStringSubmatch(lines.Text()); m != nil {
				return m[1]
			}
		}
		a.t.Fatalf("the stream ended without %s: %v", pattern, lines.Err())
		return ""
	}
}

// becomes polls until what get returns is as wanted.
func (a *api) becomes(what string, get func() any, want any) {
	a.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := get()
		if got == want {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("%s: got %v, want %v", what, got, want)
		}
	}
}

func TestEventStreamsClientSettlesByRequests(t *testing.T) {
	for _, where := range []string{"on its own node", "on another node"} {
		t.Run(where, func(t *testing.T) {
			a, me := newAPI(t), token(t, customer)
			manager := a.manager
			if where == "on another node" {
				manager = a.otherNode()
			}
			url := a.streams(manager)
			a.append("acct-42", 3)
			a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"start":"earliest"}`)
			next := a.listen(url, me, "&ack=manual")
			connection := next(`"connection":"([^"]+)"`)
			var cursors [4]string // by offset
			for i := 1; i <= 3; i++ {
				cursors[i] = next(fmt.Sprintf(`^id: (acct-42@\w+-%d)$`, i))
			}
			post := func(status int, op, cursor string) {
				t.Helper()
				a.want(status, me, "POST", "/v1/subscriptions/crm-1/"+op,
					fmt.Sprintf(`{"cursor":%q,"connection":%q}`, cursor, connection))
			}
			position := func() any { return a.want(200, me, "GET", "/v1/subscriptions/crm-1", "")["cursor"] }
			dead := func() any {
				list, _ := a.want(200, me, "GET", "/v1/subscriptions/crm-1/dead", "")["dead"].([]any)
				return len(list)
			}
			redrive := func() {
				t.Helper()
				a.want(200, me, "POST", "/v1/subscriptions/crm-1/dead/redrive", `{"all":true}`)
				next(`^id: (` + cursors[3] + `)$`)
			}

			// One from the middle: the position waits for those before it.
			a.want(200, me, "POST", "/v1/subscriptions/crm-1/reject", fmt.Sprintf(`{"cursor":%q,"reason":"no such contact"}`, cursors[3]))
			list, _ := a.want(200, me, "GET", "/v1/subscriptions/crm-1/dead", "")["dead"].([]any)
			if len(list) != 1 || at(list[0].(map[string]any), "event", "cursor") != cursors[3] || at(list[0].(map[string]any), "reason") != "no such contact" {
				t.Fatalf("dead letters are %v, want %s", list, cursors[3])
			}
			if got := position(); got == cursors[3] {
				t.Errorf("position is %v, though nothing else is done", got)
			}
			post(200, "reject", cursors[3]) // again: as if the answer was lost
			post(200, "ack", cursors[2])
			post(200, "reject", cursors[3])
			a.becomes("dead letters", dead, 1)
			post(400, "reject", cursors[1])

			// Put back, it comes again; acknowledged, it is gone.
			redrive()
			post(200, "ack", cursors[3])
			a.becomes("dead letters", dead, 0)
			post(400, "reject", cursors[3])
			a.becomes("position", position, cursors[3])

			// Or it is rejected once more, and stays.
			a.append("acct-42", 1)
			last := next(`^id: (acct-42@\w+-4)$`)
			post(200, "reject", last)
			a.becomes("position", position, last)
			cursors[3] = last
			redrive()
			post(200, "reject", last)
			a.append("acct-42", 1)
			post(200, "ack", next(`^id: (acct-42@\w+-5)$`))
			a.becomes("dead letters", dead, 1)

			// What comes back with its cursor has received it.
			redrive()
			a.listen(url, me, "", "Last-Event-ID", last)
			a.becomes("dead letters", dead, 0)
		})
	}
}

func TestRejectionsThatAreRefused(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	a.append("acct-42", 2)
	start, _ := a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"types":["other"],"start":"earliest"}`)["cursor"].(string)
	first := strings.TrimSuffix(start, "0") + "1"
	for _, test := range []struct {
		name, body, want string
		status           int
	}{
		{"no cursor", `{"reason":"no"}`, "lacks cursor", 400},
		{"no cursor at all", `{"cursor":"x"}`, "cursor", 400},
		{"of two channels", fmt.Sprintf(`{"cursor":"%s,news.a@x-1"}`, first), "one event", 400},
		{"of another channel", `{"cursor":"news.a@x-1"}`, "not of subscription", 400},
		{"beyond the head", fmt.Sprintf(`{"cursor":"%s9"}`, first), "not delivered yet", 400},
		{"the beginning", fmt.Sprintf(`{"cursor":%q}`, start), "not an event", 400},
		{"of another log", `{"cursor":"acct-42@gone-1"}`, "not an event", 400},
		{"of a type that is left out", fmt.Sprintf(`{"cursor":%q}`, first), "not an event", 400},
		{"an unknown field", fmt.Sprintf(`{"cursor":%q,"why":"no"}`, first), "why", 400},
	} {
		out := a.want(test.status, me, "POST", "/v1/subscriptions/crm-1/reject", test.body)
		if detail, _ := out["detail"].(string); !strings.Contains(detail, test.want) {
			t.Errorf("%s: got %q, want %q in it", test.name, detail, test.want)
		}
	}
	a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"types":["t"]}`)
	body := fmt.Sprintf(`{"cursor":%q}`, first)
	a.want(409, me, "POST", "/v1/subscriptions/crm-1/reject", body) // nobody is attached
	a.want(409, me, "POST", "/v1/subscriptions/crm-1/reject", fmt.Sprintf(`{"cursor":%q,"connection":"cabc"}`, first))
	a.want(404, me, "POST", "/v1/subscriptions/crm-2/reject", body)
	a.want(403, token(t, auth.Mintage{Subscribe: []string{"**"}}), "POST", "/v1/subscriptions/crm-1/reject", body)
}

// bury makes dead letters of crm-1 of what a channel's first events would be.
func (a *api) bury(channel string, ids ...string) {
	a.t.Helper()
	for _, id := range ids {
		s, err := a.broker.Load(a.t.Context(), "crm-1")
		if err != nil {
			a.t.Fatal(err)
		}
		l, err := durable.DeadLetter{
			Event:  fmt.Appendf(nil, `{"specversion":"1.0","id":%q,"type":"t","channel":%q,"cursor":"%s@x-%d"}`, id, channel, channel, s.Dead+1),
			Reason: "no", Attempts: 1, Time: time.Now(),
		}.Letter()
		if err != nil {
			a.t.Fatal(err)
		}
		if _, err := a.broker.Bury(a.t.Context(), broker.Burial{Name: "crm-1", Generation: s.Generation, Letters: []broker.Letter{l}}); err != nil {
			a.t.Fatal(err)
		}
	}
}

// letters are the ids of the dead letters that a token sees.
func (a *api) letters(token string) (ids string) {
	a.t.Helper()
	next := ""
	for {
		out := a.want(200, token, "GET", "/v1/subscriptions/crm-1/dead?limit=1&since="+next, "")
		list, _ := out["dead"].([]any)
		for _, l := range list {
			ids += fmt.Sprint(at(l.(map[string]any), "event", "id"), " ")
		}
		if next, _ = out["next"].(string); next == "" {
			return ids
		}
	}
}

// Who has a subscription's name, but not a channel that it had once, is told
// nothing of that channel.
func TestDeadLettersOfAChannelThatIsGone(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	root := token(t, auth.Mintage{Admin: true, Subject: "root"})
	url := a.streams(a.manager)
	a.want(201, root, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42","acct-43"]}`)
	a.bury("acct-43", "secret-1", "secret-2")
	a.bury("acct-42", "mine-1", "mine-2")
	a.bury("acct-43", "secret-3")
	a.want(403, me, "GET", "/v1/subscriptions/crm-1/dead", "")
	if out := a.want(200, root, "POST", "/v1/subscriptions/crm-1/dead/redrive", `{"ids":["secret-1"]}`); out["redriven"] != 1.0 {
		t.Errorf("got %v, want one", out)
	}
	a.want(200, root, "PATCH", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)

	if got := a.letters(me); got != "mine-1 mine-2 " {
		t.Errorf("dead letters are %q, want the two of acct-42", got)
	}
	if got := at(a.want(200, me, "GET", "/v1/subscriptions/crm-1", ""), "status", "dead"); got != 2.0 {
		t.Errorf("%v dead letters are counted, want those two", got)
	}
	if out := a.want(200, me, "POST", "/v1/subscriptions/crm-1/dead/redrive", `{"ids":["secret-2"]}`); out["redriven"] != 0.0 {
		t.Errorf("by id: got %v, want none", out)
	}
	if out := a.want(200, me, "POST", "/v1/subscriptions/crm-1/dead/redrive", `{"all":true}`); out["redriven"] != 2.0 {
		t.Errorf("all: got %v, want two", out)
	}
	// One that was put back before the channel went is not delivered, and the
	// subscription goes on.
	next := a.listen(url, me, "&ack=manual")
	for i := 1; i <= 2; i++ {
		cursor := next(`^id: ([^,]*)$|"cursor":"(?:acct-43)`)
		if !strings.HasPrefix(cursor, "acct-42@") {
			t.Fatalf("got %q, want letters of acct-42", cursor)
		}
	}
	a.append("acct-42", 1)
	last := next(`^id: (acct-42@\w+-1)$`)
	a.want(200, me, "POST", "/v1/subscriptions/crm-1/ack", fmt.Sprintf(`{"cursor":%q}`, last))
	a.becomes("redriven letters", func() any {
		s, err := a.broker.Load(t.Context(), "crm-1")
		if err != nil {
			t.Fatal(err)
		}
		return s.Redriving
	}, 0)
	// Deleting takes those that can be seen. The others are kept: the channel may
	// come back.
	a.bury("acct-42", "mine-3")
	if out := a.want(200, me, "DELETE", "/v1/subscriptions/crm-1/dead", ""); out["deleted"] != 1.0 {
		t.Errorf("got %v, want one deleted", out)
	}
	a.want(200, root, "PATCH", "/v1/subscriptions/crm-1", `{"channels":["acct-42","acct-43"]}`)
	if got := a.letters(root); strings.Count(got, "secret-") != 3 {
		t.Errorf("dead letters are %q, want the three of acct-43", got)
	}
}

// A member of a group that listens rejects by its connection, and its window
// and position go on without the event.
func TestAGroupsMemberRejectsByItsConnection(t *testing.T) {
	for _, where := range []string{"on its own node", "on another node"} {
		t.Run(where, func(t *testing.T) {
			a, me := newAPI(t), token(t, customer)
			manager := a.manager
			if where == "on another node" {
				manager = a.otherNode()
			}
			a.append("acct-42", 2)
			a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"start":"earliest","group":{"partitions":1}}`)
			next := a.listen(a.streams(manager), me, "&ack=manual&consumer=w1")
			connection := next(`"connection":"([^"]+)"`)
			first, second := next(`^id: (acct-42@\w+-1)$`), next(`^id: (acct-42@\w+-2)$`)
			reject := func(status int, more string) {
				t.Helper()
				a.want(status, me, "POST", "/v1/subscriptions/crm-1/reject", fmt.Sprintf(`{"cursor":%q%s}`, first, more))
			}
			reject(400, "")
			reject(409, `,"connection":"c-of-another"`)
			reject(200, fmt.Sprintf(`,"connection":%q,"attempts":3`, connection))
			list, _ := a.want(200, me, "GET", "/v1/subscriptions/crm-1/dead", "")["dead"].([]any)
			if len(list) != 1 || at(list[0].(map[string]any), "event", "cursor") != first {
				t.Fatalf("dead letters are %v, want %s", list, first)
			}
			position := func() any { return a.want(200, me, "GET", "/v1/subscriptions/crm-1", "")["cursor"] }
			a.becomes("position", position, first)
			a.want(200, me, "POST", "/v1/subscriptions/crm-1/ack", fmt.Sprintf(`{"cursor":%q,"connection":%q}`, second, connection))
			a.becomes("position", position, second)
		})
	}
}
