package callback_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/shape"
)

// shaped sets a worker's shape.
func shaped(t *testing.T, s shape.Spec, more func(*callback.Subscription)) func(*callback.Subscription) {
	return func(sub *callback.Subscription) {
		if more != nil {
			more(sub)
		}
		form, err := shape.Compile(s, sub.URL, sub.MaxEvents > 1)
		if err != nil {
			t.Fatal(err)
		}
		sub.Shape = form
	}
}

func batchesOf(n int) func(*callback.Subscription) {
	return func(s *callback.Subscription) { s.MaxEvents = n }
}

// records is an outcome of an API that answers for each record.
const records = `dyn(response.status) == 200 ? dyn(response.body.map(r, r.ok ? "ack" : r.again ? "retry" : "refuse")) : dyn("retry")`

func TestOutcomeOfEachEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		later := 0
		e.answer = func(c call) reply {
			var said []string
			for _, id := range c.ids {
				switch {
				case id == "e2":
					said = append(said, `{"ok":false,"again":false}`)
				case id == "e3" && later < 2:
					later++
					said = append(said, `{"ok":false,"again":true}`)
				default:
					said = append(said, `{"ok":true}`)
				}
			}
			return reply{status: 200, body: "[" + strings.Join(said, ",") + "]"}
		}
		m.publish("", "", "", "")
		d := deliver(t, m, e, shaped(t, shape.Spec{Outcome: records}, batchesOf(4)))
		synctest.Wait()
		m.publish("") // in order, it waits for those before it
		d.ends(t)
		wantText(t, "calls", e.said(), "e1+e2+e3+e4 e2 e2 e3 e3 e5")
		wantText(t, "dead", m.deadIDs(), "e2")
		if l := m.buried()[0]; l.Attempts != 3 || !strings.Contains(l.Reason, "the outcome says refuse") {
			t.Errorf("letter of e2 says %d attempts, %q; want 3 and what the outcome said", l.Attempts, l.Reason)
		}
		if m.position() != 5 {
			t.Errorf("committed %d, want 5", m.position())
		}
		wantText(t, "notices", m.noticed(), "deadletter")
	})
}

// The reason of a letter may quote the event's data, of which it keeps little.
func TestAReasonIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish("", "")
		m.events[0].JSON = []byte(`{"specversion":"1.0","id":"e1","source":"/s","type":"t","data":{"k":"` + strings.Repeat("ä", 50<<10) + `"}}`)
		d := deliver(t, m, e, shaped(t, shape.Spec{Body: `event.data[event.data.k]`}, nil))
		d.ends(t)
		if letters := m.buried(); len(letters) != 2 || len(letters[0].Reason) > 1<<10 || !strings.Contains(letters[0].Reason, "no such key") {
			t.Errorf("letters: %.1000v", letters)
		}
	})
}

func TestOutcomeOfAnAnswer(t *testing.T) {
	for _, tc := range []struct {
		name, outcome string
		answer        reply
		dead, notices string
		position      int
	}{
		{"a 200 that is a no", `response.body.ok ? "ack" : "refuse"`, reply{status: 200, body: `{"ok":false}`}, "e1", "deadletter", 1},
		{"a 404 that is a yes", `response.status == 404 ? "ack" : "retry"`, reply{status: 404}, "", "", 1},
		{"by a header", `response.headers["x-result"] == "done" ? "ack" : "retry"`, reply{status: 200, header: http.Header{"X-Result": {"done"}}}, "", "", 1},
		{"nonsense is trouble", `response.body.verdict`, reply{status: 200, body: `{"verdict":"perhaps"}`}, "", "callback_failing", 0},
		{"an error is trouble", `response.body.verdict`, reply{status: 200, body: `<html>`}, "", "callback_failing", 0},
		{"no answer is trouble", `"ack"`, reply{err: errDown}, "", "callback_failing", 0},
		{"a 410 is what the outcome says", `response.status == 410 ? "ack" : "retry"`, reply{status: 410}, "", "", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := newMemory(), &endpoint{answer: func(call) reply { return tc.answer }}
				m.publish("")
				d := deliver(t, m, e, shaped(t, shape.Spec{Outcome: tc.outcome}, nil))
				time.Sleep(20 * time.Minute)
				wantText(t, "dead", m.deadIDs(), tc.dead)
				wantText(t, "notices", m.noticed(), tc.notices)
				if m.position() != tc.position {
					t.Errorf("committed %d, want %d", m.position(), tc.position)
				}
				if says := d.worker.Status().LastError; strings.Contains(tc.name, "nonsense") && !strings.Contains(says, `"perhaps"`) {
					t.Errorf("the status says %q, want what the outcome gave", says)
				}
			})
		})
	}
}

func TestAnEventThatDoesNotFitIsRefused(t *testing.T) {
	const body = `{"n": event.data.n, "even": int(event.data.n) % 2 == 0 ? "yes" : event.data.missing}`
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish("", "", "")
		d := deliver(t, m, e, shaped(t, shape.Spec{Body: body}, nil))
		d.ends(t)
		wantText(t, "dead", m.deadIDs(), "e1 e3")
		if calls := e.seen(); len(calls) != 1 || calls[0].body != `{"even":"yes","n":2}` {
			t.Errorf("got %d calls, want one, of e2", len(calls))
		}
		if l := m.buried()[0]; l.Attempts != 0 || !strings.Contains(l.Reason, "missing") {
			t.Errorf("letter says %d attempts, %q; want none and what is missing", l.Attempts, l.Reason)
		}
	})
	// Where nothing fits it is the shape that is wrong: dead-lettering stops.
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		m.publish(repeat("", 100)...)
		deliver(t, m, e, shaped(t, shape.Spec{Body: `{"n": event.data.missing}`}, batchesOf(1)))
		time.Sleep(time.Hour)
		if len(m.buried()) != 4 || len(e.seen()) != 0 {
			t.Errorf("%d dead letters, %d calls; want 4, none", len(m.buried()), len(e.seen()))
		}
	})
}

