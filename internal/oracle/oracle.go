// Package oracle judges a gateway: it is told what was published and answered,
// what each subscription's consumers were given and did, and what the gateway
// said of it, and says which promises that breaks. Every event that was
// answered is, for each subscription that it matches, done, a dead letter, in a
// gap that was told, or skipped by whoever moved the position; else it is LOST.
package oracle

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
)

// Published is an event whose publish was answered.
type Published struct {
	ID, Type, Key string
	Cursor        event.Cursor // as answered
	Begun         time.Time    // when its first try began
}

// World is what was published. Its methods may be called by many goroutines at
// once.
type World struct {
	mu     sync.Mutex
	events []Published
	forgot []gap // tails that a log has lost, by what anybody was told
}

// Forgot notes that somebody was told of a tail that a log has lost: what was in
// it after to's offset, in from's epoch.
func (w *World) Forgot(from, to event.Cursor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forgot = append(w.forgot, gap{from, to})
}

// kept tells whether no log has lost what was at a cursor.
func (w *World) kept(c event.Cursor) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.forgot, func(g gap) bool {
		return g.from.Channel == c.Channel && g.from.Epoch == c.Epoch && c.Offset > g.to.Offset
	})
}

// Published notes an event.
func (w *World) Published(p Published) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, p)
}

// Count is how many events were published.
func (w *World) Count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.events)
}

func (w *World) all() []Published {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.events)
}

// Delivery is an event that reached a consumer.
type Delivery struct {
	ID, Type  string
	Key       string
	Cursor    event.Cursor
	By        string    // which connection or callback
	Since     time.Time // when that connection began; zero for a callback
	Announced bool      // as perhaps delivered before
	Told      string    // what its connection was told of that, for people
}

// Book is one subscription's. Its methods may be called by many goroutines at
// once.
type Book struct {
	Name string
	// Matches says whether the subscription wants an event.
	Matches func(Published) bool
	// ByKey says that order is kept within each key, not over the channel.
	ByKey bool
	// Moved says that its position is moved by hand: repeats and order are not
	// judged then.
	Moved bool
	// Forgetful says that the broker may forget what it was not asked to keep on
	// another machine too: what a line acknowledged and was shown, as against what
	// was answered as acknowledged.
	Forgetful bool

	world *World

	mu      sync.Mutex
	skipped time.Time            // what was begun before is excused
	done    map[string]bool      // by id
	dead    map[string]bool      // by id
	gaps    []gap                //
	seen    map[place]sighting   // of each that came
	last    map[string]Delivery  // the last first delivery of each lane
	acked   map[string]confirmed // what was answered as acknowledged, by channel
	by      map[string]bool      // connections that delivered
	repeats int                  // deliveries of what was seen
	broken  []string             // promises
	twice   []repeat             // which breaks one, unless the first was forgotten
}

// place is a stored event. A publish that was not answered and is made again
// may have two.
type place struct {
	channel string
	offset  uint64
	id      string
}

// sighting is how often something came without a word, and how it came first.
type sighting struct {
	plain  int
	by     string
	at     time.Time
	cursor event.Cursor
}

// repeat is what came twice without a word. If the log has lost the first one,
// the publisher made it again, perhaps in the very same place.
type repeat struct {
	first event.Cursor
	text  string
}

type gap struct {
	from, to event.Cursor
}

type confirmed struct {
	cursor event.Cursor
	at     time.Time
}

// NewBook opens a book on what is published in w.
func NewBook(w *World, name string, matches func(Published) bool) *Book {
	return &Book{Name: name, Matches: matches, world: w, done: map[string]bool{}, dead: map[string]bool{},
		seen: map[place]sighting{}, last: map[string]Delivery{}, acked: map[string]confirmed{}, by: map[string]bool{}}
}

// Given notes that an event reached a consumer.
func (b *Book) Given(d Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by[d.By] = true
	if !b.Matches(Published{ID: d.ID, Type: d.Type, Key: d.Key, Cursor: d.Cursor}) {
		b.breakLocked("%s by %s isn't of this subscription", d.Cursor, d.By)
	}
	if c, ok := b.acked[d.Cursor.Channel]; ok && c.cursor.Epoch == d.Cursor.Epoch && d.Cursor.Offset <= c.cursor.Offset && d.Since.After(c.at) {
		b.breakLocked("%s came on %s, which began after %s was answered as acknowledged", d.Cursor, d.By, c.cursor)
	}
	at := place{d.Cursor.Channel, d.Cursor.Offset, d.ID}
	before, seen := b.seen[at]
	if !seen {
		before.by, before.at, before.cursor = d.By, time.Now(), d.Cursor
	}
	if !d.Announced {
		before.plain++
		// Two connections' reports may cross: it takes two deliveries without a
		// word for one of them to be a surprise.
		if before.plain == 2 && !b.Moved {
			b.twice = append(b.twice, repeat{before.cursor, said("%s came twice without a word: by %s at %s, now by %s, which was told %q",
				d.Cursor, before.by, before.at.UTC().Format(clock), d.By, d.Told)})
		}
	}
	b.seen[at] = before
	if seen {
		b.repeats++
		return
	}
	lane := d.Cursor.Channel
	if b.ByKey {
		lane += "|" + d.Key
	}
	if last, ok := b.last[lane]; ok && !b.Moved && last.Cursor.Epoch == d.Cursor.Epoch && last.Cursor.Offset > d.Cursor.Offset {
		b.breakLocked("%s (by %s) first came after %s (by %s)", d.Cursor, d.By, last.Cursor, last.By)
	}
	b.last[lane] = d
}

