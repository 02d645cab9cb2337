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
		// On a busy machine a server is silent for seconds now and then. That must not
		// be taken for its end: a replica that is just being filled may be empty.
		s := prepare(t, "cluster-enabled", "yes", "cluster-port", freePort(t), "cluster-node-timeout", "4000",
			"cluster-replica-validity-factor", "0", "repl-ping-replica-period", "1")
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
	for i, r := range c.Replicas {
		id := c.Masters[i].Do("CLUSTER", "MYID")
		Eventually(t, func() error { return r.Client.Do(t.Context(), "CLUSTER", "REPLICATE", id).Err() })
	}
	c.WaitOK()
	return c
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
	Eventually(c.t, func() error {
		if role, err := replica.info("role", "INFO", "replication"); err == nil && role == "master" {
			return nil
		}
		// The other masters may refuse their votes for a while.
		if time.Since(asked) > 3*time.Second {
			asked = time.Now()
			return fmt.Errorf("asked %s to take over: %v", replica.Addr, replica.Client.Do(context.Background(), "CLUSTER", "FAILOVER").Err())
		}
		return fmt.Errorf("%s has not taken over", replica.Addr)
	})
}

// WaitMaster waits until s is a master.
func (c *Cluster) WaitMaster(s *Server) {
	c.t.Helper()
	Eventually(c.t, func() error {
		if role, err := s.info("role", "INFO", "replication"); err != nil || role != "master" {
			return fmt.Errorf("%s is %s (%v)", s.Addr, role, err)
		}
		return nil
	})
}
