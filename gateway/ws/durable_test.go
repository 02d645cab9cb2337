package ws_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
	"github.com/longline-push/longline/gateway/ws"
)

// durables is a gateway with durable subscriptions on a real broker.
type durables struct {
	gateway
	broker  *embedded.Broker
	manager *durable.Manager
	epoch   string

	mu   sync.Mutex
	told map[string]int
}

func newDurables(t *testing.T) *durables {
	t.Helper()
	return newDurablesWithin(t, nil)
}

func newDurablesWithin(t *testing.T, budget *quota.Budget) *durables {
	t.Helper()
	verifier := authtest.Verifier(t, auth.Options{})
	b := durabletest.Open(t)
	d := &durables{broker: b, told: map[string]int{}}
	manager := durabletest.Run(t, durable.Options{Broker: b, Node: "n1", Publish: func(kind, _ string, _ any) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.told[kind]++
	}})
	hub := session.NewHub(session.Options{Budget: budget, Broker: b, Times: b, Node: "n1", Manager: manager, Heartbeat: 200 * time.Millisecond})
	server := httptest.NewServer(&ws.Handler{Hub: hub, Verifier: verifier})
	t.Cleanup(func() {
		hub.Close()
		server.Close()
	})
	d.gateway, d.manager = gateway{Server: server, hub: hub}, manager
	return d
}

// publish appends events of a type to channel a, numbered from 1.
func (d *durables) publish(t *testing.T, typ string, n int) {
	t.Helper()
	for range n {
		f := event.Fields{ID: fmt.Sprint(typ, time.Now().UnixNano()), Source: "/s", Type: typ, Data: []byte(`1`)}
		done, err := d.broker.Append(t.Context(), "a", []broker.Entry{{Data: f.AppendStored(nil)}})
		if err != nil {
			t.Fatal(err)
		}
		d.epoch = done[0].Epoch
	}
}

func (d *durables) cursor(n int) string { return fmt.Sprintf("a@%s-%d", d.epoch, n) }

