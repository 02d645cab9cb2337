package ws_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
	"github.com/longline-push/longline/gateway/ws"
)

// beside is another gateway on the same broker.
func (d *durables) beside(t *testing.T, node string) *durables {
	t.Helper()
	manager := durabletest.Run(t, durable.Options{Broker: d.broker, Node: node})
	hub := session.NewHub(session.Options{Broker: d.broker, Times: d.broker, Node: node, Manager: manager, Heartbeat: 200 * time.Millisecond})
	server := httptest.NewServer(&ws.Handler{Hub: hub, Verifier: authtest.Verifier(t, auth.Options{})})
	t.Cleanup(func() {
		hub.Close()
		server.Close()
	})
	return &durables{gateway: gateway{Server: server, hub: hub}, broker: d.broker, manager: manager, epoch: d.epoch, told: map[string]int{}}
}

// keyOf is a key of a partition.
func keyOf(partition, of int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("k", i); event.Partition(key, "", "", of) == partition {
			return key
		}
	}
}

// publishTo appends an event of each partition named to channel a.
func (d *durables) publishTo(t *testing.T, of int, partitions ...int) {
	t.Helper()
	for _, p := range partitions {
		d.publishKey(t, keyOf(p, of), p)
	}
}

func (d *durables) publishKey(t *testing.T, key string, data int) {
	t.Helper()
	f := event.Fields{ID: fmt.Sprint(time.Now().UnixNano()), Source: "/s", Type: "t", Key: key, Data: fmt.Append(nil, data)}
	done, err := d.broker.Append(t.Context(), "a", []broker.Entry{{Data: f.AppendStored(nil)}})
	if err != nil {
		t.Fatal(err)
	}
	d.epoch = done[0].Epoch
}

// The first member gets all; a second takes its half, and goes on from what was
// acknowledged; when the first is gone it gets the rest, announced.
func TestGroupHandsOver(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	other := d.beside(t, "n2")
	c1 := d.attach(t, "consumer=one")
	d.publishTo(t, 2, 0, 1, 0, 1) // 1 to 4
	d.wantAnyOrder(t, c1, 1, 2, 3, 4)
	say(t, c1, `{"op":"ack","cursor":%q,"partition":0}`, d.cursor(1))
	say(t, c1, `{"op":"ack","cursor":%q,"partition":1}`, d.cursor(2))

	c2 := other.open(t, "consumer=two")
	other.wantNext(t, c2, `"op":"hello"`, `"partitions":[1]`, `"of":2`, `"node":"n2"`)
	d.wantNext(t, c1, `"op":"partitions"`, `"partitions":[0]`, `"of":2`, `"members":2`)
	d.publishTo(t, 2, 1, 0) // 5, 6
	d.wantEvents(t, c1, 6)  // and nothing of partition 1 any more
	other.wantQuiet(t, c2)  // while 4 is out
	say(t, c1, `{"op":"ack","cursor":%q,"partition":1}`, d.cursor(4))
	other.wantEvents(t, c2, 5)
	say(t, c1, `{"op":"ack","cursor":%q,"partition":1}`, d.cursor(4))
	d.wantNext(t, c1, `"op":"error"`, `"code":"conflict"`, d.cursor(4))

	c1.CloseNow()
	other.wantNext(t, c2, `"op":"partitions"`, `"partitions":[0,1]`, `"members":1`)
	other.wantNext(t, c2, `"op":"redelivery"`, d.cursor(6))
	other.wantEvents(t, c2, 3, 6)
	say(t, c2, `{"op":"ack","cursor":%q}`, d.cursor(6)) // 5 was sent before
	d.wantAcked(t, 6)
}

