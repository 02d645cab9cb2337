// Package chaos runs gateways, brokers, consumers of every kind and endpoints
// under load, breaks all of them again and again, and has an oracle judge what
// came of it.
package chaos

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
	"github.com/longline-push/longline/internal/process"
)

var (
	seedFlag = flag.Uint64("seed", 0, "what goes wrong follows from it; 0 for a random one")
	forFlag  = flag.Duration("for", 5*time.Second, "how long things go wrong")
	onFlag   = flag.String("broker", "", "embedded, redis, sentinel or cluster; without: the first two")
	rateFlag = flag.Int("rate", 200, "publishes a second")
)

var (
	binary string // the gateway
	long   bool   // there is time for all that goes wrong; binary's clock can be set then
)

func TestMain(m *testing.M) {
	if os.Getenv(crowdEnv) != "" {
		beMember()
		return
	}
	flag.Parse()
	dir, err := os.MkdirTemp("", "chaos")
	if err == nil {
		if long = *forFlag >= time.Minute; long {
			binary, err = buildSkewable(dir)
		} else {
			binary, err = process.Build(dir)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func TestChaos(t *testing.T) {
	kinds := []string{"embedded", "redis"}
	if *onFlag != "" {
		kinds = strings.Split(*onFlag, ",")
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			seed := *seedFlag
			if seed == 0 {
				seed = uint64(time.Now().UnixNano())
			}
			t.Logf("to repeat: -broker %s -seed %d -for %v -rate %d", kind, seed, *forFlag, *rateFlag)
			run(t, kind, seed, *forFlag, *rateFlag)
		})
	}
}

// of is a subscription's selection: all events of some channels, or one kind's.
func of(kind string, names ...string) func(oracle.Published) bool {
	return func(p oracle.Published) bool {
		return slices.Contains(names, p.Cursor.Channel) && (kind == "" || p.Type == kind)
	}
}

func run(t *testing.T, kind string, seed uint64, span time.Duration, rate int) {
	w := newWorld(t, seed, kind)
	put := func(name string, settings map[string]any) {
		if _, ok := settings["channels"]; !ok {
			settings["channels"] = channels
		}
		if err := w.insist(t.Context(), "PUT", "/v1/subscriptions/"+name, settings, nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	all := of("", channels...)
	var receivers []*receiver
	receive := func(b *oracle.Book) *receiver {
		r := newReceiver(t, b)
		receivers = append(receivers, r)
		return r
	}

	line := w.book("line", all)
	put("line", map[string]any{"window": 64})
	streamed := w.book("streamed", of(kinds[0], channels...))
	put("streamed", map[string]any{"types": []string{kinds[0]}})
	browser := w.book("browser", of("", channels[0]))
	put("browser", map[string]any{"channels": channels[:1]})
	pulled := w.book("pulled", of("", channels[1]))
	put("pulled", map[string]any{"channels": channels[1:]})
	called := w.book("called", all)
	put("called", map[string]any{"callback": callback(receive(called), nil)})
	byKey := w.book("by-key", of(kinds[1], channels...))
	byKey.ByKey = true
	put("by-key", map[string]any{"filter": fmt.Sprintf("event.type == %q", kinds[1]),
		"callback": callback(receive(byKey), map[string]any{"order": "key", "concurrency": 4, "batch": map[string]any{"max_events": 5}})})
	mixed := w.book("mixed", all)
	put("mixed", map[string]any{"window": 64, "callback": callback(receive(mixed), map[string]any{"grace": "500ms"})})
	group := w.book("group", all)
	group.ByKey = true
	put("group", map[string]any{"window": 64, "group": map[string]any{"partitions": 8}, "callback": callback(receive(group), map[string]any{"grace": "1s", "order": "key", "concurrency": 4})})
	again := w.book("replayed", all)
	toAgain := receive(again)
	toAgain.other = w.replays.of
	put("replayed", map[string]any{"callback": callback(toAgain, map[string]any{"batch": map[string]any{"max_events": 20}})})
	moved := w.book("moved", all)
	moved.Moved = true
	movable := map[string]any{"channels": channels, "window": 64}
	put("moved", movable)
	if long {
		recorded := w.book("recorded", of(kinds[0], channels...))
		recorded.ByKey = true
		toRecords := newRecords(t, recorded, w.random)
		receivers = append(receivers, toRecords)
		put("recorded", map[string]any{"types": []string{kinds[0]}, "callback": shaped(toRecords)})
	}
	handled := w.book("handled", all)
	handled.ByKey = true
	put("handled", map[string]any{})
	tails := []*tail{newTail(w.events, "tail-1"), newTail(w.events, "tail-2"), newTail(w.events, "tenant")}

	consuming, stopConsuming := context.WithCancel(context.Background())
	var consumers sync.WaitGroup
	defer consumers.Wait()
	defer stopConsuming()
	start := func(life time.Duration, one func(ctx context.Context, number int) error) {
		consumers.Go(func() { w.again(consuming, life, one) })
	}
	socket := func(b *oracle.Book, consumer string, life time.Duration) {
		start(life, func(ctx context.Context, n int) error { return w.socket(ctx, b, consumer, n) })
	}
	socket(line, "a", 20*time.Second)
	socket(line, "b", 20*time.Second)
	socket(mixed, "crm", 4*time.Second)
	for _, name := range []string{"one", "two", "three"} {
		start(8*time.Second, onShift(func(ctx context.Context, n int) error { return w.socket(ctx, group, name, n) }))
	}
	for _, name := range []string{"four", "five"} {
		start(4*time.Second, onShift(func(ctx context.Context, n int) error { return w.member(ctx, group, name, n) }))
	}
	if long {
		start(8*time.Second, onShift(func(ctx context.Context, n int) error { return w.script(ctx, group, "six", n) }))
	}
	for by := range 3 {
		start(0, func(ctx context.Context, _ int) error { return w.replay(ctx, again.Name, by) })
	}
	socket(moved, "mover", 0)
	var last, lastBrowser string
	start(10*time.Second, func(ctx context.Context, n int) error { return w.stream(ctx, streamed, true, n, &last) })
	start(10*time.Second, func(ctx context.Context, n int) error { return w.stream(ctx, browser, false, n, &lastBrowser) })
	start(15*time.Second, func(ctx context.Context, n int) error { return w.pull(ctx, pulled, n) })
	start(15*time.Second, func(ctx context.Context, n int) error { return w.sdk(ctx, handled, "sdk", n) })
	for _, s := range tails {
		start(15*time.Second, func(ctx context.Context, n int) error { return w.follow(ctx, s, n) })
	}

	publishing, stopPublishing := context.WithCancel(context.Background())
	var publisher sync.WaitGroup
	publisher.Go(func() { w.publish(publishing, rate) })
	defer publisher.Wait()
	defer stopPublishing()
	consumers.Go(func() { w.watch(consuming) })

	trouble, endTrouble := context.WithTimeout(t.Context(), span)
	defer endTrouble()
	var nemeses sync.WaitGroup
	failed := make(chan error, 2)
	if long {
		nemeses.Go(func() { w.crowd(newDice(trouble, seed, 5)) })
	}
	nemeses.Go(func() { failed <- w.troubleGateways(newDice(trouble, seed, 1)) })
	nemeses.Go(func() { w.troubleLines(newDice(trouble, seed, 2), receivers) })
	nemeses.Go(func() { failed <- w.troubleByHand(newDice(trouble, seed, 3), moved, mixed, movable, tails[2]) })
	w.troubleBroker(newDice(trouble, seed, 4))
	nemeses.Wait()
	for range 2 {
		if err := <-failed; err != nil {
			t.Errorf("%v", err)
		}
	}
	w.note("end", "no more faults")
	for i, g := range w.gateways {
		if !g.Running() {
			t.Errorf("node-%d has ended by itself", i)
			if err := w.supervise(g); err != nil { // what else went wrong is told too
				t.Fatal(err)
			}
		}
	}
	stopPublishing()
	publisher.Wait()
	w.note("end", "%d events published", w.events.Count())
	w.settle()
	w.settleReplays(time.Now().Add(time.Minute))
	stopConsuming()
	consumers.Wait()
	if long {
		w.wantFlat()
	}
	w.judge(tails)
}

// watch looks at what the gateways show of each subscription, now and then.
func (w *world) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for _, b := range w.books {
			pause(ctx, 200*time.Millisecond)
			asked := time.Now()
			var s struct{ Cursor string }
			if b.Moved || w.do(ctx, 4*time.Second, "GET", "/v1/subscriptions/"+b.Name, nil, &s) != nil {
				continue
			}
			if p, err := event.ParsePosition(s.Cursor); err != nil {
				b.Break("shown: %v", err)
			} else {
				b.Shown(p, asked)
			}
		}
	}
}

// settle waits until every subscription has come to the end of its channels.
func (w *world) settle() {
	deadline := time.Now().Add(3 * time.Minute)
	for _, b := range w.books {
		for {
			var s struct {
				Status struct {
					State string
					Lag   struct{ Events int }
				}
			}
			err := w.do(w.t.Context(), 5*time.Second, "GET", "/v1/subscriptions/"+b.Name, nil, &s)
			if err == nil && s.Status.Lag.Events == 0 {
				break
			}
			if time.Now().After(deadline) {
				w.t.Errorf("%s doesn't come to an end: %+v %v", b.Name, s.Status, err)
				break
			}
			pause(w.t.Context(), 100*time.Millisecond)
		}
		for page := ""; ; {
			var out struct {
				Dead []struct{ Event struct{ ID string } }
				Next string
			}
			if err := w.insist(w.t.Context(), "GET", "/v1/subscriptions/"+b.Name+"/dead?limit=1000&since="+page, nil, &out); err != nil {
				w.t.Errorf("%s: its dead letters: %v", b.Name, err)
			}
			for _, d := range out.Dead {
				b.Dead(d.Event.ID)
			}
			if page = out.Next; page == "" {
				break
			}
		}
	}
}

// judge says what came of it all.
func (w *world) judge(tails []*tail) {
	t := w.t
	count := 0
	for _, what := range slices.Sorted(maps.Keys(w.faults)) {
		count += w.faults[what]
		t.Logf("%4d × %s", w.faults[what], what)
	}
	t.Logf("%d faults, %d events", count, w.events.Count())
	few := func(of []string) string { return strings.Join(of[:min(len(of), 10)], "\n  ") }
	books, replayed := w.books, w.replays.all()
	for _, name := range replayed {
		books = append(books, w.replays.of(name))
	}
	t.Logf("%d replays", len(replayed))
	for i, b := range books {
		a := b.Balance()
		if i < len(w.books) || len(a.Lost)+len(a.Broken)+a.Gap > 0 {
			t.Logf("%-9s %6d owed: %d done, %d dead, %d in gaps, %d skipped, %d LOST; %d repeats over %d connections; %d promises broken",
				b.Name, a.Owed, a.Done, a.Dead, a.Gap, a.Skipped, len(a.Lost), a.Repeats, a.Connections, len(a.Broken))
		}
		if len(a.Lost) > 0 {
			t.Errorf("%s: LOST\n  %s", b.Name, few(a.Lost))
		}
		if len(a.Broken) > 0 {
			t.Errorf("%s: broken\n  %s", b.Name, few(a.Broken))
		}
		if a.Owed == 0 {
			t.Errorf("%s: nothing was owed, so nothing was tested", b.Name)
		}
		if a.Gap > 0 {
			t.Errorf("%s: %d answered events are in gaps, though nothing was to be lost", b.Name, a.Gap)
		}
		// Per handover: the window, or what is in flight.
		if most := a.Connections * 64; !b.Moved && b.Name != "pulled" && a.Repeats > most {
			t.Logf("%s: %d repeats, more than a window for each connection (%d)", b.Name, a.Repeats, most)
		}
	}
	for _, s := range tails {
		s.mu.Lock()
		t.Logf("%-9s %6d events, %d gaps", s.name, s.got, s.gaps)
		if len(s.broken) > 0 {
			t.Errorf("%s: broken\n  %s", s.name, few(s.broken))
		}
		if s.got == 0 {
			t.Errorf("%s: got nothing", s.name)
		}
		s.mu.Unlock()
	}
	for i := range w.gateways {
		text, err := os.ReadFile(w.log(i))
		if err != nil {
			t.Error(err)
		}
		for _, bad := range []string{process.Secret, adminToken(), "panic", "DATA RACE"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("the log of node-%d has %q in it", i, bad[:min(len(bad), 12)])
			}
		}
	}
	if t.Failed() {
		t.Logf("logs of the gateways: %s\n%s", w.logs, w.diary.String())
	} else {
		os.RemoveAll(w.logs)
	}
}
