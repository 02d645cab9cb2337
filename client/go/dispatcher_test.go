package longline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errBroken = errors.New("CRM is down")

func newTestDispatcher(o SubscriptionOptions, handle func(context.Context, []Event) error) *dispatcher {
	fill(&o.Concurrency, 1)
	fill(&o.BatchSize, 1)
	o.Retry.fill()
	log := slog.New(slog.DiscardHandler)
	d := &dispatcher{
		concurrency: o.Concurrency, batch: o.BatchSize, wait: o.BatchWait, retry: o.Retry, pace: newPace(o.Rate), store: o.Store,
		dedupe: true, handle: handle, onReject: o.OnReject, log: log, trouble: newRarely(log),
		lanes: make(map[string]*lane), away: make(map[*lane]struct{}), jobs: make(map[identity]*job), past: newMemory(1000),
	}
	d.begin(context.Background())
	return d
}

func testEvent(n int, key string) Event {
	return Event{
		ID: fmt.Sprint(n), Source: "/s", Type: "t", Key: key, Channel: "a", Cursor: fmt.Sprintf("a@k-%d", n),
	}
}

// feed gives the dispatcher events and returns the tracker they stand in.
func feed(d *dispatcher, events ...Event) *ackTracker {
	l := newAckTracker()
	for _, e := range events {
		d.addLive(e, l.add(e.Channel, noPartition, e.Cursor), false, origin{})
	}
	return l
}

// due returns what is due of a tracker without partitions.
func due(l *ackTracker) (rejects []reject, position string) {
	rejects, acks := l.due()
	for _, a := range acks {
		position = a.position
	}
	return rejects, position
}

func wantDone(t *testing.T, l *ackTracker, want string) {
	t.Helper()
	if got := l.done(); got != want {
		t.Errorf("got %q done, want %q", got, want)
	}
}

func wantEqual[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// pass lets time go by in a synctest bubble.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// recorder is a handler that notes what it gets.
type recorder struct {
	mu    sync.Mutex
	ids   []string
	sizes []int
	reply func(e Event) error
}

func (r *recorder) handle(_ context.Context, events []Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sizes = append(r.sizes, len(events))
	for _, e := range events {
		r.ids = append(r.ids, e.ID)
	}
	for _, e := range events {
		if r.reply != nil {
			if err := r.reply(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// got and batches return the ids handled so far, and how many at a time.
func (r *recorder) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

func (r *recorder) batches() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sizes)
}

func TestKeysStayInOrderWhileOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var r recorder
		d := newTestDispatcher(SubscriptionOptions{Concurrency: 8}, func(ctx context.Context, events []Event) error {
			if events[0].ID == "1" {
				<-release
			}
			return r.handle(ctx, events)
		})
		l := feed(d, testEvent(1, "alice"), testEvent(2, "alice"), testEvent(3, "bob"), testEvent(4, ""), testEvent(5, "alice"))
		synctest.Wait()
		wantEqual(t, "while alice's first is in hand", slices.Sorted(slices.Values(r.got())), []string{"3", "4"})
		wantDone(t, l, "")
		close(release)
		synctest.Wait()
		wantEqual(t, "then", r.got()[2:], []string{"1", "2", "5"})
		wantDone(t, l, "a@k-5")
	})
}

func TestConcurrencyOneIsLogOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := false
		r := recorder{reply: func(e Event) error {
			if e.ID == "2" && !failed {
				failed = true
				return errBroken
			}
			return nil
		}}
		d := newTestDispatcher(SubscriptionOptions{}, r.handle)
		l := feed(d, testEvent(1, "x"), testEvent(2, "y"), testEvent(3, "z"))
		pass(time.Minute)
		wantEqual(t, "handled", r.got(), []string{"1", "2", "2", "3"})
		wantDone(t, l, "a@k-3")
	})
}

func TestFailuresAreTriedAgainThenRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rejected []string
		r := recorder{reply: func(e Event) error {
			if e.Key == "poison" {
				return errBroken
			}
			return nil
		}}
		d := newTestDispatcher(SubscriptionOptions{Concurrency: 2, Retry: Retry{Attempts: 3}, OnReject: func(e Event, err error) {
			if !errors.Is(err, errBroken) {
				t.Errorf("got %v, want the handler's error", err)
			}
			rejected = append(rejected, e.ID)
		}}, r.handle)
		l := feed(d, testEvent(1, "poison"), testEvent(2, "ok"))
		pass(time.Minute)
		wantEqual(t, "rejected", rejected, []string{"1"})
		tries := 0
		for _, id := range r.got() {
			if id == "1" {
				tries++
			}
		}
		if tries != 3 {
			t.Errorf("got %d tries, want 3", tries)
		}
		rejects, position := due(l)
		if len(rejects) != 1 || rejects[0] != (reject{"a@k-1", "CRM is down", 3, noPartition}) || position != "a@k-2" {
			t.Errorf("got rejects %v and position %s", rejects, position)
		}
	})
}

func TestHandlerSaysWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := recorder{reply: func(Event) error { return RetryAfter(errBroken, time.Hour) }}
		d := newTestDispatcher(SubscriptionOptions{Retry: Retry{Attempts: 2}}, r.handle)
		l := feed(d, testEvent(1, ""))
		pass(59 * time.Minute)
		wantEqual(t, "within the hour", r.got(), []string{"1"})
		pass(2 * time.Minute)
		wantEqual(t, "after it", r.got(), []string{"1", "1"})
		if rejects, _ := due(l); len(rejects) != 1 || rejects[0].reason != "CRM is down" {
			t.Errorf("got rejects %v, want one", rejects)
		}
	})
}

func TestRejectAndPanicAreSettledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := recorder{reply: func(e Event) error {
			switch e.ID {
			case "1":
				return fmt.Errorf("look up: %w", Reject(errors.New("no such contact")))
			case "2":
				panic("nil map")
			}
			return nil
		}}
		d := newTestDispatcher(SubscriptionOptions{Retry: Retry{Attempts: 1}}, r.handle)
		l := feed(d, testEvent(1, ""), testEvent(2, ""), testEvent(3, ""))
		synctest.Wait()
		wantEqual(t, "handled once each", r.got(), []string{"1", "2", "3"})
		rejects, _ := due(l)
		if len(rejects) != 2 || rejects[0].reason != "look up: no such contact" || rejects[1].reason != "handler panicked: nil map" {
			t.Errorf("got %v", rejects)
		}
	})
}

func TestBatchesFillUpOrWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		d := newTestDispatcher(SubscriptionOptions{BatchSize: 3, BatchWait: time.Second}, r.handle)
		feed(d, testEvent(1, ""), testEvent(2, ""), testEvent(3, ""), testEvent(4, ""))
		synctest.Wait()
		wantEqual(t, "at once", r.batches(), []int{3})
		pass(999 * time.Millisecond)
		wantEqual(t, "just before the wait is over", r.batches(), []int{3})
		pass(2 * time.Millisecond)
		wantEqual(t, "then", r.batches(), []int{3, 1})
		wantEqual(t, "order", r.got(), []string{"1", "2", "3", "4"})
	})
}

// One bad event fails its batch twice; on the last try it is alone, and alone
// rejected.
func TestPoisonInABatchIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rejected []string
		r := recorder{reply: func(e Event) error {
			if e.ID == "2" {
				return errBroken
			}
			return nil
		}}
		d := newTestDispatcher(SubscriptionOptions{BatchSize: 4, Retry: Retry{Attempts: 3}, OnReject: func(e Event, _ error) { rejected = append(rejected, e.ID) }}, r.handle)
		l := feed(d, testEvent(1, ""), testEvent(2, ""), testEvent(3, ""), testEvent(4, ""))
		pass(time.Minute)
		wantEqual(t, "rejected", rejected, []string{"2"})
		wantDone(t, l, "a@k-4")
	})
}

func TestBatchRejectsSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDispatcher(SubscriptionOptions{BatchSize: 3}, func(context.Context, []Event) error {
			return Reject(errors.New("no such contact"), "2")
		})
		l := feed(d, testEvent(1, ""), testEvent(2, ""), testEvent(3, ""))
		synctest.Wait()
		rejects, position := due(l)
		if len(rejects) != 1 || rejects[0].cursor != "a@k-2" || position != "a@k-3" {
			t.Errorf("got rejects %v and position %s", rejects, position)
		}
	})
}

func TestRateLimitsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var last time.Duration
		d := newTestDispatcher(SubscriptionOptions{Rate: 5}, func(context.Context, []Event) error {
			last = time.Since(start)
			return nil
		})
		events := make([]Event, 15)
		for i := range events {
			events[i] = testEvent(i+1, "")
		}
		feed(d, events...)
		pass(time.Minute)
		// Five at once, then five a second; in the bubble time is exact.
		if last != 2*time.Second {
			t.Errorf("got the 15th call after %v, want 2s", last)
		}
	})
}

// A connection is lost while an event is in hand: when it comes again on the
// next one it is not handled twice, and acknowledged there.
func TestConnectionLostMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var r recorder
		d := newTestDispatcher(SubscriptionOptions{}, func(ctx context.Context, events []Event) error {
			<-release
			return r.handle(ctx, events)
		})
		first := feed(d, testEvent(1, "x"), testEvent(2, "x"))
		synctest.Wait()
		d.drop(true, nil)
		second := feed(d, testEvent(1, "x"), testEvent(2, "x"), testEvent(3, "x"))
		close(release)
		synctest.Wait()
		wantEqual(t, "handled", r.got(), []string{"1", "2", "3"})
		wantDone(t, first, "")
		wantDone(t, second, "a@k-3")
	})
}

func TestTriesAreCountedAcrossConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := recorder{reply: func(Event) error { return errBroken }}
		d := newTestDispatcher(SubscriptionOptions{Retry: Retry{Attempts: 3}}, r.handle)
		var l *ackTracker
		for range 3 {
			l = feed(d, testEvent(1, ""))
			synctest.Wait()
			d.drop(true, nil) // before the next try
			pass(time.Minute)
		}
		wantEqual(t, "tried", r.got(), []string{"1", "1", "1"})
		if rejects, _ := due(l); len(rejects) != 1 {
			t.Errorf("got rejects %v, want one", rejects)
		}
	})
}

func TestAnnouncedRedeliveryIsHandledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		d := newTestDispatcher(SubscriptionOptions{}, r.handle)
		feed(d, testEvent(1, ""))
		synctest.Wait()
		verdicts := make(chan verdict, 1)
		d.addCall(testEvent(1, ""), true, false, verdicts)
		if v := <-verdicts; !v.handled {
			t.Errorf("got %+v, want handled", v)
		}
		wantEqual(t, "announced as possibly coming twice", r.got(), []string{"1"})
		d.addCall(testEvent(1, ""), false, false, verdicts)
		<-verdicts
		wantEqual(t, "a replay, which nobody announces so", r.got(), []string{"1", "1"})
	})
}

// The same event was appended twice, long after another: both places are
// acknowledged, in one connection.
func TestSameEventTwiceInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		d := newTestDispatcher(SubscriptionOptions{}, func(ctx context.Context, events []Event) error {
			time.Sleep(time.Second)
			return r.handle(ctx, events)
		})
		twin := testEvent(1, "")
		twin.Cursor = "a@k-2"
		l := feed(d, testEvent(1, ""), twin, testEvent(3, ""))
		pass(time.Minute)
		wantEqual(t, "handled", r.got(), []string{"1", "3"})
		wantDone(t, l, "a@k-3")
	})
}

