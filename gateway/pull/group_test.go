package pull_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// given is an answer of a group's member.
type given struct {
	Events      []struct{ Cursor string }
	Cursor      string
	Connection  string
	Partitions  []int
	Of          int
	Redelivery  struct{ Cursor string }
	Held        string `json:"held_until"`
	numbers     []int
	redelivered bool
}

func newGroup(t *testing.T, partitions int) *gateway {
	t.Helper()
	g := newGateway(t)
	g.share(partitions)
	return g
}

// share has consumers share the subscription.
func (g *gateway) share(partitions int) {
	g.t.Helper()
	g.define(func(d *durable.Definition) { d.Group = &durable.Group{Partitions: partitions} })
}

// define changes the subscription's definition.
func (g *gateway) define(change func(*durable.Definition)) {
	g.t.Helper()
	err := g.manager.Change(g.t.Context(), "crm", func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		d := s.Definition
		change(&d)
		return durable.Define(s, d, nil, nil, force, env)
	})
	if err != nil {
		g.t.Fatal(err)
	}
	// Whoever delivered before that is in doubt; nobody did.
	err = g.manager.Change(g.t.Context(), "crm", func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) {
		s.Unclear = false
		return durable.Change{Record: s.Record, Generation: s.Generation}, nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// publishOf appends an event of each partition named.
func (g *gateway) publishOf(of int, partitions ...int) {
	g.t.Helper()
	for _, p := range partitions {
		key := ""
		for i := 0; key == "" || event.Partition(key, "", "", of) != p; i++ {
			key = fmt.Sprint("k", i)
		}
		f := event.Fields{ID: fmt.Sprint(time.Now().UnixNano()), Source: "/s", Type: "wanted", Key: key, Data: []byte(`1`)}
		if _, err := g.broker.Append(g.t.Context(), "a", []broker.Entry{{Data: f.AppendStored(nil)}}); err != nil {
			g.t.Fatal(err)
		}
	}
}

// take pulls as a consumer.
func (g *gateway) take(consumer, query string) given {
	g.t.Helper()
	code, text := g.answer("GET", "consumer="+consumer+"&"+query)
	if code != http.StatusOK {
		g.t.Fatalf("%s pulls %s: %d %s", consumer, query, code, text)
	}
	var a given
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		g.t.Fatalf("%v: %s", err, text)
	}
	for _, e := range a.Events {
		c, err := event.ParseCursor(e.Cursor)
		if err != nil {
			g.t.Fatal(err)
		}
		a.numbers = append(a.numbers, int(c.Offset))
	}
	a.redelivered = a.Redelivery.Cursor != ""
	return a
}

// wantTake pulls until a consumer has these partitions, and wants the events
// with these numbers then.
func (g *gateway) wantTake(consumer, query string, partitions []int, numbers ...int) given {
	g.t.Helper()
	var a given
	for deadline := time.Now().Add(10 * time.Second); ; query = "wait=100ms" {
		if a = g.take(consumer, query); slices.Equal(a.Partitions, partitions) && slices.Equal(a.numbers, numbers) {
			return a
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%s has %v of partitions %v, want %v of %v", consumer, a.numbers, a.Partitions, numbers, partitions)
		}
	}
}

