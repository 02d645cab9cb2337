package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Sentinels is a master, its replica and the three sentinels that watch them
// under the name "main".
type Sentinels struct {
	Master, Replica *Server
	Watchers        []*Server
	t               testing.TB
}

// StartSentinels starts them and waits until the sentinels know each other and
// the replica. Settings are those of master and replica.
func StartSentinels(t testing.TB, settings ...string) *Sentinels {
	t.Helper()
	g := &Sentinels{t: t}
	settings = append([]string{"repl-ping-replica-period", "1"}, settings...)
	g.Master = Start(t, settings...)
	host, port, _ := net.SplitHostPort(g.Master.Addr)
	g.Replica = Start(t, append(settings, "replicaof", host+" "+port)...)
	Eventually(t, func() error {
		if link, err := g.Replica.info("master_link_status", "INFO", "replication"); err != nil || link != "up" {
			return fmt.Errorf("replica's link is %q (%v)", link, err)
		}
		return nil
	})
	for range 3 {
		g.Watchers = append(g.Watchers, g.watcher(host, port))
	}
	for _, w := range g.Watchers {
		Eventually(t, func() error {
			text := fmt.Sprint(w.Do("SENTINEL", "MASTER", "main"))
			if !strings.Contains(text, "num-other-sentinels 2") || !strings.Contains(text, "num-slaves 1") {
				return fmt.Errorf("sentinel at %s doesn't know all: %s", w.Addr, text)
			}
			return nil
		})
	}
	return g
}

func (g *Sentinels) watcher(host, port string) *Server {
	g.t.Helper()
	own := freePort(g.t)
	dir := g.t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main %s %s 2\nsentinel down-after-milliseconds main %d\n"+
		"sentinel failover-timeout main 5000\nprotected-mode no\n", host, port, patient)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", own), t: g.t, dir: dir,
		args: []string{conf, "--sentinel", "--bind", "127.0.0.1", "--port", own, "--dir", dir, "--logfile", "log"}}
	s.Client = goredis.NewClient(&goredis.Options{Addr: s.Addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1})
	g.t.Cleanup(func() { _ = s.Client.Close() })
	s.launch()
	return s
}

// URL is how a broker is told to use them.
func (g *Sentinels) URL() string {
	var addrs []string
	for _, w := range g.Watchers {
		addrs = append(addrs, w.Addr)
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/main"
}

// How many milliseconds of a master's silence the sentinels take for its end. On
// a busy machine a server is silent for seconds now and then. That must not cause
// a failover: a replica that is just being filled is empty.
const patient, impatient = 60_000, 1000

// WaitFailover has the sentinels replace a master that is gone, and waits until
// they name the replica as the master.
func (g *Sentinels) WaitFailover() {
	g.t.Helper()
	g.downAfter(impatient)
	g.waitMaster(g.Replica)
	g.downAfter(patient)
}

func (g *Sentinels) downAfter(ms int) {
	g.t.Helper()
	for _, w := range g.Watchers {
		w.Do("SENTINEL", "SET", "main", "down-after-milliseconds", ms)
	}
}

// FailBack has the sentinels make the master the master once more, after a
// failover that it lived through, and waits until it is. It is the replica's
// replica by then, and has what that one had.
func (g *Sentinels) FailBack() {
	g.t.Helper()
	g.waitReplica(g.Master)
	Eventually(g.t, func() error {
		return g.Watchers[0].Client.Do(context.Background(), "SENTINEL", "FAILOVER", "main").Err()
	})
	g.waitMaster(g.Master)
	g.waitReplica(g.Replica)
}

// Failover has the sentinels make the replica the master, and Swap.
func (g *Sentinels) Failover() {
	g.t.Helper()
	Eventually(g.t, func() error {
		return g.Watchers[0].Client.Do(context.Background(), "SENTINEL", "FAILOVER", "main").Err()
	})
	g.waitMaster(g.Replica)
	g.Swap()
}

// Swap gives master and replica the names that fit after a failover, and waits
// until the replica follows its master.
func (g *Sentinels) Swap() {
	g.t.Helper()
	g.Master, g.Replica = g.Replica, g.Master
	g.waitReplica(g.Replica)
}

// waitReplica waits until a server is the other one's replica.
func (g *Sentinels) waitReplica(s *Server) {
	g.t.Helper()
	Eventually(g.t, func() error {
		if link, err := s.info("master_link_status", "INFO", "replication"); err != nil || link != "up" {
			return fmt.Errorf("the link of %s to its master is %q (%v)", s.Addr, link, err)
		}
		return nil
	})
}

func (g *Sentinels) waitMaster(s *Server) {
	g.t.Helper()
	for _, w := range g.Watchers {
		Eventually(g.t, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			at, err := w.Client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").StringSlice()
			if err != nil || len(at) != 2 || net.JoinHostPort(at[0], at[1]) != s.Addr {
				return fmt.Errorf("sentinel at %s names %v (%v)", w.Addr, at, err)
			}
			return nil
		})
	}
}