// What is out when its partition moves has 2 s; then it moves all the same, and
// comes again where it went.
func TestPartitionMovesThoughItsEventIsOut(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	c1 := d.attach(t, "consumer=one")
	d.publishTo(t, 2, 1)
	d.wantEvents(t, c1, 1)
	var one sync.WaitGroup
	one.Go(func() { // it answers pings meanwhile
		for {
			if got, err := read(t, c1); err != nil || strings.Contains(got, `"code":"conflict"`) {
				if err != nil || !strings.Contains(got, d.cursor(1)) {
					t.Errorf("got %s (%v), want a conflict that names %s", got, err, d.cursor(1))
				}
				return
			}
		}
	})
	c2 := d.attach(t, "consumer=two")
	d.wantNext(t, c2, `"op":"redelivery"`, d.cursor(1))
	d.wantEvents(t, c2, 1)
	say(t, c1, `{"op":"ack","cursor":%q}`, d.cursor(1))
	one.Wait()
	say(t, c2, `{"op":"ack","cursor":%q}`, d.cursor(1))
}

// A client drops what it has not begun of a partition that is another's. When
// that comes back before its events were acknowledged or their time was over,
// the client gets them again: else its next acknowledgement would cover them.
func TestPartitionComesBackThatWasNotLetGoYet(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	c1 := d.attach(t, "consumer=one")
	d.publishTo(t, 2, 1)
	d.wantEvents(t, c1, 1)
	c2 := d.attach(t, "consumer=two")
	d.wantNext(t, c1, `"op":"partitions"`, `"partitions":[0]`)
	c2.CloseNow()
	d.wantNext(t, c1, `"op":"partitions"`, `"partitions":[0,1]`)
	d.publishTo(t, 2, 1)
	d.wantNext(t, c1, `"op":"redelivery"`, d.cursor(1))
	d.wantEvents(t, c1, 1, 2)
	say(t, c1, `{"op":"ack","cursor":%q,"partition":1}`, d.cursor(2))
}

// wantAnyOrder reads the events with these numbers and returns their order.
func (d *durables) wantAnyOrder(t *testing.T, c *websocket.Conn, numbers ...int) (order []int) {
	t.Helper()
	want := map[string]int{}
	for _, n := range numbers {
		want[d.cursor(n)] = n
	}
	for len(want) > 0 {
		text, err := read(t, c)
		if err != nil {
			t.Fatalf("read: %v, want %v", err, want)
		}
		var e struct{ Cursor, Op string }
		json.Unmarshal([]byte(text), &e)
		if e.Op != "" {
			continue
		}
		n, ok := want[e.Cursor]
		if !ok {
			t.Fatalf("got %s, want one of %v", text, want)
		}
		delete(want, e.Cursor)
		order = append(order, n)
	}
	return order
}

