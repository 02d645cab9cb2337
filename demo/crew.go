package demo

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	longline "github.com/longline-push/longline/client/go"
	"github.com/longline-push/longline/loadtest/probe"
)

// crew are the CRM's workers, each with a line of its own to the gateway.
type crew struct {
	ctx  context.Context // all of them end with it
	work func(ctx context.Context, name string)
	wait *sync.WaitGroup

	mu      sync.Mutex
	plugged bool
	second  bool
	shifts  map[string]shift // by worker
}

// shift is one run of a worker.
type shift struct {
	end  context.CancelFunc
	done chan struct{}
}

// change has how it stands, whether the line is plugged in and whether there are
// two workers, changed by f. What several ask for at once all comes true.
func (c *crew) change(f func(plugged, second *bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	plugged, second := c.plugged, c.second
	f(&plugged, &second)
	if c.plugged != plugged {
		c.changeLocked("worker-1", plugged)
	}
	if had, wanted := c.plugged && c.second, plugged && second; had != wanted {
		c.changeLocked("worker-2", wanted)
	}
	c.plugged, c.second = plugged, second
}

func (c *crew) changeLocked(name string, works bool) {
	last := c.shifts[name]
	if !works {
		last.end()
		return
	}
	ctx, end := context.WithCancel(c.ctx)
	done := make(chan struct{})
	c.shifts[name] = shift{end, done}
	c.wait.Go(func() {
		defer close(done)
		defer end()
		if last.done != nil {
			<-last.done // it may still be at its last calls
		}
		c.work(ctx, name)
	})
}

func (c *crew) state() (plugged, second bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.plugged, c.second
}

// work is what a customer's developer writes: a handler that calls the CRM.
func (d *Demo) work(ctx context.Context, name string) {
	line, err := d.client.Attach(subscription, longline.SubscriptionOptions{
		Consumer: name, BatchSize: batchSize, Concurrency: atOnce, BatchWait: d.scaled(200 * time.Millisecond),
		Grace: d.scaled(grace),
		BatchHandler: func(ctx context.Context, events []longline.Event) error {
			marks := make([]probe.Mark, 0, len(events))
			for _, e := range events {
				m, ok := probe.ReadMark(e.Data)
				if !ok {
					return longline.Reject(errors.New("no event of the mailshot"), e.ID)
				}
				marks = append(marks, m)
			}
			return d.longline.api.Call(ctx, marks)
		},
	})
	if err == nil {
		err = line.Run(ctx)
	}
	if err != nil && ctx.Err() == nil {
		d.board.note(name + " gave up: " + err.Error())
	}
}

// receiver is the CRM's callback URL. While it is broken it answers as a
// server does whose deployment went wrong.
type receiver struct {
	broken atomic.Bool
	taken  http.Handler
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.broken.Load() {
		http.Error(w, "this URL is broken", http.StatusInternalServerError)
		return
	}
	r.taken.ServeHTTP(w, req)
}
