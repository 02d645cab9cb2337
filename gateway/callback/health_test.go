package callback_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/gateway/callback"
)

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// wantInOrder checks that of the calls from the one on that went through first,
// each event came, in the order of the log.
func wantInOrder(t *testing.T, e *endpoint, from, n int) {
	t.Helper()
	next := 1
	seen := map[string]bool{}
	for _, c := range e.seen()[from:] {
		for _, id := range c.ids {
			if seen[id] {
				continue
			}
			seen[id] = true
			if id != "e"+itoa(next) {
				t.Fatalf("%s was delivered first where e%d was due", id, next)
			}
			next++
		}
	}
	if next != n+1 {
		t.Errorf("%d events were delivered, want %d", next-1, n)
	}
}

func TestOutageOfTenMinutes(t *testing.T) {
	for _, tc := range []struct {
		name string
		down reply
	}{
		{"refuses connections", reply{err: errDown}},
		{"answers 500", reply{status: 500}},
		{"hangs", reply{status: 200, takes: time.Hour}},
		{"answers 401", reply{status: 401}},
		{"redirects", reply{status: 302, header: http.Header{"Location": {"http://127.0.0.1/"}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := newMemory(), &endpoint{answer: func(call) reply { return tc.down }}
				m.publish(repeat("", 10)...)
				d := deliver(t, m, e, nil)
				for range 600 - 1 {
					time.Sleep(time.Second)
					m.publish("")
				}
				healed := time.Now()
				e.say(nil)
				calls := len(e.seen())
				if calls < 20 || calls > 250 {
					t.Errorf("%d calls during the outage, want about one in 7.5 s", calls)
				}
				d.ends(t)
				for i, c := range e.seen()[:calls] {
					if i < calls-1 && e.seen()[i+1].at.Sub(c.at) > 31*time.Second {
						t.Errorf("call %d came %v after the one before", i+1, e.seen()[i+1].at.Sub(c.at))
					}
				}
				all := e.seen()
				if took := all[len(all)-1].at.Sub(healed); took > 32*time.Second {
					t.Errorf("all was delivered %v after the outage", took)
				}
				if m.position() != 609 || len(m.buried()) != 0 {
					t.Errorf("committed %d with %d dead letters, want 609 and none", m.position(), len(m.buried()))
				}
				wantText(t, "notices", m.noticed(), "callback_failing callback_recovered")
				// A head that hung when the endpoint recovered fails only later, and
				// another one, tried to compare, then passes before it.
				if tc.down.takes == 0 {
					wantInOrder(t, e, calls, 609)
				}
			})
		})
	}
}

func TestOutageShorterThanSuspicionKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: status(503)}
		m.publish(repeat("", 50)...)
		d := deliver(t, m, e, nil)
		for len(e.seen()) < 7 {
			time.Sleep(10 * time.Millisecond)
		}
		e.say(nil)
		d.ends(t)
		wantInOrder(t, e, 7, 50)
	})
}

func TestLongTroubleIsTriedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: status(500)}
		m.publish("")
		deliver(t, m, e, nil)
		time.Sleep(11 * time.Minute)
		before := len(e.seen())
		time.Sleep(10 * time.Hour)
		calls := len(e.seen()) - before
		if calls < 60 || calls > 240 {
			t.Errorf("%d calls in 10 hours, want about one in 5 minutes", calls)
		}
		if len(m.buried()) != 0 {
			t.Error("an outage made a dead letter")
		}
	})
}

func TestRetryAfterIsObeyedInFull(t *testing.T) {
	for _, code := range []int{429, 503} {
		for _, form := range []string{"seconds", "date"} {
			t.Run(http.StatusText(code)+" "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m, e := newMemory(), &endpoint{}
					e.answer = func(c call) reply {
						if c.attempt != "1" {
							return reply{status: 200}
						}
						after := "1800"
						if form == "date" {
							after = time.Now().Add(30 * time.Minute).UTC().Format(http.TimeFormat)
						}
						return reply{status: code, header: http.Header{"Retry-After": {after}}}
					}
					m.publish("")
					d := deliver(t, m, e, nil)
					synctest.Wait()
					next := d.worker.Status().NextAttempt
					if next == nil || time.Until(*next) > 30*time.Minute || time.Until(*next) < 30*time.Minute-time.Second {
						t.Errorf("next attempt is at %v", next)
					}
					d.ends(t)
					calls := e.seen()
					if got := calls[1].at.Sub(calls[0].at).Round(time.Second); len(calls) != 2 || got != 30*time.Minute {
						t.Errorf("%d calls, the second after %v; want 2, 30m", len(calls), got)
					}
				})
			})
		}
	}
}

