// Package demo shows what Longline is for, alive: a mailshot whose opens and
// clicks a slow CRM is to hear of, once by plain webhooks and once by Longline,
// a page that shows both in motion, and buttons to break things.
//
//	            ┌─ Webhooks ─ a POST each ────────────▶ CRM, overrun
//	campaign ───┤
//	            └─ publish ─▶ gateway ═══ line ═══▶ crew ────▶ CRM
//	                          (a child) └─ callback ─▶ receiver ─┘
//
// Each CRM keeps account of what it processed. The page shows these accounts,
// what happened, and what the gateway says of itself; nothing is made up.
package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	longline "github.com/longline-push/longline/client/go"
	"github.com/longline-push/longline/loadtest/crm"
	"github.com/longline-push/longline/loadtest/server"
	"github.com/longline-push/longline/loadtest/token"
)

// Options of a demo.
type Options struct {
	Binary string    // that has the command serve
	Listen string    // where the page is: HOST:PORT of this machine's loopback
	Rate   float64   // events a second, on average
	Scale  float64   // of all the CRMs' times and of the grace. 0: 1; tests take less
	Log    io.Writer // the gateway's output; nil: nowhere
}

const (
	channel      = "acct-42"
	subscription = "crm-42"
	partitions   = 8
	batchSize    = 200 // events in one call of the CRM
	atOnce       = 3   // calls that a worker or the callback makes at once
	grace        = 5 * time.Second
)

// A Demo is one that runs, from Start to Stop.
type Demo struct {
	URL string // of its page

	o        Options
	gateway  *server.Gateway // supervise's alone, once that runs
	client   *longline.Client
	console  string // where the gateway's own page is, with a token
	page     *http.Server
	endpoint *crm.Server // the receiver's
	plain    *crm.Server // where webhooks go
	receiver *receiver
	crew     *crew
	campaign *campaign
	sender   *crm.Webhooks
	board    *board

	longline, webhooks *side
	settled            uint64 // events that the gateway takes for done; watch's alone

	kills  chan chan struct{}
	pid    atomic.Int64 // of the gateway
	starts atomic.Int64

	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// Start starts everything. After an error nothing is left.
func Start(ctx context.Context, o Options) (*Demo, error) {
	if o.Scale <= 0 {
		o.Scale = 1
	}
	listener, err := listen(o.Listen)
	if err != nil {
		return nil, err
	}
	d := &Demo{
		URL: "http://" + listener.Addr().String() + "/", o: o, page: &http.Server{ReadHeaderTimeout: 10 * time.Second},
		longline: newSide(o.Scale), webhooks: newSide(o.Scale), sender: crm.NewWebhooks(o.Scale),
		campaign: newCampaign(o.Rate), board: newBoard(), kills: make(chan chan struct{}),
	}
	d.receiver = &receiver{taken: d.longline.api.Handler()}
	if err := d.build(ctx); err != nil {
		listener.Close()
		d.release()
		return nil, err
	}
	ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	d.crew = &crew{ctx: ctx, work: d.work, wait: &d.wait, shifts: map[string]shift{}}
	d.crew.change(func(plugged, _ *bool) { *plugged = true })
	d.page.Handler = d.routes(listener.Addr().String())
	d.wait.Go(func() { _ = d.page.Serve(listener) }) // ends by Close
	for _, part := range []func(context.Context){d.supervise, d.emit, d.publish, d.watch} {
		d.wait.Go(func() { part(ctx) })
	}
	return d, nil
}

// build makes what the parts need: endpoints, gateway, subscription.
func (d *Demo) build(ctx context.Context) (err error) {
	if d.endpoint, err = crm.Serve(d.receiver); err != nil {
		return err
	}
	if d.plain, err = crm.Serve(d.webhooks.api.Handler()); err != nil {
		return err
	}
	if d.gateway, err = server.Start(ctx, server.Options{Binary: d.o.Binary, Env: bareEnvironment(), Log: d.o.Log}); err != nil {
		return err
	}
	d.started()
	grant := token.Grant{Publish: []string{channel}, Subscribe: []string{channel}, Subscriptions: []string{subscription}}
	key, err := token.Source{Secret: d.gateway.Secret, TTL: 365 * 24 * time.Hour}.For("demo", grant)
	if err != nil {
		return err
	}
	base := "http://" + d.gateway.Addr
	d.console = base + "/#channel=" + channel + "&token=" + key
	d.client, err = longline.New(base, longline.Options{
		Token: key, MinBackoff: 200 * time.Millisecond, MaxBackoff: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	return d.subscribe(ctx)
}

// subscribe makes the CRM's durable subscription: a group, so that a second
// worker shares the work, with a callback for when nobody holds the line.
func (d *Demo) subscribe(ctx context.Context) error {
	definition := longline.Definition{
		Channels: []string{channel}, Start: "earliest", Window: 4096,
		Group: &longline.Group{Partitions: partitions},
		Callback: &longline.CallbackSettings{
			URL: d.endpoint.URL, Grace: longline.Duration(d.scaled(grace)), Order: "key",
			Concurrency: atOnce, Rate: 4 / d.o.Scale, Timeout: longline.Duration(30 * time.Second),
			Batch: &longline.Batch{MaxEvents: batchSize, MaxWait: longline.Duration(d.scaled(500 * time.Millisecond))},
		},
	}
	if _, _, err := d.client.Subscriptions().Create(ctx, subscription, definition); err != nil {
		return fmt.Errorf("make the CRM's subscription: %w", err)
	}
	return nil
}

// Stop ends everything, the gateway included, and removes its data.
func (d *Demo) Stop() {
	d.cancel()
	_ = d.page.Close()
	d.release()
}

func (d *Demo) release() {
	for _, s := range []*crm.Server{d.endpoint, d.plain} {
		if s != nil {
			s.Close()
		}
	}
	d.wait.Wait()
	d.sender.Wait()
	if d.gateway != nil {
		d.gateway.Stop()
	}
}

// scaled is a time of the CRM's world.
func (d *Demo) scaled(t time.Duration) time.Duration {
	return time.Duration(float64(t) * d.o.Scale)
}
