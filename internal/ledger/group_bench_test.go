package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/event"
)

// BenchmarkGroups is what a group of 16 partitions costs, and how long its keys
// stand still when members come and go:
//
//	cpu/…    the gateway's CPU per event published, delivered and acknowledged,
//	         of one plain subscription and of groups with members, 5,000 events/s
//	killed   until each partition of a killed member is delivered by another
//	joined   the longest that an event was under way while a ninth member joined:
//	         of the partitions that moved, and of those that stayed
//	idle     what Redis keeps of a group that nobody attached to, of one that all
//	         members have left just now, and a minute later, when it rests
func BenchmarkGroups(b *testing.B) {
	b.Run("cpu/published-only", func(b *testing.B) { benchmarkShared(b, 0, 0) })
	b.Run("cpu/plain", func(b *testing.B) { benchmarkShared(b, 1, 0) })
	for _, members := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("cpu/members-%d", members), func(b *testing.B) { benchmarkShared(b, members, partitions) })
	}
	b.Run("killed", benchmarkKilled)
	b.Run("joined", benchmarkJoined)
	b.Run("idle", benchmarkIdle)
}

const partitions = 16

// crew is the members of one subscription and what they are given.
type crew struct {
	b     *testing.B
	n     *node   // publishes, and is asked
	nodes []*node // it and the others
	ctx   context.Context
	of    int // partitions
	each  int // a member acknowledges once for so many events

	members sync.WaitGroup
	mu      sync.Mutex
	given   func(consumer string, e shared) // called with mu held
	seen    []bool                          // by the event's number
	count   int                             // of those, each once
}

// shared is an event of the benchmark, or a control frame.
type shared struct {
	Op, Cursor   string
	PartitionKey string
	Data         struct {
		N  int
		At int64 // when it was published, in Unix nanoseconds
	}
}

func (e shared) partition() int { return event.Partition(e.PartitionKey, "", "", partitions) }

func newCrew(b *testing.B, of, each int) *crew {
	b.Helper()
	return newCrewOn(b, of, each, startNode(b, "embedded:"+filepath.Join(b.TempDir(), "data")+"?fsync=everysec", "one"))
}

// newCrewOn makes the subscription on nodes, shared by so many partitions; with
// none it is not.
func newCrewOn(b *testing.B, of, each int, nodes ...*node) *crew {
	b.Helper()
	c := &crew{b: b, n: nodes[0], nodes: nodes, of: of, each: each}
	ctx, cancel := context.WithCancel(context.Background())
	c.ctx = ctx
	b.Cleanup(func() { cancel(); c.members.Wait() })
	definition := map[string]any{"channels": []string{"acct"}, "window": 1000}
	if of > 0 {
		definition["group"] = map[string]int{"partitions": of}
	}
	c.n.must("PUT", "/v1/subscriptions/g", definition, nil)
	return c
}

// start attaches a member. kill ends its connection without a word, as the end
// of its process does.
func (c *crew) start(consumer string) (kill func()) {
	c.b.Helper()
	return c.startOn(c.n, consumer)
}

func (c *crew) startOn(n *node, consumer string) (kill func()) {
	c.b.Helper()
	q := url.Values{"subscription": {"g"}, "consumer": {consumer}, "access_token": {token()}}
	conn, _, err := websocket.Dial(c.ctx, strings.Replace(n.base, "http", "ws", 1)+"/v1/ws?"+q.Encode(), &websocket.DialOptions{Subprotocols: []string{"longline.v1"}})
	if err != nil {
		c.b.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	c.members.Go(func() {
		defer conn.CloseNow()
		for unacked := 0; ; {
			_, text, err := conn.Read(c.ctx)
			if err != nil {
				return
			}
			var e shared
			if err := json.Unmarshal(text, &e); err != nil {
				c.b.Error(err)
				return
			}
			if e.Op != "" {
				continue
			}
			c.take(consumer, e)
			if unacked++; unacked < c.each {
				continue
			}
			unacked = 0
			if err := conn.Write(c.ctx, websocket.MessageText, fmt.Appendf(nil, `{"op":"ack","cursor":%q}`, e.Cursor)); err != nil {
				return
			}
		}
	})
	return func() { conn.CloseNow() }
}

func (c *crew) take(consumer string, e shared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.seen) <= e.Data.N {
		c.seen = append(c.seen, false)
	}
	if !c.seen[e.Data.N] {
		c.seen[e.Data.N] = true
		c.count++
	}
	if c.given != nil {
		c.given(consumer, e)
	}
}

// settled waits until so many members have their share, and returns whose each
// partition is.
func (c *crew) settled(members int) map[int]string {
	c.b.Helper()
	var of map[int]string
	eventually(c.b, fmt.Sprintf("%d members share the partitions", members), func() bool {
		var out struct {
			Status struct {
				State   string
				Members []struct {
					Consumer   string
					Partitions []int
				}
			}
		}
		c.n.must("GET", "/v1/subscriptions/g", nil, &out)
		of = make(map[int]string)
		for _, m := range out.Status.Members {
			for _, p := range m.Partitions {
				of[p] = m.Consumer
			}
		}
		return len(out.Status.Members) == members && (len(of) == c.of || members == 0)
	})
	return of
}

