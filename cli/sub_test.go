package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	longline "github.com/longline-push/longline/client/go"
)

func TestSubscriptionsByCommandLine(t *testing.T) {
	newCLIGateway(t)
	made := mustRun(t, "sub", "put", "crm-42", "--channel", "acct-42", "--types", "email.*", "--start", "earliest", "--window", "64")
	var definition struct {
		Channels, Types []string
		Window          int
	}
	if err := json.Unmarshal([]byte(made), &definition); err != nil || len(definition.Channels) != 1 || definition.Types[0] != "email.*" || definition.Window != 64 {
		t.Fatalf("put printed %s (%v)", made, err)
	}
	mustRunWith(t, `{"channels":["acct-43"],"start":"earliest"}`, "sub", "put", "crm-43", "--definition", "-")
	if listed := strings.TrimSpace(mustRun(t, "sub", "list", "--prefix", "crm-")); strings.Count(listed, "\n") != 1 || !strings.Contains(listed, "crm-43") {
		t.Errorf("list printed %s, want two lines", listed)
	}

	for id := 1; id <= 3; id++ {
		mustRun(t, "publish", "acct-42", "--type", "email.opened", "--id", fmt.Sprint(id))
	}
	mustRun(t, "publish", "acct-42", "--type", "sms.sent", "--id", "4")

	stdout, _, end := background(t, "listen", "--subscription", "crm-42")
	waitUntil(t, "three events are printed", func() bool { return len(stdout.lines()) == 3 })
	waitUntil(t, "the subscription is live", func() bool { return strings.Contains(mustRun(t, "sub", "get", "crm-42"), `"live"`) })
	if err := end(); err != nil {
		t.Errorf("listen ended with %v", err)
	}
	// Acknowledged: another listener gets only what is new.
	mustRun(t, "publish", "acct-42", "--type", "email.opened", "--id", "5")
	stdout, _, end = background(t, "listen", "--subscription", "crm-42", "--transport", "sse")
	waitUntil(t, "the new event is printed", func() bool { return len(stdout.lines()) > 0 })
	if first := stdout.lines()[0]; !strings.Contains(first, `"id":"5"`) {
		t.Errorf("got %s, want event 5", first)
	}
	end()

	// Again from the start, forwarded; the one refused is a dead letter.
	mustRun(t, "sub", "seek", "crm-42", "earliest")
	const secret = "whsec_YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s="
	var fixed atomic.Bool
	r := newReceiver(t, secret, func(e longline.Event, _ string) int {
		if e.ID == "2" && !fixed.Load() {
			return http.StatusUnprocessableEntity
		}
		return http.StatusOK
	})
	_, _, end = background(t, "listen", "--subscription", "crm-42", "--forward-to", r.URL, "--secret", secret)
	waitUntil(t, "one dead letter is there", func() bool { return strings.Contains(mustRun(t, "sub", "dead", "crm-42"), `"id":"2"`) })
	waitUntil(t, "the last event is forwarded", func() bool { ids := r.ids(); return ids[len(ids)-1] == "5" })
	fixed.Store(true)
	mustRun(t, "sub", "redrive", "crm-42", "2")
	waitUntil(t, "no dead letter is left", func() bool { return mustRun(t, "sub", "dead", "crm-42") == "" })
	if got, want := strings.Join(r.ids(), " "), "1 2 2 2 3 5 2"; got != want {
		t.Errorf("forwarded %s, want %s", got, want)
	}
	end()

	mustRun(t, "sub", "pause", "crm-42")
	if got := mustRun(t, "sub", "get", "crm-42"); !strings.Contains(got, `"paused"`) {
		t.Errorf("paused: got %s", got)
	}
	mustRun(t, "sub", "resume", "crm-42")
	mustRun(t, "sub", "delete", "crm-42")
	var quiet screen
	if err := Run(t.Context(), []string{"sub", "get", "crm-42"}, strings.NewReader(""), &quiet, &quiet); err == nil || !strings.Contains(err.Error(), "not_found") {
		t.Errorf("deleted: got %v, want not_found", err)
	}
}
