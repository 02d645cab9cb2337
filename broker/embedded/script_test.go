package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/event"
)

// actor does the steps of a script to a broker, one after the other.
type actor struct {
	t       testing.TB
	ctx     context.Context
	b       *embedded.Broker
	tickets []broker.Ticket
	tight   atomic.Bool // retention keeps little

	mu sync.Mutex
	progress
}

// progress is how far a script is: so many steps were begun, so many survive the
// process's end, so many the machine's.
type progress struct{ begun, process, machine int }

// keeps says what an answered step survives.
type keeps int

const (
	nothing keeps = iota
	process
	machine // if fsync is always
	synced  // machine, whatever fsync is
)

type step struct {
	name  string
	keeps keeps
	do    func(*actor) error
}

var (
	clock = time.Date(2031, 5, 4, 3, 2, 1, 0, time.UTC)
	// firstLife is what a broker goes through that begins with nothing, and
	// secondLife goes on with what a crash left of it. A step that failed may be
	// tried again.
	firstLife = []step{
		{"append to a", machine, appends("a", "a1", "a2", "a3")},
		{"append a large event to b", machine, appends("b", "b1"+strings.Repeat("x", 9000))},
		{"store crm", machine, store("crm", func(a *actor, u *broker.Update) { u.Creator, u.Node, u.Set = "ann", "n1", a.at("a", 0) })},
		{"store parked", machine, store("parked", func(a *actor, u *broker.Update) { u.Wait = a.at("a", 3) })},
		{"store soon", machine, store("soon", func(_ *actor, u *broker.Update) { u.Due = 0 })},
		{"store later", machine, store("later", func(_ *actor, u *broker.Update) { u.Due = time.Hour })},
		{"advance crm", process, advance("a", 1, false)},
		{"append to a once more", machine, appends("a", "a4", "a5")},
		{"flush", nothing, func(a *actor) error { return a.b.Flush(a.ctx) }},
		{"bury letters", machine, bury("a", 2, 3)},
		{"mark a letter", nothing, func(a *actor) error { _, err := a.b.Redrive(a.ctx, "crm", []string{a.at("a", 2).String()}); return err }},
		{"sync", synced, func(a *actor) error { return a.b.SyncNow() }},
		{"hand out what is due", nothing, handOut},
		{"look after it", nothing, func(a *actor) error { return a.b.Done(a.ctx, a.tickets) }},
		{"advance crm for good", machine, advance("a", 4, true)},
		{"drop b", machine, drop("b")},
		{"begin b anew", machine, appends("b", "b2")},
		{"delete soon", machine, remove("soon")},
		{"join", nothing, func(a *actor) error { return a.b.Join(a.ctx, broker.Node{ID: "n1", Name: "n"}, time.Hour) }},
		{"trim", nothing, trim},
		{"back up", nothing, func(a *actor) error { return a.b.Backup(a.ctx, &bytes.Buffer{}) }},
		{"flush what was trimmed", nothing, func(a *actor) error { return a.b.Flush(a.ctx) }},
		{"remove a letter", nothing, func(a *actor) error { _, err := a.b.Remove(a.ctx, "crm", []string{a.at("a", 3).String()}); return err }},
		{"store a partition", machine, store("crm/0", func(a *actor, u *broker.Update) { u.Set = a.at("a", 4) })},
		{"divide crm no more", machine, store("crm", func(_ *actor, u *broker.Update) { u.Creator, u.Undivided, u.Due = "bob", true, 0 })},
		{"append what is there, and more", machine, appends("a", "a5", "a6")},
	}
	secondLife = []step{
		{"append to a", machine, appends("a", "a6", "a7")},
		{"store crm", machine, store("crm", func(a *actor, u *broker.Update) { u.Creator = "ann" })},
		{"sync", synced, func(a *actor) error { return a.b.SyncNow() }},
		{"advance crm", machine, advance("a", 7, true)},
		{"begin c", machine, appends("c", "c1")},
		{"bury letters", machine, bury("a", 7)},
		{"trim", nothing, trim},
		{"flush", nothing, func(a *actor) error { return a.b.Flush(a.ctx) }},
	}
)

// open opens the broker on fs, in a directory whose parents are new as well.
func (a *actor) open(fs vfs.FS, fsync embedded.Fsync) (err error) {
	o := embedded.Options{Dir: "srv/longline/data", Fsync: fsync, Logger: quiet(a.t)}
	o.Now = func() time.Time { return clock }
	o.Retention = func(string) broker.Retention {
		if a.tight.Load() {
			return broker.Retention{ReplayEvents: 1, MaxBytes: 100}
		}
		return broker.Retention{ReplayEvents: 1000}
	}
	a.b, err = embedded.Open(embedded.WithFS(o, fs))
	return err
}

// at is the position in which a channel is at an offset.
func (a *actor) at(channel string, offset uint64) event.Position {
	s, err := a.b.State(a.ctx, channel)
	if err != nil {
		a.t.Errorf("state of %s: %v", channel, err)
	}
	return event.Position{{Channel: channel, Epoch: s.Epoch, Offset: offset}}
}

func appends(channel string, data ...string) func(*actor) error {
	return func(a *actor) error {
		entries := make([]broker.Entry, len(data))
		for i, d := range data {
			entries[i] = broker.Entry{Identity: d, Data: []byte(d)}
		}
		places, err := a.b.Append(a.ctx, channel, entries)
		if err == nil && places[len(places)-1].Offset-places[0].Offset != uint64(len(data)-1) {
			err = fmt.Errorf("not beside each other: %+v", places)
		}
		return err
	}
}

