package callback_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/shape"
)

// kept is a broker.Attempts that remembers what it was given.
type kept struct {
	mu   sync.Mutex
	list []broker.Attempt
	told chan struct{}
}

func (k *kept) Record(_ context.Context, list []broker.Attempt) error {
	k.mu.Lock()
	k.list = append(k.list, list...)
	k.mu.Unlock()
	if len(list) > 0 {
		k.told <- struct{}{}
	}
	return nil
}

func (k *kept) Attempts(context.Context, string, uint64, int) ([]broker.Attempt, error) {
	return nil, nil
}

// An attempt is kept soon after it was made, with what went into it, and without
// the secrets that an endpoint repeats.
func TestHistoryKeepsAttempts(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d", r.Header.Get("X-Api-Key"), r.Header.Get("Authorization"), len(body))
	}))
	t.Cleanup(echo.Close)
	store := &kept{told: make(chan struct{}, 10)}
	history := callback.NewHistory(store, slog.New(slog.DiscardHandler), nil)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { history.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })

	m := newMemory()
	m.publish("")
	e := callback.New(callback.Options{Dialing: callback.Dialing{Loopback: true}, History: history})
	_, err := e.Deliver(callback.Subscription{Name: "crm-42", Timeout: time.Second, Position: event.Position{cursor(0)}, Target: callback.Target{
		URL: echo.URL + "/in", Headers: map[string]string{"X-Api-Key": "key-of-the-crm"}, Auth: &shape.Auth{Bearer: &shape.Bearer{Token: "token-of-the-crm"}},
	}}, m, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-store.told
	end, done := contextFor(10 * time.Second)
	defer done()
	e.Close(end)
	store.mu.Lock()
	defer store.mu.Unlock()
	if len(store.list) != 1 || store.list[0].Name != "crm-42" {
		t.Fatalf("kept are %d attempts: %v; want the one", len(store.list), store.list)
	}
	text := string(store.list[0].Data)
	for _, want := range []string{`"status":200`, `"method":"POST"`, `"url":"` + echo.URL + `/in"`, `"cursors":["` + cursor(1).String() + `"]`, `"ids":["`, `"body":"*** Bearer *** `} {
		if !strings.Contains(text, want) {
			t.Errorf("kept is %s, want it to have %s", text, want)
		}
	}
	if strings.Contains(text, "of-the-crm") {
		t.Errorf("kept is a secret: %s", text)
	}
}
