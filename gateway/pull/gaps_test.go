package pull_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// says pulls and wants what is behind the events of the answer.
func (g *gateway) says(query, want string) {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), "GET", g.URL+"/v1/subscriptions/crm/events?max=2&"+query, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	from := len(text)
	for i := range text {
		if text[i] == ']' && string(text[i:min(i+10, len(text))]) == `],"cursor"` {
			from = i
		}
	}
	got := string(text[from:])
	if i := strings.Index(got, `,"held_until"`); i >= 0 { // a time: TestHoldIsToldAndGivenUp
		got = got[:i] + "}\n"
	}
	if got != want+"}\n" {
		g.t.Fatalf("pull %s: got %s, want %s", query, got, want)
	}
}

func TestAPullTellsOfAGapUntilThatIsAcknowledged(t *testing.T) {
	g := newGateway(t)
	g.publish("wanted", 2) // 2, 3
	lost := event.Cursor{Channel: "a", Epoch: "zzz", Offset: 7}
	err := g.manager.Change(t.Context(), "crm", func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Seek(s, event.Position{lost}, force, env)
	})
	if err != nil {
		t.Fatal(err)
	}
	gap := fmt.Sprintf(`],"cursor":%q,"gaps":[{"channel":"a","from":%q,"to":%q,"reason":"reset"}]`, g.cursor(3), lost, g.cursor(0))
	// A seek leaves it open what was delivered before: a window at most.
	again := fmt.Sprintf(`,"redelivery":{"cursor":%q}`, g.cursor(3))
	g.says("", gap+again)
	g.says("", gap+again)
	s, err := g.manager.Load(t.Context(), "crm")
	if err != nil || s.Position.String() != lost.String() {
		t.Errorf("position %s, %v: it moved past a gap that nobody acknowledged", s.Position, err)
	}
	g.says(ack(g.cursor(3)), fmt.Sprintf(`],"cursor":%q`, g.cursor(3)))
}

func TestAPullTellsWhatWasDeliveredBefore(t *testing.T) {
	g := newGateway(t)
	g.publish("wanted", 4) // 2 to 5
	g.says("", fmt.Sprintf(`],"cursor":%q`, g.cursor(3)))
	g.says(ack(g.cursor(2)), fmt.Sprintf(`],"cursor":%q,"redelivery":{"cursor":%q}`, g.cursor(4), g.cursor(3)))
	g.says(ack(g.cursor(4)), fmt.Sprintf(`],"cursor":%q`, g.cursor(5)))
}
