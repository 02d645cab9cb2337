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
// ownership commits and gives up is then theirs. Each one's holder is told when
// it is lost. Called before anything is delivered.
func (h *Ownership) Gather(ctx context.Context, holder func(partition int) Holder) error {
	if !h.State.divided() {
		return nil
	}
	var mu sync.Mutex
	var some errgroup.Group
	some.SetLimit(16)
	for p := range h.State.Definition.Group.Partitions {
		some.Go(func() (err error) {
			defer h.k.o.Guard.Contain("group", func() { err = errPanicked })
			part, err := h.k.acquirePart(ctx, h.Name, h.State.Division, *h.State.Owner, p, holder(p), true)
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
		for _, c := range part.DeliveredUpTo {
			h.DeliveredUpTo = merge(h.DeliveredUpTo, c)
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

// Unclear is of how many events beyond that each partition's last owner didn't say
// whether it delivered them.
func (h *Ownership) Unclear() []int {
	unclear := make([]int, len(h.parts))
	for _, part := range h.parts {
		if _, p, _ := PartitionOf(part.Name); part.Doubt && part.Reach > 0 {
			unclear[p] = part.Reach
		}
	}
	return unclear
}

// Gathered tells whether the ownership is of a group's partitions, and so lasts
// as long as theirs do.
func (h *Ownership) Gathered() bool { return len(h.parts) > 0 }

// commitParts commits a position for each partition that wasn't given up. Those
// that are beyond it stay.
func (h *Ownership) commitParts(ctx context.Context, to event.Position) error {
	var moves []broker.Move
	var parts []*Ownership
	for _, part := range h.parts {
		if !part.isLeft() {
			moves = append(moves, broker.Move{Name: part.Name, Generation: part.Generation, Position: to})
			parts = append(parts, part)
		}
	}
	if len(moves) == 0 {
		return nil
	}
	fenced, err := h.k.o.Broker.Advance(ctx, moves)
	for _, i := range fenced {
		if err == nil && !parts[i].isLeft() {
			err = broker.ErrFenced
		}
	}
	return err
}

// ReleasePartition gives one partition up, while the others go on: everything of
// it up to done is acknowledged, up to handed it may have been delivered.
func (h *Ownership) ReleasePartition(p int, done, handed event.Position) {
	name := PartitionName(h.Name, p)
	for _, part := range h.parts {
		if part.Name != name || part.leaves() {
			continue
		}
		all := append(event.Position(nil), handed...)
		for _, c := range done {
			part.Advance(c, 1)
			all = merge(all, c) // should that not come to be committed
		}
		part.Release(all, 0)
	}
}

// leaves notes that a partition is being given up; true if that was so.
func (h *Ownership) leaves() (before bool) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	before, h.left = h.left, true
	return before
}

func (h *Ownership) isLeft() bool {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	return h.left
}

// releaseParts gives the partitions up, before the group itself. all: everything
// there was is acknowledged.
func (h *Ownership) releaseParts(handed event.Position, all bool) {
	for _, part := range h.parts {
		if part.leaves() {
			continue
		}
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
