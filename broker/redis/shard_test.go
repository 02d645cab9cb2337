package redis_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
)

// One shard of a cluster dies with its replica, whichever: no node loses its
// lease by that, those that died are seen to be dead, and retention goes on in
// the other shards.
func TestDeadShard(t *testing.T) {
	c := redistest.StartCluster(t)
	for _, s := range append(c.Masters, c.Replicas...) {
		s.Do("CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	short := broker.Options{Retention: func(string) broker.Retention { return broker.Retention{ReplayEvents: 1} }}
	b := mustOpen(t, c.URL(), redis.Options{Options: short, TrimEvery: 100 * time.Millisecond})
	for _, id := range []string{"one", "two"} {
		if err := b.Join(t.Context(), broker.Node{ID: id}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	dead := c.Masters[rand.IntN(len(c.Masters))]
	var elsewhere []string // channels of the other shards
	for i := 0; len(elsewhere) < 4; i++ {
		channel := fmt.Sprint("c", i)
		mustAppend(t, b, channel, "1")
		if owner, _ := c.Owner(channel); owner != dead {
			elsewhere = append(elsewhere, channel)
		}
	}
	trimmed := func(channel string) {
		t.Helper()
		redistest.Eventually(t, func() error {
			if _, err := b.Append(t.Context(), channel, []broker.Entry{{Data: []byte("more")}}); err != nil {
				return err
			}
			s, err := b.State(t.Context(), channel)
			if err == nil && s.First == 1 {
				err = fmt.Errorf("nothing of %s was removed", channel)
			}
			return err
		})
	}
	trimmed(elsewhere[0])
	c.ReplicaOf(dead).Kill()
	dead.Kill()

	redistest.Eventually(t, func() error { return b.Renew(t.Context(), "one", time.Hour) })
	redistest.Eventually(t, func() error { return b.Renew(t.Context(), "two", time.Millisecond) })
	redistest.Eventually(t, func() error {
		nodes, err := b.Nodes(t.Context())
		if err == nil && (len(nodes) != 2 || !nodes[0].Alive || nodes[1].Alive) {
			err = fmt.Errorf("nodes are %+v, want one alive and two dead", nodes)
		}
		return err
	})
	redistest.Eventually(t, func() error {
		err := b.Renew(t.Context(), "two", time.Hour)
		if err == nil {
			t.Fatal("a lease that ended was renewed")
		}
		if errors.Is(err, broker.ErrNotFound) {
			return nil
		}
		return err
	})
	for _, channel := range elsewhere[1:] {
		trimmed(channel)
	}
	names, err := b.List(t.Context(), "", "", 10)
	if err == nil {
		t.Errorf("a list that leaves out a shard: got %v, want an error", names)
	}
}
