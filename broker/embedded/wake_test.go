package embedded_test

import (
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/event"
)

// Whoever appends doesn't wait for those who wait to be woken, nor for anything
// else that concerns subscriptions.
func TestAppendBesideWaking(t *testing.T) {
	b := mustOpen(t, embedded.Options{Dir: t.TempDir()})
	at, err := b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("one")}})
	if err != nil {
		t.Fatal(err)
	}
	wait := event.Position{{Channel: "a", Epoch: at[0].Epoch, Offset: at[0].Offset}}
	if err := b.Store(t.Context(), broker.Update{Name: "crm", Generation: 1, Wait: wait, Due: broker.Never}); err != nil {
		t.Fatal(err)
	}
	release := b.HoldSubscriptions()
	defer release()
	for _, channel := range []string{"a", "b", "a"} {
		if _, err := b.Append(t.Context(), channel, []broker.Entry{{Data: []byte("next")}}); err != nil {
			t.Fatal(err)
		}
	}
}
