package durable_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/event"
)

// whole is a broker with all that a walk asks of it.
type whole interface {
	broker.Log
	broker.Tail
	broker.Durable
}

// TestReplay walks through the model at random and asks real brokers the same,
// step by step: they must come to the same state, or refuse the same moves.
func TestReplay(t *testing.T) {
	walks := 30
	if *deep {
		walks = 1000
	}
	t.Run("embedded", func(t *testing.T) {
		b, err := embedded.Open(embedded.Options{Dir: t.TempDir(), Fsync: embedded.FsyncEverySecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		replay(t, b, walks)
	})
	t.Run("redis", func(t *testing.T) {
		b, err := redis.Open(t.Context(), redistest.Start(t).URL(), redis.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		replay(t, b, walks)
	})
}

func replay(t *testing.T, b whole, walks int) {
	tracing = true
	defer func() { tracing = false }()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	most := limits{happened: happened{cuts: 2, crashes: 2, connects: 6, seeks: 2, posts: 2, losses: 2, pauses: 1}}
	for i := range walks {
		w := &walk{t: t, b: b, name: fmt.Sprint("s", i), channel: fmt.Sprint("c", i)}
		w.begin()
		for step := 0; step < 60 && !t.Failed(); step++ {
			all := w.at.next(most)
			if len(all) == 0 {
				break // everything has happened
			}
			next := all[random.IntN(len(all))]
			w.way = append(w.way, next.name)
			w.at = next.to
			for _, o := range next.ops {
				w.ask(o)
			}
			w.compare()
		}
		w.end()
		if t.Failed() {
			t.Fatalf("after %q", w.way)
		}
	}
}

// walk is a way through the model beside a real broker.
type walk struct {
	t             *testing.T
	b             whole
	name, channel string
	epoch         string
	version       uint64
	at            world
	way           []string
}

func (w *walk) begin() {
	w.t.Helper()
	state, err := w.b.Follow(w.t.Context(), w.channel, silent{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.b.Unfollow(w.channel, silent{})
	w.epoch = state.Epoch
	traced = nil
	w.at.make()
	for _, o := range traced {
		o.store.Set = at(0)
		w.ask(o)
	}
}

type silent struct{}

func (silent) Announce(broker.Announcement) {}

// here translates the model's cursors.
func (w *walk) here(p event.Position) (there event.Position) {
	for _, c := range p {
		there = append(there, event.Cursor{Channel: w.channel, Epoch: w.epoch, Offset: c.Offset})
	}
	return there
}

func (w *walk) ask(o op) {
	w.t.Helper()
	ctx := w.t.Context()
	switch {
	case o.append:
		if _, err := w.b.Append(ctx, w.channel, []broker.Entry{{Data: []byte("e")}}); err != nil {
			w.t.Fatal(err)
		}
	case o.store != nil:
		u := *o.store
		u.Name, u.Version, u.Channels, u.Set, u.Wait = w.name, w.version, []string{w.channel}, w.here(u.Set), w.here(u.Wait)
		if u.Node != "" {
			u.Node = w.name + u.Node // of this walk
		}
		if err := w.b.Store(ctx, u); err != nil {
			w.t.Errorf("store: %v", err)
		}
		s, err := w.b.Load(ctx, w.name)
		if err != nil || s.Version <= w.version {
			w.t.Errorf("stored at version %d: got version %d, %v", w.version, s.Version, err)
		}
		w.version = s.Version
	case o.advance != nil:
		m := broker.Move{Name: w.name, Generation: o.advance.Generation, Position: w.here(o.advance.Position)}
		fenced, err := w.b.Advance(ctx, []broker.Move{m})
		if err != nil || len(fenced) > 0 != o.refused {
			w.t.Errorf("advance by generation %d: fenced %v, %v; the model says refused %v", m.Generation, fenced, err, o.refused)
		}
	case o.served:
		tickets, _, err := w.b.Due(ctx, nil, 10, time.Millisecond)
		if err == nil {
			err = w.b.Done(ctx, tickets)
		}
		if err != nil {
			w.t.Error(err)
		}
	}
}

// compare holds the broker against the model.
func (w *walk) compare() {
	w.t.Helper()
	s, err := w.b.Load(w.t.Context(), w.name)
	if err != nil {
		w.t.Fatal(err)
	}
	if got, _ := s.Position.Of(w.channel); s.Version != w.version || s.Generation != uint64(w.at.sub.gen) || got.Offset != uint64(w.at.acked) {
		w.t.Errorf("got version %d, generation %d, offset %d; the model has %d, %d, %d",
			s.Version, s.Generation, got.Offset, w.version, w.at.sub.gen, w.at.acked)
	}
	for n := range int8(2) {
		for _, inc := range slices.Compact([]int8{w.at.nodes[n].inc, w.at.sub.inc}) {
			id := nodeID(n, inc)
			owned, err := w.b.Owned(w.t.Context(), w.name+id, "", 10)
			want := w.at.sub.kind > 0 && w.at.sub.node == n && w.at.sub.inc == inc
			if err != nil || slices.Contains(owned, w.name) != want {
				w.t.Errorf("owned by %s: got %q, %v; the model says %v", id, owned, err, want)
			}
		}
	}
}

// end checks that what is due in the model is due, and takes it away.
func (w *walk) end() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	for want := w.at.due == dueNow; ; {
		tickets, _, err := w.b.Due(ctx, nil, 10, time.Millisecond)
		if err != nil {
			w.t.Fatalf("due: %v; the model says due %v", err, want)
		}
		got := slices.ContainsFunc(tickets, func(t broker.Ticket) bool { return t.Name == w.name })
		if got || !want {
			break
		}
	}
	if err := w.b.Delete(w.t.Context(), w.name, w.version); err != nil {
		w.t.Error(err)
	}
}
