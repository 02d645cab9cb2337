package durable_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/wire"
)

// TestGroupRules tells how a group's record goes from hand to hand.
func TestGroupRules(t *testing.T) {
	alive := map[string]bool{"n1": true, "n2": true}
	env := durable.Env{Now: time.Unix(1000, 0), Alive: func(node string) bool { return alive[node] }}
	d, err := durable.ParseDefinition([]byte(`{"channels":["a"],"group":{"partitions":4},"callback":{"url":"https://crm.example.com/","grace":"10s"}}`))
	if err != nil {
		t.Fatal(err)
	}
	s := durable.State{Name: "crm", Version: 7}
	s.Definition, s.Generation, s.Position = d, 1, at(3)
	join := func(node, consumer, connection string) func() (durable.Change, error) {
		return func() (durable.Change, error) {
			return durable.Join(s, durable.Owner{Node: node, Consumer: consumer, Connection: connection, Kind: durable.Live}, env)
		}
	}
	leave := func(connection string) func() (durable.Change, error) {
		return func() (durable.Change, error) {
			return durable.Leave(s, func(o durable.Owner) bool { return o.Connection == connection }, env)
		}
	}
	for _, step := range []struct {
		story string
		rule  func() (durable.Change, error)
		err   error
		want  string
	}{
		{"the first joins and gets all", join("n1", "a", "a1"), nil, "a a a a"},
		{"the second takes half", join("n2", "b", "b1"), nil, "a a b b"},
		{"who comes back takes its own place", join("n2", "a", "a2"), nil, "a a b b"},
		{"the connection it had before leaves nothing", leave("a1"), durable.ErrNotDue, "a a b b"},
		{"a third takes one", join("n1", "c", "c1"), nil, "a a b c"},
		{"nobody acquires the whole", func() (durable.Change, error) {
			return durable.Acquire(s, durable.Owner{Node: "n1", Consumer: "d"}, true, env)
		}, durable.ErrGroup, "a a b c"},
		{"nothing is due while there are members", func() (durable.Change, error) {
			return durable.Due(s, durable.Owner{Node: "n1", Kind: durable.Call}, env)
		}, durable.ErrNotDue, "a a b c"},
		{"a node dies with two of three", func() (durable.Change, error) {
			alive["n2"] = false
			return durable.Died(s, env)
		}, nil, "c c c c"},
		{"the last leaves", leave("c1"), nil, "- - - -"},
		{"the callback waits for the grace", func() (durable.Change, error) {
			return durable.Due(s, durable.Owner{Node: "n1", Kind: durable.Call}, env)
		}, durable.ErrHeld, "- - - -"},
		{"and claims", func() (durable.Change, error) {
			env.Now = env.Now.Add(11 * time.Second)
			return durable.Due(s, durable.Owner{Node: "n1", Kind: durable.Call}, env)
		}, nil, "- - - -"},
		{"who joins has the group at once, and the callback yields", join("n1", "a", "a3"), nil, "a a a a"},
	} {
		c, err := step.rule()
		if !errors.Is(err, step.err) {
			t.Fatalf("%s: got %v, want %v", step.story, err, step.err)
		}
		if err == nil {
			s.Record, s.Generation = c.Record, c.Generation
			s.Version++
		}
		if got := assigned(s.Record); got != step.want {
			t.Errorf("%s: assigned %q, want %q", step.story, got, step.want)
		}
	}
	if s.Division != 7 {
		t.Errorf("division %d, want the one of version 7, which the first join began", s.Division)
	}
	s.Owner = nil
	s.Parts = []broker.Progress{{Position: at(5)}, {Position: at(4)}, {Position: at(9)}, {Position: at(9)}}
	s.Position = at(4)
	c, err := durable.Define(s, withPartitions(d, 2), nil, nil, false, env)
	if err != nil || !c.Undivided || c.Record.Division != 0 || c.Set.String() != at(4).String() || c.Record.DeliveredUpTo != at(9).String() {
		t.Errorf("other partitions: %+v (%v), want it undivided at %s, with what lies up to %s in doubt", c, err, at(4), at(9))
	}
}

func withPartitions(d durable.Definition, n int) durable.Definition {
	d.Group = &durable.Group{Partitions: n}
	return d
}

func assigned(r durable.Record) string {
	list := make([]string, len(r.Assigned))
	for i, c := range r.Assigned {
		if list[i] = c; c == "" {
			list[i] = "-"
		}
	}
	return strings.Join(list, " ")
}