// A member acknowledges by a request to another node, answered once that is
// stored; who is no member is told.
func TestMemberAcknowledgesOnAnotherNode(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	other := d.beside(t, "n2")
	c := d.open(t, "consumer=one")
	hello, err := read(t, c)
	if err != nil {
		t.Fatal(err)
	}
	var h struct{ Connection string }
	json.Unmarshal([]byte(hello), &h)
	d.publishTo(t, 2, 0, 1, 0)
	d.wantAnyOrder(t, c, 1, 2, 3)
	ack := func(connection string, n, partition int) error {
		s, err := other.manager.Load(t.Context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		return other.manager.AckGroup(t.Context(), s, event.Position{{Channel: "a", Epoch: d.epoch, Offset: uint64(n)}}, partition, connection)
	}
	if err := ack(h.Connection, 3, 0); err != nil {
		t.Error(err)
	}
	s, err := other.manager.Load(t.Context(), "crm")
	if err != nil || s.Parts[0].Position[0].Offset != 3 || s.Parts[1].Position[0].Offset >= 2 {
		t.Errorf("partitions are at %v (%v), want 0 at 3 and 1 before 2", s.Parts, err)
	}
	if err := ack(h.Connection, 9, 0); wire.From(err).Code != wire.CodeBadRequest {
		t.Errorf("an ack of what was not delivered: %v, want bad_request", err)
	}
	if err := ack("nobody", 2, durable.AllPartitions); !errors.Is(err, broker.ErrFenced) {
		t.Errorf("an ack by a stranger: %v, want ErrFenced", err)
	}
	if err := ack(h.Connection, 2, durable.AllPartitions); err != nil {
		t.Error(err)
	}
	d.wantAcked(t, 3)
}

// A key that is stuck fills half of the window at most, and holds up nothing of
// another partition.
func TestStuckPartitionHoldsUpNothingElse(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	c := d.attach(t, "consumer=one&window=4")
	d.publishTo(t, 2, 0, 0, 0, 0) // 1 to 4
	d.wantEvents(t, c, 1, 2)
	d.wantQuiet(t, c)
	for n := 5; n <= 12; n++ {
		d.publishTo(t, 2, 1)
		d.wantEvents(t, c, n)
		say(t, c, `{"op":"ack","cursor":%q,"partition":1}`, d.cursor(n))
	}
	say(t, c, `{"op":"ack","cursor":%q,"partition":0}`, d.cursor(1))
	d.wantEvents(t, c, 3)
}

// A client that knows nothing of partitions acknowledges the last event it got,
// and with it what it got before, whichever partition that was of.
func TestAckOfACursorCoversWhatWasSentBefore(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":4}`)
	c := d.attach(t, "")
	d.publishTo(t, 4, 0, 1, 2, 3, 0, 1, 2, 3)
	order := d.wantAnyOrder(t, c, 1, 2, 3, 4, 5, 6, 7, 8)
	// The greatest offset so far, each time: what was sent before it is less.
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(8))
	for at, n := range order {
		if n == 8 && at < len(order)-1 { // what came after 8 is another matter
			for _, later := range order[at+1:] {
				say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(later))
			}
		}
	}
	d.wantAcked(t, 8)
	d.wantQuiet(t, c)
}

func TestSurplusStandsByAndTheSameConsumerTakesOver(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":1}`)
	other := d.beside(t, "n2")
	c1 := d.attach(t, "consumer=one")
	c2 := other.open(t, "consumer=two")
	other.wantNext(t, c2, `"op":"standby"`)
	d.publishTo(t, 1, 0)
	d.wantEvents(t, c1, 1)

	again := other.open(t, "consumer=one")
	other.wantNext(t, again, `"op":"hello"`, `"partitions":[0]`, `"of":1`)
	other.wantNext(t, again, `"op":"redelivery"`, d.cursor(1))
	other.wantEvents(t, again, 1)
	d.wantNext(t, c1, `"op":"bye"`, `"code":4409`)

	say(t, again, `{"op":"ack","cursor":%q}`, d.cursor(1))
	d.wantAcked(t, 1)
	again.Close(websocket.StatusNormalClosure, "")
	other.wantNext(t, c2, `"op":"hello"`, `"partitions":[0]`)
	d.publishTo(t, 1, 0)
	other.wantEvents(t, c2, 2)
}

