package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// server is a master: one client to read, one link to write, one subscription.
type server struct {
	addr   string
	client *goredis.Client
	link   *link
	sub    *subscription
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

// servers knows which master holds which bucket. Where there are sentinels or
// a cluster it asks them now and then, and soon after anything went wrong.
type servers struct {
	b     *Broker
	slots [buckets]int // of a cluster
	ask   chan struct{}

	mu     sync.RWMutex
	of     [buckets]*server
	byAddr map[string]*server
	closed bool
}

const (
	askEvery   = 5 * time.Second
	maxAskAt   = 100 * time.Millisecond
	askTimeout = time.Second
)

func newServers(b *Broker) *servers {
	s := &servers{b: b, ask: make(chan struct{}, 1), byAddr: make(map[string]*server)}
	for i := range s.slots {
		s.slots[i] = slotOf(b.keys.tags[i])
	}
	return s
}

// bucket returns the master of a bucket.
func (s *servers) bucket(b int) *server {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.of[b]
}

// each returns the masters and their buckets.
func (s *servers) each() map[*server][]int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	masters := make(map[*server][]int)
	for b, srv := range s.of {
		masters[srv] = append(masters[srv], b)
	}
	return masters
}

// Pool is how the connections do that read, of all masters: counts since they are
// known to this broker, and how many there are now.
type Pool struct {
	Hits, Misses, Waits, Timeouts uint64
	Open, Idle                    int
}

// Pool counts the connections that read. A master that is no longer one takes
// its counts along.
func (b *Broker) Pool() (p Pool) {
	b.servers.mu.RLock()
	defer b.servers.mu.RUnlock()
	for _, srv := range b.servers.byAddr {
		s := srv.client.PoolStats()
		p.Hits += uint64(s.Hits)
		p.Misses += uint64(s.Misses)
		p.Waits += uint64(s.WaitCount)
		p.Timeouts += uint64(s.Timeouts)
		p.Open += int(s.TotalConns)
		p.Idle += int(s.IdleConns)
	}
	return p
}

// at returns the server at addr, connecting to it if need be.
func (s *servers) at(addr string) *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.atLocked(addr)
}

func (s *servers) atLocked(addr string) *server {
	if srv := s.byAddr[addr]; srv != nil {
		return srv
	}
	ctx, stop := context.WithCancel(s.b.ctx)
	srv := &server{addr: addr, client: goredis.NewClient(s.b.config.client(addr)), link: newLink(s.b, addr), stop: stop}
	srv.sub = newSubscription(s.b, addr)
	if s.closed {
		stop()
	}
	s.byAddr[addr] = srv
	srv.ended.Go(func() { srv.link.run(ctx) })
	srv.ended.Go(func() { srv.sub.run(ctx) })
	return srv
}

// moved notes what a MOVED told and asks for the rest.
func (s *servers) moved(bucket int, addr string) {
	s.mu.Lock()
	s.of[bucket] = s.atLocked(addr)
	s.mu.Unlock()
	s.refresh()
}

// refresh has the arrangement asked for soon.
func (s *servers) refresh() {
	select {
	case s.ask <- struct{}{}:
	default:
	}
}

// run follows the arrangement until ctx ends.
func (s *servers) run(ctx context.Context) {
	if s.b.config.mode == standalone {
		return
	}
	for {
		timer := time.NewTimer(jitter(askEvery))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.ask:
		case <-timer.C:
		}
		timer.Stop()
		if at, err := s.discover(ctx); err == nil {
			s.arrange(at)
		} else if ctx.Err() == nil {
			s.b.log.Debug("find the masters", "error", err)
		}
		if !sleep(ctx, jitter(2*maxAskAt)) {
			return
		}
	}
}

// arrange makes at, an address per bucket, the arrangement.
func (s *servers) arrange(at [buckets]string) {
	s.mu.Lock()
	changed, known := false, s.of[0] != nil
	used := make(map[string]bool)
	for b, addr := range at {
		if addr == "" {
			continue // nobody's for now; it stays where it was
		}
		used[addr] = true
		if s.of[b] == nil || s.of[b].addr != addr {
			s.of[b] = s.atLocked(addr)
			changed = true
		}
	}
	for _, srv := range s.of {
		if srv != nil {
			used[srv.addr] = true
		}
	}
	var gone []*server
	for addr, srv := range s.byAddr {
		if !used[addr] {
			gone = append(gone, srv)
			delete(s.byAddr, addr)
		}
	}
	s.mu.Unlock()
	if changed && known {
		s.b.log.Info("redis masters changed", "masters", len(used))
	}
	for _, srv := range gone {
		srv.stop()
		_ = srv.client.Close()
		s.b.wg.Go(srv.ended.Wait)
	}
	s.b.tail.rearrange()
}

