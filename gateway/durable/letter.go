package durable

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// DeadLetter is an event that a consumer refused, as people see it.
type DeadLetter struct {
	Event    json.RawMessage `json:"event"`
	Reason   string          `json:"reason"`
	Attempts int             `json:"attempts"`
	Time     time.Time       `json:"time"`
}

// Redriven is a dead letter that was put back: its event and what is needed
// to deliver it again.
type Redriven struct {
	ID     string // of the event, which others may have too
	Type   string
	Key    string
	Cursor string // names the letter
	Event  []byte
}

// Letter is the dead letter as a broker keeps it.
func (d DeadLetter) Letter() (broker.Letter, error) {
	var e struct {
		Cursor string `json:"cursor"`
	}
	if err := json.Unmarshal(d.Event, &e); err != nil {
		return broker.Letter{}, fmt.Errorf("read the event of a dead letter: %w", err)
	}
	data, err := json.Marshal(d)
	if err != nil {
		return broker.Letter{}, fmt.Errorf("encode dead letter: %w", err)
	}
	return broker.Letter{Cursor: e.Cursor, Time: d.Time, Data: data}, nil
}

// BuryEvent keeps dead letters, durably. The position moves by an Advance.
func (h *Ownership) BuryEvent(ctx context.Context, dead ...DeadLetter) error {
	if h.isGone() {
		return broker.ErrFenced
	}
	return h.k.bury(ctx, h.Name, h.Generation, dead)
}

func (k *Manager) bury(ctx context.Context, name string, generation uint64, dead []DeadLetter) error {
	letters := make([]broker.Letter, 0, len(dead))
	for _, d := range dead {
		l, err := d.Letter()
		if err != nil {
			return err
		}
		letters = append(letters, l)
	}
	dropped, err := k.o.Broker.Bury(ctx, broker.Burial{Name: name, Generation: generation, Letters: letters})
	if err != nil {
		return err
	}
	for i, d := range dead {
		k.o.Publish("deadletter", name, map[string]any{"event": d.ID(), "cursor": letters[i].Cursor, "reason": d.Reason, "attempts": d.Attempts})
	}
	if dropped > 0 {
		k.o.Publish("gap", name, map[string]any{"reason": "deadletters", "dropped": dropped})
	}
	return nil
}

// maxAgain bounds how many dead letters one owner takes at a time.
const maxAgain = 1000

// LettersAgain returns the dead letters that were put back, oldest first. Those
// of channels that the subscription had when they were, and hasn't now, stay
// dead: nobody may read them here, or could acknowledge them.
func (h *Ownership) LettersAgain(ctx context.Context) (all []Redriven, err error) {
	stored, err := h.k.o.Broker.Load(ctx, h.Name)
	if err != nil || stored.Redriving == 0 {
		return nil, err
	}
	s, err := Decode(stored)
	if err != nil {
		return nil, err
	}
	for after := uint64(0); len(all) < maxAgain; {
		page, err := h.k.o.Broker.Dead(ctx, h.Name, after, 500)
		if err != nil || len(page) == 0 {
			return all, err
		}
		var stay []broker.Letter
		for _, l := range page {
			if after = l.Seq; !l.Redrive {
				continue
			}
			r, err := redriven(l)
			if err != nil || !s.Definition.Has(r.Cursor) {
				stay = append(stay, l)
				continue
			}
			all = append(all, r)
		}
		if len(stay) > 0 { // burying takes the mark away
			if _, err := h.k.o.Broker.Bury(ctx, broker.Burial{Name: h.Name, Generation: h.Generation, Letters: stay}); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// Has tells whether the text is the cursor of an event in one of the
// subscription's channels.
func (d *Definition) Has(cursor string) bool {
	c, err := event.ParseCursor(cursor)
	return err == nil && slices.Contains(d.Channels, c.Channel)
}

// ID is the event's.
func (d DeadLetter) ID() string {
	var e struct{ ID string }
	json.Unmarshal(d.Event, &e)
	return e.ID
}

// Cursor is the event's, or "" if it has none.
func (d DeadLetter) Cursor() string {
	var e struct{ Cursor string }
	json.Unmarshal(d.Event, &e)
	return e.Cursor
}

func redriven(l broker.Letter) (Redriven, error) {
	var d DeadLetter
	if err := json.Unmarshal(l.Data, &d); err != nil {
		return Redriven{}, err
	}
	var e struct{ ID, Type, PartitionKey string }
	if err := json.Unmarshal(d.Event, &e); err != nil {
		return Redriven{}, err
	}
	return Redriven{ID: e.ID, Type: e.Type, Key: e.PartitionKey, Cursor: l.Cursor, Event: d.Event}, nil
}

// Remove drops dead letters that were delivered again.
func (h *Ownership) Remove(ctx context.Context, cursors []string) error {
	_, err := h.k.o.Broker.Remove(ctx, h.Name, cursors)
	return err
}

// Publish tells of something that happened to the subscription, by the gateway's own channel.
func (h *Ownership) Publish(kind string, data any) { h.k.o.Publish(kind, h.Name, data) }
