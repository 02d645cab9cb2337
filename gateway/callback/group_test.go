package callback_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// worker is a member of a group, and the holder of what it acquires.
type worker struct{ assigned chan durable.State }

func (w worker) Assigned(s durable.State)   { w.assigned <- s }
func (worker) Ended(wire.CloseCode, string) {}
func (worker) Suspended()                   {}
func (worker) Yield()                       {}
func (worker) Changed(durable.State)        {}
func (worker) Acked(event.Position)         {}
func (worker) Redrive()                     {}

func (n *gatewayNode) join(name string) (*durable.Membership, worker) {
	n.t.Helper()
	w := worker{make(chan durable.State, 64)}
	m, err := n.manager.Join(n.t.Context(), name, durable.Claim{Connection: "c1", Consumer: "crm", Kind: durable.Live}, w)
	if err != nil {
		n.t.Fatal(err)
	}
	<-w.assigned
	return m, w
}

func (n *gatewayNode) acquire(m *durable.Membership, w worker, p int) *durable.Ownership {
	n.t.Helper()
	for {
		h, err := m.Acquire(n.t.Context(), p, w)
		if errors.Is(err, durable.ErrHeld) {
			err = n.manager.Await(n.t.Context(), durable.PartitionName("crm-42", p))
			if err == nil {
				continue
			}
		}
		if err != nil {
			n.t.Fatalf("acquire partition %d: %v", p, err)
		}
		return h
	}
}

// share has consumers share crm-42.
func (n *gatewayNode) share(partitions int) {
	n.t.Helper()
	def := n.state("crm-42").Definition
	def.Group = &durable.Group{Partitions: partitions}
	def.Callback.Order = durable.ByKey
	err := n.manager.Change(n.t.Context(), "crm-42", func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Define(s, def, nil, nil, force, env)
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// A group's last member leaves, one partition further than the other: the
// callback takes both over, leaves out what was acknowledged, and gives them
// back when a member joins.
func TestGroupFallsBackToTheCallback(t *testing.T) {
	var mu sync.Mutex
	var got []string
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		for _, id := range idsOf(string(body)) {
			if r.Header.Get("Longline-Redelivery") == "true" {
				id += " again"
			}
			got = append(got, id)
		}
	}))
	defer endpoint.Close()
	calls := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
	n := newNode(t)
	n.define("crm-42", endpoint.URL, "")
	n.share(2)

	m, w := n.join("crm-42")
	epoch := ""
	for i := 1; i <= 6; i++ { // e1, e3, e5 of partition 0, e2, e4, e6 of 1
		f := event.Fields{ID: fmt.Sprint("e", i), Source: "/test", Type: "t", Key: keyOf((i+1)%2, 2), Data: []byte(`{}`)}
		done, err := n.broker.Append(t.Context(), "acct-42", []broker.Entry{{Data: f.AppendStored(nil)}})
		if err != nil {
			t.Fatal(err)
		}
		epoch = done[0].Epoch
	}
	at := func(offset uint64) event.Cursor {
		return event.Cursor{Channel: "acct-42", Epoch: epoch, Offset: offset}
	}
	zero, one := n.acquire(m, w, 0), n.acquire(m, w, 1)
	zero.Announced(nil) // the definition was changed: it was in doubt
	one.Announced(nil)
	zero.Advance(at(1), 1)
	one.Advance(at(4), 2)
	zero.Release(event.Position{at(3)}, 0)
	one.Release(nil, 0)
	m.Leave()

	want := []string{"e3 again", "e5", "e6"}
	eventually(t, "the callback gets the rest", func() bool { return len(calls()) >= len(want) })
	eventually(t, "all is acknowledged", func() bool { p := n.state("crm-42").Position; return len(p) == 1 && p[0].Offset == 6 })
	eventually(t, "it is parked", func() bool { s := n.state("crm-42"); return s.Owner == nil && s.Parked })
	n.publishKey(keyOf(1, 2), "e7")
	eventually(t, "the next event wakes it", func() bool { return len(calls()) == 4 })
	if got := calls(); !slices.Equal(got, append(want, "e7")) {
		t.Errorf("called with %v, want %v and e7", got, want)
	}

	m, w = n.join("crm-42")
	for p := range 2 {
		if h := n.acquire(m, w, p); h.Doubt {
			t.Errorf("partition %d is in doubt after a callback that yielded", p)
		}
	}
	if s := n.state("crm-42"); s.Position[0].Offset != 7 || s.Status() != "live" {
		t.Errorf("position %s, %s; want it live at 7", s.Position, s.Status())
	}
}

