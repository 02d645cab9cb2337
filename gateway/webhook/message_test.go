package webhook_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/webhook"
)

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func cursor(n uint64) event.Cursor {
	return event.Cursor{Channel: "acct-42", Epoch: "k3f9zq", Offset: n}
}

func mustSecret(t *testing.T, text string) webhook.Secret {
	t.Helper()
	s, err := webhook.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustRequest(t *testing.T, m webhook.Message, at time.Time, secrets ...webhook.Secret) (*http.Request, string) {
	t.Helper()
	r, err := webhook.NewRequest(t.Context(), "https://crm.example.com/longline", m, secrets, at)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

func TestVectorOfStandardWebhooks(t *testing.T) {
	m := webhook.Message{ID: "msg_p5jXN8AQM9LWM0D4loKWxJek", Body: []byte(`{"test": 2432232314}`), Attempt: 1}
	r, _ := mustRequest(t, m, time.Unix(1614265330, 0), mustSecret(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
	wantText(t, "id", r.Header.Get("webhook-id"), "msg_p5jXN8AQM9LWM0D4loKWxJek")
	wantText(t, "timestamp", r.Header.Get("webhook-timestamp"), "1614265330")
	wantText(t, "signature", r.Header.Get("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
}

func TestGoldenCallbacks(t *testing.T) {
	text, err := os.ReadFile("../wire/testdata/callbacks.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []struct {
		Name, Body string
		Secrets    []string
		Headers    map[string]string
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, g := range golden {
		if g.Name != "one event" && g.Name != "a body beyond ASCII" {
			continue
		}
		found++
		var e event.Event
		if err := json.Unmarshal([]byte(g.Body), &e); err != nil {
			t.Fatal(err)
		}
		at, err := event.ParseCursor(e.Cursor)
		if err != nil {
			t.Fatal(err)
		}
		m := webhook.NewMessage("crm-42", []webhook.Event{{Cursor: at, ID: e.ID, JSON: []byte(g.Body)}}, false)
		unix, _ := strconv.ParseInt(g.Headers["webhook-timestamp"], 10, 64)
		r, body := mustRequest(t, m, time.Unix(unix, 0), mustSecret(t, g.Secrets[0]))
		wantText(t, "body", body, g.Body)
		for name, want := range g.Headers {
			wantText(t, g.Name+": "+name, r.Header.Get(name), want)
		}
	}
	if found != 2 {
		t.Errorf("found %d golden callbacks, want 2", found)
	}
}

func TestOfficialLibraryVerifies(t *testing.T) {
	now := time.Now()
	current, old := webhook.NewSecret(), webhook.NewSecret()
	events := []webhook.Event{
		{Cursor: cursor(7), ID: "Zoë 50%\r\nx: y", JSON: []byte(`{"id":"Zoë"}`), Redelivery: true},
		{Cursor: cursor(8), ID: "plain", JSON: []byte(`{"id":"plain"}`)},
	}
	for _, tc := range []struct {
		name     string
		m        webhook.Message
		oldUntil time.Time
		oldKnown bool
	}{
		{"one event", webhook.NewMessage("crm-42", events[:1], false), time.Time{}, true},
		{"a batch", webhook.NewMessage("crm-42", events, true), now.Add(time.Second), true},
		{"after rotation is over", webhook.NewMessage("crm-42", events, true), now, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := mustSecret(t, old)
			before.Until = tc.oldUntil
			r, body := mustRequest(t, tc.m, now, mustSecret(t, current), before)
			for secret, want := range map[string]bool{current: true, old: tc.oldKnown, webhook.NewSecret(): false} {
				official, err := standardwebhooks.NewWebhook(secret)
				if err != nil {
					t.Fatal(err)
				}
				if err := official.Verify([]byte(body), r.Header); (err == nil) != want {
					t.Errorf("verified: %v, want %v", err, want)
				}
			}
			wantText(t, "redelivery", r.Header.Get("longline-redelivery"), "true")
		})
	}
	r, _ := mustRequest(t, webhook.NewMessage("crm-42", events[:1], false), now)
	wantText(t, "an id that needs it, escaped", r.Header.Get("webhook-id"), "Zo%C3%AB%2050%25%0D%0Ax:%20y")
	if _, ok := r.Header["Webhook-Signature"]; ok {
		t.Error("a callback without secrets is signed")
	}
	r, body := mustRequest(t, webhook.NewMessage("crm-42", events, true), now)
	wantText(t, "batch", body, `[{"id":"Zoë"},{"id":"plain"}]`)
	wantText(t, "cursor of a batch", r.Header.Get("longline-cursor"), "acct-42@k3f9zq-8")
}

func TestCursorOfABatchOverChannels(t *testing.T) {
	other := event.Cursor{Channel: "acct-43", Epoch: "z", Offset: 1}
	m := webhook.NewMessage("crm-42", []webhook.Event{
		{Cursor: cursor(7), JSON: []byte(`{}`)}, {Cursor: other, JSON: []byte(`{}`)}, {Cursor: cursor(9), JSON: []byte(`{}`)},
	}, true)
	wantText(t, "cursor", m.Cursor, "acct-42@k3f9zq-9,acct-43@z-1")
}

func TestSecretsAreChecked(t *testing.T) {
	for _, text := range []string{"", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%", webhook.NewSecret() + webhook.NewSecret()} {
		if _, err := webhook.ParseSecret(text); err == nil {
			t.Errorf("%q is taken for a secret", text)
		} else if key := strings.TrimPrefix(text, "whsec_"); key != "" && strings.Contains(err.Error(), key) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	secret := mustSecret(t, webhook.NewSecret())
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		wantText(t, format, fmt.Sprintf(format, secret), "whsec_…")
	}
}

func TestRequestAllocatesLittle(t *testing.T) {
	m := webhook.NewMessage("crm-42", []webhook.Event{{Cursor: cursor(7), ID: "e7", JSON: make([]byte, 400)}}, false)
	secrets := []webhook.Secret{mustSecret(t, webhook.NewSecret())}
	got := testing.AllocsPerRun(100, func() {
		if _, err := webhook.NewRequest(t.Context(), "https://crm.example.com/longline", m, secrets, time.Unix(1614265330, 0)); err != nil {
			t.Fatal(err)
		}
	})
	if got > 32 {
		t.Errorf("a request takes %v allocations", got)
	}
}