func store(name string, change func(*actor, *broker.Update)) func(*actor) error {
	return func(a *actor) error {
		u := broker.Update{Name: name, Generation: 7, Channels: []string{"a"}, Due: broker.Never, Durable: true}
		change(a, &u)
		u.Record = fmt.Appendf(nil, "%s of %s", name, u.Creator)
		old, err := a.b.Load(a.ctx, name)
		if err != nil && !errors.Is(err, broker.ErrNotFound) {
			return err
		}
		u.Version = old.Version
		return a.b.Store(a.ctx, u)
	}
}

func advance(channel string, to uint64, durable bool) func(*actor) error {
	return func(a *actor) error {
		fenced, err := a.b.Advance(a.ctx, []broker.Move{{Name: "crm", Generation: 7, Position: a.at(channel, to), Durable: durable}})
		if len(fenced) > 0 {
			err = broker.ErrFenced
		}
		return err
	}
}

func bury(channel string, offsets ...uint64) func(*actor) error {
	return func(a *actor) error {
		burial := broker.Burial{Name: "crm", Generation: 7, Position: a.at(channel, offsets[len(offsets)-1])}
		for _, offset := range offsets {
			cursor := a.at(channel, offset).String()
			burial.Letters = append(burial.Letters, broker.Letter{Cursor: cursor, Time: clock, Data: []byte("letter of " + cursor)})
		}
		_, err := a.b.Bury(a.ctx, burial)
		return err
	}
}

func handOut(a *actor) (err error) {
	a.tickets, _, err = a.b.Due(a.ctx, nil, 10, time.Hour)
	return err
}

func drop(channel string) func(*actor) error {
	return func(a *actor) error { return a.forgive(a.b.Drop(a.ctx, channel)) }
}

func remove(name string) func(*actor) error {
	return func(a *actor) error {
		s, err := a.b.Load(a.ctx, name)
		if err == nil {
			err = a.b.Delete(a.ctx, name, s.Version)
		}
		return a.forgive(err)
	}
}

func trim(a *actor) error {
	a.tight.Store(true)
	defer a.tight.Store(false)
	return a.b.Trim(a.ctx)
}

// forgive takes for success what an earlier try explains.
func (a *actor) forgive(err error) error {
	if errors.Is(err, broker.ErrNotFound) {
		return nil
	}
	return err
}

// describe writes down all that a broker holds, the same for each run of a
// script.
func describe(ctx context.Context, b *embedded.Broker) (string, error) {
	var text strings.Builder
	var epochs []string // name, text, name, text, …
	channels, err := b.Channels(ctx, "", "", 100)
	if err != nil {
		return "", err
	}
	for _, channel := range channels {
		page, err := b.Read(ctx, channel, 0, broker.Limit{})
		if err != nil {
			return "", err
		}
		for i, f := range append(slices.Clone(page.State.Forks), broker.Fork{Epoch: page.State.Epoch, Head: page.State.Head}) {
			epochs = append(epochs, f.Epoch, fmt.Sprintf("epoch%d", i))
			fmt.Fprintf(&text, "%s %s until %d\n", channel, f.Epoch, f.Head)
		}
		fmt.Fprintf(&text, "%s from %d, %d bytes:", channel, page.State.First, page.State.Bytes)
		for i, item := range page.Items {
			if item.Offset != page.State.First+uint64(i) {
				return "", fmt.Errorf("%s has a hole before %d", channel, item.Offset)
			}
			fmt.Fprintf(&text, " %.4s/%d", item.Data, len(item.Data))
		}
		if uint64(len(page.Items)) != page.State.Head+1-page.State.First {
			return "", fmt.Errorf("%s holds %d events, its state is %+v", channel, len(page.Items), page.State)
		}
		text.WriteString("\n")
	}
	subscriptions, err := b.List(ctx, "", "", 100)
	if err != nil {
		return "", err
	}
	if s, err := b.Load(ctx, "crm/0"); err == nil {
		subscriptions = append(subscriptions, s)
	}
	for _, s := range subscriptions {
		fmt.Fprintf(&text, "%s: %q, generation %d, at %s, %d letters, %d to come again\n", s.Name, s.Record, s.Generation, s.Position, s.Dead, s.Redriving)
		letters, err := b.Dead(ctx, s.Name, 0, 100)
		if err != nil {
			return "", err
		}
		if len(letters) != s.Dead {
			return "", fmt.Errorf("%s has %d letters, %d by its count", s.Name, len(letters), s.Dead)
		}
		for _, l := range letters {
			fmt.Fprintf(&text, "  %d %s %q again: %t\n", l.Seq, l.Cursor, l.Data, l.Redrive)
		}
	}
	for _, who := range []string{"ann", "bob", "n1"} {
		created, err1 := b.Created(ctx, who, "", 100)
		owned, err2 := b.Owned(ctx, who, "", 100)
		if err := errors.Join(err1, err2); err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "%s created %q, owns %q\n", who, created, owned)
	}
	nodes, err := b.Nodes(ctx)
	if err != nil {
		return "", err
	}
	due, later, err := b.Waiting()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&text, "%d nodes, due %q, later %q\n", len(nodes), due, later)
	return strings.NewReplacer(epochs...).Replace(text.String()), nil
}
