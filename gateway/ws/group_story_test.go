package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/ws"
)

// oracle knows of each key which events were delivered, and how.
type oracle struct {
	mu        sync.Mutex
	delivered map[uint64]int
	newest    map[string]uint64 // of a key
	disorder  []string          // first deliveries out of order
	surprises []string          // repeats that were not announced
}

// deliver notes an event of a key; again: it was announced as a repeat.
func (o *oracle) deliver(offset uint64, key string, again bool, who string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.delivered[offset]++
	switch {
	case o.delivered[offset] > 1:
		if !again {
			o.surprises = append(o.surprises, fmt.Sprintf("%s got %d of %s again", who, offset, key))
		}
	case offset < o.newest[key]:
		o.disorder = append(o.disorder, fmt.Sprintf("%s got %d of %s after %d", who, offset, key, o.newest[key]))
	default:
		o.newest[key] = offset
	}
}

// work attaches and acknowledges what comes, each event by itself, until it has
// had so many; then it leaves, in good order or not. handle may take its time.
func (o *oracle) work(ctx context.Context, t *testing.T, d *durables, consumer string, most int, kill bool, handle func(key string)) {
	c, _, err := d.dial(t, "subscription=crm&window=32&consumer="+consumer, token(t, auth.Mintage{Subscribe: []string{"a"}, Subscriptions: []string{"crm"}}), ws.Protocol)
	if err != nil {
		t.Errorf("%s: dial: %v", consumer, err)
		return
	}
	defer c.CloseNow()
	var redelivery event.Position
	of := 0
	for n := range most {
		var f struct {
			Op, Cursor, PartitionKey string
			Of                       int
		}
		reading, cancel := ctx, func() {}
		if kill && n > most-10 {
			// It is killed soon even if nothing comes any more: what it holds
			// would never be acknowledged else.
			reading, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
		}
		_, text, err := c.Read(reading)
		cancel()
		if err != nil {
			return
		}
		json.Unmarshal(text, &f)
		switch f.Op {
		case "":
		case "hello":
			of = f.Of
			continue
		case "redelivery":
			p, _ := event.ParsePosition(f.Cursor)
			for _, at := range p {
				if had, _ := redelivery.Of("a"); at.Offset > had.Offset {
					redelivery = event.Position{at}
				}
			}
			continue
		default:
			continue
		}
		at, err := event.ParseCursor(f.Cursor)
		if err != nil {
			t.Errorf("event %s: %v", text, err)
			return
		}
		upTo, _ := redelivery.Of("a")
		o.deliver(at.Offset, f.PartitionKey, at.Offset <= upTo.Offset, consumer)
		handle(f.PartitionKey)
		if kill && n > most-10 {
			continue // done, and killed before it could say so
		}
		ack := fmt.Appendf(nil, `{"op":"ack","cursor":%q,"partition":%d}`, f.Cursor, event.Partition(f.PartitionKey, "", "", of))
		if c.Write(ctx, websocket.MessageText, ack) != nil {
			return
		}
	}
	if !kill {
		c.Close(websocket.StatusNormalClosure, "")
	}
}

// Members come and go, on two gateways, in good order and killed, while events
// are published; one of them is slow. Nothing is lost, each key comes in order,
// and what comes twice was announced.
func TestMembersComeAndGo(t *testing.T) {
	const events, keys = 4000, 40
	d := newDurables(t)
	d.put(t, `,"group":{"partitions":8},"window":32`)
	nodes := []*durables{d, d.beside(t, "n2")}
	o := &oracle{delivered: map[uint64]int{}, newest: map[string]uint64{}}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()

	var all sync.WaitGroup
	for w := range 6 {
		all.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				o.work(ctx, t, nodes[rand.N(2)], fmt.Sprint("w", w), 20+rand.N(200), rand.N(2) == 0, func(string) {
					if w == 0 {
						<-time.After(time.Millisecond) // the slow one
					}
				})
			}
		})
	}
	epoch := ""
	for n := range events {
		f := event.Fields{ID: fmt.Sprint(n), Source: "/s", Type: "t", Key: fmt.Sprint("k", rand.N(keys)), Data: []byte(`1`)}
		done, err := d.broker.Append(t.Context(), "a", []broker.Entry{{Data: f.AppendStored(nil)}})
		if err != nil {
			t.Fatal(err)
		}
		epoch = done[0].Epoch
	}
	for {
		s, err := d.manager.Load(t.Context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		if at, _ := s.Position.Of("a"); at.Epoch == epoch && at.Offset == events {
			break
		}
		if ctx.Err() != nil {
			t.Errorf("acknowledged %s, want %d; partitions %v of %v", s.Position, events, s.Parts, s.Assigned)
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	stop()
	all.Wait()

	o.mu.Lock()
	defer o.mu.Unlock()
	lost := 0
	for offset := uint64(1); offset <= events; offset++ {
		if o.delivered[offset] == 0 {
			lost++
		}
	}
	repeats := 0
	for _, n := range o.delivered {
		repeats += n - 1
	}
	t.Logf("%d events, %d lost, %d out of order, %d repeats, %d of them not announced", events, lost, len(o.disorder), repeats, len(o.surprises))
	if lost > 0 || len(o.disorder) > 0 || len(o.surprises) > 0 {
		t.Errorf("lost %d; out of order %.5q; not announced %.5q", lost, o.disorder, o.surprises)
	}
}
