package durable_test

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var seedFlag = flag.Uint64("seed", 1, "of the random walks through the models' larger worlds; 0 for a random one")

// TestWander goes at random through a world that is too large to be visited:
// everything that the model has may happen on one way, of three consumers with a
// window of two; the broker forgets its last writes, up to three at once;
// messages come late and out of order; the subscription is deleted and made
// again. From every few worlds on the way all events come to be handled.
func TestWander(t *testing.T) {
	forgetful, underWay = memory, mails
	defer func() { forgetful, underWay = 0, 1 }()
	most := limits{events: events, consumers: consumers, window: 2, happened: happened{
		cuts: 2, crashes: 2, connects: 8, seeks: 2, posts: 3, losses: 3, pauses: 2, forgets: 3, deletes: 2}}
	random, walks := newWalks(t, 40)
	for range walks {
		var w world
		w.make()
		var way []string
		for step := range 120 {
			all := w.next(most)
			if len(all) == 0 {
				break // everything has happened
			}
			next := pick(random, all, func(t transition) bool { return t.to.happened != w.happened })
			way = append(way, next.name)
			if next.bad != "" {
				t.Fatalf("%s\nafter: %q\n%+v", next.bad, way, next.to)
			}
			if w = next.to; step%8 == 0 && !w.settle(map[world]bool{}) {
				t.Fatalf("I2: an event is never handled after %q, and all goes well\n%+v", way, w)
			}
		}
	}
}

// newWalks tells the seed and returns how many walks to take; short: without
// -deep.
func newWalks(t *testing.T, short int) (random *rand.Rand, walks int) {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	if *deep {
		short *= 300
	}
	return rand.New(rand.NewPCG(seed, 0)), short
}

// pick picks one at random, a rare one every sixth time.
func pick[T any](random *rand.Rand, all []T, rare func(T) bool) T {
	var some [2][]T
	for _, t := range all {
		i := 0
		if rare(t) {
			i = 1
		}
		some[i] = append(some[i], t)
	}
	i := 0
	if len(some[0]) == 0 || len(some[1]) > 0 && random.IntN(6) == 0 {
		i = 1
	}
	return some[i][random.IntN(len(some[i]))]
}
