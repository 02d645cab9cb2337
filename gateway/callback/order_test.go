package callback_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/gateway/callback"
)

// moody is an endpoint with outages, slow answers, refusals and poison, all
// drawn from a seed, that watches the order of each key: an event may be sent
// only when every earlier one of its key was accepted, buried, or stands
// before it in the same call.
type moody struct {
	m        *memory
	keys     []string
	mu       sync.Mutex
	rng      *rand.Rand
	down     bool
	poison   map[string]bool // failing
	invalid  map[string]bool // refused
	accepted map[string]bool
	wrong    []string
}

func (s *moody) answer(c call) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	dead := " " + s.m.deadIDs() + " "
	here := map[string]bool{}
	for _, id := range c.ids {
		n := number(id)
		for i := n - 1; i >= 1; i-- {
			before := fmt.Sprint("e", i)
			if s.keys[i-1] == "" || s.keys[i-1] != s.keys[n-1] || here[before] || s.accepted[before] || strings.Contains(dead, " "+before+" ") {
				continue
			}
			s.wrong = append(s.wrong, fmt.Sprintf("%s of key %s was sent before %s was done (call %v)", id, s.keys[n-1], before, c.ids))
		}
		here[id] = true
	}
	takes := time.Duration(s.rng.Int64N(int64(2 * time.Second)))
	for _, id := range c.ids {
		switch {
		case s.down && s.rng.IntN(10) == 0:
			return reply{err: errDown, takes: takes}
		case s.down || s.poison[id]:
			return reply{status: 500, takes: takes}
		case s.invalid[id]:
			return reply{status: 422, takes: takes}
		}
	}
	for _, id := range c.ids {
		s.accepted[id] = true
	}
	return reply{status: 200, takes: takes}
}

func number(id string) (n int) {
	fmt.Sscanf(id, "e%d", &n)
	return n
}

// TestAKeysOrderSurvivesOutages walks through random outages, in order of the
// key, with and without batches.
func TestAKeysOrderSurvivesOutages(t *testing.T) {
	for seed := range uint64(60) {
		if t.Failed() {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 41))
			s := &moody{
				m: newMemory(), rng: rand.New(rand.NewPCG(seed, 42)),
				poison: map[string]bool{}, invalid: map[string]bool{}, accepted: map[string]bool{},
			}
			e := &endpoint{answer: s.answer}
			publish := func(n int) {
				s.mu.Lock()
				keys := make([]string, n)
				for i := range keys {
					keys[i] = []string{"a", "b", "c", "d", "e", ""}[rng.IntN(6)]
					id := fmt.Sprint("e", len(s.keys)+i+1)
					s.poison[id], s.invalid[id] = rng.IntN(60) == 0, rng.IntN(60) == 0
				}
				s.keys = append(s.keys, keys...)
				s.mu.Unlock()
				s.m.publish(keys...)
			}
			publish(40)
			options := func(sub *callback.Subscription) {
				sub.ByKey, sub.Concurrency, sub.MaxEvents, sub.Window = true, 1+rng.IntN(6), 1+rng.IntN(8), 20+rng.IntN(100)
			}
			d := deliver(t, s.m, e, options)
			for range 12 {
				time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Minute))))
				s.mu.Lock()
				s.down = !s.down
				s.mu.Unlock()
				publish(rng.IntN(20))
				select {
				case <-d.result: // it had caught up
					d = deliver(t, s.m, e, options)
				default:
				}
			}
			s.mu.Lock()
			s.down, s.poison = false, nil
			s.mu.Unlock()
			for s.m.position() < len(s.keys) {
				select {
				case <-d.result:
					d = deliver(t, s.m, e, options)
				case <-time.After(48 * time.Hour):
					t.Fatalf("seed %d: stuck at %d of %d", seed, s.m.position(), len(s.keys))
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for i, w := range s.wrong {
				if i == 3 {
					break
				}
				t.Errorf("seed %d: %s", seed, w)
			}
		})
	}
}
