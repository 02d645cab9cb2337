package chaos

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// channels and kinds of events that are published.
var (
	channels = []string{"acct-1", "acct-2"}
	kinds    = []string{"email.opened", "order.paid"}
)

// publish publishes at a rate until ctx ends, one event or five at a time, each
// with its id until it is answered, and returns then.
func (w *world) publish(ctx context.Context, perSecond int) {
	var posts sync.WaitGroup
	defer posts.Wait()
	room := make(chan struct{}, 64)
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case room <- struct{}{}:
		default:
			continue // the gateways are away: nobody publishes for ever more
		}
		count := 1
		if n%20 == 0 {
			count = 5
		}
		first := n
		n += count
		posts.Go(func() {
			w.post(first, count)
			<-room
		})
	}
}

// post publishes the events first to first+count.
func (w *world) post(first, count int) {
	begun := time.Now()
	channel := channels[first%7%len(channels)]
	batch := make([]map[string]any, count)
	for i := range batch {
		n := first + i
		batch[i] = map[string]any{"id": "e" + strconv.Itoa(n), "type": kinds[n%3%2], "partitionkey": "k" + strconv.Itoa(n%w.keys),
			"data": map[string]any{"n": n, "begun": begun.UnixMicro()}}
	}
	for {
		var out struct{ Events []struct{ ID, Cursor string } }
		err := w.do(context.Background(), 4*time.Second, "POST", "/v1/channels/"+channel+"/events", batch, &out)
		if err == nil && len(out.Events) != count {
			err = fmt.Errorf("%d answers to %d events", len(out.Events), count)
		}
		if s := status(err); s/100 == 4 && s != 429 {
			w.t.Errorf("publish: %v", err)
			return
		}
		if err != nil {
			pause(context.Background(), 50*time.Millisecond)
			continue
		}
		for i, e := range out.Events {
			c, err := event.ParseCursor(e.Cursor)
			if err != nil {
				w.t.Errorf("publish: %v", err)
				return
			}
			w.events.Published(oracle.Published{ID: e.ID, Type: batch[i]["type"].(string), Key: batch[i]["partitionkey"].(string), Cursor: c, Begun: begun})
		}
		return
	}
}
