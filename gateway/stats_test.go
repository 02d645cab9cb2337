package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/stats"
)

// TestStatsCoverAllNodes: each tells the others, whichever is asked.
func TestStatsCoverAllNodes(t *testing.T) {
	shared := openBroker(t)
	has := func(lines float64) func() stats.Totals {
		return func() stats.Totals { return stats.Totals{"websocket": lines} }
	}
	a := newTestNode(t, setup{name: "a", broker: shared, totals: has(3)})
	b := newTestNode(t, setup{name: "b", broker: shared, totals: has(4)})
	highest := func(n *testNode, query string) (most float64) {
		var shown stats.Shown
		r := n.get("/v1/stats"+query, admin(t))
		if err := json.Unmarshal([]byte(r.body), &shown); r.status != 200 || err != nil {
			return 0 // the other node isn't known yet
		}
		for _, p := range shown.Series["websocket"] {
			if p != nil {
				most = max(most, *p)
			}
		}
		return most
	}
	for _, n := range []*testNode{a, b} {
		until(t, "each node knows of both", func() bool { return highest(n, "?span=5m") == 7 })
		if one, other := highest(n, "?node=a"), highest(n, "?node=b&span=24h"); one != 3 || other != 4 {
			t.Errorf("alone they have %v and %v, want 3 and 4", one, other)
		}
	}
}

func TestStatsSayWhatTheyTake(t *testing.T) {
	n := newTestNode(t, setup{})
	for query, want := range map[string]string{
		"?span=2h":     `span is "2h"; want one of ["5m" "1h" "24h"]`,
		"?node=nobody": `nothing is known of node "nobody"`,
	} {
		if r := n.get("/v1/stats"+query, admin(t)); r.status != 400 || !strings.Contains(r.detail(t), want) {
			t.Errorf("%s: %d %s", query, r.status, r.body)
		}
	}
}
