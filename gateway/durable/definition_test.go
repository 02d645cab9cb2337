package durable_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// FuzzDefinition: what is taken is valid, shows itself as what it is, and
// takes an empty patch as it is.
func FuzzDefinition(f *testing.F) {
	f.Add([]byte(`{"channels":["a"]}`), []byte(`{}`))
	f.Add([]byte(`{"channels":["a","b"],"types":["x.*"],"start":"a@x-1","window":5,"expires_after":"720h"}`), []byte(`{"types":null}`))
	f.Add([]byte(`{"channels":["a"],"callback":{"url":"https://x/","order":"key","concurrency":4,"rate":0.5,"batch":{"max_events":9,"max_wait":"1s"},"headers":{"X-A":"b"}}}`), []byte(`{"callback":{"rate":null}}`))
	f.Add([]byte(`{"channels":["a"],"callback":{"url":"http://x","mode":"always"}}`), []byte(`{"callback":null}`))
	f.Fuzz(func(t *testing.T, text, patch []byte) {
		d, err := durable.ParseDefinition(text)
		if err != nil {
			return
		}
		shown, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := durable.ParseDefinition(shown)
		if err != nil {
			t.Fatalf("%s is shown as %s, which is not taken: %v", text, shown, err)
		}
		if twice, _ := json.Marshal(again); !bytes.Equal(shown, twice) {
			t.Fatalf("%s is read again as %s", shown, twice)
		}
		if same, err := d.Patch([]byte(`{}`)); err != nil {
			t.Fatalf("an empty patch of %s: %v", shown, err)
		} else if b, _ := json.Marshal(same); !bytes.Equal(shown, b) {
			t.Fatalf("an empty patch makes %s of %s", b, shown)
		}
		d.Patch(patch)
	})
}

func TestVault(t *testing.T) {
	v, err := durable.NewVault([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	p := durable.Private{Secrets: []durable.Secret{{Text: "whsec_a"}}, Headers: map[string]string{"X-A": "b"}}
	sealed, err := v.Seal("crm", p)
	if err != nil || bytes.Contains(sealed, []byte("whsec")) {
		t.Fatalf("sealed %q, %v", sealed, err)
	}
	if got, err := v.Open("crm", sealed); err != nil || got.Secrets[0].Text != "whsec_a" || got.Headers["X-A"] != "b" {
		t.Errorf("opened %v, %v", got, err)
	}
	if _, err := v.Open("erp", sealed); err == nil {
		t.Error("it opened for another subscription")
	}
	other, err := durable.NewVault([]byte("fedcba9876543210fedcba9876543210"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open("crm", sealed); err == nil || !strings.Contains(err.Error(), "--secret-key") {
		t.Errorf("with another key: got %v, want an error that names --secret-key", err)
	}
	now := time.Now()
	for range 20 {
		p.Rotate(webhook.NewSecret(), now, time.Hour)
	}
	if len(p.Secrets) != 8 || !p.Secrets[0].Until.IsZero() || !p.Secrets[1].Until.Equal(now.Add(time.Hour)) {
		t.Errorf("after many rotations: %v, want the newest for good and few others for an hour", p.Secrets)
	}
	p.Rotate(webhook.NewSecret(), now.Add(2*time.Hour), time.Hour)
	if len(p.Secrets) != 2 {
		t.Errorf("%d secrets, want those that have ended gone", len(p.Secrets))
	}
}

func TestRules(t *testing.T) {
	now := time.Now()
	alive := map[string]bool{"n1": true, "n2": true}
	env := durable.Env{Now: now, Alive: func(id string) bool { return alive[id] }}
	owner := func(node, consumer string, kind durable.Kind) *durable.Owner {
		return &durable.Owner{Node: node, Consumer: consumer, Kind: kind}
	}
	acquire := func(s durable.State, force bool) error {
		c, err := durable.Acquire(s, durable.Owner{Node: "n1", Consumer: "me", Kind: durable.Live}, force, env)
		if err == nil && (c.Generation>>32 != s.Generation>>32+1 || c.Record.Owner.Consumer != "me") {
			t.Errorf("acquired as %+v of generation %d", c.Record.Owner, c.Generation)
		}
		return err
	}
	for _, test := range []struct {
		story string
		owner *durable.Owner
		force bool
		want  error
	}{
		{"free", nil, false, nil},
		{"my own older line", owner("n2", "me", durable.Live), false, nil},
		{"another consumer", owner("n2", "you", durable.Live), false, durable.ErrHeld},
		{"another consumer, whatever the force", owner("n2", "you", durable.Live), true, durable.ErrHeld},
		{"another consumer of a dead node", owner("dead", "you", durable.Live), false, nil},
		{"somebody who pulls", owner("n2", "you", durable.Pull), false, durable.ErrHeld},
		{"a callback", owner("n2", "", durable.Call), false, durable.ErrYield},
		{"a callback that had its time", owner("n2", "", durable.Call), true, nil},
		{"a callback of a dead node", owner("dead", "", durable.Call), false, nil},
	} {
		s := durable.State{Name: "s", Progress: broker.Progress{Generation: 3}}
		s.Definition, s.Owner = modelDefinition, test.owner
		if err := acquire(s, test.force); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.story, err, test.want)
		}
	}

	s := durable.State{Name: "s", Progress: broker.Progress{Generation: 3}}
	s.Definition = modelDefinition
	s.Definition.ExpiresAfter = durable.Duration(time.Hour)
	s.Touched = now.Add(-2 * time.Hour)
	if c, err := durable.Due(s, durable.Owner{Node: "n1", Kind: durable.Call}, env); err != nil || !c.Delete {
		t.Errorf("after its time: got %+v, %v, want it deleted", c, err)
	}
	s.Touched, s.Disabled = now, true
	if _, err := durable.Due(s, durable.Owner{Node: "n1", Kind: durable.Call}, env); !errors.Is(err, durable.ErrNotDue) {
		t.Errorf("a disabled callback: got %v, want ErrNotDue", err)
	}
	c, err := durable.Define(s, modelDefinition, nil, nil, false, env)
	if err != nil || !c.Record.Disabled || c.Record.Parked {
		t.Errorf("defined anew: got %+v, %v, want its callback still disabled", c, err)
	}
	c, err = durable.Define(s.Enabled(), modelDefinition, nil, nil, false, env)
	if err != nil || c.Record.Disabled || !c.Record.Parked || c.Generation != 3 {
		t.Errorf("enabled and defined anew: got %+v, %v, want it parked, and nobody fenced", c, err)
	}

	s.Owner, s.Disabled, s.Redriving = owner("n1", "", durable.Call), false, 2
	if c, err := durable.Park(s, durable.Right{Generation: 3, Node: "n1"}, env); err != nil || c.Record.Parked || !c.Record.Grace.Equal(now) {
		t.Errorf("parked while dead letters wait to be delivered again: got %+v, %v, want it due at once", c, err)
	}
}
