package durable

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
)

// Gather makes the callback that claimed a group the owner of all its
// partitions as well; a subscription that is not divided has none. What the
// ownership commits and gives up is then theirs. holder is told when one of them
// is lost. Called before anything is delivered.
func (h *Ownership) Gather(ctx context.Context, holder Holder) error {
	if !h.State.divided() {
		return nil
	}
	var mu sync.Mutex
	var some errgroup.Group
	some.SetLimit(16)
	for p := range h.State.Definition.Group.Partitions {
		some.Go(func() (err error) {
			defer h.k.o.Guard.Contain("group", func() { err = errPanicked })
			part, err := h.k.acquirePart(ctx, h.Name, h.State.Division, *h.State.Owner, p, holder)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			h.parts = append(h.parts, part)
			return nil
		})
	}
	err := some.Wait()
	for _, part := range h.parts {
		for _, c := range part.Handed {
			h.Handed = merge(h.Handed, c)
		}
		if h.Doubt = h.Doubt || part.Doubt; part.Doubt && part.Reach == cursor.Everything {
			h.Reach = part.Reach
		}
	}
	return err
}

// Done is what each of the group's partitions had acknowledged when it was
// gathered, by its number; nil if there are none.
func (h *Ownership) Done() []event.Position {
	if len(h.parts) == 0 {
		return nil
	}
	done := make([]event.Position, len(h.parts))
	for _, part := range h.parts {
		_, p, _ := PartitionOf(part.Name)
		done[p] = part.Position
	}
	return done
}

// moves are what commits a position: of a group each partition's own. Those
// that are beyond it stay.
func (h *Ownership) moves(to event.Position) []broker.Move {
	if len(h.parts) == 0 {
		return []broker.Move{{Name: h.Name, Generation: h.Generation, Position: to}}
	}
	moves := make([]broker.Move, len(h.parts))
	for i, part := range h.parts {
		moves[i] = broker.Move{Name: part.Name, Generation: part.Generation, Position: to}
	}
	return moves
}

// releaseParts gives the partitions up, before the group itself. all: everything
// there was is acknowledged.
func (h *Ownership) releaseParts(handed event.Position, all bool) {
	for _, part := range h.parts {
		if all {
			part.leave(releaseRequest{h: part, how: func(s State, env Env) (Change, error) {
				return Release(s, part.right(), nil, false, 0, env)
			}})
			continue
		}
		part.Release(handed, time.Duration(0))
	}
}

// holdsParts tells whether a partition is yet to be released.
func (k *Manager) holdsParts(h *Ownership) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, part := range h.parts {
		if !part.gone {
			return true
		}
	}
	return false
}
