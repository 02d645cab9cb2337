package subscriptions_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// publishOf appends an event of each partition named.
func (a *api) publishOf(channel string, of int, partitions ...int) {
	a.t.Helper()
	for i, p := range partitions {
		key := ""
		for n := 0; key == "" || event.Partition(key, "", "", of) != p; n++ {
			key = fmt.Sprint("k", n)
		}
		f := event.Fields{ID: fmt.Sprint("p", i), Source: "/s", Type: "t", Key: key, Data: []byte(`1`)}
		if _, err := a.broker.Append(a.t.Context(), channel, []broker.Entry{{Data: f.AppendStored(nil)}}); err != nil {
			a.t.Fatal(err)
		}
	}
}

// TestGroupIsShown: GET says who shares a subscription, and how far each
// partition is.
func TestGroupIsShown(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	url, other := a.streams(a.manager), a.streams(a.otherNode())
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"group":{"partitions":2}}`)
	if out := a.want(200, me, "GET", "/v1/subscriptions/crm-1", ""); at(out, "status", "members") != nil || at(out, "status", "partitions") != nil {
		t.Errorf("nobody has attached yet, and status is %v", at(out, "status"))
	}
	one := a.listen(url, me, "&ack=manual&consumer=one")
	connection := one(`"connection":"([^"]+)"`)
	two := a.listen(other, me, "&ack=manual&consumer=two")
	two(`"partitions":\[(1)\]`)
	one(`"partitions":\[(0)\]`)
	a.publishOf("acct-42", 2, 1, 0, 0)
	first, second := one(`^id: (acct-42@\w+-2)$`), one(`^id: (acct-42@\w+-3)$`)
	a.want(200, me, "POST", "/v1/subscriptions/crm-1/ack", fmt.Sprintf(`{"cursor":%q,"connection":%q,"partition":0}`, second, connection))

	out := a.want(200, me, "GET", "/v1/subscriptions/crm-1", "")
	var members, partitions []string
	list, _ := at(out, "status", "members").([]any)
	for _, m := range list {
		m := m.(map[string]any)
		members = append(members, fmt.Sprint(m["consumer"], " by ", m["transport"], ": ", m["partitions"]))
		if m["since"] == nil || m["node"] == "" {
			t.Errorf("member %v lacks since or node", m)
		}
	}
	list, _ = at(out, "status", "partitions").([]any)
	for _, p := range list {
		p := p.(map[string]any)
		partitions = append(partitions, fmt.Sprint(p["partition"], " of ", p["consumer"], ", behind ", at(p, "lag", "events")))
		if !strings.HasPrefix(fmt.Sprint(p["cursor"]), "acct-42@") {
			t.Errorf("partition %v lacks its cursor", p)
		}
	}
	if got := fmt.Sprint(members); got != "[one by sse: [0] two by sse: [1]]" {
		t.Errorf("members: %s", got)
	}
	if got := fmt.Sprint(partitions); got != "[0 of one, behind 0 1 of two, behind 3]" {
		t.Errorf("partitions: %s", got)
	}
	if at(out, "status", "state") != "live" || at(out, "cursor") == second || at(out, "cursor") == first {
		t.Errorf("state %v at %v, want live at the least", at(out, "status", "state"), at(out, "cursor"))
	}
	for body, says := range map[string]string{
		fmt.Sprintf(`{"cursor":%q}`, second):                                           "the body lacks connection",
		fmt.Sprintf(`{"cursor":%q,"connection":%q,"partition":2}`, second, connection): "partition is 2",
	} {
		if out := a.want(400, me, "POST", "/v1/subscriptions/crm-1/ack", body); !strings.Contains(fmt.Sprint(out["detail"]), says) {
			t.Errorf("ack %s: %v, want %q", body, out["detail"], says)
		}
	}
	a.want(409, me, "POST", "/v1/subscriptions/crm-1/ack", fmt.Sprintf(`{"cursor":%q,"connection":"nobody"}`, second))
}

func TestOrderOfAGroupsCallback(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	out := a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"group":{"partitions":2},"callback":{"url":"http://127.0.0.1:9/x"}}`)
	if at(out, "callback", "order") != "key" {
		t.Errorf("order is %v where none was given, want key", at(out, "callback", "order"))
	}
	a.want(400, me, "PATCH", "/v1/subscriptions/crm-1", `{"callback":{"order":"channel"}}`)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-2", `{"channels":["acct-42"],"callback":{"url":"http://127.0.0.1:9/x"}}`)
	out = a.want(200, me, "PATCH", "/v1/subscriptions/crm-2", `{"group":{"partitions":2}}`)
	if at(out, "callback", "order") != "key" {
		t.Errorf("once it is shared order is %v, want key", at(out, "callback", "order"))
	}
}

// A group that has all the members it takes refuses another consumer with 429.
func TestOneMemberTooMany(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	url := a.streams(a.manager)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"group":{"partitions":1}}`)
	far := broker.Node{ID: "far", Name: "far", Started: time.Now()}
	if err := a.broker.Join(t.Context(), far, time.Hour); err != nil {
		t.Fatal(err)
	}
	err := a.manager.Change(t.Context(), "crm-1", func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) {
		for i := range durable.MaxMembers {
			s.Members = append(s.Members, durable.Owner{Node: far.ID, Connection: fmt.Sprint(i), Consumer: fmt.Sprint(i), Kind: durable.Live})
		}
		return durable.Change{Record: s.Record, Generation: s.Generation}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	status, text := get(t, url+"/v1/sse?subscription=crm-1&ack=manual&consumer=late", me)
	if status != 429 || !strings.Contains(text, "256 members") {
		t.Errorf("one too many: %d %s, want 429 that says how many", status, text)
	}
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "application/problem+json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
