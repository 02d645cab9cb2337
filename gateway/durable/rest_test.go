package durable_test

import (
	"errors"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
)

// shift has a consumer join, acknowledge each partition up to an offset, deliver
// up to another, and leave.
func shift(t *testing.T, k *durable.Manager, begun string, acked, delivered [2]int8) {
	t.Helper()
	m, c := mustJoin(t, k, "a")
	c.want(t, "a a")
	for p := range acked {
		h, err := m.Acquire(t.Context(), p, newLine())
		if err != nil {
			t.Fatalf("acquire partition %d: %v", p, err)
		}
		if h.Position.String() != begun && begun != "" || h.Doubt {
			t.Errorf("partition %d goes on at %s (in doubt: %v), want %s", p, h.Position, h.Doubt, begun)
		}
		h.Advance(cursorAt(acked[p]), 1)
		h.Release(at(delivered[p]), 0)
	}
	m.Leave()
	for _, name := range []string{"crm", "crm/0", "crm/1"} {
		for {
			s, err := k.Load(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if s.Owner == nil && len(s.Members) == 0 {
				break
			}
			if err := k.Await(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A group that all have left, with nothing of it under way, is one record again.
// While a partition has acknowledged less than another, or has delivered more, it
// stays divided.
func TestGroupAtRest(t *testing.T) {
	b := durabletest.Open(t)
	k := durabletest.Run(t, durable.Options{Broker: b})
	mustCreateGroup(t, k, 2)
	due := func() {
		t.Helper()
		if h, served, err := k.Due(t.Context(), "crm", nil); h != nil || !served || err != nil {
			t.Fatalf("due: %v, %v, %v; want it served", h, served, err)
		}
	}
	begun := at(0).String()
	for _, row := range []struct {
		story            string
		acked, delivered [2]int8
		rests            bool
	}{
		{"one is ahead", [2]int8{5, 3}, [2]int8{5, 3}, false},
		{"one has delivered more", [2]int8{5, 5}, [2]int8{5, 6}, false},
		{"all is done", [2]int8{6, 6}, [2]int8{6, 6}, true},
		{"and once more", [2]int8{9, 9}, [2]int8{8, 9}, true},
	} {
		shift(t, k, begun, row.acked, row.delivered)
		due()
		if begun = ""; row.rests {
			begun = at(row.acked[0]).String()
		}
		s, err := k.Load(t.Context(), "crm")
		if err != nil || (s.Division == 0) != row.rests || s.Position.String() != at(min(row.acked[0], row.acked[1])).String() || s.Doubt() || s.DeliveredUpTo != "" {
			t.Errorf("%s: division %d at %s (%v), want it at rest: %v", row.story, s.Division, s.Position, err, row.rests)
		}
		if _, err := k.Load(t.Context(), "crm/1"); errors.Is(err, broker.ErrNotFound) != row.rests {
			t.Errorf("%s: its partitions: %v, want them gone: %v", row.story, err, row.rests)
		}
	}
	due() // nothing is left to do
}

// It is due a while after the last has left, and no more once it rests.
func TestGroupIsDueForRest(t *testing.T) {
	now := time.Unix(1000, 0)
	env := durable.Env{Now: now, Alive: func(string) bool { return true }}
	s := durable.State{Name: "crm", Version: 1}
	s.Definition = withPartitions(durable.Definition{Channels: []string{"a"}}, 2)
	join, err := durable.Join(s, durable.Owner{Node: "n1", Consumer: "a", Connection: "c"}, env)
	if err != nil {
		t.Fatal(err)
	}
	s.Record, s.Parts = join.Record, []broker.Progress{{Position: at(5)}, {Position: at(5)}}
	s.Position = at(5)
	if due := join.Update(s, nil, now).Due; due != broker.Never {
		t.Errorf("with a member it is due in %v, want never", due)
	}
	if _, err := durable.Rest(s, env); !errors.Is(err, durable.ErrNotDue) {
		t.Errorf("with a member it rests: %v", err)
	}
	leave, err := durable.Leave(s, func(durable.Owner) bool { return true }, env)
	if err != nil {
		t.Fatal(err)
	}
	if due := leave.Update(s, nil, now).Due; due != time.Minute {
		t.Errorf("left by all it is due in %v, want a minute", due)
	}
	s.Record = leave.Record
	rest, err := durable.Rest(s, env)
	if err != nil {
		t.Fatal(err)
	}
	u := rest.Update(s, nil, now)
	if u.Due != broker.Never || !u.Undivided || !u.Least || u.Set.String() != at(5).String() || len(u.Channels) != 1 {
		t.Errorf("at rest it is stored as %+v, want it undivided at %s and never due", u, at(5))
	}

	// A callback that has caught up leaves it so that it is looked at once more, if
	// there is a point in it; it waits for the next event all the while.
	s.Definition.Callback = &durable.Callback{}
	s.Owner, s.Generation = &durable.Owner{Node: "n1", Kind: durable.Call}, 4
	park := func() broker.Update {
		t.Helper()
		c, err := durable.Park(s, durable.Right{Generation: 4, Node: "n1"}, env)
		if err != nil {
			t.Fatal(err)
		}
		return c.Update(s, nil, now)
	}
	if u := park(); u.Due != time.Minute || u.Undivided || len(u.Wait) != 1 {
		t.Errorf("parked: %+v, want it due in a minute, or with an event", u)
	}
	parked := s
	parked.Owner, parked.Parked = nil, true
	if c, err := durable.Rest(parked, env); err != nil || !c.Record.Parked || c.Update(parked, nil, now).Wait.String() != at(5).String() {
		t.Errorf("parked, at rest: %+v (%v), want it to wait at %s", c, err, at(5))
	}
	s.Parts[1].Position = at(6)
	if u := park(); u.Due != broker.Never || len(u.Wait) != 1 {
		t.Errorf("parked unevenly: %+v, want it due with an event alone", u)
	}
}