// Done notes that a consumer has processed an event.
func (b *Book) Done(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[id] = true
}

// Dead notes that an event is a dead letter.
func (b *Book) Dead(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead[id] = true
}

// Gap notes that events after from up to to were said not to come.
func (b *Book) Gap(from, to string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := event.ParseCursor(from)
	t, err2 := event.ParseCursor(to)
	if err != nil || err2 != nil {
		b.breakLocked("a gap from %q to %q", from, to)
		return
	}
	b.gaps = append(b.gaps, gap{f, t})
	if f.Epoch != t.Epoch {
		b.world.Forgot(f, t)
	}
}

// Acked notes that the gateway answered a cursor as acknowledged.
func (b *Book) Acked(c event.Cursor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if had, ok := b.acked[c.Channel]; ok && had.cursor.Epoch == c.Epoch && had.cursor.Offset >= c.Offset {
		return
	}
	b.acked[c.Channel] = confirmed{c, time.Now()}
}

// Shown notes a position that the gateway showed when asked at a time. It may
// not lie before what had been answered as acknowledged until then.
func (b *Book) Shown(p event.Position, asked time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for channel, c := range b.acked {
		at, ok := p.Of(channel)
		if c.at.Before(asked) && (!ok || at.Epoch == c.cursor.Epoch && at.Offset < c.cursor.Offset) {
			b.breakLocked("shown at %s, though %s had been answered as acknowledged", p, c.cursor)
		}
	}
	if b.Forgetful {
		return
	}
	for _, at := range p {
		if c, ok := b.acked[at.Channel]; !ok || c.cursor.Epoch != at.Epoch || c.cursor.Offset < at.Offset {
			b.acked[at.Channel] = confirmed{at, time.Now()}
		}
	}
}

// Skip notes that whoever is allowed to moved the position or made the
// subscription anew: nothing is owed of what was begun before a time.
func (b *Book) Skip(before time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.skipped = before
	clear(b.acked)
}

// Break notes a promise that was seen broken elsewhere.
func (b *Book) Break(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breakLocked(format, args...)
}

// clock is how times are told.
const clock = "15:04:05.000"

func (b *Book) breakLocked(format string, args ...any) {
	b.broken = append(b.broken, said(format, args...))
}

func said(format string, args ...any) string {
	return time.Now().UTC().Format(clock) + " " + fmt.Sprintf(format, args...)
}

// Account is the balance of a book.
type Account struct {
	Owed, Done, Dead, Gap int
	Skipped               int
	Lost                  []string // what is owed and is none of these
	Repeats               int      // deliveries of what had come before
	Connections           int      // that delivered anything, a callback counted once
	Broken                []string // promises, as they were seen broken
}

// Balance closes the book.
func (b *Book) Balance() Account {
	events := b.world.all()
	b.mu.Lock()
	defer b.mu.Unlock()
	a := Account{Repeats: b.repeats, Connections: len(b.by), Broken: slices.Clone(b.broken)}
	for _, r := range b.twice {
		if b.world.kept(r.first) {
			a.Broken = append(a.Broken, r.text)
		}
	}
	for _, p := range events {
		switch {
		case !b.Matches(p):
			continue
		case b.done[p.ID]:
			a.Done++
		case b.dead[p.ID]:
			a.Dead++
		case b.inGap(p.Cursor):
			a.Gap++
		case p.Begun.Before(b.skipped):
			a.Skipped++
		default:
			a.Lost = append(a.Lost, p.Cursor.String()+" "+p.ID)
		}
		a.Owed++
	}
	return a
}

func (b *Book) inGap(c event.Cursor) bool {
	for _, g := range b.gaps {
		if g.to.Channel != c.Channel {
			continue
		}
		switch {
		case g.from.Epoch != g.to.Epoch: // the log has lost what was behind the fork
			if c.Epoch == g.from.Epoch && c.Offset > g.to.Offset {
				return true
			}
		case c.Epoch == g.from.Epoch && c.Offset > g.from.Offset && c.Offset <= g.to.Offset:
			return true
		}
	}
	return false
}
