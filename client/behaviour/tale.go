package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// tale is one story being lived through: what was published, what the drivers
// said so far, in the order in which it was heard.
type tale struct {
	ctx     context.Context
	options Options
	gateway *gateway
	name    string
	drivers []*driver // owned by the one who lives it

	mu        sync.Mutex
	words     []word
	heard     chan struct{} // closed and made anew with each word
	published []string      // ids
}

// patience is how long anything may take, on a machine that has much to do.
const patience = 40 * time.Second

// failure is how a tale ends early.
type failure struct{ error }

func (t *tale) live(story func(*tale)) (err error) {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	t.ctx, t.heard = ctx, make(chan struct{})
	defer func() {
		for _, d := range t.drivers {
			d.kill()
		}
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = f.error
		}
	}()
	story(t)
	return nil
}

func (t *tale) fail(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

func (t *tale) must(what string, err error) {
	if err != nil {
		t.fail("%s: %v", what, err)
	}
}

func (t *tale) hear(w word) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.words = append(t.words, w)
	close(t.heard)
	t.heard = make(chan struct{})
}

// until waits for what was heard to be so.
func (t *tale) until(what string, is func(words []word) bool) {
	end := time.NewTimer(patience)
	defer end.Stop()
	for {
		t.mu.Lock()
		words, heard := t.words, t.heard
		t.mu.Unlock()
		for _, w := range words {
			if w.Told == "nonsense" {
				t.fail("the driver says %q, want a JSON line", w.Reason)
			}
		}
		if is(words) {
			return
		}
		select {
		case <-heard:
		case <-end.C:
			t.fail("waited %v in vain until %s; last heard: %s", patience, what, last(words))
		case <-t.ctx.Done():
			t.fail("%v", t.ctx.Err())
		}
	}
}

func last(words []word) string {
	var s []string
	for _, w := range words[max(0, len(words)-6):] {
		s = append(s, strings.TrimSpace(fmt.Sprintf("%s %s%s%s%s", w.Told, w.ID, w.Phase, w.Code, w.Outcome)))
	}
	return strings.Join(s, ", ")
}

// said waits for one word.
func (t *tale) said(what string, is func(w word) bool) (found word) {
	t.until(what, func(words []word) bool {
		for _, w := range words {
			if is(w) {
				found = w
				return true
			}
		}
		return false
	})
	return found
}

// phase waits for a state of a driver's.
func (t *tale) phase(d *driver, phase string) {
	t.said("the client is "+phase, func(w word) bool { return w.by == d && w.Told == "state" && w.Phase == phase })
}

// ended waits for the end of a driver's subscription.
func (t *tale) ended(d *driver, codes ...string) {
	w := t.said("it ends", func(w word) bool { return w.by == d && w.Told == "ended" })
	for _, code := range codes {
		if w.Code == code {
			return
		}
	}
	t.fail("it ended by %q, want %q", w.Code, codes)
}

// done waits until each event was handled, that is a call for it ended well.
func (t *tale) done(ids []string) { t.doneTimes(1, ids) }

// doneTimes waits until each event was handled so often.
func (t *tale) doneTimes(least int, ids []string) {
	t.until(fmt.Sprintf("all is handled, %d times", least), func(words []word) bool {
		handled := t.handled(words)
		for _, id := range ids {
			if handled[id] < least {
				return false
			}
		}
		return true
	})
}

// handled counts the calls that ended well, by id.
func (t *tale) handled(words []word) map[string]int {
	count := make(map[string]int)
	for _, w := range words {
		if w.Told == "end" && w.Outcome == "done" {
			count[w.ID]++
		}
	}
	return count
}

func (t *tale) soFar() []word {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.words
}

// once fails where an event was handled twice.
func (t *tale) once() {
	for id, n := range t.handled(t.soFar()) {
		if n > 1 {
			t.fail("event %s was handled %d times", id, n)
		}
	}
}

// inOrder fails where calls for one key overlapped, or first began out of order.
// Keys are the part of an id before its dash.
func (t *tale) inOrder() {
	busy, next := make(map[string]string), make(map[string]int)
	for _, w := range t.soFar() {
		key, number, _ := strings.Cut(w.ID, "-")
		switch w.Told {
		case "begin":
			if other := busy[key]; other != "" && other != w.ID {
				t.fail("%s began while %s of the same key was being handled", w.ID, other)
			}
			busy[key] = w.ID
			var n int
			fmt.Sscan(number, &n)
			if n > next[key]+1 {
				t.fail("%s began before %s-%d", w.ID, key, next[key]+1)
			}
			next[key] = max(next[key], n)
		case "end":
			busy[key] = ""
		}
	}
}

// subscription makes the tale's own, which is called as its channel.
func (t *tale) subscription(more ...any) string {
	name := "story-" + t.name
	settings := map[string]any{"channels": []string{name}, "start": "earliest"}
	for i := 0; i < len(more); i += 2 {
		settings[more[i].(string)] = more[i+1]
	}
	t.must("make a subscription", t.gateway.call(t.ctx, "PUT", "/v1/subscriptions/"+name, settings, nil))
	return name
}

// instruction is an event's data: what the driver's handler is to do. With no
// Do it returns.
type instruction struct {
	Do    string `json:"do,omitempty"`    // fail, reject, slow
	Times int    `json:"times,omitempty"` // of fail: while the attempt is no more than this
	MS    int    `json:"ms,omitempty"`    // of slow
}

// publish appends events <key>-<n>, each key's from where it was.
func (t *tale) publish(what instruction, n int, keys ...string) (ids []string) {
	var events []map[string]any
	for range n {
		for _, key := range keys {
			number := 1
			for _, id := range t.published {
				if strings.HasPrefix(id, key+"-") {
					number++
				}
			}
			id := fmt.Sprintf("%s-%d", key, number)
			t.published = append(t.published, id)
			ids = append(ids, id)
			events = append(events, map[string]any{"type": "story", "id": id, "source": "/judge", "partitionkey": key, "data": what})
		}
	}
	t.must("publish", t.gateway.call(t.ctx, "POST", "/v1/channels/story-"+t.name+"/events", events, nil))
	return ids
}

type status struct {
	Cursor string
	Status struct {
		State string
		Dead  int
		Lag   struct{ Events int }
	}
}

// settles waits until nothing is unacknowledged, and so many are dead letters.
func (t *tale) settles(dead int) {
	what := fmt.Sprintf("nothing is unacknowledged and %d are dead letters", dead)
	t.poll(what, func() bool {
		var s status
		t.must("look", t.gateway.call(t.ctx, "GET", "/v1/subscriptions/story-"+t.name, nil, &s))
		return s.Status.Lag.Events == 0 && s.Status.Dead == dead
	})
}

// poll asks the gateway, which tells nobody, until it is so.
func (t *tale) poll(what string, is func() bool) {
	for end := time.Now().Add(patience); !is(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(end) {
			t.fail("waited %v in vain until %s", patience, what)
		}
	}
}

func (t *tale) post(path string, body any) {
	t.must(path, t.gateway.call(t.ctx, "POST", "/v1/subscriptions/story-"+t.name+path, body, nil))
}

// take is the order by which a client of this kind takes events.
func (t *tale) take(name string) order {
	do := "attach"
	if t.options.Kind == "pull" {
		do = "pull"
	}
	return order{Do: do, Subscription: name, Concurrency: 4}
}
