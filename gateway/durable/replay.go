package durable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/wire"
)

// Replay says which range of another subscription's events one delivers again. It
// takes none beyond To and ends once its position is there: it is deleted, and
// its dead letters are the other's from then on.
type Replay struct {
	Of   string `json:"of"`   // the subscription's name
	From string `json:"from"` // position, before the first events
	To   string `json:"to"`   // position, of the last events; as From, of the same channels
}

// ReplayName is the name of a replay of a subscription.
func ReplayName(of, rest string) string { return of + access.ReplayMark + rest }

// IsReplay tells whether a name is a replay's.
func IsReplay(name string) bool { return access.Base(name) != name }

// CheckUsed returns nil if name can be that of a subscription that is there, be
// it a replay. Nobody can give a new one the name of a replay: see CheckName.
func CheckUsed(name string) error {
	of := access.Base(name)
	if err := CheckName(of); err != nil || of == name {
		return err
	}
	return CheckName(name[len(of)+len(access.ReplayMark):])
}

// End is where a replay ends in a channel; ok false for what is no replay.
func (r *Record) End(channel string) (c event.Cursor, ok bool) {
	if r.Replay == nil {
		return c, false
	}
	return cursorOf(r.Replay.To, channel)
}

// replayed tells whether a replay's position is where it ends. In a log that took
// the place of the one it is of, it ends where it begins.
func (k *Manager) replayed(ctx context.Context, s *State) (bool, error) {
	to, err := event.ParsePosition(s.Replay.To)
	if err != nil {
		return false, fmt.Errorf("decode replay %s: %w", s.Name, err)
	}
	for _, end := range to {
		at, ok := s.Position.Of(end.Channel)
		if !ok {
			continue
		}
		if at.Epoch != end.Epoch {
			state, err := k.o.Logs.State(ctx, end.Channel)
			if err != nil {
				return false, err
			}
			end.Offset, _ = state.Locate(end.Epoch, end.Offset)
			offset, place := state.Locate(at.Epoch, at.Offset)
			if place == broker.Unknown {
				return false, nil // the reset is yet to be told
			}
			at.Offset = offset
		}
		if at.Offset < end.Offset {
			return false, nil
		}
	}
	return true, nil
}

// endReplay ends a replay whose position is where it ends, once none of its dead
// letters is being delivered again.
func (k *Manager) endReplay(ctx context.Context, name string) error {
	s, err := k.Load(ctx, name)
	if err != nil || s.Replay == nil || s.Redriving > 0 {
		return err
	}
	if done, err := k.replayed(ctx, &s); err != nil || !done {
		return err
	}
	if s.Dead > 0 {
		if err := k.inherit(ctx, &s); err != nil {
			return err
		}
	}
	of := s.Replay.Of
	err = k.Change(ctx, name, func(now State, _ bool, _ Env) (Change, error) {
		if now.Version == 0 || now.Replay == nil || now.Dead > s.Dead || now.Redriving > 0 {
			return Change{}, ErrNotDue
		}
		c := Delete(now)
		c.Tell.Code, c.Tell.Reason = wire.CloseNormal, "the replay is complete"
		return c, nil
	})
	if err == nil {
		k.o.Publish("replayed", of, map[string]string{"replay": name, "from": s.Replay.From, "to": s.Replay.To})
	}
	return err
}

// inherit gives a replay's dead letters to the subscription whose events they
// are. It does no harm to do it twice.
func (k *Manager) inherit(ctx context.Context, s *State) error {
	for after := uint64(0); ; {
		page, err := k.o.Broker.Dead(ctx, s.Name, after, 100)
		if err != nil || len(page) == 0 {
			return err
		}
		var dead []DeadLetter
		for _, l := range page {
			after = l.Seq
			var d DeadLetter
			if json.Unmarshal(l.Data, &d) == nil {
				dead = append(dead, d)
			}
		}
		err = broker.ErrFenced
		for errors.Is(err, broker.ErrFenced) { // it may change hands meanwhile
			heir, loadErr := k.Load(ctx, s.Replay.Of)
			if errors.Is(loadErr, broker.ErrNotFound) {
				return nil // and so is the replay, soon
			}
			if err = loadErr; err == nil {
				err = k.bury(ctx, heir.Name, heir.Generation, dead)
			}
		}
		if err != nil {
			return err
		}
	}
}

// replayMoved sees to it that a replay ends when it may have come to its end.
func (k *Manager) replayMoved(name string) {
	k.running.Go(func() {
		k.o.Guard.Do("replay", func() {
			ctx, cancel := context.WithTimeout(context.Background(), k.o.TTL/2)
			defer cancel()
			err := k.endReplay(ctx, name)
			if err != nil && !errors.Is(err, ErrNotDue) && !errors.Is(err, broker.ErrNotFound) {
				k.o.Logger.Debug("end a replay", "subscription", name, "error", err)
			}
		})
	})
}

// reaches tells whether a replay may be at its end, for a look at it, when its
// position is moved to p: it is in some channel.
func (r *Record) reaches(p event.Position) bool {
	if r.Replay == nil {
		return false
	}
	for _, c := range p {
		if end, ok := r.End(c.Channel); ok && (end.Epoch != c.Epoch || end.Offset <= c.Offset) {
			return true
		}
	}
	return false
}

// dropReplays deletes what replays a subscription that was deleted.
func (k *Manager) dropReplays(ctx context.Context, of string) {
	for {
		page, err := k.o.Broker.List(ctx, of+access.ReplayMark, "", 100)
		for _, one := range page {
			if err == nil {
				err = k.Change(ctx, one.Name, func(s State, _ bool, _ Env) (Change, error) {
					if s.Version == 0 {
						return Change{}, ErrNotDue
					}
					return Delete(s), nil
				})
			}
			if errors.Is(err, ErrNotDue) {
				err = nil
			}
		}
		if err != nil {
			k.o.Logger.Warn("delete the replays of a subscription that is gone", "subscription", of, "error", err)
		}
		if err != nil || len(page) == 0 {
			return
		}
	}
}
