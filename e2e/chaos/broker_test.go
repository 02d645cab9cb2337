package chaos

import (
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/internal/process"
)

// broker is what the gateways run on, and how it fails. fault causes one and
// returns when it is over; it is called by the test's goroutine.
type broker interface {
	nodes() int          // how many gateways run on it
	url(node int) string // under which a gateway finds it
	forgetful() bool     // an acknowledgement that isn't a request may be forgotten
	fault(w *world, r *dice)
}

func newBroker(t testing.TB, kind string) broker {
	t.Helper()
	switch kind {
	case "embedded":
		return embedded("embedded:" + filepath.Join(t.TempDir(), "data"))
	case "redis":
		return newRedis(t)
	case "sentinel":
		return &sentinel{redistest.StartSentinels(t, "appendonly", "yes")}
	case "cluster":
		return &cluster{redistest.StartCluster(t)}
	}
	t.Fatalf("broker %q; want embedded, redis, sentinel or cluster", kind)
	return nil
}

// embedded has no process of its own: it fails with its gateway.
type embedded string

func (e embedded) nodes() int          { return 1 }
func (e embedded) forgetful() bool     { return false }
func (e embedded) url(int) string      { return string(e) }
func (e embedded) fault(*world, *dice) {}

// redis is one server that loses nothing it has answered, with a link of each
// gateway's own to it.
type redis struct {
	server *redistest.Server
	links  []*process.Link
}

func newRedis(t testing.TB) *redis {
	b := &redis{server: redistest.Start(t, "appendonly", "yes", "appendfsync", "always")}
	for range 2 {
		k, err := process.NewLink(func() string { return b.server.Addr })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(k.Close)
		b.links = append(b.links, k)
	}
	return b
}

func (b *redis) nodes() int { return len(b.links) }

func (b *redis) forgetful() bool { return false }

func (b *redis) url(node int) string { return "redis://" + b.links[node].Addr }

func (b *redis) fault(w *world, r *dice) {
	node := r.below(len(b.links))
	switch r.below(7 + more()) {
	case 0:
		d := r.time(200*time.Millisecond, 6*time.Second)
		w.fault("redis", "stands still for %v", d)
		b.server.Pause()
		r.wait(d)
		b.server.Resume()
	case 1:
		d := r.time(0, 2*time.Second)
		w.fault("redis", "killed, back after %v", d)
		b.server.Kill()
		r.wait(d)
		b.server.Restart()
	case 2:
		d := r.time(time.Second, 15*time.Second)
		w.fault("redis", "node-%[2]d cut off for %[1]v", d, node)
		b.links[node].Hold()
		r.wait(d)
		b.links[node].Release()
	case 3:
		w.fault("redis", "connections of node-%d reset", node)
		b.links[node].Reset()
	case 7:
		d, late := r.time(time.Second, 8*time.Second), r.time(5*time.Millisecond, 200*time.Millisecond)
		w.fault("redis", "node-%[3]d is %[2]v away for %[1]v", d, late, node)
		b.links[node].Delay(late)
		r.wait(d)
		b.links[node].Delay(0)
	case 4:
		w.fault("redis", "publish/subscribe connections killed")
		b.server.Do("CLIENT", "KILL", "TYPE", "pubsub")
	case 5:
		w.fault("redis", "connections killed")
		b.server.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	case 6:
		w.fault("redis", "scripts forgotten")
		b.server.Do("SCRIPT", "FLUSH")
	}
}

// sentinel is a master with a replica. An append is answered when both have it.
type sentinel struct{ *redistest.Sentinels }

func (b *sentinel) nodes() int { return 2 }

func (b *sentinel) forgetful() bool { return true }

func (b *sentinel) url(int) string { return b.URL() + "?wait_replicas=1" }

func (b *sentinel) fault(w *world, r *dice) {
	master, replica := b.Master, b.Replica
	switch r.below(4) {
	case 0:
		d := r.time(0, 3*time.Second)
		w.fault("sentinel", "master killed, back as a replica %v after the failover", d)
		master.Kill()
		b.WaitFailover()
		r.wait(d)
		master.Restart()
		b.Swap()
	case 1:
		w.fault("sentinel", "master stands still until it is replaced")
		master.Pause()
		b.WaitFailover()
		master.Resume()
		b.Swap()
	case 2:
		w.fault("sentinel", "failover by hand")
		b.Failover()
	case 3:
		d := r.time(200*time.Millisecond, 4*time.Second)
		w.fault("sentinel", "replica stands still for %v: nothing is answered", d)
		replica.Pause()
		r.wait(d)
		replica.Resume()
	}
}

// cluster is three masters with a replica each. An append is answered when both
// have it.
type cluster struct{ *redistest.Cluster }

func (b *cluster) nodes() int { return 2 }

func (b *cluster) forgetful() bool { return true }

func (b *cluster) url(int) string {
	u, err := url.Parse(b.URL())
	if err != nil {
		panic(err)
	}
	q := u.Query()
	q.Set("wait_replicas", "1")
	u.RawQuery = q.Encode()
	return u.String()
}

func (b *cluster) fault(w *world, r *dice) {
	i := r.below(len(b.Masters))
	master, replica := b.Masters[i], b.Replicas[i]
	switch r.below(4) {
	case 0:
		d := r.time(200*time.Millisecond, 3*time.Second)
		w.fault("cluster", "master %[2]d stands still for %[1]v", d, i)
		master.Pause()
		r.wait(d)
		master.Resume()
		b.WaitOK()
	case 1:
		w.fault("cluster", "shard %d fails over by hand", i)
		b.Failover(replica)
		b.Masters[i], b.Replicas[i] = replica, master
		b.WaitOK()
	case 2:
		w.fault("cluster", "slot of %s moves", channels[0])
		owner, slot := b.Owner(channels[0])
		to := b.Masters[0]
		for _, m := range b.Masters {
			if m != owner {
				to = m
			}
		}
		b.Migrate(slot, owner, to, func() { r.wait(r.time(0, 500*time.Millisecond)) })
	case 3:
		d := r.time(0, 3*time.Second)
		w.fault("cluster", "master %[2]d killed, back as a replica %[1]v after the failover", d, i)
		b.KillMaster(master)
		b.Masters[i], b.Replicas[i] = replica, master
		r.wait(d)
		master.Restart()
		b.WaitOK()
	}
}