// put makes subscription crm on channel a, from its beginning.
func (d *durables) put(t *testing.T, fields string) {
	t.Helper()
	def, err := durable.ParseDefinition([]byte(`{"channels":["a"]` + fields + `}`))
	if err != nil {
		t.Fatal(err)
	}
	state, err := d.broker.Follow(t.Context(), "a", deaf{})
	if err != nil {
		t.Fatal(err)
	}
	d.broker.Unfollow("a", deaf{})
	d.epoch = state.Epoch
	err = d.manager.Change(t.Context(), "crm", func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		at := event.Position{{Channel: "a", Epoch: state.Epoch}}
		if s.Version > 0 {
			return durable.Define(s, def, nil, nil, force, env)
		}
		_, c := durable.Create("crm", durable.Record{Definition: def}, at, env)
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

type deaf struct{}

func (deaf) Announce(broker.Announcement) {}

// change applies a rule to crm.
func (d *durables) change(t *testing.T, rule func(s durable.State, force bool, env durable.Env) (durable.Change, error)) {
	t.Helper()
	if err := d.manager.Change(t.Context(), "crm", rule); err != nil {
		t.Fatal(err)
	}
}

// attach dials and reads the hello.
func (d *durables) attach(t *testing.T, query string) *websocket.Conn {
	t.Helper()
	c := d.open(t, query)
	wantFrame(t, c, `"op":"hello"`, `"session":"durable"`, `"subscription":"crm"`)
	return c
}

func (d *durables) open(t *testing.T, query string) *websocket.Conn {
	t.Helper()
	c, _, err := d.dial(t, "subscription=crm&"+query, token(t, auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm"}}), ws.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

func say(t *testing.T, c *websocket.Conn, format string, args ...any) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		t.Fatal(err)
	}
}

// wantEvents reads the events with these numbers, in their order, and nothing
// else but control frames that don't matter.
func (d *durables) wantEvents(t *testing.T, c *websocket.Conn, numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		d.wantNext(t, c, fmt.Sprintf(`"cursor":%q`, d.cursor(n)))
	}
}

// wantNext reads the next frame that isn't a position and wants parts in it.
func (d *durables) wantNext(t *testing.T, c *websocket.Conn, parts ...string) {
	t.Helper()
	for {
		got, err := read(t, c)
		if err != nil {
			t.Fatalf("read: %v, want %q", err, parts)
		}
		if strings.Contains(got, `"op":"position"`) {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(got, part) {
				t.Fatalf("frame %s\nlacks %s", got, part)
			}
		}
		return
	}
}

// wantQuiet wants no event before the answer to a ping.
func (d *durables) wantQuiet(t *testing.T, c *websocket.Conn) {
	t.Helper()
	say(t, c, `{"op":"ping","ref":77}`)
	d.wantNext(t, c, `"op":"ok"`, `"ref":77`)
}

// wantAcked waits until the acknowledged position is behind event n.
func (d *durables) wantAcked(t *testing.T, n int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		s, err := d.manager.Load(t.Context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		if s.Position.String() == d.cursor(n) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("acknowledged %s, want %s", s.Position, d.cursor(n))
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestWindowOpensByAcks(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	d.publish(t, "t", 7)
	c := d.attach(t, "window=3")
	d.wantEvents(t, c, 1, 2, 3)
	d.wantQuiet(t, c)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(2))
	d.wantEvents(t, c, 4, 5)
	d.wantQuiet(t, c)
	d.wantAcked(t, 2)
	for _, bad := range []string{d.cursor(6), "b@x-1", "a@", ""} {
		say(t, c, `{"op":"ack","cursor":%q}`, bad)
		d.wantNext(t, c, `"op":"error"`, `"code":"bad_request"`)
	}
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(1)) // an older one does nothing
	d.wantQuiet(t, c)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(5))
	d.wantEvents(t, c, 6, 7)
	d.wantAcked(t, 5)
	say(t, c, `{"op":"subscribe","ref":1,"channels":["b"]}`)
	d.wantNext(t, c, `"op":"error"`, "durable")
}

func TestUnacknowledgedComesAgainAnnounced(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	d.publish(t, "t", 3)
	c := d.attach(t, "")
	d.wantEvents(t, c, 1, 2, 3)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(1))
	d.wantAcked(t, 1)
	c.CloseNow()
	d.publish(t, "t", 1)
	c = d.attach(t, "")
	d.wantNext(t, c, `"op":"redelivery"`, d.cursor(3))
	d.wantEvents(t, c, 2, 3, 4)
}

func TestSameConsumerTakesOver(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	d.publish(t, "t", 1)
	first := d.attach(t, "consumer=x")
	d.wantEvents(t, first, 1)
	second := d.attach(t, "consumer=x")
	d.wantNext(t, first, `"op":"bye"`, "4409", `"reconnect":false`)
	d.wantNext(t, second, `"op":"redelivery"`)
	d.wantEvents(t, second, 1)
	say(t, second, `{"op":"ack","cursor":%q}`, d.cursor(1))
	d.wantAcked(t, 1)
}

func TestAnotherConsumerStandsBy(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	d.publish(t, "t", 1)
	first := d.attach(t, "consumer=x")
	d.wantEvents(t, first, 1)
	second := d.open(t, "consumer=y")
	wantFrame(t, second, `"op":"standby"`)
	first.CloseNow()
	d.wantNext(t, second, `"op":"hello"`)
	d.wantNext(t, second, `"op":"redelivery"`)
	d.wantEvents(t, second, 1)
}

