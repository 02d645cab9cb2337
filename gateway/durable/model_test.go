package durable_test

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/durable"
)

var deep = flag.Bool("deep", false, "explore the model with more connections (minutes, gigabytes)")

// settle lets everything go well from now on, nobody attached, and tells
// whether all events come to be handled. settled remembers worlds that do.
func (w world) settle(settled map[world]bool) bool {
	var way []world
	for range 60 {
		w.calm()
		if settled[w] || w.sub.gen == 0 || w.acked == w.head && w.sub.parked && w.due == notDue {
			for _, passed := range way {
				settled[passed] = true
			}
			return true
		}
		w.canonical()
		way = append(way, w)
		if !w.proceed() {
			return false
		}
	}
	return false
}

// calm ends all trouble and lets all consumers go.
func (w *world) calm() {
	if w.sub.paused {
		w.store(durable.Resume(w.state(), w.env(start)))
	}
	for n := range int8(2) {
		w.heal(n)
		for i := range w.mail[n] {
			w.told(n, i)
		}
		w.look(n)
		for c := range w.conns {
			if k := &w.conns[c][n]; k.state == attached {
				k.state = leaving
			} else if k.state == wanting {
				*k = conn{}
			}
		}
	}
	w.before, w.happened = [memory]kept{}, happened{}
}

// proceed takes the most useful step of settling.
func (w *world) proceed() bool {
	all := w.next(limits{consumers: consumers})
	for _, prefix := range []string{"release", "reap", "give up", "answer 200", "commit call", "yielded", "post n", "park", "due"} {
		for _, t := range all {
			if strings.HasPrefix(t.name, prefix) && t.bad == "" {
				*w = t.to
				return true
			}
		}
	}
	return false
}

func TestModel(t *testing.T) {
	connects := int8(1)
	if *deep {
		connects = 2
	}
	for _, test := range []struct {
		story string
		most  limits
	}{
		{"two consumers come and go", limits{happened: happened{connects: 2}}},
		{"a node loses the broker and comes back", limits{happened: happened{connects: connects, cuts: 1}}},
		{"a node dies", limits{happened: happened{connects: connects, crashes: 1}}},
		{"messages get lost", limits{happened: happened{connects: connects, losses: 1}}},
		{"somebody moves the position", limits{happened: happened{connects: connects, seeks: 1}}},
		{"acks come by another node", limits{happened: happened{connects: connects, posts: 1}}},
		{"delivery is held for a while", limits{happened: happened{connects: connects, pauses: 1}}},
		{"a failover forgets the last write", limits{happened: happened{connects: connects, forgets: 1}}},
	} {
		t.Run(test.story, func(t *testing.T) {
			forgetful = int(test.most.forgets)
			defer func() { forgetful = 0 }()
			explore(t, test.most)
		})
	}
}

// explore visits every reachable world, breadth first, so that what it reports
// is a shortest way to it.
func explore(t *testing.T, most limits) {
	var first world
	first.make()
	type step struct {
		from world
		name string
	}
	came := map[world]step{first: {}}
	queue, settled := []world{first}, map[world]bool{}
	way := func(w world, last string) string {
		names := []string{last}
		for w != first {
			names = append(names, came[w].name)
			w = came[w].from
		}
		slices.Reverse(names)
		return strings.Join(names, ", ")
	}
	for len(queue) > 0 {
		if len(came) > 30_000_000 {
			t.Fatalf("more than %d worlds", len(came))
		}
		w := queue[0]
		queue = queue[1:]
		if !w.settle(settled) {
			t.Fatalf("I2: an event is never handled after: %s\n%+v", way(w, "and all goes well"), w)
		}
		for _, next := range w.next(most) {
			if next.bad != "" {
				t.Fatalf("%s\nafter: %s\n%+v", next.bad, way(w, next.name), next.to)
			}
			if _, seen := came[next.to]; !seen {
				came[next.to] = step{w, next.name}
				queue = append(queue, next.to)
			}
		}
	}
	t.Logf("%d worlds", len(came))
}