// close ends all connections.
func (s *servers) close() {
	s.mu.Lock()
	s.closed = true
	all := make([]*server, 0, len(s.byAddr))
	for _, srv := range s.byAddr {
		all = append(all, srv)
	}
	s.mu.Unlock()
	for _, srv := range all {
		srv.stop()
		_ = srv.client.Close()
		_ = srv.link.client.Close()
	}
	for _, srv := range all {
		srv.ended.Wait()
	}
}

// discover asks which address has which bucket.
func (s *servers) discover(ctx context.Context) (at [buckets]string, err error) {
	switch s.b.config.mode {
	case sentinel:
		addr, err := s.askSentinels(ctx)
		for i := range at {
			at[i] = addr
		}
		return at, err
	case cluster:
		return s.askCluster(ctx)
	}
	for i := range at {
		at[i] = s.b.config.addrs[0]
	}
	return at, nil
}

func (s *servers) askSentinels(ctx context.Context) (string, error) {
	var errs []error
	for _, addr := range s.b.config.addrs {
		o := s.b.config.client(addr)
		o.DB, o.Username, o.Password = 0, s.b.config.sentinels.username, s.b.config.sentinels.password
		c := goredis.NewSentinelClient(o)
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		found, err := c.GetMasterAddrByName(ctx, s.b.config.master).Result()
		cancel()
		_ = c.Close()
		switch {
		case errors.Is(err, goredis.Nil):
			errs = append(errs, fmt.Errorf("sentinel at %s knows no master %q", addr, s.b.config.master))
		case err != nil:
			errs = append(errs, fmt.Errorf("sentinel at %s: %w", addr, err))
		case len(found) == 2:
			return net.JoinHostPort(found[0], found[1]), nil
		}
	}
	return "", errors.Join(errs...)
}

func (s *servers) askCluster(ctx context.Context) (at [buckets]string, err error) {
	s.mu.RLock()
	var addrs []string
	for addr := range s.byAddr {
		addrs = append(addrs, addr)
	}
	s.mu.RUnlock()
	var errs []error
	for _, addr := range append(addrs, s.b.config.addrs...) {
		c := goredis.NewClient(s.b.config.client(addr))
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		shards, err := c.ClusterShards(ctx).Result()
		cancel()
		_ = c.Close()
		if err != nil {
			errs = append(errs, fmt.Errorf("redis at %s: %w", addr, err))
			continue
		}
		host, _, _ := net.SplitHostPort(addr)
		for _, shard := range shards {
			master := s.masterOf(shard, host)
			for b, slot := range s.slots {
				for _, r := range shard.Slots {
					if int64(slot) >= r.Start && int64(slot) <= r.End {
						at[b] = master
					}
				}
			}
		}
		return at, nil
	}
	return at, errors.Join(errs...)
}

// masterOf is the address of a shard's master as told by the server at host, or
// "" if it has none that works.
func (s *servers) masterOf(shard goredis.ClusterShard, host string) string {
	for _, n := range shard.Nodes {
		if n.Role != "master" || n.Health != "online" {
			continue
		}
		port := n.Port
		if s.b.config.tls != nil && n.TLSPort != 0 {
			port = n.TLSPort
		}
		switch n.Endpoint {
		case "", "?": // it doesn't know its own
		default:
			host = n.Endpoint
		}
		return net.JoinHostPort(host, strconv.FormatInt(port, 10))
	}
	return ""
}

const slots = 16384 // of a cluster

// slotOf is the slot of a key that is a tag: CRC16 (XMODEM) of what stands
// between the braces, modulo 16384, as the cluster specification says.
func slotOf(tag string) int {
	crc := uint16(0)
	for _, c := range []byte(tag[1 : len(tag)-1]) {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slots
}
