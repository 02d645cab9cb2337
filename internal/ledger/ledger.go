// Package ledger keeps books on a gateway: what was published, what each
// subscription's consumers were given and did, and what became of it. At the
// end each event of each subscription is acknowledged, dead-lettered, reported
// in a gap, or LOST, and nothing else.
package ledger

import (
	"fmt"
	"slices"
	"sync"

	"github.com/longline-push/longline/event"
)

// Ledger is the book of one subscription. Its methods may be called by many
// goroutines at once.
type Ledger struct {
	mu        sync.Mutex
	published map[int]published
	given     []Delivery
	first     map[int]bool
	done      map[int]bool
	gaps      []gap
	dead      map[string]bool
}

type published struct {
	id, key string
	cursor  event.Cursor
}

type gap struct{ from, to event.Cursor }

// Delivery is an event that reached a consumer.
type Delivery struct {
	Number    int
	Cursor    event.Cursor
	By        string // which connection or callback
	Announced bool   // as perhaps delivered before
}

// New returns an empty ledger.
func New() *Ledger {
	return &Ledger{published: map[int]published{}, first: map[int]bool{}, done: map[int]bool{}, dead: map[string]bool{}}
}

// Published notes that the gateway answered for an event.
func (l *Ledger) Published(number int, id, key, cursor string) error {
	c, err := event.ParseCursor(cursor)
	if err != nil {
		return fmt.Errorf("published event %d: %w", number, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published[number] = published{id, key, c}
	return nil
}

// Given notes that an event reached a consumer.
func (l *Ledger) Given(d Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.given = append(l.given, d)
	l.first[d.Number] = true
}

// Done notes that a consumer has processed an event.
func (l *Ledger) Done(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[number] = true
}

// Gap notes that events after from up to to were said not to come.
func (l *Ledger) Gap(from, to string) error {
	a, err := event.ParseCursor(from)
	if err != nil {
		return err
	}
	b, err := event.ParseCursor(to)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaps = append(l.gaps, gap{a, b})
	return nil
}

// Dead notes that an event is a dead letter, by its id.
func (l *Ledger) Dead(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead[id] = true
}

// Counts returns how many events were published, and how many are done.
func (l *Ledger) Counts() (published, done int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.published), len(l.done)
}

// Deliveries returns all deliveries in the order they came.
func (l *Ledger) Deliveries() []Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.given)
}

// Account is the balance of a ledger.
type Account struct {
	Published    int
	Acknowledged int // processed, and the position is past them
	Dead         int
	Gap          int
	Pending      []int // behind the position: they may yet come
	Lost         []int // the position is past them and nobody had them
	Duplicates   int
	Unannounced  []int    // came twice without a word
	Disordered   []string // first deliveries out of order
}

// Balance closes the book with the subscription's position. byKey: order is
// kept within each key, not over the channel.
func (l *Ledger) Balance(position event.Position, byKey bool) Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := Account{Published: len(l.published)}
	for n, p := range l.published {
		at, _ := position.Of(p.cursor.Channel)
		switch {
		case l.dead[p.id]:
			a.Dead++
		case l.inGap(p.cursor):
			a.Gap++
		case at.Epoch == p.cursor.Epoch && p.cursor.Offset > at.Offset:
			a.Pending = append(a.Pending, n)
		case l.done[n]:
			a.Acknowledged++
		default:
			a.Lost = append(a.Lost, n)
		}
	}
	slices.Sort(a.Lost)
	slices.Sort(a.Pending)
	seen, plain, last := map[int]bool{}, map[int]int{}, map[string]Delivery{}
	for _, d := range l.given {
		// Two connections' reports may cross: it takes two deliveries without
		// a word for one of them to be a surprise.
		if !d.Announced {
			if plain[d.Number]++; plain[d.Number] == 2 {
				a.Unannounced = append(a.Unannounced, d.Number)
			}
		}
		if seen[d.Number] {
			a.Duplicates++
			continue
		}
		seen[d.Number] = true
		lane := d.Cursor.Channel
		if byKey {
			lane += "|" + l.published[d.Number].key
		}
		if before := last[lane]; before.Cursor.Epoch == d.Cursor.Epoch && before.Cursor.Offset > d.Cursor.Offset {
			a.Disordered = append(a.Disordered, fmt.Sprintf("%s (by %s) first came after %s (by %s)", d.Cursor, d.By, before.Cursor, before.By))
		}
		last[lane] = d
	}
	return a
}

func (l *Ledger) inGap(c event.Cursor) bool {
	for _, g := range l.gaps {
		if g.to.Channel == c.Channel && g.to.Epoch == c.Epoch && c.Offset <= g.to.Offset &&
			(g.from.Epoch != c.Epoch || c.Offset > g.from.Offset) {
			return true
		}
	}
	return false
}

// Copy notes in to all that was published by l's book.
func (l *Ledger) Copy(to *Ledger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	for n, p := range l.published {
		to.published[n] = p
	}
}
