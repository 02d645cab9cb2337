package durable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/wire"
)

func (k *Manager) hash(name string) uint64 { return maphash.String(k.seed, name) }

// take stores a change that makes this node the owner. One take of a
// subscription is under way at a time: each ends the ownership it replaced before
// its own begins, so that what that one delivered is known by then.
func (k *Manager) take(ctx context.Context, s State, c Change, holder Holder, node string) (*Ownership, error) {
	turn := &k.taking[k.hash(s.Name)%uint64(len(k.taking))]
	turn.Lock()
	defer turn.Unlock()
	h := &Ownership{
		k: k, Name: s.Name, Generation: c.Generation, Doubt: s.Doubt(), holder: holder, node: node,
		Position: append(event.Position(nil), s.Position...), State: s,
	}
	h.State.Record, h.State.Generation = c.Record, c.Generation
	if h.Reach = 2 * s.Definition.Window; s.Scattered {
		h.Reach = cursor.Everything
	}
	if p, err := event.ParsePosition(s.DeliveredUpTo); err == nil {
		h.DeliveredUpTo = p
	}
	// Known before it is stored, so that no message about it is missed.
	k.mu.Lock()
	if k.node != node {
		k.mu.Unlock()
		return nil, ErrSuspended
	}
	before := k.ownerships[s.Name]
	k.ownerships[s.Name] = h
	k.mu.Unlock()
	if err := k.Store(ctx, s, c); err != nil {
		k.mu.Lock()
		if k.ownerships[s.Name] == h {
			if delete(k.ownerships, s.Name); before != nil && !before.gone {
				k.ownerships[s.Name] = before
			}
		}
		k.mu.Unlock()
		if !errors.Is(err, broker.ErrConflict) {
			// It may have taken effect, or be about to: then nobody would serve it
			// until this incarnation ends.
			k.queueRelease(releaseRequest{h: h, quiet: true, how: func(now State, env Env) (Change, error) {
				return Withdraw(now, h.right(), s.Version, h.handed(nil), h.Doubt, env)
			}})
		}
		return nil, err
	}
	if before != nil {
		before.end(wire.CloseTakenOver, "another connection of this consumer attached")
		if d, ok := before.holder.(Deliverer); ok && before.Generation == s.Generation && s.Owner != nil {
			h.Doubt, h.DeliveredUpTo = before.unclear(), before.handed(d.Delivered())
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.node != node {
		return nil, ErrSuspended
	}
	h.stored = true
	if s.Replay != nil {
		k.replayMoved(s.Name) // whoever had it may have died before that was seen to
	}
	return h, nil
}

// Store stores a change and sends what it has to tell. broker.ErrConflict: the
// state was not the present one.
func (k *Manager) Store(ctx context.Context, s State, c Change) error {
	if c.Delete {
		if err := k.o.Broker.Delete(ctx, s.Name, s.Version); err != nil && !errors.Is(err, broker.ErrNotFound) {
			return err
		}
		if s.Replay == nil {
			k.dropReplays(ctx, s.Name)
		}
	} else {
		record, err := json.Marshal(c.Record)
		if err != nil {
			return fmt.Errorf("encode subscription %s: %w", s.Name, err)
		}
		if err := k.o.Broker.Store(ctx, c.Update(s, record, time.Now())); err != nil {
			return err
		}
	}
	if c.Tell.Op != "" {
		c.Tell.Name, c.Tell.Generation = s.Name, s.Generation
		k.send(ctx, c.To, c.Tell)
	}
	if s.held() && !c.Record.held() {
		k.freed(s.Name)
		if broker.IsPartition(s.Name) {
			k.send(ctx, "", Message{Op: OpFree, Name: s.Name}) // its next owner waits, on whatever node
		}
	}
	for _, node := range (&Record{Members: slices.Concat(s.Members, c.Record.Members)}).nodes() {
		k.send(ctx, node, Message{Op: OpChanged, Name: s.Name})
	}
	return nil
}

// Change loads a subscription, asks the rule what to make of it, and stores
// that, as often as it takes. The rule is asked with force once a callback in
// flight had its time to yield.
func (k *Manager) Change(ctx context.Context, name string, rule func(s State, force bool, env Env) (Change, error)) error {
	var deadline time.Time
	for {
		env, _, err := k.env(ctx)
		if err != nil {
			return err
		}
		s, err := k.Load(ctx, name)
		if errors.Is(err, broker.ErrNotFound) {
			s = State{Name: name}
		} else if err != nil {
			return err
		}
		if s.Owner != nil {
			k.refresh(ctx, s.Owner.Node)
		}
		c, err := rule(s, !deadline.IsZero() && env.Now.After(deadline), env)
		if errors.Is(err, ErrYield) {
			if deadline.IsZero() {
				deadline = env.Now.Add(YieldTime)
				k.send(ctx, s.Owner.Node, Message{Op: OpYield, Name: name, Generation: s.Generation})
			}
			if err := k.awaitFree(ctx, yieldLook, name); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := k.Store(ctx, s, c); !errors.Is(err, broker.ErrConflict) {
			return err
		}
	}
}