// A callback fails without being tried here: the gateway will come again. Its
// failures are none of the subscription's tries.
func TestCallbackFailuresAreTheGatewaysToRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		r := recorder{reply: func(Event) error {
			if broken {
				return errBroken
			}
			return nil
		}}
		d := newTestDispatcher(SubscriptionOptions{Retry: Retry{Attempts: 2}}, r.handle)
		for range 5 {
			verdicts := make(chan verdict, 1)
			d.addCall(testEvent(1, ""), false, false, verdicts)
			if v := <-verdicts; !errors.Is(v.failed, errBroken) {
				t.Fatalf("got %+v, want the failure", v)
			}
		}
		pass(time.Hour)
		if len(r.got()) != 5 {
			t.Errorf("got %d calls, want 5", len(r.got()))
		}
		broken = false
		l := feed(d, testEvent(1, ""))
		synctest.Wait()
		wantDone(t, l, "a@k-1")
		if rejects, _ := due(l); len(rejects) != 0 {
			t.Errorf("got rejects %v, want none", rejects)
		}
	})
}

type mapStore struct {
	mu  sync.Mutex
	set map[string]bool
	err error
}

func (s *mapStore) Handled(_ context.Context, key string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set[key], s.err
}

func (s *mapStore) MarkHandled(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set[key] = true
	return nil
}

func TestStoreRemembersForOtherProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &mapStore{set: make(map[string]bool)}
		var r recorder
		one := newTestDispatcher(SubscriptionOptions{Store: store}, r.handle)
		two := newTestDispatcher(SubscriptionOptions{Store: store}, r.handle)
		feed(one, testEvent(1, ""))
		synctest.Wait()
		l := newAckTracker()
		two.addLive(testEvent(1, ""), l.add("a", noPartition, "a@k-1"), true, origin{})
		synctest.Wait()
		wantEqual(t, "handled by one of the two", r.got(), []string{"1"})
		wantDone(t, l, "a@k-1")
	})
}

// Whatever is thrown at the dispatcher, each key keeps its order, each event is
// handled, and nothing is left behind.
func TestDispatcherInTheLongRun(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			var mu sync.Mutex
			last := make(map[string]int)
			busy := make(map[string]bool)
			d := newTestDispatcher(SubscriptionOptions{Concurrency: 1 + int(seed%8), BatchSize: 1 + int(seed%3)*4, BatchWait: time.Duration(seed%2) * time.Second},
				func(_ context.Context, events []Event) error {
					mu.Lock()
					mine := make(map[string]bool)
					for _, e := range events {
						if e.Key != "" && busy[e.Key] && !mine[e.Key] {
							t.Errorf("seed %d: key %s is in two calls at once", seed, e.Key)
						}
						busy[e.Key], mine[e.Key] = true, true
					}
					pause, fail := time.Duration(random.IntN(1000))*time.Millisecond, random.IntN(4) == 0
					mu.Unlock()
					time.Sleep(pause)
					mu.Lock()
					defer mu.Unlock()
					for _, e := range events {
						delete(busy, e.Key)
					}
					if fail {
						return errBroken
					}
					for _, e := range events {
						var n int
						fmt.Sscan(e.ID, &n)
						if e.Key != "" && n <= last[e.Key] {
							t.Errorf("seed %d: key %s got %d after %d", seed, e.Key, n, last[e.Key])
						}
						last[e.Key] = n
					}
					return nil
				})
			l := newAckTracker()
			const most = 300
			for n := 1; n <= most; n++ {
				mu.Lock()
				key := []string{"", "alice", "bob", "carol"}[random.IntN(4)]
				mu.Unlock()
				e := testEvent(n, key)
				d.addLive(e, l.add(e.Channel, noPartition, e.Cursor), false, origin{})
				if n%10 == 0 {
					time.Sleep(time.Second)
				}
			}
			pass(24 * time.Hour)
			wantDone(t, l, fmt.Sprintf("a@k-%d", most))
			d.mu.Lock()
			defer d.mu.Unlock()
			if len(d.lanes) != 0 || len(d.away) != 0 || len(d.jobs) != 0 || len(d.ready) != 0 || d.waiting != 0 || d.running != 0 {
				t.Errorf("seed %d: left behind: %d lanes, %d jobs, %d ready, %d waiting, %d running", seed, len(d.lanes), len(d.jobs), len(d.ready), d.waiting, d.running)
			}
		})
	}
}
