package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"sync/atomic"
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
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/ws"
)

// shaky is a broker that takes no acknowledgement while it is away, and knows
// nothing of a node's lease once it has forgotten it.
type shaky struct {
	*embedded.Broker
	away   atomic.Bool
	forgot atomic.Bool
	// meanwhile is called once the lease is forgotten, before anybody knows what
	// the subscription is by then.
	meanwhile func()
	lost      atomic.Bool
}

func (b *shaky) Load(ctx context.Context, name string) (broker.Subscription, error) {
	if b.lost.Swap(false) && b.meanwhile != nil {
		b.meanwhile()
	}
	return b.Broker.Load(ctx, name)
}

func (b *shaky) Advance(ctx context.Context, moves []broker.Move) ([]int, error) {
	if b.away.Load() {
		return nil, broker.ErrUnavailable
	}
	return b.Broker.Advance(ctx, moves)
}

func (b *shaky) Bury(ctx context.Context, burial broker.Burial) (int, error) {
	if b.away.Load() {
		return 0, broker.ErrUnavailable
	}
	return b.Broker.Bury(ctx, burial)
}

func (b *shaky) Renew(ctx context.Context, node string, ttl time.Duration) error {
	if b.forgot.Swap(false) {
		b.lost.Store(true)
		return broker.ErrNotFound
	}
	return b.Broker.Renew(ctx, node, ttl)
}

// over is a gateway whose broker is shaky.
func (d *durables) over(t *testing.T, ttl, heartbeat time.Duration) (*durables, *shaky) {
	t.Helper()
	b := &shaky{Broker: d.broker}
	manager := durabletest.Run(t, durable.Options{Broker: b, Node: "shaky", TTL: ttl})
	hub := session.NewHub(session.Options{Broker: b, Times: b, Node: "shaky", Manager: manager, Heartbeat: heartbeat})
	server := httptest.NewServer(&ws.Handler{Hub: hub, Verifier: authtest.Verifier(t, auth.Options{})})
	t.Cleanup(func() {
		hub.Close()
		server.Close()
	})
	return &durables{gateway: gateway{Server: server, hub: hub}, broker: d.broker, manager: manager, epoch: d.epoch, told: map[string]int{}}, b
}

// What was acknowledged and isn't committed would come again if the node were
// gone, and the next owner announces no more than two windows.
func TestTheWindowWaitsForCommits(t *testing.T) {
	for _, of := range []struct{ name, fields string }{
		{"alone", ""},
		{"in a group", `,"group":{"partitions":1}`},
	} {
		t.Run(of.name, func(t *testing.T) {
			d := newDurables(t)
			d.put(t, of.fields)
			s, b := d.over(t, 0, time.Minute)
			s.publish(t, "t", 9)
			c := s.attach(t, "window=3")
			s.wantEvents(t, c, 1, 2, 3)
			b.away.Store(true)
			say(t, c, `{"op":"ack","cursor":%q}`, s.cursor(1))
			say(t, c, `{"op":"ack","cursor":%q}`, s.cursor(3))
			s.wantEvents(t, c, 4, 5, 6)
			say(t, c, `{"op":"ack","cursor":%q}`, s.cursor(6))
			s.wantQuiet(t, c)
			s.wantQuiet(t, c)
			b.away.Store(false)
			s.wantEvents(t, c, 7, 8, 9)
		})
	}
}

// Each partition owes the broker less than a window, all of them together two:
// once it has that, the member goes on by itself.
func TestTheWindowWaitsForCommitsOfManyPartitions(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"window":4,"group":{"partitions":4}`)
	s, b := d.over(t, time.Minute, time.Minute) // nothing else wakes it
	s.publishTo(t, 4, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3)
	b.away.Store(true)
	c := s.attach(t, "")
	s.takeAndAck(t, c, 4)
	s.takeAndAck(t, c, 4)
	s.wantQuiet(t, c)
	s.wantQuiet(t, c)
	b.away.Store(false)
	for range 4 {
		s.takeAndAck(t, c, 1)
	}
}

// takeAndAck reads so many events, of whatever partition, and then acknowledges
// each.
func (d *durables) takeAndAck(t *testing.T, c *websocket.Conn, n int) {
	t.Helper()
	acks := make([]string, n)
	for i := range acks {
		got, err := read(t, c)
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Cursor, PartitionKey string }
		if err := json.Unmarshal([]byte(got), &e); err != nil || e.Cursor == "" {
			t.Fatalf("got %s, want an event", got)
		}
		acks[i] = fmt.Sprintf(`{"op":"ack","cursor":%q,"partition":%d}`, e.Cursor, event.Partition(e.PartitionKey, "", "", 4))
	}
	for _, ack := range acks {
		say(t, c, "%s", ack)
	}
}

// So would what was rejected behind an event that isn't done.
func TestTheWindowCountsWhatWasRejectedBehindOneThatIsStuck(t *testing.T) {
	d := newDurables(t)
	d.put(t, "")
	d.publish(t, "t", 9)
	c := d.attach(t, "window=3")
	d.wantEvents(t, c, 1, 2, 3)
	say(t, c, `{"op":"reject","cursor":%q}`, d.cursor(2))
	say(t, c, `{"op":"reject","cursor":%q}`, d.cursor(3))
	d.wantQuiet(t, c)
	d.wantQuiet(t, c)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(1))
	d.wantEvents(t, c, 4, 5, 6)
	d.wantAcked(t, 3)
}

// A node that loses its lease takes a group's members' partitions from them,
// and gives them back when it has one again.
func TestMembersOutliveTheLease(t *testing.T) {
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":2}`)
	s, b := d.over(t, 400*time.Millisecond, 200*time.Millisecond)
	c := s.attach(t, "consumer=one")
	s.publishTo(t, 2, 0, 1)
	s.wantAnyOrder(t, c, 1, 2)
	b.forgot.Store(true)
	s.wantNext(t, c, `"op":"partitions"`, `"partitions":[]`, `"of":2`)
	s.wantNext(t, c, `"op":"partitions"`, `"partitions":[0,1]`, `"of":2`)
	s.wantNext(t, c, `"op":"redelivery"`)
}

