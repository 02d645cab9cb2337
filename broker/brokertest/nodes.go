package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
)

func ownedByNode(t *testing.T, b Durable) {
	for i := range 5 {
		mustStore(t, b, broker.Update{Name: fmt.Sprint("s", i), Generation: 1, Node: "one", Due: broker.Never})
	}
	mustReplace(t, b, broker.Update{Name: "s1", Generation: 2, Node: "two", Due: broker.Never})
	mustReplace(t, b, broker.Update{Name: "s2", Generation: 2, Due: broker.Never})
	if err := b.Delete(t.Context(), "s3", mustLoad(t, b, "s3").Version); err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string][]string{"one": {"s0", "s4"}, "two": {"s1"}, "three": nil} {
		var got []string
		for after := ""; ; {
			page, err := b.Owned(t.Context(), node, after, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			after = page[len(page)-1]
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("owned by %s: got %q, want %q", node, got, want)
		}
	}
}

func leaseEnds(t *testing.T, b Durable) {
	ctx := t.Context()
	started := time.Now().UTC().Truncate(time.Second)
	for _, n := range []broker.Node{{ID: "one", Name: "host:1", Started: started}, {ID: "two", Name: "host:2", Started: started}} {
		if err := b.Join(ctx, n, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	wantNodes(t, b, "one+", "two+")
	if err := b.Renew(ctx, "one", 30*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	wantNodes(t, b, "one-", "two+")
	if err := b.Renew(ctx, "one", time.Hour); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("renew after the end: got %v, want ErrNotFound", err)
	}
	if err := b.Renew(ctx, "two", time.Hour); err != nil {
		t.Error(err)
	}
	if err := b.Renew(ctx, "three", time.Hour); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("renew of a stranger: got %v, want ErrNotFound", err)
	}
	nodes, err := b.Nodes(ctx)
	if err != nil || nodes[0].Name != "host:1" || !nodes[0].Started.Equal(started) {
		t.Errorf("got %+v, %v, want the node as it joined", nodes, err)
	}
	for range 2 {
		if err := b.Leave(ctx, "one"); err != nil {
			t.Error(err)
		}
	}
	wantNodes(t, b, "two+")
}

func signalsArrive(t *testing.T, b Durable) {
	var mu sync.Mutex
	heard := map[string][]string{}
	for _, node := range []string{"one", "two"} {
		stop, err := b.Listen(t.Context(), node, func(m []byte) {
			mu.Lock()
			heard[node] = append(heard[node], string(m))
			mu.Unlock()
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	for i := range 20 {
		for to, text := range map[string]string{"one": "to one", "two": "to two", "three": "to nobody"} {
			if err := b.Send(t.Context(), to, fmt.Appendf(nil, "%s %d", text, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.Send(t.Context(), "", []byte("to all")); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(" ", i))
	}
	eventually(t, "all signals arrive", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(heard["one"]) >= 21 && len(heard["two"]) >= 21
	})
	mu.Lock()
	defer mu.Unlock()
	for node, got := range heard {
		expected := []string{}
		for _, w := range want {
			expected = append(expected, "to "+node+w)
		}
		// What goes to all may come another way and overtake.
		got = slices.DeleteFunc(slices.Clone(got), func(m string) bool { return m == "to all" })
		if !slices.Equal(got, expected) {
			t.Errorf("node %s heard %q, want %q", node, got, expected)
		}
	}
}

// wantNodes waits until the nodes are as said: an ID and + for alive, - for
// dead.
func wantNodes(t *testing.T, b Durable, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("nodes are %q", want), func() bool {
		nodes, err := b.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range nodes {
			mark := "-"
			if n.Alive {
				mark = "+"
			}
			got = append(got, n.ID+mark)
		}
		return slices.Equal(got, want)
	})
}
