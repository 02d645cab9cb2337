package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// A replay is made by the command line, listened to like any subscription, and
// whoever listens or looks on ends with it.
func TestReplayByCommandLine(t *testing.T) {
	for _, transport := range []string{"websocket", "sse"} {
		newCLIGateway(t)
		mustRun(t, "sub", "put", "crm-42", "--channel", "acct-42")
		for id := 1; id <= 3; id++ {
			mustRun(t, "publish", "acct-42", "--type", "email.opened", "--id", fmt.Sprint(id))
		}
		following, said, _ := background(t, "sub", "replay", "crm-42", "--from", "earliest", "--filter", "event.id != '2'", "--follow")
		waitUntil(t, "the replay's name is printed", func() bool { return strings.Contains(strings.Join(following.lines(), ""), "}") })
		var made struct{ Name string }
		if err := json.Unmarshal([]byte(strings.Join(following.lines(), "")), &made); err != nil || !strings.HasPrefix(made.Name, "crm-42~r-") {
			t.Fatalf("got %v (%v), want the name of a replay", following.lines(), err)
		}
		waitUntil(t, "it is said how far it is", func() bool { return strings.Contains(strings.Join(said.lines(), ""), "3 events to go, offline") })
		stdout := mustRun(t, "listen", "--subscription", made.Name, "--transport", transport)
		if strings.Count(stdout, `"id"`) != 2 {
			t.Errorf("%s: got %s, want events 1 and 3, and an end", transport, stdout)
		}
		waitUntil(t, "it is said that it is complete", func() bool { return strings.Contains(strings.Join(said.lines(), ""), made.Name+" is complete") })
	}
}
