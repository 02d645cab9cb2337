package ws_test

import (
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/ws"
)

// A token's channels are counted whichever way its connections have them.
func TestADurableSessionsChannelsAreTheTokensToo(t *testing.T) {
	d := newDurablesWithin(t, quota.New(quota.Limits{TokenChannels: 2}, nil))
	d.put(t, "")
	first := d.attach(t, "consumer=x")
	second := d.open(t, "consumer=y")
	wantFrame(t, second, `"op":"standby"`)
	mine := token(t, auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm"}})
	if _, resp, err := d.dial(t, "subscription=crm&consumer=z", mine, ws.Protocol); err == nil || resp.StatusCode != 429 {
		t.Fatalf("a third channel: %v, want 429", err)
	}
	first.CloseNow()
	wantFrame(t, second, `"op":"hello"`)
	for d.hub.Count() > 1 {
		<-time.After(time.Millisecond)
	}
	fourth := d.open(t, "consumer=z")
	wantFrame(t, fourth, `"op":"standby"`)
}