// A position that somebody moves while a node has no lease stays where it was put,
// whatever the client had acknowledged before, and the client is told.
func TestASeekWhileTheLeaseIsLostStands(t *testing.T) {
	for _, of := range []struct{ name, fields string }{
		{"alone", ""},
		{"in a group", `,"group":{"partitions":1}`},
	} {
		t.Run(of.name, func(t *testing.T) {
			d := newDurables(t)
			d.put(t, of.fields)
			s, b := d.over(t, 400*time.Millisecond, 200*time.Millisecond)
			sought := make(chan struct{})
			b.meanwhile = func() {
				defer close(sought)
				d.change(t, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
					return durable.Seek(s, event.Position{{Channel: "a", Epoch: d.epoch}}, true, env)
				})
			}
			c := s.attach(t, "consumer=one")
			s.publish(t, "t", 3)
			s.wantEvents(t, c, 1, 2, 3)
			say(t, c, `{"op":"ack","cursor":%q}`, s.cursor(3))
			s.wantAcked(t, 3)
			b.forgot.Store(true)
			<-sought
			s.wantBye(t, c, `"code":1012`)
			again := s.attach(t, "consumer=one")
			s.wantEventually(t, again, fmt.Sprintf(`"cursor":%q`, s.cursor(1)))
		})
	}
}

// Whoever remembers what was handled knows by hello whether it was asked for again.
func TestHelloSaysWhenThePositionWasPlaced(t *testing.T) {
	for _, of := range []struct{ name, fields string }{
		{"alone", ""},
		{"in a group", `,"group":{"partitions":1}`},
	} {
		t.Run(of.name, func(t *testing.T) {
			d := newDurables(t)
			d.put(t, of.fields)
			placed := func() string {
				t.Helper()
				c := d.open(t, "consumer=one")
				got, err := read(t, c)
				if err != nil {
					t.Fatal(err)
				}
				var hello struct{ Op, Placed string }
				if err := json.Unmarshal([]byte(got), &hello); err != nil || hello.Op != "hello" || hello.Placed == "" {
					t.Fatalf("got %s, %v; want a hello that says when", got, err)
				}
				return hello.Placed
			}
			times := map[string]bool{}
			for range 3 {
				at := placed()
				if again := placed(); again != at || times[at] {
					t.Errorf("it says %s and then %s; want the same until a seek, and another then (%v)", at, again, times)
				}
				times[at] = true
				d.change(t, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
					return durable.Seek(s, event.Position{{Channel: "a", Epoch: d.epoch}}, true, env)
				})
			}
		})
	}
}

// A consumer is done with what it refuses, and acknowledges what is behind it. Where
// it can't be set aside, because the broker is away, it comes again.
func TestWhatIsRefusedInVainComesAgain(t *testing.T) {
	d, b := newDurables(t).over(t, 10*time.Second, 200*time.Millisecond)
	d.put(t, "")
	d.publish(t, "t", 3)
	c := d.attach(t, "")
	d.wantEvents(t, c, 1, 2, 3)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(1))
	d.wantAcked(t, 1)
	b.away.Store(true)
	say(t, c, `{"op":"reject","cursor":%q}`, d.cursor(2))
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(3))
	wantFrame(t, c, `"op":"bye"`, `4503`)
	b.away.Store(false)
	c.CloseNow()

	again := d.attach(t, "")
	wantFrame(t, again, `"op":"redelivery"`)
	d.wantEvents(t, again, 2, 3)
	if letters, err := b.Dead(t.Context(), "crm", 0, 10); err != nil || len(letters) != 0 {
		t.Errorf("got %d dead letters, %v, want none", len(letters), err)
	}
}

// The same, where the node has lost its lease and the session waits to own its
// subscription again: what was acknowledged meanwhile is committed by then.
func TestWhatIsRefusedWhileSuspendedComesAgain(t *testing.T) {
	plain := newDurables(t)
	plain.put(t, "")
	d, b := plain.over(t, 400*time.Millisecond, 200*time.Millisecond)
	suspended, goOn := make(chan struct{}), make(chan struct{})
	b.meanwhile = func() {
		close(suspended)
		<-goOn
	}
	c := d.attach(t, "")
	d.publish(t, "t", 3)
	d.wantEvents(t, c, 1, 2, 3)
	say(t, c, `{"op":"ack","cursor":%q}`, d.cursor(1))
	d.wantAcked(t, 1)
	b.forgot.Store(true)
	<-suspended
	say(t, c, `{"op":"reject","cursor":%q,"ref":1}`, d.cursor(2))
	say(t, c, `{"op":"ack","cursor":%q,"ref":2}`, d.cursor(3))
	d.wantEventually(t, c, `"op":"bye"`)
	close(goOn)
	c.CloseNow()

	again := d.attach(t, "")
	d.wantEventually(t, again, fmt.Sprintf(`"cursor":%q`, d.cursor(2)))
}
