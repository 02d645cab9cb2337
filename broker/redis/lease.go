package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
)

// A lease is kept three times, in buckets that a cluster has on three masters,
// so that none of them alone decides which nodes live. What was written is what
// two copies took; a node is dead where two copies say so, or all but one that
// can't be asked. A renewal that succeeded is thus known to whoever says dead,
// and what two copies called dead is never renewed.
const (
	copies   = 3
	majority = 2
)

// What lease.lua answers.
const (
	leaseEnded = 0
	leaseHeld  = 1
)

// node is what is told of a node.
type node struct {
	broker.Node
	Format int `json:"format"` // that it writes
}

// Join implements broker.Leases.
func (b *Broker) Join(ctx context.Context, n broker.Node, ttl time.Duration) error {
	verb := "join as node " + n.ID
	n.Alive = false
	text, err := json.Marshal(node{n, Format})
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if _, err := b.lease(ctx, n.ID, ttl, text); err != nil {
		return unavailable(verb, err)
	}
	return nil
}

// Renew implements broker.Leases.
func (b *Broker) Renew(ctx context.Context, id string, ttl time.Duration) error {
	verb := "renew the lease of node " + id
	answers, err := b.lease(ctx, id, ttl)
	if err != nil {
		return unavailable(verb, err)
	}
	held, ended := 0, []int(nil)
	for i, a := range answers {
		switch a {
		case leaseHeld:
			held++
		case leaseEnded:
			ended = append(ended, i)
		}
	}
	if held < majority {
		if len(ended) >= majority {
			return fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
		}
		return unavailable(verb, fmt.Errorf("only %d of %d copies took it", held, copies))
	}
	b.restoreLease(ctx, id, ttl, ended)
	return nil
}

// lease runs lease.lua on all copies and returns what they answered, as soon as
// two agree or all answered: that one can't be reached holds up nobody.
func (b *Broker) lease(ctx context.Context, id string, ttl time.Duration, more ...any) (answers [copies]int64, err error) {
	if err := b.usable(ctx); err != nil {
		return answers, err
	}
	type result struct {
		i      int
		answer any
		err    error
	}
	ended := make(chan result, copies)
	expires := time.Now().Add(answerWithin)
	for i, bucket := range b.leases {
		answers[i] = -1
		nodes, leases := b.keys.nodes(bucket)
		c := &call{bucket: bucket, script: leaseScript, keys: []string{nodes, leases}, expires: expires,
			args: append([]any{id, ttl.Milliseconds()}, more...)}
		c.finish = func(answer any, err error) { ended <- result{i, answer, err} }
		b.servers.bucket(bucket).link.send(c)
	}
	timer := time.NewTimer(answerWithin)
	defer timer.Stop()
	agree := map[int64]int{}
	for range copies {
		select {
		case r := <-ended:
			if r.err != nil {
				err = r.err
				continue
			}
			n, _ := r.answer.(int64)
			answers[r.i] = n
			if agree[n]++; agree[n] == majority {
				// The third, if it is as quick, may need what the two have.
				select {
				case r := <-ended:
					if n, ok := r.answer.(int64); ok && r.err == nil {
						answers[r.i] = n
					}
				case <-time.After(copyPatience):
				}
				return answers, nil
			}
		case <-ctx.Done():
			return answers, ctx.Err()
		case <-b.ctx.Done():
			return answers, broker.ErrClosed
		case <-timer.C:
			return answers, errCopies
		}
	}
	if err == nil {
		err = errCopies // one of each
	}
	return answers, err
}

// copyPatience is how long a call waits for the third copy.
const copyPatience = 20 * time.Millisecond

var errCopies = fmt.Errorf("fewer than %d of the %d copies of the leases can be reached", majority, copies)

// restoreLease brings copies up to date in which a lease ended, or that forgot
// it, though the others hold it.
func (b *Broker) restoreLease(ctx context.Context, id string, ttl time.Duration, list []int) {
	if len(list) == 0 {
		return
	}
	nodes, _, err := b.leaseCopies(ctx)
	if err != nil {
		return // the next renewal finds it again
	}
	n, known := nodes[id]
	if !known {
		return
	}
	n.Alive = false
	text, err := json.Marshal(n)
	if err != nil {
		return
	}
	err = b.doEach(ctx, len(list), func(i int) *call {
		nodes, leases := b.keys.nodes(b.leases[list[i]])
		return &call{bucket: b.leases[list[i]], script: leaseScript, keys: []string{nodes, leases},
			args: []any{id, ttl.Milliseconds(), text}}
	}, nil)
	if err != nil {
		b.log.Debug("restore a copy of a lease", "node", id, "error", err)
	}
}

// Nodes implements broker.Leases.
func (b *Broker) Nodes(ctx context.Context) ([]broker.Node, error) {
	nodes, _, err := b.leaseCopies(ctx)
	if err != nil {
		return nil, unavailable("list nodes", err)
	}
	all := make([]broker.Node, 0, len(nodes))
	for _, n := range nodes {
		all = append(all, n.Node)
	}
	slices.SortFunc(all, func(x, y broker.Node) int { return strings.Compare(x.ID, y.ID) })
	return all, nil
}

// leaseCopies reads the copies, of which one may be out of reach, and returns
// every node that one of them knows, and how many copies there were.
func (b *Broker) leaseCopies(ctx context.Context) (map[string]node, int, error) {
	type copy struct {
		list []any
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	read := make(chan copy, copies)
	for _, bucket := range b.leases {
		go func() {
			nodes, leases := b.keys.nodes(bucket)
			list, err := b.query(ctx, bucket, nodesScript, []string{nodes, leases})
			read <- copy{list, err}
		}()
	}
	nodes, alive, readable := map[string]node{}, map[string]int{}, 0
	var failure error
	var patience <-chan time.Time // for the third
	for range copies {
		var c copy
		select {
		case c = <-read:
		case <-patience:
			continue
		}
		if c.err != nil {
			failure = c.err
			continue
		}
		if readable++; readable == majority {
			patience = time.After(copyPatience)
		}
		for i := 0; i+1 < len(c.list); i += 2 {
			var n node
			text, _ := c.list[i].(string)
			if err := json.Unmarshal([]byte(text), &n); err != nil {
				return nil, 0, err
			}
			nodes[n.ID] = n
			if c.list[i+1] == int64(1) {
				alive[n.ID]++
			}
		}
	}
	if readable < majority {
		return nil, readable, failure
	}
	for id, n := range nodes {
		// Dead where two say so.
		n.Alive = readable-alive[id] < majority
		nodes[id] = n
	}
	return nodes, readable, nil
}

// Leave implements broker.Leases.
func (b *Broker) Leave(ctx context.Context, id string) error {
	left := 0
	err := b.doEach(ctx, copies, func(i int) *call {
		nodes, leases := b.keys.nodes(b.leases[i])
		return &call{bucket: b.leases[i], script: leaveScript, keys: []string{nodes, leases}, args: []any{id}}
	}, func(int, any) { left++ })
	if err != nil && left < majority {
		return unavailable("forget node "+id, err)
	}
	return nil
}
