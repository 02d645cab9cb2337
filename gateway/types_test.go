package gateway_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/auth"
)

func TestTypesSeenAreThoseOfTheNewestEvents(t *testing.T) {
	n := newTestNode(t, setup{})
	clicked := n.publish("acct-42", "email.opened", "email.opened", "email.clicked")
	opened := n.publish("acct-42", "email.opened")
	types := func(query, token string) string {
		r := n.get("/v1/channels/acct-42/types"+query, token)
		var got struct {
			Types []struct {
				Type   string
				Events int
				Last   string
			}
			Events int
		}
		if err := json.Unmarshal([]byte(r.body), &got); r.status != 200 || err != nil {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return fmt.Sprint(got)
	}
	reader := mint(t, auth.Mintage{Subject: "reader", Subscribe: []string{"public.**"}})
	if got, want := types("", admin(t)), fmt.Sprintf("{[{email.opened 3 %s} {email.clicked 1 %s}] 4}", opened, clicked); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := types("?limit=1", admin(t)), fmt.Sprintf("{[{email.opened 1 %s}] 1}", opened); got != want {
		t.Errorf("of the last: got %s, want %s", got, want)
	}
	if r := n.get("/v1/channels/acct-42/types", reader); r.status != 403 || !strings.Contains(r.detail(t), "may not subscribe") {
		t.Errorf("without the right: %d %s", r.status, r.body)
	}
	if r := n.get("/v1/channels/none/types", admin(t)); r.status != 404 {
		t.Errorf("no channel: %d %s", r.status, r.body)
	}
}