func TestGoneDisables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: status(410)}
		m.publish("", "")
		d := deliver(t, m, e, nil)
		if r := d.ends(t); r.Outcome != callback.Disabled || m.position() != 0 || len(m.buried()) != 0 {
			t.Errorf("got outcome %v, committed %d, %d dead", r.Outcome, m.position(), len(m.buried()))
		}
		wantText(t, "calls", e.said(), "e1")
		wantText(t, "notices", m.noticed(), "callback_disabled")
	})
}

func TestRefusedEvent(t *testing.T) {
	for _, code := range []int{400, 402, 406, 409, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 426, 428, 431, 451} {
		synctest.Test(t, func(t *testing.T) {
			m, e := newMemory(), &endpoint{}
			e.answer = func(c call) reply {
				if c.ids[0] == "e2" {
					return reply{status: code, body: "no"}
				}
				return reply{status: 200}
			}
			m.publish("", "", "")
			d := deliver(t, m, e, nil)
			d.ends(t)
			wantText(t, "calls", e.said(), "e1 e2 e2 e2 e3")
			wantText(t, "dead", m.deadIDs(), "e2")
			calls := e.seen()
			for i := 2; i < 4; i++ {
				if got := calls[i].at.Sub(calls[i-1].at); got != time.Second {
					t.Errorf("%d: try %d came after %v, want 1s", code, i, got)
				}
			}
			if m.buried()[0].Attempts != 3 || !strings.Contains(m.buried()[0].Reason, "answered") || m.position() != 3 {
				t.Errorf("%d: got letter %+v, committed %d", code, m.buried()[0], m.position())
			}
			wantText(t, "notices", m.noticed(), "deadletter")
		})
	}
}

func TestRefusedBatchIsTriedEventByEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		e.answer = func(c call) reply {
			for _, id := range c.ids {
				if id == "e2" {
					return reply{status: 422}
				}
			}
			return reply{status: 200}
		}
		m.publish("", "", "")
		d := deliver(t, m, e, func(s *callback.Subscription) { s.MaxEvents = 3 })
		time.Sleep(time.Second) // e2's second try
		m.publish("", "", "", "")
		d.ends(t)
		wantText(t, "calls", e.said(), "e1+e2+e3 e1 e2 e2 e2 e3 e4+e5+e6 e7")
		wantText(t, "dead", m.deadIDs(), "e2")
		if got := m.buried()[0].Attempts; got != 4 {
			t.Errorf("e2 was sent once in a batch and 3 times alone; its letter says %d attempts", got)
		}
		if m.position() != 7 {
			t.Errorf("committed %d, want 7", m.position())
		}
	})
}

func TestFiveRefusedInARowAreTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: status(400)}
		m.publish(repeat("", 100)...)
		d := deliver(t, m, e, nil)
		time.Sleep(time.Hour)
		if len(m.buried()) != 4 {
			t.Errorf("%d dead letters from a receiver that refuses everything, want dead-lettering to stop at the fifth", len(m.buried()))
		}
		if got := d.worker.Status().Breaker; got == "closed" {
			t.Errorf("breaker is %s", got)
		}
		e.say(nil)
		d.ends(t)
		if m.position() != 100 || len(m.buried()) != 4 {
			t.Errorf("committed %d with %d dead letters, want 100 and 4", m.position(), len(m.buried()))
		}
	})
}

func TestRejectedInAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		e.answer = func(c call) reply {
			return reply{status: 202, body: `{"rejected":["e2","e99"],"note":"ok"}`}
		}
		m.publish("", "", "", "")
		d := deliver(t, m, e, func(s *callback.Subscription) { s.MaxEvents = 4 })
		d.ends(t)
		wantText(t, "calls", e.said(), "e1+e2+e3+e4")
		wantText(t, "dead", m.deadIDs(), "e2")
		if m.position() != 4 {
			t.Errorf("committed %d, want 4", m.position())
		}
	})
}

func TestDeadLetterWaitsForTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: func(c call) reply {
			return reply{status: 200, body: `{"rejected":["e1"]}`}
		}}
		m.publish("", "")
		d := deliver(t, m, e, nil)
		m.trouble(context.DeadlineExceeded)
		time.Sleep(30 * time.Second)
		if m.position() != 0 {
			t.Errorf("committed %d before the dead letter is kept", m.position())
		}
		m.trouble(nil)
		d.ends(t)
		wantText(t, "dead", m.deadIDs(), "e1")
		wantText(t, "calls", e.said(), "e1 e2")
	})
}

