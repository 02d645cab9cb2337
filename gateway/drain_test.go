package gateway_test

import (
	"strings"
	"testing"
)

// TestAnOperatorDrainsANodeAndTakesItBack, by whichever node is asked.
func TestAnOperatorDrainsANodeAndTakesItBack(t *testing.T) {
	shared := openBroker(t)
	a := newTestNode(t, setup{name: "a", broker: shared})
	b := newTestNode(t, setup{name: "b", broker: shared})
	a.publish("acct-42", "email.opened")
	line := a.listen("channel=acct-42&since=earliest", admin(t))
	line.want("email.opened")
	until(t, "b knows a", func() bool { return strings.Contains(b.get("/v1/nodes", admin(t)).body, `"a"`) })

	if r := b.do("POST", "/v1/nodes/a/drain", admin(t), ""); r.status != 202 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	line.want(`"reason":"restart"`)
	until(t, "the others see it", func() bool {
		return strings.Contains(b.get("/v1/nodes", admin(t)).body, `"draining":true`)
	})
	if r := a.get("/readyz", ""); r.status != 503 || !strings.Contains(r.detail(t), "draining") {
		t.Errorf("drained: %d %s", r.status, r.body)
	}
	if r := a.get("/v1/channels/acct-42", admin(t)); r.status != 200 {
		t.Errorf("a drained node goes on answering requests: %d", r.status)
	}

	if r := a.do("DELETE", "/v1/nodes/a/drain", admin(t), ""); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	a.listen("channel=acct-42&since=earliest", admin(t)).want("email.opened")
	until(t, "it is ready", func() bool { return a.get("/readyz", "").status == 200 })
	if r := a.do("POST", "/v1/nodes/c/drain", admin(t), ""); r.status != 404 || !strings.Contains(r.detail(t), `no node "c"`) {
		t.Errorf("nobody: %d %s", r.status, r.body)
	}
}
