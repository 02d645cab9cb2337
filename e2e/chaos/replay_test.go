package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// replays are the books of ranges that are delivered again, by the replay's name.
type replays struct {
	mu    sync.Mutex
	books map[string]*oracle.Book
	over  bool // no more are made
}

func (r *replays) of(name string) *oracle.Book {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.books[name]
}

func (r *replays) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.books))
}

// replay has a range of a subscription's events delivered again, one after the
// other until ctx ends: by callback, by pull or over a line, in turn.
func (w *world) replay(ctx context.Context, name string, by int) error {
	pause(ctx, time.Second)
	out, err := w.replayed(ctx, name, by%3 == 0)
	if err != nil {
		return err
	}
	book := w.replays.of(out)
	for n := 0; ctx.Err() == nil; n++ {
		switch by % 3 {
		case 0:
			pause(ctx, 200*time.Millisecond)
		case 1:
			_ = w.pull(ctx, book, n)
		case 2:
			_ = w.socket(ctx, book, "replayer", n)
		}
		if status(w.do(ctx, 4*time.Second, "GET", "/v1/subscriptions/"+url.PathEscape(out), nil, nil)) == http.StatusNotFound {
			return nil
		}
	}
	return nil
}

// replayed makes a replay, of the time until now or of a part of it.
func (w *world) replayed(ctx context.Context, name string, callback bool) (string, error) {
	in := map[string]any{"from": "earliest", "to": "latest", "callback": callback}
	if w.random(2) == 0 {
		in["from"] = time.Now().Add(-5 * time.Second).UTC().Format(time.RFC3339Nano)
	}
	var out struct{ Name, From, To string }
	// Held until its book is there: its callback may begin at once.
	w.replays.mu.Lock()
	defer w.replays.mu.Unlock()
	if w.replays.over {
		return "", errors.New("no more replays")
	}
	if err := w.do(ctx, 8*time.Second, "POST", "/v1/subscriptions/"+name+"/replay", in, &out); err != nil {
		return "", err
	}
	from, err := event.ParsePosition(out.From)
	to, err2 := event.ParsePosition(out.To)
	if err != nil || err2 != nil {
		return "", fmt.Errorf("replay from %q to %q", out.From, out.To)
	}
	w.note("by hand", "%s from %s to %s", out.Name, from, to)
	w.replays.books[out.Name] = oracle.NewBook(w.events, out.Name, func(p oracle.Published) bool {
		after, ok := from.Of(p.Cursor.Channel)
		upTo, _ := to.Of(p.Cursor.Channel)
		return ok && p.Cursor.Offset > after.Offset && p.Cursor.Offset <= upTo.Offset
	})
	return out.Name, nil
}

// settleReplays waits until each has ended.
func (w *world) settleReplays(deadline time.Time) {
	w.replays.mu.Lock()
	w.replays.over = true
	w.replays.mu.Unlock()
	for _, name := range w.replays.all() {
		for {
			var s map[string]any
			err := w.do(w.t.Context(), 5*time.Second, "GET", "/v1/subscriptions/"+url.PathEscape(name), nil, &s)
			if status(err) == http.StatusNotFound {
				break
			}
			if time.Now().After(deadline) {
				w.t.Errorf("%s doesn't come to an end: %v %v", name, s, err)
				break
			}
			pause(w.t.Context(), 100*time.Millisecond)
		}
	}
}

// onShift has all of a group's members come and go together, so that its callback
// has its turn.
func onShift(one func(ctx context.Context, number int) error) func(ctx context.Context, number int) error {
	const work, rest = 6 * time.Second, 3 * time.Second
	return func(ctx context.Context, number int) error {
		into := time.Duration(time.Now().UnixNano()) % (work + rest)
		if into > work {
			pause(ctx, work+rest-into)
			return nil
		}
		ctx, end := context.WithTimeout(ctx, work-into)
		defer end()
		return one(ctx, number)
	}
}

// member is one of a group that pulls, until ctx ends or it is refused.
func (w *world) member(ctx context.Context, book *oracle.Book, consumer string, number int) error {
	for ack := ""; ; {
		var out struct {
			Events     []message
			Cursor     string
			Connection string
			Redelivery struct{ Cursor string }
		}
		q := url.Values{"max": {"50"}, "wait": {"1s"}, "consumer": {consumer}, "hold": {"5s"}}
		if ack != "" {
			q.Set("ack", ack)
		}
		if err := w.ask(ctx, 8*time.Second, "http://"+w.front.Addr, "GET", "/v1/subscriptions/"+book.Name+"/events?"+q.Encode(), nil, &out); err != nil {
			return err
		}
		told, err := event.ParsePosition(out.Redelivery.Cursor)
		if err != nil {
			book.Break("pull's redelivery: %v", err)
		}
		for _, m := range out.Events {
			c, err := event.ParseCursor(m.Cursor)
			if err != nil {
				book.Break("pull: %v", err)
				return err
			}
			to, _ := told.Of(c.Channel)
			book.Given(oracle.Delivery{ID: m.ID, Type: m.Type, Key: m.PartitionKey, Cursor: c, By: fmt.Sprintf("%s#%d %s", consumer, number, out.Connection),
				Announced: announces(to, c), Told: "redelivery " + out.Redelivery.Cursor})
			book.Done(m.ID)
		}
		if w.random(40) == 0 {
			pause(ctx, time.Duration(w.random(int(4*time.Second))))
		}
		ack = out.Cursor
	}
}