// publish publishes waves of events at a rate until stop is called, which
// returns how many they were.
func (c *crew) publish(rate, wave int) (stop func() int) {
	ctx, cancel := context.WithCancel(c.ctx)
	published := 0
	var all sync.WaitGroup
	all.Go(func() {
		var posts sync.WaitGroup
		defer posts.Wait()
		tick := time.NewTicker(time.Second * time.Duration(wave) / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			first := published
			published += wave
			posts.Go(func() {
				batch := make([]any, wave)
				for i := range batch {
					number := first + i
					batch[i] = map[string]any{
						"type": "t", "partitionkey": "k" + strconv.Itoa(number%1000),
						"data": map[string]any{"n": number, "at": time.Now().UnixNano(), "fill": strings.Repeat("x", 120)},
					}
				}
				if _, err := c.n.do(c.ctx, "POST", "/v1/channels/acct/events", batch, nil); err != nil && c.ctx.Err() == nil {
					c.b.Error(err)
				}
			})
		}
	})
	return func() int { cancel(); all.Wait(); return published }
}

// came waits until all that was published was delivered.
func (c *crew) came(published int) {
	c.b.Helper()
	within(c.b, 10*time.Second, "all events", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.count == published
	})
}

func benchmarkShared(b *testing.B, members, of int) {
	for b.Loop() {
		newCrew(b, of, 10).share(members)
	}
	b.ReportMetric(0, "ns/op")
}

// share has so many members take what is published for a while, and reports what
// that costs the nodes.
func (c *crew) share(members int) {
	c.b.Helper()
	for i := range members {
		c.startOn(c.nodes[i%len(c.nodes)], "m"+strconv.Itoa(i))
	}
	if c.of > 0 {
		c.settled(members)
	}
	cpu := func() (all time.Duration) {
		for _, n := range c.nodes {
			all += n.cpu(c.b)
		}
		return all
	}
	const span = 10 * time.Second
	before, end := cpu(), time.After(span)
	stop := c.publish(5000, 100)
	<-end
	published := stop()
	if members > 0 {
		c.came(published)
	}
	c.b.ReportMetric(float64((cpu()-before).Microseconds())/float64(published), "µs-cpu/event")
	c.b.ReportMetric(float64(published)/span.Seconds(), "events/s")
}

func benchmarkKilled(b *testing.B) {
	const members, kills = 8, 30
	var times []time.Duration
	for b.Loop() {
		c := newCrew(b, partitions, 10)
		kill := make(map[string]func())
		for i := range members {
			name := "m" + strconv.Itoa(i)
			kill[name] = c.start(name)
		}
		of := c.settled(members)
		stop := c.publish(2000, 20)
		for i := range kills {
			victim := "m" + strconv.Itoa(i%members)
			waits := make(map[int]bool)
			for p, consumer := range of {
				if consumer == victim {
					waits[p] = true
				}
			}
			flows := c.watch(waits, func(consumer string) bool { return consumer != victim }, &times)
			kill[victim]()
			c.await(flows, waits)
			kill[victim] = c.start(victim)
			of = c.settled(members)
		}
		c.came(stop())
	}
	report(b, times, "ms")
}

// watch notes how long it takes from now on until each of some partitions is
// delivered by one of others; flows is closed when all are.
func (c *crew) watch(waits map[int]bool, others func(consumer string) bool, times *[]time.Duration) (flows chan struct{}) {
	flows = make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	start := time.Now()
	c.given = func(consumer string, e shared) {
		if p := e.partition(); waits[p] && others(consumer) {
			delete(waits, p)
			*times = append(*times, time.Since(start))
			if len(waits) == 0 {
				close(flows)
			}
		}
	}
	return flows
}

func (c *crew) await(flows chan struct{}, waits map[int]bool) {
	c.b.Helper()
	select {
	case <-flows:
	case <-time.After(40 * time.Second):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.b.Fatalf("after 40 s partitions %v stand still", slices.Collect(maps.Keys(waits)))
	}
}

func benchmarkJoined(b *testing.B) {
	const members, joins = 8, 20
	var moved, stayed []time.Duration
	for b.Loop() {
		c := newCrew(b, partitions, 1)
		for i := range members {
			c.start("m" + strconv.Itoa(i))
		}
		before := c.settled(members)
		stop := c.publish(2000, 20)
		for range joins {
			c.mu.Lock()
			late := make(map[int]time.Duration) // the longest under way, by partition
			begun, fresh := time.Now(), make(map[int]bool)
			c.given = func(consumer string, e shared) {
				at := time.Unix(0, e.Data.At)
				p := e.partition()
				if at.Before(begun) && time.Since(begun) > time.Second {
					return
				}
				late[p] = max(late[p], time.Since(at))
				if consumer == "ninth" && !fresh[p] {
					fresh[p] = true
				}
			}
			c.mu.Unlock()
			leave := c.start("ninth")
			after := c.settled(members + 1)
			within(b, 10*time.Second, "the ninth has events", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				for p, consumer := range after {
					if consumer == "ninth" && !fresh[p] {
						return false
					}
				}
				return true
			})
			c.mu.Lock()
			c.given = nil
			for p, t := range late {
				if after[p] != before[p] {
					moved = append(moved, t)
				} else {
					stayed = append(stayed, t)
				}
			}
			c.mu.Unlock()
			leave()
			before = c.settled(members)
		}
		c.came(stop())
	}
	report(b, moved, "ms-moved")
	report(b, stayed, "ms-stayed")
}

// report reports the median, the 99th percentile and the longest of some times.
func report(b *testing.B, times []time.Duration, unit string) {
	slices.Sort(times)
	at := func(part float64) float64 {
		if len(times) == 0 {
			return 0
		}
		return float64(times[min(len(times)-1, int(part*float64(len(times))))].Microseconds()) / 1000
	}
	b.ReportMetric(at(.5), "p50-"+unit)
	b.ReportMetric(at(.99), "p99-"+unit)
	b.ReportMetric(at(1), "max-"+unit)
	b.ReportMetric(0, "ns/op")
}