func TestGroupIsFull(t *testing.T) {
	env := durable.Env{Now: time.Unix(1000, 0), Alive: func(string) bool { return true }}
	s := durable.State{Name: "crm", Version: 1}
	s.Definition = withPartitions(durable.Definition{Channels: []string{"a"}}, 16)
	for i := range durable.MaxMembers + 1 {
		c, err := durable.Join(s, durable.Owner{Node: "n1", Consumer: fmt.Sprint(i), Connection: fmt.Sprint(i)}, env)
		if full := i == durable.MaxMembers; full != errors.Is(err, durable.ErrFull) {
			t.Fatalf("member %d: %v", i+1, err)
		}
		if err == nil {
			s.Record = c.Record
		}
	}
}

// crew is a member that remembers what it was told.
type crew struct {
	mu    sync.Mutex
	last  durable.State
	ended chan wire.CloseCode
	told  chan struct{}
}

func newCrew() *crew {
	return &crew{ended: make(chan wire.CloseCode, 1), told: make(chan struct{}, 1)}
}

func (c *crew) Assigned(s durable.State) {
	c.mu.Lock()
	c.last = s
	c.mu.Unlock()
	select {
	case c.told <- struct{}{}:
	default:
	}
}

func (c *crew) Ended(code wire.CloseCode, _ string) { c.ended <- code }
func (c *crew) Suspended()                          {}

// want waits until the member was told that the partitions are shared out so.
func (c *crew) want(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		c.mu.Lock()
		got := assigned(c.last.Record)
		c.mu.Unlock()
		if got == want {
			return
		}
		select {
		case <-c.told:
		case <-timeout:
			t.Fatalf("assigned %q, want %q", got, want)
		}
	}
}

func mustJoin(t *testing.T, k *durable.Manager, consumer string) (*durable.Membership, *crew) {
	t.Helper()
	c := newCrew()
	m, err := k.Join(t.Context(), "crm", durable.Claim{Connection: consumer + "-line", Consumer: consumer, Kind: durable.Live}, c)
	if err != nil {
		t.Fatalf("join %s: %v", consumer, err)
	}
	return m, c
}

func mustCreateGroup(t *testing.T, k *durable.Manager, partitions int) {
	t.Helper()
	err := k.Change(t.Context(), "crm", func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		d := withPartitions(durable.Definition{Channels: []string{"a"}, Window: 10}, partitions)
		_, c := durable.Create(s.Name, durable.Record{Definition: d}, at(0), env)
		return c, nil
	})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
}

