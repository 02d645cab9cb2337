package subscriptions_test

import (
	"fmt"
	"testing"
)

// Whoever pulls, or acknowledges by request and names no connection, may speak of
// what he was given before the position was moved back. That doesn't undo it;
// what he was given since counts, and so does what was published since.
func TestSeekIsNotUndoneByALateAck(t *testing.T) { onBoth(t, seekIsNotUndone) }

func seekIsNotUndone(t *testing.T, a *api) {
	me, puller := token(t, customer), a.pulls()
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)
	a.append("acct-42", 6) // e0 to e5
	pull := func(query, want string) (cursor any) {
		t.Helper()
		status, out := puller.call(me, "GET", "/v1/subscriptions/crm-1/events?"+query, "")
		events, _ := out["events"].([]any)
		var got []any
		for _, e := range events {
			got = append(got, at(e.(map[string]any), "id"))
		}
		if status != 200 || fmt.Sprint(got) != want {
			t.Fatalf("pull %s: %d %v, want %s", query, status, out, want)
		}
		return out["cursor"]
	}
	post := func(status int, cursor any) {
		t.Helper()
		a.want(status, me, "POST", "/v1/subscriptions/crm-1/ack", fmt.Sprintf(`{"cursor":%q}`, cursor))
	}
	shown := func(want string) {
		t.Helper()
		if _, out := a.call(me, "GET", "/v1/subscriptions/crm-1", ""); out["cursor"] != want {
			t.Errorf("shown at %v, want %s", out["cursor"], want)
		}
	}
	back := func() {
		t.Helper()
		a.want(200, me, "POST", "/v1/subscriptions/crm-1/seek", `{"to":"earliest"}`)
	}
	old := pull("max=6", "[e0 e1 e2 e3 e4 e5]")
	back()
	post(409, old)
	shown(a.cursor(0))
	first := pull("max=2&hold=1h&ack="+fmt.Sprint(old), "[e0 e1]")
	post(409, old) // the one who holds it now was not given that
	shown(a.cursor(0))
	pull("max=2&hold=1h&ack="+fmt.Sprint(old), "[e0 e1]")
	post(200, first)
	second := pull("max=2&hold=0s&ack="+fmt.Sprint(first), "[e2 e3]")
	a.becomes("nobody's", func() any {
		_, out := a.call(me, "GET", "/v1/subscriptions/crm-1", "")
		return at(out, "status", "state")
	}, "offline")
	post(409, old)
	third := pull("max=2&hold=0s&ack="+fmt.Sprint(second), "[e4 e5]") // given since, if by nobody who has it now
	post(200, third)
	shown(a.cursor(6))

	back()
	a.append("acct-42", 1)
	post(200, a.cursor(7)) // no late one can speak of that
	shown(a.cursor(7))
	a.append("acct-42", 2)
	late := pull("max=2&hold=1h", "[e0 e1]")
	a.want(200, me, "PATCH", "/v1/subscriptions/crm-1", `{"types":["t","u"]}`)
	post(409, late)
	shown(a.cursor(7))
}
