package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
)

// TestConnectionsOfAnotherNodeAreListed, by whichever node is asked.
func TestConnectionsOfAnotherNodeAreListed(t *testing.T) {
	b := openBroker(t)
	one, two := newTestNode(t, setup{broker: b, name: "one"}), newTestNode(t, setup{broker: b, name: "two"})
	for _, sub := range []string{"reader", "writer"} {
		two.listen("channel=c", mint(t, auth.Mintage{Subject: sub, Subscribe: []string{"c"}})).want("longline.hello")
	}
	var list struct {
		Node        string
		Total       int
		Connections []struct{ Sub string }
	}
	asked := func(query string, status int) (got reply) {
		t.Helper()
		// A node on a busy machine may take too long to answer.
		until(t, "it is answered", func() bool { got = one.get("/v1/connections?"+query, admin(t)); return got.status == status })
		return got
	}
	if err := json.Unmarshal([]byte(asked("node=two&sub=reader", 200).body), &list); err != nil {
		t.Fatal(err)
	}
	if list.Node != "two" || list.Total != 1 || len(list.Connections) != 1 || list.Connections[0].Sub != "reader" {
		t.Errorf("of the reader: %+v", list)
	}
	if err := json.Unmarshal([]byte(asked("node=two&limit=1", 200).body), &list); err != nil {
		t.Fatal(err)
	}
	if list.Total != 2 || len(list.Connections) != 1 {
		t.Errorf("one of them: %+v", list)
	}
	if got := asked("node=one", 200).body; !strings.Contains(got, `"node":"one","total":0,"connections":[]`) {
		t.Errorf("its own: %s", got)
	}
	if r := asked("node=three", 404); !strings.Contains(r.detail(t), `no node "three"`) {
		t.Errorf("nobody's: %s", r.body)
	}
	// A node that is heard of and says nothing.
	until(t, "it is said that it didn't answer", func() bool {
		f := event.Fields{ID: event.FormatTime(time.Now()), Source: "/nodes/mute", Type: "longline.node.probe", Data: []byte(`{"node":"mute"}`)}
		if _, err := b.Append(t.Context(), gateway.NodesChannel, []broker.Entry{{Data: f.AppendStored(nil)}}); err != nil {
			t.Fatal(err)
		}
		r := one.get("/v1/connections?node=mute", admin(t))
		return r.status == 503 && strings.Contains(r.detail(t), `node "mute" did not answer`)
	})
}