func TestRejectDeadLettersAndGoesOn(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	d.publish(t, "t", 3)
	c := d.attach(t, "")
	d.wantEvents(t, c, 1, 2, 3)
	say(t, c, `{"op":"reject","cursor":%q,"reason":"too blue"}`, d.cursor(2))
	say(t, c, `{"op":"reject","cursor":%q}`, d.cursor(9))
	d.wantNext(t, c, `"op":"error"`, "not an event that was delivered")
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(1))
	d.wantAcked(t, 2) // the rejected one is done
	letters, err := d.broker.Dead(t.Context(), "crm", 0, 10)
	if err != nil || len(letters) != 1 {
		t.Fatalf("got %d dead letters, %v, want 1", len(letters), err)
	}
	var letter durable.DeadLetter
	if err := json.Unmarshal(letters[0].Data, &letter); err != nil || letter.Reason != "too blue" || !strings.Contains(string(letter.Event), d.cursor(2)) {
		t.Errorf("got %+v, %v, want event 2 with the reason", letter, err)
	}

	// It is put back, comes again on the same line, and is gone with its ack.
	if _, err := d.broker.Redrive(t.Context(), "crm", nil); err != nil {
		t.Fatal(err)
	}
	if err := d.manager.Redriven(t.Context(), "crm"); err != nil {
		t.Fatal(err)
	}
	d.wantEvents(t, c, 2)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(2))
	deadline := time.Now().Add(10 * time.Second)
	for {
		s, err := d.manager.Load(t.Context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		if s.Dead == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the dead letter that was delivered again is still there")
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestPositionMovesOverWhatTypesLeaveOut(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"types":["wanted"]`)
	d.publish(t, "other", 3)
	c := d.attach(t, "")
	wantFrame(t, c, `"op":"position"`, d.cursor(3))
	d.wantAcked(t, 3)
	d.publish(t, "wanted", 1)
	d.publish(t, "other", 1)
	d.wantEvents(t, c, 4)
	d.wantAcked(t, 3) // 4 is not acknowledged, so nothing behind it is
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(4))
	d.wantAcked(t, 5)
}

func TestPositionMovesOverWhatTheFilterLeavesOut(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"filter":"event.type.endsWith(\"ed\") && !has(event.subject)"`)
	d.publish(t, "other", 3)
	c := d.attach(t, "")
	wantFrame(t, c, `"op":"position"`, d.cursor(3))
	d.wantAcked(t, 3)
	d.publish(t, "wanted", 1)
	d.publish(t, "other", 1)
	d.wantEvents(t, c, 4)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(4))
	d.wantAcked(t, 5)
}

func TestPauseHoldsDelivery(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	c := d.attach(t, "")
	d.change(t, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Pause(s, force, env)
	})
	deadline := time.Now().Add(10 * time.Second)
	for d.hub.Count() == 0 && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	second := d.attach(t, "") // acquired while it is paused
	d.wantNext(t, c, "4409")
	d.publish(t, "t", 2)
	d.wantQuiet(t, second)
	d.change(t, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		return durable.Resume(s, env), nil
	})
	d.wantNext(t, second, `"cursor":`)
}

func TestSeekSendsAwayAndBack(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	d.publish(t, "t", 2)
	c := d.attach(t, "")
	d.wantEvents(t, c, 1, 2)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(2))
	d.wantAcked(t, 2)
	d.change(t, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Seek(s, event.Position{{Channel: "a", Epoch: d.epoch}}, force, env)
	})
	d.wantNext(t, c, `"op":"bye"`, "1012", `"reconnect":true`)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(2)) // too late to undo it
	c = d.attach(t, "")
	d.wantNext(t, c, `"op":"redelivery"`)
	d.wantEvents(t, c, 1, 2)
}

