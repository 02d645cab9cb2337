package redis_test

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
)

// The master dies while events flow that a replica has acknowledged.
func TestSentinelFailover(t *testing.T) {
	g := redistest.StartSentinels(t)
	b := mustOpen(t, g.URL()+"?wait_replicas=1", redis.Options{})
	other := mustOpen(t, g.URL(), redis.Options{})
	busy, quiet := listen(t, other, "busy"), listen(t, other, "quiet")
	mustAppend(t, b, "quiet", "1")
	p := publish(t, b, "busy")
	p.more(50)
	g.Master.Kill()
	g.WaitFailover()
	// The new master has no replica yet, so none of its appends would be
	// acknowledged until the old one is back as its replica.
	g.Master.Restart()
	p.more(50)
	busy.wait(p.halt())
	mustAppend(t, b, "quiet", "2")
	quiet.wait(2)
	s := mustState(t, b, "quiet")
	if len(s.Forks) != 1 || s.Forks[0].Head != 1 {
		t.Errorf("state after a failover: %+v, want a fork at 1", s)
	}
	for _, l := range []*listener{busy, quiet} {
		if _, resets, _ := l.counts(); resets > 0 {
			t.Errorf("%s: the log was taken for another one %d times", l.channel, resets)
		}
	}
}

func mustState(t testing.TB, b broker.Log, channel string) broker.State {
	t.Helper()
	s, err := b.State(t.Context(), channel)
	if err != nil {
		t.Fatalf("state of %s: %v", channel, err)
	}
	return s
}

// A failover forgets a tail that nobody replicated; nobody followed meanwhile.
// What is appended then must not be taken for what was forgotten.
func TestForgottenTail(t *testing.T) {
	g := redistest.StartSentinels(t)
	b := mustOpen(t, g.URL(), redis.Options{})
	mustAppend(t, b, "a", "1", "2")
	redistest.Eventually(t, func() error {
		if n := g.Replica.Do("EXISTS", "{longline:"+tagOf(t, g.Master, "a")+"}m:a"); n != int64(1) {
			return errors.New("the replica doesn't have the log yet")
		}
		return nil
	})
	g.Replica.Pause()
	g.Master.Do("CLIENT", "KILL", "TYPE", "replica")
	old := mustAppend(t, b, "a", "3", "4", "5")
	g.Master.Kill()
	g.Replica.Resume()
	g.WaitFailover()
	var got []broker.Appended
	redistest.Eventually(t, func() (err error) {
		got, err = b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("other 3")}})
		return err
	})
	if got[0].Offset != 3 || got[0].Epoch == old[0].Epoch {
		t.Fatalf("append after the failover is at %+v, before it %+v: want offset 3 of a new epoch", got[0], old[0])
	}
	s := mustState(t, b, "a")
	for offset, want := range map[uint64]broker.Place{1: broker.Here, 2: broker.Here, 3: broker.Forked, 5: broker.Forked} {
		at, place := s.Locate(old[0].Epoch, offset)
		if place != want || at != min(offset, 2) {
			t.Errorf("cursor %s-%d is at %d (%v), want %d (%v)", old[0].Epoch, offset, at, place, min(offset, 2), want)
		}
	}
}

// The same, but the master lives through it and is made the master again: its
// process, and perhaps a connection to it, is the one that appended before.
func TestForgottenTailThereAndBack(t *testing.T) {
	g := redistest.StartSentinels(t)
	b := mustOpen(t, g.URL(), redis.Options{})
	mustAppend(t, b, "a", "1", "2")
	meta := "{longline:" + tagOf(t, g.Master, "a") + "}m:a"
	redistest.Eventually(t, func() error {
		if n := g.Replica.Do("HGET", meta, "h"); n != "2" {
			return fmt.Errorf("the replica's head is %v", n)
		}
		return nil
	})
	g.Replica.Pause()
	g.Master.Do("CLIENT", "KILL", "TYPE", "replica")
	old := mustAppend(t, b, "a", "3", "4", "5")
	g.Master.Pause()
	g.Replica.Resume()
	g.WaitFailover()
	g.Master.Resume()
	g.FailBack()
	wantAnother(t, b, old[0])
}

