package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

type story struct {
	name  string
	kinds []string
	own   bool // it needs a gateway for itself
	about string
	live  func(*tale)
}

var (
	both     = []string{"line", "pull"}
	lineOnly = []string{"line"}
)

// stories are what a client has to live through. Each says what must be so at
// its end; all of them together are the checklist.
var stories = []story{
	{"order", both, false, "every event once, each key in order, then all is acknowledged", func(t *tale) {
		name := t.subscription()
		ids := t.publish(instruction{}, 20, "a", "b", "c", "d", "e")
		t.drive(t.take(name))
		ids = append(ids, t.publish(instruction{}, 20, "a", "b", "c", "d", "e")...)
		t.done(ids)
		t.settles(0)
		t.once()
		t.inOrder()
	}},
	{"failing", both, false, "a handler that fails is asked again, and nothing is set aside; other keys go on", func(t *tale) {
		name := t.subscription()
		ids := t.publish(instruction{Do: "fail", Times: 2}, 1, "bad")
		ids = append(ids, t.publish(instruction{}, 10, "good")...)
		t.drive(t.take(name))
		t.done(ids)
		t.settles(0)
		t.inOrder()
		if w := t.said("the third call", func(w word) bool { return w.Told == "begin" && w.ID == "bad-1" && w.Attempt == 3 }); w.ID == "" {
			t.fail("the third call says nothing of its attempt")
		}
		good := slices.IndexFunc(t.soFar(), func(w word) bool { return w.ID == "good-10" && w.Outcome == "done" })
		bad := slices.IndexFunc(t.soFar(), func(w word) bool { return w.ID == "bad-1" && w.Outcome == "done" })
		if good > bad {
			t.fail("the events of another key waited for the one that failed")
		}
	}},
	{"slow", both, false, "a slow handler holds up its key alone", func(t *tale) {
		name := t.subscription()
		slow := t.publish(instruction{Do: "slow", MS: 1500}, 1, "slow")
		quick := t.publish(instruction{}, 50, "quick")
		t.drive(t.take(name))
		t.done(slices.Concat(slow, quick))
		t.settles(0)
		t.once()
		words := t.soFar()
		end := func(id string) int {
			return slices.IndexFunc(words, func(w word) bool { return w.ID == id && w.Outcome == "done" })
		}
		if end("quick-50") > end("slow-1") {
			t.fail("the quick ones waited for the slow one")
		}
	}},
	{"reject", both, false, "what the handler rejects is a dead letter with its reason, and the next follows", func(t *tale) {
		name := t.subscription()
		bad := t.publish(instruction{Do: "reject"}, 1, "a")
		good := t.publish(instruction{}, 3, "a")
		t.drive(t.take(name))
		t.done(good)
		t.settles(1)
		var out struct {
			Dead []struct {
				Event    struct{ ID string }
				Reason   string
				Attempts int
			}
		}
		t.must("dead letters", t.gateway.call(t.ctx, "GET", "/v1/subscriptions/"+name+"/dead", nil, &out))
		if got := fmt.Sprint(out.Dead); got != fmt.Sprintf("[{{%s} rejected by the story 1}]", bad[0]) {
			t.fail("the dead letter is %s, want the rejected event, reason %q, 1 attempt", got, "rejected by the story")
		}
		t.said("on_reject", func(w word) bool { return w.Told == "reject" && w.ID == bad[0] })
		// Put back, it is handled anew: here it is rejected once more.
		t.post("/dead/redrive", map[string]any{"all": true})
		t.until("it is rejected again", func(words []word) bool {
			n := 0
			for _, w := range words {
				if w.ID == bad[0] && w.Outcome == "rejected" {
					n++
				}
			}
			return n == 2
		})
		t.settles(1)
	}},
	{"resend", both, false, "an acknowledged event that is resent is handled again, and then it is no dead letter", func(t *tale) {
		name := t.subscription()
		ids := t.publish(instruction{}, 3, "a")
		t.drive(t.take(name))
		t.done(ids)
		t.settles(0)
		var page struct{ Events []struct{ Cursor string } }
		t.must("read", t.gateway.call(t.ctx, "GET", "/v1/channels/"+name+"/events?since=earliest", nil, &page))
		t.post("/resend", map[string]any{"cursors": []string{page.Events[1].Cursor}})
		t.until("it is handled again", func(words []word) bool { return t.handled(words)[ids[1]] == 2 })
		t.settles(0)
	}},
	{"seek", both, false, "a cursor that somebody moved back brings everything again", func(t *tale) {
		name := t.subscription()
		ids := t.publish(instruction{}, 10, "a")
		t.drive(t.take(name))
		t.done(ids)
		t.settles(0)
		t.post("/seek", map[string]any{"to": "earliest"})
		t.doneTimes(2, ids)
		t.settles(0)
	}},
	{"gap", both, false, "events that are gone are told of, and what follows comes", func(t *tale) {
		name := t.subscription()
		first := t.publish(instruction{}, 3, "a")
		t.drive(t.take(name))
		t.done(first)
		t.settles(0)
		t.must("drop the log", t.gateway.call(t.ctx, "DELETE", "/v1/channels/"+name, nil, nil))
		second := t.publish(instruction{}, 3, "b")
		t.said("a gap is told", func(w word) bool { return w.Told == "gap" && w.Reason == "reset" })
		t.done(second)
		t.settles(0)
	}},
	{"final", both, false, "a bad token and a missing subscription end it, by an error that says so", func(t *tale) {
		t.ended(t.drive(t.take("story-there-is-none")), "not_found")
		o := t.take("story-there-is-none")
		o.TokenFile = t.tokenFile(-time.Hour)
		t.ended(t.drive(o), "unauthorized")
	}},
	{"kill", both, true, "the gateway is killed, is away for a while and comes back: nothing is lost", func(t *tale) {
		name := t.subscription()
		d := t.drive(t.take(name))
		ids := t.publish(instruction{}, 20, "a", "b", "c")
		t.until("half of them are handled", func(words []word) bool { return len(t.handled(words)) > len(ids)/2 })
		t.gateway.kill()
		t.must("the client comes in vain", t.gateway.refuse(t.ctx))
		t.must("start it again", t.gateway.start(t.ctx))
		ids = append(ids, t.publish(instruction{}, 20, "a", "b", "c")...)
		t.done(ids)
		t.settles(0)
		t.inOrder() // what was handled and not yet acknowledged may come twice
		for _, w := range t.soFar() {
			if w.by == d && w.Told == "ended" {
				t.fail("the subscription ended: %s", w.Code)
			}
		}
	}},
	{"ephemeral", lineOnly, true, "without a subscription, the position survives a gateway that was killed", func(t *tale) {
		channel := "story-" + t.name
		d := t.drive(order{Do: "subscribe", Channels: []string{channel}, Since: "earliest", Concurrency: 2})
		t.phase(d, "live")
		ids := t.publish(instruction{}, 10, "a", "b")
		t.done(ids)
		t.gateway.kill()
		t.must("start it again", t.gateway.start(t.ctx))
		ids = append(ids, t.publish(instruction{}, 10, "a", "b")...)
		t.done(ids)
		t.once()
		t.inOrder()
	}},
	{"renewal", lineOnly, false, "a token is renewed before it ends, and no event is lost or comes twice", func(t *tale) {
		name := t.subscription()
		o := t.take(name)
		const ttl = 20 * time.Second
		o.TokenFile = t.tokenFile(ttl)
		first := time.Now().Add(ttl)
		d := t.drive(o)
		t.phase(d, "live")
		var ids []string
		var out struct {
			Connections []struct{ Expires time.Time }
		}
		t.writeToken(o.TokenFile, time.Hour)
		t.poll("the token is renewed", func() bool {
			ids = append(ids, t.publish(instruction{}, 1, "a")...)
			t.must("connections", t.gateway.call(t.ctx, "GET", "/v1/connections?sub=driver-"+t.name, nil, &out))
			return len(out.Connections) == 1 && out.Connections[0].Expires.After(first.Add(time.Minute))
		})
		if time.Now().After(first) {
			t.fail("the token had ended before it was renewed")
		}
		t.done(append(ids, t.publish(instruction{}, 1, "a")...))
		t.settles(0)
		t.once()
	}},
	{"standby", lineOnly, false, "a second consumer stands by, and goes on where the first was killed", func(t *tale) {
		name := t.subscription()
		one, two := t.take(name), t.take(name)
		one.Consumer, two.Consumer = "one", "two"
		first := t.drive(one)
		t.phase(first, "live")
		second := t.drive(two)
		t.phase(second, "standby")
		t.done(t.publish(instruction{}, 5, "a"))
		stuck := t.publish(instruction{Do: "slow", MS: 60_000}, 1, "b")
		t.said("the first has it", func(w word) bool { return w.by == first && w.ID == stuck[0] })
		first.kill()
		t.phase(second, "live")
		w := t.said("the second has it", func(w word) bool { return w.by == second && w.ID == stuck[0] && w.Told == "begin" })
		if !w.Redelivered {
			t.fail("%s was delivered before, which the handler was not told", w.ID)
		}
		rest := t.publish(instruction{}, 5, "c")
		t.done(rest)
	}},
	{"takeover", lineOnly, false, "the same consumer attaching again ends the first for good", func(t *tale) {
		o := t.take(t.subscription())
		o.Consumer = "me"
		first := t.drive(o)
		t.phase(first, "live")
		second := t.drive(o)
		t.ended(first, "taken_over")
		t.phase(second, "live")
		ids := t.publish(instruction{}, 5, "a")
		t.done(ids)
		t.settles(0)
	}},
	{"close", lineOnly, false, "who closes lets calls end, acknowledges what they did and leaves the rest", func(t *tale) {
		d := t.drive(t.take(t.subscription()))
		ids := t.publish(instruction{Do: "slow", MS: 500}, 3, "a")
		t.said("a call begins", func(w word) bool { return w.Told == "begin" && w.ID == ids[0] })
		d.tell(order{Do: "close"})
		t.ended(d, "")
		t.done(ids[:1])
		t.drive(t.take("story-" + t.name))
		t.done(ids)
		t.settles(0)
		t.once()
	}},
	{"group", lineOnly, false, "three members share a subscription: each key with one of them, in order; one dies, the others go on", func(t *tale) {
		name := t.subscription("group", map[string]any{"partitions": 8})
		keys := strings.Split("abcdefghijkl", "")
		ids := t.publish(instruction{}, 5, keys...)
		var members []*driver
		for i := range 3 {
			o := t.take(name)
			o.Consumer = fmt.Sprint("member-", i)
			members = append(members, t.drive(o))
		}
		t.until("the partitions are shared evenly", func(words []word) bool {
			mine := make(map[*driver][]int)
			for _, w := range words {
				if w.Told == "partitions" {
					mine[w.by] = w.Partitions
				}
			}
			all := make(map[int]bool)
			for _, d := range members {
				if len(mine[d]) < 2 || len(mine[d]) > 3 {
					return false
				}
				for _, p := range mine[d] {
					all[p] = true
				}
			}
			return len(all) == 8
		})
		ids = append(ids, t.publish(instruction{}, 5, keys...)...)
		t.done(ids)
		t.settles(0)
		bad := t.publish(instruction{Do: "reject"}, 1, "a")
		t.said("a member rejects", func(w word) bool { return w.Told == "reject" && w.ID == bad[0] })
		t.settles(1)
		members[0].kill()
		ids = append(ids, t.publish(instruction{}, 5, keys...)...)
		t.done(ids)
		t.settles(1)
		t.inOrder()
	}},
	{"group-seek", lineOnly, false, "a group's cursor that was moved back brings everything again", func(t *tale) {
		name := t.subscription("group", map[string]any{"partitions": 4})
		t.drive(t.take(name))
		ids := t.publish(instruction{}, 3, "a", "b", "c")
		t.done(ids)
		t.settles(0)
		t.post("/seek", map[string]any{"to": "earliest"})
		t.doneTimes(2, ids)
		t.settles(0)
	}},
	{"callback", lineOnly, false, "callbacks feed the same handler, and hand over to the line and back", func(t *tale) {
		const secret = "whsec_dGhlIGp1ZGdlIGFuZCBpdHMgZHJpdmVycyBzaGFyZQ=="
		name := t.subscription()
		d := t.drive(order{Do: "serve", Subscription: name, Secret: secret, Concurrency: 4})
		url := t.said("it serves", func(w word) bool { return w.Told == "serving" }).URL
		t.must("set the callback", t.gateway.call(t.ctx, "PATCH", "/v1/subscriptions/"+name, map[string]any{
			"callback": map[string]any{"url": url, "secret": secret, "grace": "0s", "order": "key", "concurrency": 4},
		}, nil))
		by := func(ids []string, transports ...string) {
			for _, id := range ids {
				t.said(id+" begins", func(w word) bool {
					return w.Told == "begin" && w.ID == id && slices.Contains(transports, w.Transport)
				})
			}
		}
		first := t.publish(instruction{}, 5, "a", "b")
		t.done(first)
		by(first, "callback")
		bad := t.publish(instruction{Do: "reject"}, 1, "c")
		t.said("it is rejected", func(w word) bool { return w.ID == bad[0] && w.Outcome == "rejected" })
		d.tell(t.take(name))
		t.phase(d, "live")
		second := t.publish(instruction{}, 5, "a", "b")
		t.done(second)
		by(second, "websocket", "sse")
		t.settles(1)
		t.inOrder()
	}},
}
