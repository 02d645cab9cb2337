package ws_test

import (
	"net/http/httptest"
	"testing"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/feed/feedtest"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/ws"
)

// A window is full when the log is forked. What is acknowledged on its behalf in
// the new epoch, by somebody who got there by himself, makes room all the same.
func TestAFullWindowIsAcknowledgedPastAFork(t *testing.T) {
	log, b := feedtest.New(), durabletest.Open(t)
	manager := durabletest.Run(t, durable.Options{Broker: b, Logs: log, Node: "n1"})
	hub := session.NewHub(session.Options{Broker: log, Times: log, Node: "n1", Manager: manager})
	server := httptest.NewServer(&ws.Handler{Hub: hub, Verifier: authtest.Verifier(t, auth.Options{})})
	t.Cleanup(func() {
		hub.Close()
		server.Close()
	})
	d := &durables{gateway: gateway{Server: server, hub: hub}, broker: b, manager: manager, epoch: "e1"}
	log.Append("a", "t", "", "1", "2", "3")
	definition, err := durable.ParseDefinition([]byte(`{"channels":["a"],"window":3}`))
	if err != nil {
		t.Fatal(err)
	}
	d.change(t, func(_ durable.State, _ bool, env durable.Env) (durable.Change, error) {
		_, c := durable.Create("crm", durable.Record{Definition: definition}, event.Position{{Channel: "a", Epoch: "e1"}}, env)
		return c, nil
	})
	c := d.attach(t, "")
	d.wantEvents(t, c, 1, 2, 3)
	d.wantQuiet(t, c)

	log.Fork("a", 3)
	d.epoch = "e2"
	log.Append("a", "t", "", "4")
	d.wantQuiet(t, c)
	s, err := manager.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	to := event.Position{{Channel: "a", Epoch: "e2", Offset: 3}}
	if err := manager.Ack(t.Context(), s, to, to, ""); err != nil {
		t.Fatal(err)
	}
	d.wantEvents(t, c, 4)
	d.wantAcked(t, 3)
}