// One consumer attaches on two nodes at the same moment: one of the lines is taken
// over by the other, which then has everything, as the group's only member.
func TestOneConsumerOnTwoNodesAtOnce(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	nodes := []*durables{d, d.beside(t, "n2")}
	ended := make(chan int, len(nodes))
	var lines sync.WaitGroup
	ctx, leave := context.WithCancel(t.Context())
	defer lines.Wait()
	defer leave()
	for i, n := range nodes {
		lines.Go(func() {
			c, _, err := n.dial(t, "subscription=crm&consumer=one", token(t, auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm"}}), ws.Protocol)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.CloseNow()
			for {
				_, text, err := c.Read(ctx)
				if err != nil {
					return
				}
				var f struct {
					SpecVersion, Cursor string
					Code                json.RawMessage
				}
				if err := json.Unmarshal(text, &f); err != nil {
					t.Error(err)
					return
				}
				if string(f.Code) == "4409" {
					ended <- i
				} else if f.SpecVersion != "" {
					_ = c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"op":"ack","cursor":%q}`, f.Cursor))
				}
			}
		})
	}
	stays := 0
	select {
	case i := <-ended:
		stays = 1 - i
	case <-time.After(20 * time.Second):
		t.Fatal("both lines are there")
	}
	d.publishTo(t, 2, 0, 1)
	d.wantAcked(t, 2)
	s, err := d.manager.Load(t.Context(), "crm")
	if err != nil || len(s.Members) != 1 || s.Members[0].Node != nodes[stays].manager.Node() || len(s.PartitionsOf("one")) != 2 {
		t.Errorf("members %+v, partitions %v (%v), want the one that stays to have both", s.Members, s.Assigned, err)
	}
}

func TestGroupIsMovedAsAWhole(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	c1, c2 := d.attach(t, "consumer=one"), d.open(t, "consumer=two")
	d.wantNext(t, c2, `"op":"hello"`, `"partitions":[1]`)
	d.publishTo(t, 2, 0, 1)
	d.change(t, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Pause(s, force, env)
	})
	d.change(t, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		return durable.Resume(s, env), nil
	})
	d.change(t, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Seek(s, event.Position{{Channel: "a", Epoch: d.epoch, Offset: 1}}, force, env)
	})
	for _, c := range []*websocket.Conn{c1, c2} {
		d.wantBye(t, c, `"code":1012`)
	}
	c1 = d.attach(t, "consumer=one")
	d.wantEventually(t, c1, d.cursor(2))
	d.put(t, `,"group":{"partitions":3}`)
	d.wantBye(t, c1, `"code":1012`)
	c1 = d.open(t, "consumer=one")
	d.wantNext(t, c1, `"op":"hello"`, `"partitions":[0,1,2]`, `"of":3`)
	d.change(t, func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) { return durable.Delete(s), nil })
	d.wantBye(t, c1, `"code":4404`)
}

// wantBye reads to the bye.
func (d *durables) wantBye(t *testing.T, c *websocket.Conn, part string) {
	t.Helper()
	d.wantEventually(t, c, `"op":"bye"`, part)
}

// wantEventually reads until a frame has all parts.
func (d *durables) wantEventually(t *testing.T, c *websocket.Conn, parts ...string) {
	t.Helper()
	for {
		got, err := read(t, c)
		if err != nil {
			t.Errorf("read: %v, want %q", err, parts)
			return
		}
		found := true
		for _, part := range parts {
			found = found && strings.Contains(got, part)
		}
		if found {
			return
		}
	}
}

// Another number of partitions begins at the least position, and announces all
// that may have been delivered: by whom, of the partitions there were, nobody
// knows any more.
func TestWhatComesAgainAfterARedivisionIsAnnounced(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2},"window":4`)
	c := d.attach(t, "")
	d.publishTo(t, 2, 0, 0, 1, 1, 0, 0, 1, 1) // 1 to 8
	d.wantAnyOrder(t, c, 1, 2, 3, 4)
	say(t, c, `{"op":"ack","cursor":%q,"partition":1}`, d.cursor(4))
	d.wantAnyOrder(t, c, 7, 8) // beyond the window of what is first
	d.put(t, `,"group":{"partitions":1},"window":2`)
	d.wantBye(t, c, `"code":1012`)
	c = d.open(t, "")
	d.wantNext(t, c, `"op":"hello"`, `"of":1`)
	d.wantNext(t, c, `"op":"redelivery"`, d.cursor(8))
	d.wantEvents(t, c, 1, 2)
}

// A partition that comes back brings its events back: they can be acknowledged.
func TestEventOfAPartitionThatCameBackIsAcknowledged(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	c := d.attach(t, "consumer=one")
	d.publishTo(t, 2, 1)
	d.wantEvents(t, c, 1)
	other := d.open(t, "consumer=two")
	d.wantNext(t, c, `"op":"partitions"`, `"partitions":[0]`)
	var back sync.WaitGroup
	back.Go(func() { d.wantEventually(t, c, d.cursor(1), `"data"`) }) // it answers pings meanwhile
	d.wantEventually(t, other, d.cursor(1), `"data"`)
	other.Close(websocket.StatusNormalClosure, "")
	back.Wait()
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(1))
	d.wantAcked(t, 1)
}
