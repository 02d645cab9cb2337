package durable_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/wire"
)

// forgetting is a broker that has forgotten some of a group's partitions by the
// time the group is stored as divided: its master was replaced in between.
type forgetting struct {
	broker.Durable
	mu     sync.Mutex                      // partitions are made side by side
	forget func(update broker.Update) bool // nil: nothing is forgotten
}

func (f *forgetting) forgets(which func(update broker.Update) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget = which
}

func (f *forgetting) Store(ctx context.Context, u broker.Update) error {
	f.mu.Lock()
	forgotten := f.forget != nil && f.forget(u)
	f.mu.Unlock()
	if forgotten {
		return nil
	}
	return f.Durable.Store(ctx, u)
}

// A group whose partitions the broker forgot while they were made is found out and
// divided anew: it doesn't stand still for ever.
func TestGroupWhosePartitionsWereForgotten(t *testing.T) {
	for _, c := range []struct {
		story  string
		forget func(made int) bool
	}{
		{"all of them", func(int) bool { return true }},
		{"one that was made for an older division", func(made int) bool { return made > 4 }},
	} {
		t.Run(c.story, func(t *testing.T) {
			made := 0
			f := &forgetting{Durable: durabletest.Open(t)}
			k := durabletest.Run(t, durable.Options{Broker: f, Logs: noLogs{}})
			d, err := durable.ParseDefinition([]byte(`{"channels":["a"],"group":{"partitions":4}}`))
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Change(t.Context(), "g", func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
				_, c := durable.Create(s.Name, durable.Record{Definition: d}, at(0), env)
				return c, nil
			}); err != nil {
				t.Fatal(err)
			}
			if c.story != "all of them" { // partitions that a join made which came to nothing
				s, err := k.Load(t.Context(), "g")
				if err != nil {
					t.Fatal(err)
				}
				for p := range 4 {
					part, _ := durable.Part(s, durable.State{Name: durable.PartitionName("g", p)}, durable.Env{Now: time.Now()})
					made++
					if err := k.Store(t.Context(), durable.State{Name: durable.PartitionName("g", p)}, part); err != nil {
						t.Fatal(err)
					}
				}
			}
			f.forgets(func(u broker.Update) bool {
				if !broker.IsPartition(u.Name) {
					return false
				}
				made++
				return c.forget(made)
			})
			m, err := k.Join(t.Context(), "g", durable.Claim{Connection: "c1", Consumer: "c", Kind: durable.Live}, bystander{})
			if err != nil {
				t.Fatal(err)
			}
			f.forgets(nil)
			if _, err := m.Acquire(t.Context(), 0, newLine()); !errors.Is(err, durable.ErrNoGroup) {
				t.Fatalf("acquire: %v, want %v", err, durable.ErrNoGroup)
			}
			m, err = k.Join(t.Context(), "g", durable.Claim{Connection: "c2", Consumer: "c", Kind: durable.Live}, bystander{})
			if err != nil {
				t.Fatal(err)
			}
			for p := range 4 {
				h, err := m.Acquire(t.Context(), p, newLine())
				if err != nil {
					t.Fatalf("partition %d: %v", p, err)
				}
				if at, ok := h.Position.Of("a"); !ok || at.Offset != 0 {
					t.Errorf("partition %d begins at %v", p, h.Position)
				}
			}
		})
	}
}

// bystander is a member that does nothing by itself.
type bystander struct{}

func (bystander) Assigned(durable.State)       {}
func (bystander) Ended(wire.CloseCode, string) {}
func (bystander) Suspended()                   {}

type noLogs struct{}

func (noLogs) State(context.Context, string) (broker.State, error) {
	return broker.State{Epoch: "e"}, nil
}

// Who is fenced isn't told that what it acknowledged is committed: it would
// deliver beyond what is announced to the next.
func TestWhatIsFencedStaysOwed(t *testing.T) {
	b := newFlaky(t)
	one := durabletest.Run(t, durable.Options{Broker: b})
	mustCreate(t, one, "s")
	h, l, err := attach(t, one, "s", "c")
	if err != nil {
		t.Fatal(err)
	}
	b.loseMessages.Store(true)
	two := durabletest.Run(t, durable.Options{Broker: b})
	if _, _, err := attach(t, two, "s", "c"); err != nil {
		t.Fatal(err)
	}
	h.Advance(event.Cursor{Channel: "a", Epoch: "e", Offset: 3}, 3)
	<-l.ended
	if got := h.Owing(); got != 3 {
		t.Errorf("%d events are owed, want 3", got)
	}
}