// Without sentinels nobody cuts the connections of a master that is demoted and
// promoted.
func TestForgottenTailOnOneConnection(t *testing.T) {
	master := redistest.Start(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := redistest.Start(t, "replicaof", host+" "+port)
	b := mustOpen(t, master.URL(), redis.Options{})
	mustAppend(t, b, "a", "1", "2")
	meta := "{longline:" + tagOf(t, master, "a") + "}m:a"
	hasHead := func(s *redistest.Server) {
		t.Helper()
		redistest.Eventually(t, func() error {
			if n := s.Do("HGET", meta, "h"); n != "2" {
				return fmt.Errorf("the head at %s is %v", s.Addr, n)
			}
			return nil
		})
	}
	hasHead(replica)
	replica.Do("REPLICAOF", "NO", "ONE")
	old := mustAppend(t, b, "a", "3", "4", "5")
	host, port, _ = net.SplitHostPort(replica.Addr)
	master.Do("REPLICAOF", host, port)
	hasHead(master)
	master.Do("REPLICAOF", "NO", "ONE")
	wantAnother(t, b, old[0])
}

// wantAnother appends what takes the place of an event that was forgotten.
func wantAnother(t *testing.T, b broker.Log, old broker.Appended) {
	t.Helper()
	var got []broker.Appended
	redistest.Eventually(t, func() (err error) {
		got, err = b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("other 3")}})
		return err
	})
	if got[0].Offset != old.Offset || got[0].Epoch == old.Epoch {
		t.Errorf("put in place of %+v at %+v, want the same offset of another epoch", old, got[0])
	}
}

// tagOf is the bucket's part of a channel's tag, as found on the server.
func tagOf(t testing.TB, s *redistest.Server, channel string) string {
	t.Helper()
	keys, _ := s.Do("KEYS", "{longline:*}m:"+channel).([]any)
	if len(keys) != 1 {
		t.Fatalf("keys of %s at %s: %v", channel, s.Addr, keys)
	}
	return keys[0].(string)[len("{longline:"):][:2]
}

func TestClusterWhile(t *testing.T) {
	c := redistest.StartCluster(t)
	for _, test := range []struct {
		name    string
		happens func(t *testing.T, owner *redistest.Server, slot int, p *publisher)
	}{
		{"ASlotMigrates", func(t *testing.T, owner *redistest.Server, slot int, p *publisher) {
			to := c.Masters[0]
			if to == owner {
				to = c.Masters[1]
			}
			c.Migrate(slot, owner, to, nil)
			p.more(50)
			c.Migrate(slot, to, owner, nil)
		}},
		{"AMasterStepsDown", func(t *testing.T, owner *redistest.Server, slot int, p *publisher) {
			replica := c.ReplicaOf(owner)
			c.Failover(replica)
			p.more(50)
			c.WaitOK()
			c.Failover(owner)
		}},
		{"AMasterIsKilled", func(t *testing.T, owner *redistest.Server, slot int, p *publisher) {
			c.KillMaster(owner)
			owner.Restart()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.WaitOK()
			url := c.URL() + "?wait_replicas=1&prefix=longline:"
			b, other := mustOpen(t, url, redis.Options{}), mustOpen(t, url, redis.Options{})
			busyName, quietName := "busy."+test.name, "quiet."+test.name
			busy, quiet := listen(t, other, busyName), listen(t, other, quietName)
			// And many more, so that every master has some.
			var rest []*listener
			for i := range 30 {
				rest = append(rest, listen(t, other, fmt.Sprintf("%s.%d", test.name, i)))
			}
			p := publish(t, b, busyName)
			p.more(50)
			owner, slot := c.Owner(busyName)
			test.happens(t, owner, slot, p)
			p.more(50)
			busy.wait(p.halt())
			for _, l := range append(rest, quiet) {
				redistest.Eventually(t, func() error {
					_, err := b.Append(t.Context(), l.channel, []broker.Entry{{Identity: "1", Data: []byte("1")}})
					return err
				})
				l.wait(1)
			}
			for _, l := range append(rest, busy, quiet) {
				if _, resets, _ := l.counts(); resets > 0 {
					t.Errorf("%s: the log was taken for another one %d times", l.channel, resets)
				}
			}
		})
	}
}