// A member comes while a call of one partition is out: it has the other at once,
// of which the callback calls nothing more, and that one when the call ends.
// Nothing comes twice.
func TestTheCallbackGivesUpPartitionByPartition(t *testing.T) {
	began, answer := make(chan string, 16), make(chan struct{})
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for _, id := range idsOf(string(body)) {
			began <- id
		}
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	}))
	defer endpoint.Close()
	n := newNode(t)
	n.define("crm-42", endpoint.URL, "")
	n.share(2)
	first, w := n.join("crm-42") // so that it is divided
	n.acquire(first, w, 0).Announced(nil)
	n.acquire(first, w, 1).Announced(nil)
	n.publishKey(keyOf(0, 2), "e1")
	n.publishKey(keyOf(1, 2), "e2")
	n.publishKey(keyOf(1, 2), "e3")
	first.Leave()
	for p := range 2 {
		n.release(p)
	}
	if got := <-began; got != "e1" {
		t.Fatalf("called with %s first, want e1", got)
	}
	m, w := n.join("crm-42")
	one := n.acquire(m, w, 1) // while e1 is out
	if one.Doubt || len(one.DeliveredUpTo) > 0 && one.DeliveredUpTo[0].Offset > one.Position[0].Offset {
		t.Errorf("partition 1 goes on at %s with %s in doubt (%v), want nothing: it had no call", one.Position, one.DeliveredUpTo, one.Doubt)
	}
	if _, err := m.Acquire(t.Context(), 0, w); !errors.Is(err, durable.ErrHeld) {
		t.Errorf("partition 0 while its call is out: %v, want ErrHeld", err)
	}
	close(answer)
	zero := n.acquire(m, w, 0)
	if zero.Doubt || len(zero.Position) == 0 || zero.Position[0].Offset < 1 {
		t.Errorf("partition 0 goes on at %s, in doubt: %v; want it behind e1", zero.Position, zero.Doubt)
	}
	select {
	case id := <-began:
		t.Errorf("the callback was called with %s, whose partition had moved", id)
	default:
	}
}

// Several members die at once, each with a window of events out: the callback says
// of all of them that they may come twice, not only of as many as one had.
func TestTheCallbackAnnouncesWhatEachDeadMemberHad(t *testing.T) {
	got := make(chan string, 16)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for _, id := range idsOf(string(body)) {
			got <- id + " " + r.Header.Get("Longline-Redelivery")
		}
	}))
	defer endpoint.Close()
	n := newNode(t)
	n.define("crm-42", endpoint.URL, "")
	n.share(2)
	err := n.manager.Change(t.Context(), "crm-42", func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) {
		s.Definition.Window, s.Unclear = 1, false
		return durable.Change{Record: s.Record, Generation: s.Generation}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m, w := n.join("crm-42")
	for p := range 2 {
		n.acquire(m, w, p)
	}
	for i, p := range []int{0, 0, 1, 1, 1} {
		n.publishKey(keyOf(p, 2), fmt.Sprint("e", i+1))
	}
	for p := range 2 {
		err := n.manager.Change(t.Context(), durable.PartitionName("crm-42", p), func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
			env.Alive = func(string) bool { return false }
			return durable.Died(s, env)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	m.Leave()
	want := map[string]bool{"e1 true": true, "e2 true": true, "e3 true": true, "e4 true": true, "e5 ": true} // twice the window each
	for range len(want) {
		if call := <-got; !want[call] {
			t.Errorf("called with %q, want %v", call, want)
		}
	}
}

// release gives up what a member had of a partition.
func (n *gatewayNode) release(p int) {
	n.t.Helper()
	name := durable.PartitionName("crm-42", p)
	err := n.manager.Change(n.t.Context(), name, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		right := durable.Right{Generation: s.Generation, Node: s.Owner.Node, Connection: s.Owner.Connection}
		return durable.Release(s, right, nil, false, 0, env)
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *gatewayNode) publishKey(key, id string) {
	n.t.Helper()
	f := event.Fields{ID: id, Source: "/test", Type: "t", Key: key, Data: []byte(`{}`)}
	if _, err := n.broker.Append(n.t.Context(), "acct-42", []broker.Entry{{Data: f.AppendStored(nil)}}); err != nil {
		n.t.Fatal(err)
	}
}

// keyOf is a key of a partition.
func keyOf(partition, of int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("k", i); event.Partition(key, "", "", of) == partition {
			return key
		}
	}
}
