package session_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/longline-push/longline/gateway/session"
)

// Whoever has something to say is sent it, however publishers, blocked peers
// and the end of a block meet: once all is quiet, every peer has
// every event, in order. A wake-up that was lost would leave one behind.
func TestNoWakeUpIsLost(t *testing.T) {
	const channels, peers, publishers, rounds = 3, 400, 4, 150
	inBubble(t, func(t *testing.T) {
		n := newNode(t, session.Options{Writers: 3})
		all := make([]*peer, peers)
		sessions := make([]*session.Session, peers)
		for i := range all {
			sessions[i], all[i] = n.attach(t, asks{channels: fmt.Sprintf("c%d", i%channels), pings: i%2 == 0}, plenty)
		}
		for _, p := range all {
			p.told(t)
		}
		sent := 0
		for round := range rounds {
			var wait sync.WaitGroup
			for c := range channels {
				for range publishers {
					wait.Go(func() { n.log.Append(fmt.Sprint("c", c), "t", "", "1") })
				}
			}
			for range 8 {
				wait.Go(func() {
					for range 20 {
						i := rand.N(peers)
						all[i].takes(rand.N(3))
						sessions[i].Wake() // for nothing, as a socket may
						all[i].takes(plenty)
					}
				})
			}
			wait.Wait()
			synctest.Wait()
			sent += publishers
			for i, p := range all {
				p.mu.Lock()
				got := len(p.got) - strings.Count(strings.Join(p.got, " "), "beat:")
				p.mu.Unlock()
				if got != sent {
					t.Fatalf("round %d: peer %d has %d events of %d", round, i, got, sent)
				}
			}
		}
	})
}