func TestPoison(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*callback.Subscription)
		keys []string
		bad  string
		dead string
		more bool // others go on being published
	}{
		{"the head, in order of the channel", nil, repeat("", 20), "e1", "e1", false},
		{"amid good ones", nil, repeat("", 40), "e20", "e20", false},
		{"two in a row", nil, repeat("", 40), "e7 e8", "e7 e8", false},
		{"in a batch", func(s *callback.Subscription) { s.MaxEvents = 10 }, repeat("", 60), "e15", "e15", false},
		{"with a window of one", func(s *callback.Subscription) { s.Window = 1 }, repeat("", 20), "e3", "e3", false},
		{"by key", func(s *callback.Subscription) { s.ByKey, s.Concurrency = true, 3 },
			strings.Split("a b c a b c a b c a b c a b c a b c a b c", " "), "e5", "e5", true},
		{"by key behind a full window", func(s *callback.Subscription) { s.ByKey, s.Concurrency, s.Window = true, 3, 20 },
			append([]string{"x"}, repeat("y", 100)...), "e1", "e1", false},
		{"alone: nothing to compare with", nil, repeat("", 1), "e1", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := newMemory(), &endpoint{}
				bad := map[string]bool{}
				for id := range strings.SplitSeq(tc.bad, " ") {
					bad[id] = true
				}
				e.answer = func(c call) reply {
					for _, id := range c.ids {
						if bad[id] {
							return reply{status: 500}
						}
					}
					return reply{status: 200}
				}
				m.publish(tc.keys...)
				deliver(t, m, e, tc.set)
				if tc.more {
					for range 60 {
						time.Sleep(5 * time.Second)
						m.publish("other")
					}
				}
				time.Sleep(20 * time.Minute)
				wantText(t, "dead", m.deadIDs(), tc.dead)
				if t.Failed() {
					t.Log(e.said())
				}
				want := len(tc.keys)
				if tc.more {
					want += 60
				}
				if tc.dead == "" {
					want = 0
				}
				if m.position() != want {
					t.Errorf("committed %d, want %d", m.position(), want)
				}
				tries := map[string]int{}
				for _, c := range e.seen() {
					for _, id := range c.ids {
						tries[id]++
					}
				}
				for id := range bad {
					// 8 failures, then three rounds; the second of two in a row was
					// tried as the other one as well, and a batch's others counted.
					if tc.dead != "" && tries[id] < 11 {
						t.Errorf("%s was buried after %d tries, want 11 at least", id, tries[id])
					}
				}
			})
		})
	}
}

func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: status(500)}
		var keys []string
		for i := range 200 {
			keys = append(keys, "k"+itoa(i))
		}
		m.publish(keys...)
		d := deliver(t, m, e, func(s *callback.Subscription) { s.ByKey, s.Concurrency, s.Window = true, 16, 1000 })
		time.Sleep(time.Minute)
		e.mu.Lock()
		e.most = 0
		down := len(e.calls)
		e.mu.Unlock()
		e.say(func(call) reply { return reply{status: 200, takes: 100 * time.Millisecond} })
		d.ends(t)
		up := e.seen()[down:]
		if e.most < 8 {
			t.Errorf("%d calls at once at most after the slow start, want many", e.most)
		}
		within := 0
		for _, c := range up {
			if c.at.Sub(up[0].at) <= 200*time.Millisecond {
				within++
			}
		}
		if within > 6 {
			t.Errorf("%d calls within 200 ms of recovery, want a slow start", within)
		}
		if m.position() != 200 {
			t.Errorf("committed %d, want 200", m.position())
		}
	})
}

func TestCallsThatFailTogetherAreOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{answer: func(call) reply { return reply{status: 500, takes: time.Second} }}
		var keys []string
		for i := range 200 {
			keys = append(keys, "k"+itoa(i))
		}
		m.publish(keys...)
		d := deliver(t, m, e, func(s *callback.Subscription) { s.ByKey, s.Concurrency = true, 64 })
		time.Sleep(1500 * time.Millisecond)
		if got := d.worker.Status(); got.Breaker != "open" && got.Breaker != "half_open" {
			t.Errorf("breaker is %s after 64 failures", got.Breaker)
		}
		time.Sleep(20 * time.Second)
		if got := len(e.seen()); got > 64+40 {
			t.Errorf("%d calls, of which 64 were in flight when the breaker opened", got)
		}
	})
}
