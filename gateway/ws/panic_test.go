package ws_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/feed/feedtest"
	"github.com/longline-push/longline/gateway/guard"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/ws"
)

// broken panics.
type broken struct{}

func (broken) PublishJSON(context.Context, *auth.Grant, string, []byte) (json.RawMessage, error) {
	panic("a mistake")
}

// lines hands over each line that is written to it.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func TestAPanicEndsTheSessionItIsIn(t *testing.T) {
	logged := make(lines, 16)
	log := feedtest.New()
	hub := session.NewHub(session.Options{Broker: log, Times: log, Guard: guard.New(slog.New(slog.NewTextHandler(logged, nil)), nil)})
	server := httptest.NewServer(&ws.Handler{Hub: hub, Verifier: authtest.Verifier(t, auth.Options{}), Publisher: broken{}})
	t.Cleanup(func() { hub.Close(); server.Close() })
	g := gateway{server, hub, log}
	c, other := g.mustDial(t, ""), g.mustDial(t, "channel=a")
	wantFrame(t, c, `"op":"hello"`)
	wantFrame(t, other, `"op":"hello"`)
	send(t, c, websocket.MessageText, `{"op":"publish","channel":"a","events":[1]}`)
	if _, err := read(t, c); err == nil {
		t.Error("the session goes on")
	}
	log.Append("a", "t", "", "1")
	wantFrame(t, other, `"data":1`)
	if got := <-logged; !strings.Contains(got, "a mistake") || !strings.Contains(got, "PublishJSON") {
		t.Errorf("logged %s, want the panic with its stack", got)
	}
}
