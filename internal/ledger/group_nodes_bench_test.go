package ledger_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
)

// BenchmarkGroupsOnTwoNodes is what a group of 64 partitions costs on two gateways
// with Redis, and what becomes of its keys when one of them dies:
//
//	cpu/…    both gateways' CPU per event published, delivered and acknowledged,
//	         of one plain subscription and of 64 members, 5,000 events/s
//	killed   until each partition of the members of a gateway that was killed is
//	         delivered by another: its lease has to end first
func BenchmarkGroupsOnTwoNodes(b *testing.B) {
	two := func(b *testing.B) []*node {
		server := redistest.Start(b)
		return []*node{startNode(b, server.URL(), "one"), startNode(b, server.URL(), "two")}
	}
	for _, row := range []struct{ members, of int }{{0, 0}, {1, 0}, {64, 64}} {
		b.Run(fmt.Sprintf("cpu/members-%d-of-%d", row.members, row.of), func(b *testing.B) {
			for b.Loop() {
				newCrewOn(b, row.of, 10, two(b)...).share(row.members)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("killed", func(b *testing.B) {
		const members, kills = 8, 5
		var times []time.Duration
		for b.Loop() {
			nodes := two(b)
			c := newCrewOn(b, partitions, 10, nodes...)
			for i := range members {
				c.startOn(nodes[i%2], "m"+strconv.Itoa(i))
			}
			of := c.settled(members)
			stop := c.publish(2000, 20)
			for range kills {
				waits := make(map[int]bool)
				for p, consumer := range of {
					if i, err := strconv.Atoi(consumer[1:]); err == nil && i%2 == 1 {
						waits[p] = true
					}
				}
				flows := c.watch(waits, func(consumer string) bool { i, _ := strconv.Atoi(consumer[1:]); return i%2 == 0 }, &times)
				nodes[1].kill()
				c.await(flows, waits)
				nodes[1].start()
				for i := 1; i < members; i += 2 {
					c.startOn(nodes[1], "m"+strconv.Itoa(i))
				}
				of = c.settled(members)
			}
			c.came(stop())
		}
		report(b, times, "ms")
	})
}