func TestAttachmentsThatAreRefused(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"callback":{"url":"http://127.0.0.1:9/","mode":"always"}`)
	may := auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm", "none"}}
	for _, test := range []struct {
		story, query string
		token        auth.Mintage
		code         wire.CloseCode
	}{
		{"a callback that is always called", "subscription=crm", may, wire.CloseTakenOver},
		{"a subscription that doesn't exist", "subscription=none", may, wire.CloseNotFound},
		{"a name that the token lacks", "subscription=erp", may, wire.CloseForbidden},
		{"a channel that the token lacks", "subscription=crm", auth.Mintage{Subscriptions: []string{"crm"}}, wire.CloseForbidden},
		{"a subscription and channels", "subscription=crm&channel=a", may, wire.CloseBadRequest},
		{"a window of nothing", "subscription=crm&window=0", may, wire.CloseBadRequest},
	} {
		t.Run(test.story, func(t *testing.T) {
			c, _, err := d.dial(t, test.query, token(t, test.token), ws.Protocol)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			wantClose(t, c, test.code)
		})
	}
	d.put(t, "")
	c := d.attach(t, "")
	d.change(t, func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) { return durable.Delete(s), nil })
	d.wantNext(t, c, `"op":"bye"`, "4404")
}

// A consumer that leaves its window full while events leave the ring lags, and
// then reads on from the log.
func TestSlowConsumerReadsOnFromTheLog(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	c := d.attach(t, "window=2")
	const many = 1200 // more than a ring holds
	entries := make([]broker.Entry, many)
	for i := range entries {
		f := event.Fields{ID: fmt.Sprint("e", i), Source: "/s", Type: "t", Data: []byte(`1`)}
		entries[i] = broker.Entry{Data: f.AppendStored(nil)}
	}
	for i := 0; i < many; i += 100 {
		if _, err := d.broker.Append(t.Context(), "a", entries[i:i+100]); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= many; n++ {
		d.wantEvents(t, c, n)
		say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(n))
	}
	d.wantAcked(t, many)
	d.wantTold(t, "lagging")
}

// wantTold waits until the manager has told of something.
func (d *durables) wantTold(t *testing.T, kind string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		d.mu.Lock()
		told := d.told[kind]
		d.mu.Unlock()
		if told > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never told: %s", kind)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestRenewalKeepsTheRightToTheSubscription(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	c := d.attach(t, "")
	for _, tt := range []struct {
		next auth.Mintage
		want string
	}{
		{auth.Mintage{Subscribe: []string{"a"}}, `"code":"forbidden","detail":"token may not use subscription \"crm\""`},
		{auth.Mintage{Subscribe: []string{"b"}, Subscriptions: []string{"crm"}}, `token may not subscribe to \"a\", a channel of subscription \"crm\"`},
		{auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm"}}, `{"op":"ok","ref":1}`},
	} {
		say(t, c, `{"op":"auth","ref":1,"token":%q}`, token(t, tt.next))
		wantFrame(t, c, tt.want)
	}
}

func TestRedeliverySaysExactlyWhatTheOneTakenOverHadDelivered(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	d.publish(t, "t", 3)
	first := d.attach(t, "consumer=x&window=3")
	d.wantEvents(t, first, 1, 2, 3)
	d.publish(t, "t", 5)
	second := d.attach(t, "consumer=x")
	d.wantNext(t, second, `"op":"redelivery"`, fmt.Sprintf(`"cursor":%q`, d.cursor(3)))
	d.wantEvents(t, second, 1, 2, 3, 4, 5, 6, 7, 8)
}

func TestRedeliverySaysTwoWindowsWhereNobodyKnows(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"window":2,"types":["t"]`)
	d.publish(t, "t", 1)
	d.publish(t, "other", 2)
	d.publish(t, "t", 5)
	d.change(t, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Seek(s, event.Position{{Channel: "a", Epoch: d.epoch}}, force, env)
	})
	c := d.attach(t, "")
	// 1, 4, 5 and 6 are the first four that it takes; 2 and 3 are of another type.
	d.wantNext(t, c, `"op":"redelivery"`, fmt.Sprintf(`"cursor":%q`, d.cursor(6)))
	d.wantEvents(t, c, 1, 4)
}