// Members on two nodes share a group; a partition moves once it is released,
// and goes on from what was acknowledged.
func TestGroupOnTwoNodes(t *testing.T) {
	b := durabletest.Open(t)
	one, other := durabletest.Run(t, durable.Options{Broker: b}), durabletest.Run(t, durable.Options{Broker: b})
	mustCreateGroup(t, one, 2)
	m1, c1 := mustJoin(t, one, "a")
	c1.want(t, "a a")
	var parts [2]*durable.Ownership
	for p := range parts {
		h, err := m1.Acquire(t.Context(), p, newLine())
		if err != nil {
			t.Fatalf("acquire partition %d: %v", p, err)
		}
		parts[p] = h
	}
	parts[0].Advance(cursorAt(5), 5)
	parts[1].Advance(cursorAt(3), 3)

	m2, c2 := mustJoin(t, other, "b")
	c1.want(t, "a b")
	c2.want(t, "a b")
	if _, err := m2.Acquire(t.Context(), 1, newLine()); !errors.Is(err, durable.ErrHeld) {
		t.Fatalf("acquire what is not released: got %v, want ErrHeld", err)
	}
	parts[1].Release(at(4), 0)
	for {
		h, err := m2.Acquire(t.Context(), 1, newLine())
		if errors.Is(err, durable.ErrHeld) {
			if err := other.Await(t.Context(), durable.PartitionName("crm", 1)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Position.String() != at(3).String() || h.DeliveredUpTo.String() != at(4).String() || h.Doubt {
			t.Errorf("partition 1 goes on at %s, up to %s again (in doubt: %v), want %s, %s, exactly", h.Position, h.DeliveredUpTo, h.Doubt, at(3), at(4))
		}
		break
	}
	wantState(t, one, "crm", "", at(3).String()) // the least

	// Another position undivides the group and sends all away.
	err := other.Change(t.Context(), "crm", func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Seek(s, at(1), force, env)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*crew{c1, c2} {
		if code := <-c.ended; code != wire.CloseRestart {
			t.Errorf("ended with %d, want %d", code, wire.CloseRestart)
		}
	}
	parts[0].Advance(cursorAt(9), 4) // too late
	_, c1 = mustJoin(t, one, "a")
	c1.want(t, "a a")
	wantState(t, one, "crm", "", at(1).String())
}

// countingStores counts the stores of the group's own record.
type countingStores struct {
	broker.Durable
	stores atomic.Int32
}

func (c *countingStores) Store(ctx context.Context, u broker.Update) error {
	if u.Name == "crm" {
		c.stores.Add(1)
	}
	return c.Durable.Store(ctx, u)
}

func TestHundredJoinAndLeaveAtOnce(t *testing.T) {
	b := &countingStores{Durable: durabletest.Open(t)}
	k := durabletest.Run(t, durable.Options{Broker: b})
	mustCreateGroup(t, k, 16)
	var members [100]*durable.Membership
	var joining sync.WaitGroup
	for i := range members {
		joining.Go(func() { members[i], _ = mustJoin(t, k, fmt.Sprint("w", i)) })
	}
	joining.Wait()
	s, err := k.Load(t.Context(), "crm")
	if err != nil || len(s.Members) != len(members) {
		t.Fatalf("%d members (%v), want %d", len(s.Members), err, len(members))
	}
	t.Logf("%d joined by %d stores", len(members), b.stores.Load())
	for _, m := range members {
		m.Leave()
	}
	for len(s.Members) > 0 {
		if err := k.Await(t.Context(), "crm"); err != nil {
			t.Fatal(err)
		}
		if s, err = k.Load(t.Context(), "crm"); err != nil {
			t.Fatal(err)
		}
	}
}

// A mistake while a group's members are stored ends what was asked for, not the
// node: whoever comes later joins, and whoever left has left.
func TestPanicsInAGroupAreContained(t *testing.T) {
	b := newFlaky(t)
	k := durabletest.Run(t, durable.Options{Broker: b})
	mustCreateGroup(t, k, 2)
	for range 3 { // while a partition is made, and while the group is stored
		b.panics.Store(1)
		claim := durable.Claim{Connection: "a-line", Consumer: "a", Kind: durable.Live}
		if _, err := k.Join(t.Context(), "crm", claim, newCrew()); err == nil {
			break
		}
	}
	b.panics.Store(0)
	m, c := mustJoin(t, k, "a")
	c.want(t, "a a")
	b.panics.Store(1)
	m.Leave()
	for {
		s, err := k.Load(t.Context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Members) == 0 {
			return
		}
		if err := k.Await(t.Context(), "crm"); err != nil {
			t.Fatal(err)
		}
	}
}

// drifting is a broker on which something happens while a group's partitions are
// being made.
type drifting struct {
	broker.Durable
	once  sync.Once
	while func()
}

func (d *drifting) Store(ctx context.Context, u broker.Update) error {
	if broker.IsPartition(u.Name) {
		d.once.Do(d.while)
	}
	return d.Durable.Store(ctx, u)
}

// yielder is a callback's owner that gives up when it is asked to.
type yielder struct {
	*line
	h chan *durable.Ownership
}

func (y yielder) Yield() { go func() { (<-y.h).Release(nil, time.Minute) }() }

// A callback delivers a group that was never divided. While the first member joins
// it commits on: what it was answered, and shows, is where the partitions begin.
func TestTheCallbackCommitsWhileAGroupIsDivided(t *testing.T) {
	b := &drifting{Durable: durabletest.Open(t)}
	k := durabletest.Run(t, durable.Options{Broker: b})
	err := k.Change(t.Context(), "crm", func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		d := withPartitions(durable.Definition{Channels: []string{"a"}, Window: 10, Callback: &durable.Callback{}}, 2)
		_, c := durable.Create(s.Name, durable.Record{Definition: d}, at(0), env)
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	y := yielder{newLine(), make(chan *durable.Ownership, 1)}
	h, _, err := k.Due(t.Context(), "crm", func(durable.State) durable.Holder { return y })
	if err != nil || h == nil {
		t.Fatalf("claim: %v, %v", h, err)
	}
	y.h <- h
	done := at(2)
	if err := h.Commit(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	b.while = func() {
		if h.Commit(t.Context(), at(5)) == nil {
			done = at(5)
		}
	}
	mustJoin(t, k, "a")
	wantState(t, k, "crm", "", done.String())
}
