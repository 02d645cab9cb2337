package redistest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Cluster is a cluster of masters with one replica each.
type Cluster struct {
	Masters, Replicas []*Server
	t                 testing.TB
}

// StartCluster starts a cluster of three masters and three replicas and waits
// until it serves all slots.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	const masters = 3
	for i := range 2 * masters {
		// On a busy machine a server is silent for seconds now and then. No replica
		// takes over for that: one that is just being filled is empty.
		s := prepare(t, "cluster-enabled", "yes", "cluster-port", freePort(t),
			"cluster-replica-no-failover", "yes", "repl-ping-replica-period", "1")
		s.launch()
		if i < masters {
			c.Masters = append(c.Masters, s)
		} else {
			c.Replicas = append(c.Replicas, s)
		}
	}
	for i, s := range c.all() {
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
	}
	for i, s := range c.Masters {
		s.Do("CLUSTER", "ADDSLOTSRANGE", i*16384/masters, (i+1)*16384/masters-1)
	}
	for _, s := range c.all()[1:] {
		s.meet(c.Masters[0])
	}
	c.impatiently(func() {
		for i, r := range c.Replicas {
			id := c.Masters[i].Do("CLUSTER", "MYID")
			Eventually(t, func() error { return r.Client.Do(t.Context(), "CLUSTER", "REPLICATE", id).Err() })
		}
		c.WaitOK()
	})
	return c
}

// impatiently has the servers take a second's silence for an end while f runs,
// and vote again after two.
func (c *Cluster) impatiently(f func()) {
	patience := func(ms int) {
		for _, s := range c.running() {
			s.Do("CONFIG", "SET", "cluster-node-timeout", ms)
		}
	}
	patience(1000)
	f()
	patience(15000)
}

func (c *Cluster) all() []*Server { return append(append([]*Server(nil), c.Masters...), c.Replicas...) }

// meet introduces s to other.
func (s *Server) meet(other *Server) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(other.Addr)
	s.Do("CLUSTER", "MEET", host, port, other.busPort())
}

func (s *Server) busPort() string {
	for i, a := range s.args {
		if a == "--cluster-port" {
			return s.args[i+1]
		}
	}
	return ""
}

// WaitOK waits until every running node sees all slots served and every
// replica is in step.
func (c *Cluster) WaitOK() {
	c.t.Helper()
	for _, s := range c.all() {
		select {
		case <-s.exited:
			continue
		default:
		}
		Eventually(c.t, func() error {
			if state, err := s.info("cluster_state", "CLUSTER", "INFO"); err != nil || state != "ok" {
				return fmt.Errorf("cluster state at %s is %q (%v)", s.Addr, state, err)
			}
			role, err := s.info("role", "INFO", "replication")
			if err != nil {
				return err
			}
			if role == "slave" {
				if link, _ := s.info("master_link_status", "INFO", "replication"); link != "up" {
					return fmt.Errorf("replica at %s is not in step: link is %s", s.Addr, link)
				}
			} else if n, _ := s.info("connected_slaves", "INFO", "replication"); n == "0" && len(c.running()) == 6 {
				return fmt.Errorf("master at %s has no replica", s.Addr)
			}
			return nil
		})
	}
}

func (c *Cluster) running() []*Server {
	var up []*Server
	for _, s := range c.all() {
		select {
		case <-s.exited:
		default:
			up = append(up, s)
		}
	}
	return up
}

// URL is how a broker is told to use the cluster.
func (c *Cluster) URL() string {
	var addrs []string
	for _, s := range c.Masters {
		addrs = append(addrs, s.Addr)
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

// Migrate moves a slot with all its keys from one master to another, as
// resharding does: key by key, while both serve.
func (c *Cluster) Migrate(slot int, from, to *Server, between func()) {
	c.t.Helper()
	fromID, toID := from.Do("CLUSTER", "MYID"), to.Do("CLUSTER", "MYID")
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	host, port, _ := net.SplitHostPort(to.Addr)
	for {
		keys, _ := from.Do("CLUSTER", "GETKEYSINSLOT", slot, 1).([]any)
		if len(keys) == 0 {
			break
		}
		from.Do("MIGRATE", host, port, keys[0], 0, 5000)
		if between != nil {
			between()
		}
	}
	for _, s := range append([]*Server{to, from}, c.Masters...) {
		s.Do("CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
}

// Owner returns the running server that has the key of a channel's log and the
// key's slot.
func (c *Cluster) Owner(channel string) (*Server, int) {
	c.t.Helper()
	for _, s := range c.running() {
		if role, _ := s.info("role", "INFO", "replication"); role != "master" {
			continue
		}
		if keys, _ := s.Do("KEYS", "*m:"+channel).([]any); len(keys) > 0 {
			slot, _ := s.Do("CLUSTER", "KEYSLOT", keys[0]).(int64)
			return s, int(slot)
		}
	}
	c.t.Fatalf("no master has a log of %s", channel)
	return nil, 0
}

// ReplicaOf returns master's replica.
func (c *Cluster) ReplicaOf(master *Server) *Server {
	c.t.Helper()
	_, port, _ := net.SplitHostPort(master.Addr)
	for _, s := range c.running() {
		if got, err := s.info("master_port", "INFO", "replication"); err == nil && got == port {
			return s
		}
	}
	c.t.Fatalf("master at %s has no replica", master.Addr)
	return nil
}

// Failover makes a replica the master, by agreement with the present one.
func (c *Cluster) Failover(replica *Server) {
	c.t.Helper()
	asked := time.Time{}
	c.impatiently(func() {
		Eventually(c.t, func() error {
			err := replica.isMaster()
			// The other masters may refuse their votes for a while.
			if err != nil && time.Since(asked) > 3*time.Second {
				asked = time.Now()
				return fmt.Errorf("asked %s to take over: %v", replica.Addr, replica.Client.Do(context.Background(), "CLUSTER", "FAILOVER").Err())
			}
			return err
		})
	})
}

// KillMaster kills a master of whose log its replica has all that was
// acknowledged, and waits until that has taken over.
func (c *Cluster) KillMaster(master *Server) {
	c.t.Helper()
	c.WaitOK()
	replica := c.ReplicaOf(master)
	replica.Do("CONFIG", "SET", "cluster-replica-no-failover", "no")
	master.Kill()
	c.impatiently(func() { Eventually(c.t, replica.isMaster) })
	replica.Do("CONFIG", "SET", "cluster-replica-no-failover", "yes")
}

func (s *Server) isMaster() error {
	if role, err := s.info("role", "INFO", "replication"); err != nil || role != "master" {
		return fmt.Errorf("%s is %s (%v)", s.Addr, role, err)
	}
	return nil
}