func (g *gateway) wantAcked(n int) {
	g.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		s, err := g.manager.Load(g.t.Context(), "crm")
		if err != nil {
			g.t.Fatal(err)
		}
		if s.Position.String() == g.cursor(n) {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("acknowledged %s, want %s", s.Position, g.cursor(n))
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (g *gateway) members() (list []string) {
	g.t.Helper()
	s, err := g.manager.Load(g.t.Context(), "crm")
	if err != nil {
		g.t.Fatal(err)
	}
	for _, m := range s.Members {
		list = append(list, m.Consumer+" "+m.Transport)
	}
	return list
}

// Two pull of a group: the first has everything, until the second comes; what
// is out then is the first one's to acknowledge.
func TestTwoPullOfAGroup(t *testing.T) {
	g := newGroup(t, 2)
	g.publishOf(2, 0, 1, 0, 1) // 2 to 5
	a := g.wantTake("one", "wait=5s", []int{0, 1}, 2, 3, 4, 5)
	if a.Of != 2 || a.redelivered || a.Connection == "" {
		t.Errorf("the first answer is %+v", a)
	}
	if b := g.take("two", ""); len(b.numbers) > 0 || len(b.Partitions) > 0 {
		t.Errorf("the second has %v of %v while the first one's are out", b.numbers, b.Partitions)
	}
	g.wantTake("one", ack(g.cursor(4)), []int{0}) // and with it 2 and 3
	g.wantAcked(4)
	g.publishOf(2, 0, 1) // 6, 7
	b := g.wantTake("two", "wait=1s", []int{1}, 5, 7)
	if b.Redelivery.Cursor != g.cursor(5) {
		t.Errorf("the second was told that %q came before, want %s", b.Redelivery.Cursor, g.cursor(5))
	}
	g.wantTake("one", "wait=5s", []int{0}, 6)
	if code, text := g.answer("GET", "consumer=one&"+ack(g.cursor(5))); code != http.StatusConflict || !strings.Contains(text, g.cursor(5)) {
		t.Errorf("an ack of what moved away: %d %s, want a conflict that names it", code, text)
	}
	g.take("one", ack(g.cursor(6)))
	g.take("two", ack(g.cursor(7)))
	g.wantAcked(7)
	if got := g.members(); !slices.Equal(got, []string{"one pull", "two pull"}) {
		t.Errorf("members are %q", got)
	}
	if code, text := g.answer("DELETE", "consumer=one"); code != http.StatusNoContent {
		t.Errorf("to leave: %d %s", code, text)
	}
	g.wantTake("two", "wait=1s", []int{0, 1})
}

// Between two pulls a puller is a member, though it asked to hold nothing and
// got nothing: its partitions would move to and fro else.
func TestAPullerStaysAMember(t *testing.T) {
	g := newGroup(t, 2)
	if a := g.take("one", "hold=0s"); a.Held == "" {
		t.Error("the answer doesn't say until when")
	}
	if got := g.members(); !slices.Equal(got, []string{"one pull"}) || g.status() != "pull" {
		t.Errorf("members are %q, the group is %s", got, g.status())
	}
	if code, text := g.answer("GET", "consumer=two&"+ack(g.cursor(1))); code != http.StatusConflict || !strings.Contains(text, `"two\"`) {
		t.Errorf("an ack of somebody who has nothing: %d %s, want a conflict", code, text)
	}
}

// A partition that is stuck has at most half of an answer, and is acknowledged
// by itself.
func TestAPullerAcknowledgesByPartition(t *testing.T) {
	g := newGroup(t, 2)
	g.publishOf(2, 0, 0, 0, 0, 0, 1, 1) // 2 to 6, 7, 8
	g.wantTake("one", "max=4&wait=5s", []int{0, 1}, 2, 3, 7, 8)
	g.wantTake("one", "max=4&partition=1&"+ack(g.cursor(8)), []int{0, 1}, 2, 3)
	g.publishOf(2, 1) // 9
	g.wantTake("one", "max=4&partition=0&"+ack(g.cursor(2)), []int{0, 1}, 3, 4, 9)
	g.wantTake("one", "max=4&"+ack(g.cursor(9)), []int{0, 1}, 5, 6)
	g.take("one", ack(g.cursor(6)))
	g.wantAcked(9)
	for _, bad := range []string{"partition=1", "partition=x&" + ack(g.cursor(9)), "partition=256&" + ack(g.cursor(9))} {
		if code, text := g.answer("GET", "consumer=one&"+bad); code != http.StatusBadRequest || !strings.Contains(text, "partition") {
			t.Errorf("%s: %d %s, want a bad request", bad, code, text)
		}
	}
}

// A consumer pulls on two nodes in turn, as behind a balancer.
func TestAPullerGoesFromNodeToNode(t *testing.T) {
	g := newGroup(t, 2)
	other := g.beside()
	g.publishOf(2, 0, 1) // 2, 3
	g.wantTake("one", "wait=5s", []int{0, 1}, 2, 3)
	a := other.wantTake("one", ack(g.cursor(2)), []int{0, 1}, 3)
	if a.Redelivery.Cursor != g.cursor(3) {
		t.Errorf("the other node said that %q came before, want %s", a.Redelivery.Cursor, g.cursor(3))
	}
	g.publishOf(2, 0) // 4
	g.wantTake("one", "wait=1s&"+ack(g.cursor(3)), []int{0, 1}, 4)
	other.take("one", ack(g.cursor(4)))
	g.wantAcked(4)
	if got := g.members(); !slices.Equal(got, []string{"one pull"}) {
		t.Errorf("members are %q", got)
	}
}

// Another definition sends pullers away; the next pull is of the new one.
func TestAPullerOfAGroupThatIsChanged(t *testing.T) {
	g := newGroup(t, 2)
	g.publishOf(2, 0, 1) // 2, 3
	g.wantTake("one", "wait=5s", []int{0, 1}, 2, 3)
	g.share(3)
	a := g.wantTake("one", "wait=5s", []int{0, 1, 2}, 2, 3)
	if a.Of != 3 {
		t.Errorf("partitions of %d, want 3", a.Of)
	}
	g.take("one", ack(g.cursor(3)))
	g.wantAcked(3)
}
