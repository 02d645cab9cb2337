package ws_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/feed/feedtest"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/ws"
)

// Few answers may be many bytes: what waits is bounded by those.
func TestAnswersThatNobodyReadsEndTheConnection(t *testing.T) {
	log := feedtest.New()
	hub := session.NewHub(session.Options{
		Broker: log, Times: log, Budget: quota.New(quota.Limits{Unread: 1 << 20, TokenUnread: 64 << 10}, nil),
	})
	server := httptest.NewServer(&ws.Handler{Hub: hub, Verifier: authtest.Verifier(t, auth.Options{}), Publisher: publisher{log}})
	t.Cleanup(func() { hub.Close(); server.Close() })
	g := gateway{server, hub, log}
	c := g.mustDial(t, "")
	wantFrame(t, c, `"op":"hello"`)
	// Each answer tells the channel back.
	ask := `{"op":"unsubscribe","channels":["` + strings.Repeat("x", 100) + `"]}`
	for range 200_000 {
		if hub.Count() == 0 || c.Write(t.Context(), websocket.MessageText, []byte(ask)) != nil {
			break
		}
	}
	waitFor(t, func() bool { return hub.Count() == 0 })
}