// login is an endpoint with a token endpoint beside it.
func login(valid func() string, token func() reply, fetched *atomic.Int32) func(c call) reply {
	return func(c call) reply {
		if strings.Contains(c.body, "grant_type=client_credentials") {
			fetched.Add(1)
			return token()
		}
		if c.header.Get("Authorization") != "Bearer "+valid() {
			return reply{status: 401}
		}
		return reply{status: 200}
	}
}

func oauth(sub *callback.Subscription) {
	sub.Auth = &shape.Auth{OAuth2: &shape.OAuth2{TokenURL: "https://login.example.com/token", ClientID: "me", ClientSecret: "hush", Scope: "a b"}}
}

func jsonReply(body string) reply {
	return reply{status: 200, header: http.Header{"Content-Type": {"application/json"}}, body: body}
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		var revoked atomic.Bool
		var fetched atomic.Int32
		valid := func() string {
			if revoked.Load() {
				return "two"
			}
			return "one"
		}
		e.answer = login(valid, func() reply {
			time.Sleep(time.Second)
			return jsonReply(`{"access_token":"` + valid() + `","token_type":"Bearer","expires_in":3600}`)
		}, &fetched)
		var keys []string
		for i := range 50 {
			keys = append(keys, "k"+itoa(i))
		}
		m.publish(keys...)
		d := deliver(t, m, e, func(s *callback.Subscription) { oauth(s); s.ByKey, s.Concurrency = true, 10 })
		time.Sleep(5 * time.Second)
		if fetched.Load() != 1 || m.position() != 50 {
			t.Errorf("%d fetches for 50 calls, committed %d; want 1, 50", fetched.Load(), m.position())
		}
		revoked.Store(true) // the old one is revoked: a 401 has one more fetched
		m.publish("")
		time.Sleep(5 * time.Second)
		if fetched.Load() != 2 || m.position() != 51 || d.worker.Status().LastError != "" {
			t.Errorf("after a 401: %d fetches, committed %d, %q; want 2, 51, no error", fetched.Load(), m.position(), d.worker.Status().LastError)
		}
		d.ends(t)
		if len(m.buried()) != 0 {
			t.Error("a token that ended made a dead letter")
		}
	})
}

func TestTokenTroubleIsTheEndpoints(t *testing.T) {
	for _, tc := range []struct {
		name  string
		token reply
		says  string
	}{
		{"refuses the client", reply{status: 400, header: http.Header{"Content-Type": {"application/json"}}, body: `{"error":"invalid_client","error_description":"hush"}`}, "token endpoint: answered 400 (invalid_client)"},
		{"answers HTML", reply{status: 200, header: http.Header{"Content-Type": {"text/html"}}, body: `<html>hush</html>`}, "token endpoint: its answer has no access_token"},
		{"redirects", reply{status: 302, header: http.Header{"Location": {"http://10.0.0.1/"}}}, "token endpoint: answered 302; redirects are not followed"},
		{"is slow", reply{status: 200, takes: time.Hour}, "timed out"},
		{"is down", reply{err: errDown}, "token endpoint: could not be reached"},
		{"gives a token of 1 MiB", jsonReply(`{"access_token":"` + strings.Repeat("x", 900<<10) + `"}`), "token endpoint: its access_token has 921600 bytes"},
		{"gives one with a line break", jsonReply(`{"access_token":"a\r\nX-B: c"}`), "token endpoint: its access_token has a space or another"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := newMemory(), &endpoint{}
				var fetched atomic.Int32
				var well atomic.Bool
				e.answer = login(func() string { return "one" }, func() reply {
					if well.Load() {
						return jsonReply(`{"access_token":"one","expires_in":0}`)
					}
					return tc.token
				}, &fetched)
				m.publish(repeat("", 30)...)
				d := deliver(t, m, e, oauth)
				time.Sleep(9 * time.Minute)
				s := d.worker.Status()
				if !strings.Contains(s.LastError, tc.says) || strings.Contains(s.LastError, "hush") || s.Breaker == "closed" {
					t.Errorf("status is %+v, want trouble that says %q", s, tc.says)
				}
				if fetched.Load() > 200 {
					t.Errorf("%d fetches in 9 minutes", fetched.Load())
				}
				well.Store(true)
				d.ends(t)
				if m.position() != 30 || len(m.buried()) != 0 {
					t.Errorf("committed %d with %d dead letters, want 30 and none", m.position(), len(m.buried()))
				}
			})
		})
	}
}

func TestATokenThatIsNeverTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMemory(), &endpoint{}
		var fetched atomic.Int32
		e.answer = login(func() string { return "another" }, func() reply {
			return jsonReply(`{"access_token":"wrong","expires_in":3600}`)
		}, &fetched)
		m.publish("")
		d := deliver(t, m, e, oauth)
		time.Sleep(time.Minute)
		calls := 0
		for _, c := range e.seen() {
			if c.ids != nil {
				calls++
			}
		}
		if s := d.worker.Status(); s.LastStatus != 401 || len(m.buried()) != 0 || int(fetched.Load()) > calls+1 {
			t.Errorf("got %+v after %d calls and %d fetches, want 401, one fetch more than calls at most", s, calls, fetched.Load())
		}
	})
}
